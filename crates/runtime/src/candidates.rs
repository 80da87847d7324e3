//! Where a program is looked for. Also compiled into the launcher, so that every backend looks in the same places.

/// Where programs are looked for when the environment has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The files that a program's name may mean, in the order in which they are tried.
pub(crate) fn candidates(program: &str, path: Option<&str>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let directories = path.unwrap_or(PATH).split(':');
    directories.map(|directory| if directory.is_empty() { program.to_owned() } else { format!("{directory}/{program}") }).collect()
}
