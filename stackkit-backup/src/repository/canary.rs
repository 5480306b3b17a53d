//! A canary: a few known bytes, encrypted as artifacts are, that show whether an identity reads what is written.

use bytes::Bytes;
use object_store::path::Path;
use stackkit_core::{Error, ErrorKind, Result};

use super::Repository;
use crate::age;
use crate::keys::Recipient;

/// The folder of canaries.
pub(crate) const CANARIES: &str = "canary";

/// Hex digits of the hash that names a set of recipients.
const NAME_DIGITS: usize = 16;

/// Makes the canary of the caller's recipients if there is none, and reads it with the caller's identity if there is one:
/// whoever finds out at the first restore that the key does not fit has no backup.
///
/// # Errors
/// `Config` if the identity does not fit the recipients; `Integrity` if the canary is damaged; the storage's kinds.
pub(crate) async fn check_or_create(repository: &Repository) -> Result<()> {
    let recipients = repository.recipients();
    if recipients.is_empty() {
        return Ok(());
    }
    let path = path_of(recipients);
    let operation = "check that the backups can be read";
    let content = format!("stackkit canary {}\n", repository.id());
    let made = Bytes::from(age::encrypt(recipients, content.as_bytes())?);
    let storage = repository.storage();
    match storage.read(operation, &path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => match storage.create(operation, &path, made).await {
            // Somebody else made it at the same moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => created?,
        },
        found => drop(found?),
    }
    let Some(identity) = repository.identity() else { return Ok(()) };
    let named = |e: Error| e.with_operation(operation).with_context("object", &path);
    let bytes = storage.read(operation, &path).await?;
    let plain = age::decrypt(identity, &bytes).map_err(|error| match error.kind() {
        ErrorKind::Integrity => named(error),
        _ => named(Error::config("the identity can't read what is encrypted to the recipients").with_source(error)),
    })?;
    match plain[..] == *content.as_bytes() {
        true => Ok(()),
        false => Err(named(Error::integrity("the canary is another repository's"))),
    }
}

/// Each set of recipients has a canary of its own: recipients may change from one backup to the next.
fn path_of(recipients: &[Recipient]) -> Path {
    let mut texts: Vec<String> = recipients.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    let name = &blake3::hash(texts.join("\n").as_bytes()).to_hex()[..NAME_DIGITS];
    Path::from(CANARIES).join(format!("{name}.age"))
}
