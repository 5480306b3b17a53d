//! Where a service or a repository is, as the command line gives it.

use std::env::VarError;
use std::fmt;

use stackkit::{Error, Result, Secret};

/// A URL on the command line, or the name of the environment variable that holds it.
#[derive(Clone)]
pub(crate) enum Location {
    /// The URL itself: every user of the machine can read it.
    Url(Secret),
    /// The variable's name.
    Env(String),
}

impl Location {
    /// The URL. It may have a password in it.
    ///
    /// # Errors
    /// `Config` if the variable is not set, or is no text.
    pub(crate) fn url(&self) -> Result<Secret> {
        match self {
            Self::Url(url) => Ok(url.clone()),
            Self::Env(name) => variable(name),
        }
    }

    /// Whether a password stands where every user of the machine can read it.
    pub(crate) fn shows_password(&self) -> bool {
        match self {
            Self::Url(url) => !passwords(url.expose()).is_empty(),
            Self::Env(_) => false,
        }
    }
}

/// What an environment variable holds.
///
/// # Errors
/// `Config` if the variable is not set, or is no text.
pub(crate) fn variable(name: &str) -> Result<Secret> {
    if !is_variable(name) {
        // Not repeated: what is no name may be a URL with a password.
        return Err(Error::config("what follows env: is no name of an environment variable"));
    }
    std::env::var(name).map(Secret::new).map_err(|error| {
        // Its own text would show the value.
        let message = match error {
            VarError::NotPresent => "the environment variable is not set",
            VarError::NotUnicode(_) => "the environment variable holds no text",
        };
        Error::config(message).with_context("variable", name)
    })
}

/// Whether a shell could set a variable of that name (POSIX.1, 3.230).
fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(plain)
}

/// The passwords in a URL, behind the user or as an option such as `password=`: as they stand there, and without
/// percent encoding if they have any.
pub(crate) fn passwords(url: &str) -> Vec<Secret> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // An unescaped slash ends the authority, but in a mistyped URL it may stand in the password.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let behind_user = user.split_once(':').map(|(_, password)| password);
    let options = query.split('&').filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        matches!(name, "password" | "pass" | "sslpassword").then_some(value)
    });
    let raw = behind_user.into_iter().chain(options).filter(|password| !password.is_empty());
    raw.flat_map(|raw| [Some(Secret::from(raw)), decoded(raw)]).flatten().collect()
}

/// The text without percent encoding (RFC 3986, section 2.1), if it has any.
fn decoded(text: &str) -> Option<Secret> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    let unescaped = bytes.len();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    (unescaped < text.len()).then(|| Secret::new(String::from_utf8_lossy(&bytes)))
}

impl From<&str> for Location {
    fn from(text: &str) -> Self {
        match text.strip_prefix("env:") {
            Some(name) => Self::Env(name.to_owned()),
            None => Self::Url(Secret::new(text)),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url:?}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_wherever_they_stand() {
        for (url, expected) in [
            ("postgres://app:hunter2@db/shop", &["hunter2"][..]),
            ("redis://:hunter2@db", &["hunter2"]),
            ("redis://app:p%40ss@db", &["p%40ss", "p@ss"]),
            ("redis://app:a/b@c@db", &["a/b@c"]),
            ("redis+unix:///run/r.sock?db=1&pass=hunter2", &["hunter2"]),
            ("postgres://db/shop?user=app&password=hunter2", &["hunter2"]),
            ("postgres://app@db/shop", &[]),
            ("file:///srv/a:b", &[]),
            ("nonsense", &[]),
        ] {
            let found = passwords(url);
            assert_eq!(found.iter().map(Secret::expose).collect::<Vec<_>>(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_variable_is_not_repeated() {
        for text in ["env:", "env:1A", "env:DB=postgres://app:hunter2@db"] {
            let error = Location::from(text).url().unwrap_err();
            assert_eq!(error.chain().to_string(), "what follows env: is no name of an environment variable", "{text}");
        }
        let unset = Location::from("env:STACKKIT_NOT_SET").url().unwrap_err().to_string();
        assert!(unset.contains("STACKKIT_NOT_SET"), "{unset}");
    }

    #[test]
    fn debug_shows_no_url() {
        assert_eq!(format!("{:?}", Location::from("redis://:hunter2@db")), "Secret(***)");
        assert_eq!(format!("{:?}", Location::from("env:REDIS_URL")), "env:REDIS_URL");
    }
}
