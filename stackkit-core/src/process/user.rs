//! Users of the system, for servers that refuse to run as root.

use std::fs;

use crate::error::{Error, ErrorKind, Result};

/// A user of the system and its main group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of its main group.
    pub gid: u32,
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds the first of `names` in `/etc/passwd`.
///
/// # Errors
/// `NotFound` if the machine has none of them; `Io` if the file can't be read.
pub fn find_user(names: &[&str]) -> Result<User> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(|error| Error::io("read /etc/passwd", error))?;
    names.iter().find_map(|name| passwd.lines().find_map(|line| parse(line, name))).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the machine has none of these users").with_context("users", names.join(", "))
    })
}

/// Parses `name:password:uid:gid:…` (passwd(5)).
fn parse(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next()? != name {
        return None;
    }
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_are_parsed() {
        assert_eq!(parse("nobody:x:65534:65533:n:/:/bin/false", "nobody"), Some(User { uid: 65534, gid: 65533 }));
        assert_eq!(parse("nobody:x:65534:65533:n:/:/bin/false", "root"), None);
        assert_eq!(parse("nobody", "nobody"), None);
    }
}
