//! The page `docs/guide/quickstart.md`, typed as it is written, in terminals.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use e2e::{Person, Terminal};

const LIMIT: Duration = Duration::from_secs(180);
const PASSPHRASE: &str = "a passphrase for the page";
const PASSWORD: &str = "a password for the page";

/// A line to type and what the page says that it shows.
#[derive(Debug)]
struct Step {
    terminal: String,
    /// Whether Ctrl-C is typed before.
    interrupt: bool,
    line: String,
    shows: Vec<String>,
}

/// The fenced blocks of kind `console`, in order. The words after it name the terminal.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block: Option<(String, bool)> = None;
    for line in page.lines() {
        match (&block, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                let mut words = kind.split(' ');
                if words.next() == Some("console") {
                    block = Some((words.next().expect("a console block names its terminal").to_owned(), words.next() == Some("interrupt")));
                }
            }
            (Some(_), Some(_)) => block = None,
            (Some((terminal, interrupt)), None) => match line.strip_prefix("$ ") {
                Some(command) => {
                    steps.push(Step { terminal: terminal.clone(), interrupt: *interrupt, line: command.to_owned(), shows: Vec::new() });
                    block = Some((terminal.clone(), false));
                }
                None => steps.last_mut().expect("a command comes first").shows.push(line.to_owned()),
            },
            (None, None) => {}
        }
    }
    steps
}

/// Whether a line of the page stands in what was shown: `…` stands for anything within a line.
fn shows(shown: &str, wanted: &str) -> bool {
    shown.lines().any(|line| {
        let mut rest = line;
        wanted.split('…').map(str::trim).filter(|piece| !piece.is_empty()).all(|piece| match rest.split_once(piece) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[test]
fn the_pattern_can_fail() {
    assert!(shows("x\n  token (once)    abc\n", "token (once)    …"));
    assert!(!shows("token\n", "token (once)    …") && !shows("b a", "a … b"));
    assert_eq!(steps("```sh\nno\n```\n```console one\n$ a\nb\n$ c\n```\n").len(), 2);
}

/// What comes after a label on a line.
fn after<'a>(shown: &'a str, label: &str) -> Option<&'a str> {
    shown.lines().find_map(|line| line.trim_start().strip_prefix(label)).map(str::trim)
}

/// The terminals of the page, and what the person keeps in mind.
struct Reader {
    terminals: BTreeMap<String, Terminal>,
    person: Person,
    pin: String,
    ticket: String,
    token: String,
}

impl Reader {
    fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        let line = step.line.replace("sha256:…", &self.pin);
        let Self { terminals, person, ticket, token, .. } = self;
        let terminal = terminals.get_mut(&step.terminal).expect("the page names three terminals");
        if step.interrupt {
            terminal.interrupt(LIMIT)?;
        }
        let mut answer = |asked: &str| {
            if let Some(secret) = after(asked, "or type the secret:") {
                person.scan(secret)?;
            }
            let question = asked.lines().next_back().unwrap_or("");
            Ok(Some(if question.starts_with("A passphrase for the seal") {
                PASSPHRASE.to_owned()
            } else if question.starts_with("The same again") {
                if step.line.contains("swarm up") { PASSPHRASE } else { PASSWORD }.to_owned()
            } else if question.starts_with("One-time ticket") {
                ticket.clone()
            } else if question.starts_with("New password") || question.starts_with("Password") {
                PASSWORD.to_owned()
            } else if question.starts_with("Code ") {
                person.code()?
            } else if question.starts_with("Join token") {
                token.clone()
            } else {
                return Ok(None);
            }))
        };
        // These two stay in the foreground.
        let shown = if line == "swarm up" {
            terminal.run_until(&line, "Ctrl-C stops", LIMIT, &mut answer)?
        } else if line.starts_with("swarm node join") {
            terminal.run_until(&line, "joined as node", LIMIT, &mut answer)?
        } else {
            terminal.run(&line, LIMIT, &mut answer)?
        };
        for wanted in &step.shows {
            anyhow::ensure!(shows(&shown, wanted), "`{line}` should show `{wanted}`:\n{shown}");
        }
        anyhow::ensure!(!shown.lines().any(|line| line.starts_with("error")), "`{line}`:\n{shown}");
        for (label, place) in [("CA pin", &mut self.pin), ("ticket", &mut self.ticket), ("token (once)", &mut self.token)] {
            if let Some(text) = after(&shown, label) {
                text.clone_into(place);
            }
        }
        Ok(())
    }
}

#[test]
fn the_page_runs_as_it_is_written() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/quickstart.md")).unwrap();
    let steps = steps(&page);
    assert!(steps.len() > 15, "the page has {} steps", steps.len());
    let program = e2e::program().unwrap();
    let folder = tempfile::Builder::new().prefix("swarm-page-").tempdir().unwrap();
    // The home of root on Debian: nobody else may pass through it.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let image = folder.path().join("target/images/busybox/image.tar");
    std::fs::create_dir_all(image.parent().unwrap()).unwrap();
    e2e::busybox_image(&image).unwrap();
    let open = || Terminal::open(folder.path(), program.parent().unwrap()).unwrap();
    let terminals = ["first", "second", "third"].map(|name| (name.to_owned(), open()));
    let mut reader = Reader {
        terminals: terminals.into(),
        person: Person::new("admin", PASSWORD),
        pin: String::new(),
        ticket: String::new(),
        token: String::new(),
    };
    for step in &steps {
        // Before the deployment ends, its second node does.
        if step.interrupt {
            reader.terminals.get_mut("third").unwrap().interrupt(LIMIT).unwrap();
        }
        reader.take(step).unwrap_or_else(|error| panic!("{error:#}"));
    }
    drop(reader);
    let left = e2e::snapshot(&[&folder.path().join("swarm"), &folder.path().join("second")], "swarm-second").all();
    let left: Vec<_> = left.iter().filter(|thing| !thing.starts_with("folder") && !thing.starts_with("control group")).collect();
    assert!(left.is_empty(), "{left:?}");
    // The second node's own control group stays empty where its agent has left it.
    assert!(e2e::end_group("swarm-second"));
}
