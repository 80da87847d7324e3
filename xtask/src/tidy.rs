//! What no file of the repository may hold.

use std::process::Command;

/// Each with the reason. They are put together here so that this file does not hold them itself.
fn forbidden() -> Vec<(String, &'static str)> {
    vec![
        (["todo", "!("].concat(), "unfinished code"),
        (["unimplemented", "!("].concat(), "unfinished code"),
        (["#[ign", "ore]"].concat(), "an ignored test without a reason"),
        (["/wo", "rk/"].concat(), "a path of one machine"),
        (["/ro", "ot/"].concat(), "a path of one machine"),
        (["index.crates", ".io"].concat(), "the host of a registry"),
        (["BEGIN PRIVATE", " KEY"].concat(), "a private key"),
    ]
}

/// Whether the line holds the mark. A path counts where it begins, and a documentation example may leave something open.
fn holds(line: &str, mark: &str) -> bool {
    if line.trim_start().starts_with("///") && mark.ends_with("!(") {
        return false;
    }
    line.match_indices(mark).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !mark.starts_with('/') || before.is_none_or(|c| !c.is_alphanumeric() && c != '.' && c != '}')
    })
}

pub(crate) fn run() -> anyhow::Result<()> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(crate::root()).output()?;
    anyhow::ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let (mut found, mut files) = (0_usize, 0_usize);
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        // Third-party vectors are as their makers published them.
        if name.contains("/testdata/") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(crate::root().join(name)) else { continue };
        files += 1;
        for (mark, why) in forbidden() {
            for (number, _) in (1..).zip(text.lines()).filter(|(_, line)| holds(line, &mark)) {
                println!("tidy: {name}:{number}: {why}");
                found += 1;
            }
        }
    }
    anyhow::ensure!(found == 0, "{found} places are not tidy");
    println!("tidy: {files} files are tidy");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_where_they_count() {
        let path = ["/ro", "ot/"].concat();
        assert!(holds(&format!("in {path}x"), &path) && holds(&format!("\"{path}x"), &path) && holds(&path, &path));
        assert!(!holds(&format!("swarm{path}v1"), &path), "a word with slashes is no path");
        let open = ["todo", "!("].concat();
        assert!(holds(&format!("    {open})"), &open));
        assert!(!holds(&format!("/// forge({open}))"), &open), "an example that must not compile");
    }
}
