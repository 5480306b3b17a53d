//! Keys of the command line, read.

use std::time::Duration;

use stackkit::backup::{Identity, SigningKey, TrustedKey};
use stackkit::{Error, RepositoryOptions, Result};

use crate::cli::value::TrustSource;
use crate::cli::{LeaseArgs, ReadArgs, SignArgs, TrustArgs, WriteArgs};
use crate::exit::{Failure, Outcome};

/// How long a command may take to give the identity: a vault answers in a second, a person types in a minute.
const IDENTITY_COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// Options to read a repository without decrypting anything.
///
/// # Errors
/// Usage, if a key can't be read.
pub(crate) fn trusting(args: &TrustArgs) -> Outcome<RepositoryOptions> {
    let mut options = RepositoryOptions::new();
    for source in &args.trust {
        let key = match source {
            TrustSource::Key(key) => *key,
            TrustSource::File(path) => TrustedKey::from_file(path).map_err(Failure::usage)?,
        };
        options = options.trust(key);
    }
    Ok(match args.untrusted {
        true => options.accept_untrusted(),
        false => options,
    })
}

/// The same with the identity, if one was named.
///
/// # Errors
/// Usage, if a key can't be read.
pub(crate) async fn reading(args: &ReadArgs) -> Outcome<RepositoryOptions> {
    let options = trusting(&args.trust)?;
    Ok(match identity(args).await.map_err(Failure::usage)? {
        Some(identity) => options.with_identity(identity),
        None => options,
    })
}

/// Adds the promise that nobody else writes, if it was given.
pub(crate) fn leasing(options: RepositoryOptions, args: &LeaseArgs) -> RepositoryOptions {
    if args.single_writer { options.single_writer() } else { options }
}

/// Adds the key to sign with, if one was named.
///
/// # Errors
/// Usage, if it can't be read.
pub(crate) fn signing(options: RepositoryOptions, args: &SignArgs) -> Outcome<RepositoryOptions> {
    Ok(match &args.signing_key {
        Some(path) => options.sign_with(SigningKey::from_file(path).map_err(Failure::usage)?),
        None => options,
    })
}

/// Options to write a repository, without a key to sign with.
///
/// # Errors
/// Usage, if a key can't be read, or nothing is said about encryption.
pub(crate) fn writing(args: &WriteArgs) -> Outcome<RepositoryOptions> {
    if !args.is_given() {
        let message = "say who can decrypt the backup with --recipient (keygen makes one), or --unencrypted";
        return Err(Failure::usage(Error::config(message)));
    }
    let mut options = RepositoryOptions::new();
    if args.unencrypted {
        options = options.unencrypted();
    }
    for source in &args.recipients {
        for recipient in source.recipients().map_err(Failure::usage)? {
            options = options.encrypt_to(recipient);
        }
    }
    Ok(match args.encrypt_manifest {
        true => options.encrypt_manifest(),
        false => options,
    })
}

async fn identity(args: &ReadArgs) -> Result<Option<Identity>> {
    if let Some(command) = &args.identity_command {
        let words: Vec<String> = command.split_whitespace().map(ToOwned::to_owned).collect();
        return Identity::from_command(&words, IDENTITY_COMMAND_TIMEOUT).await.map(Some);
    }
    let Some(path) = &args.identity else { return Ok(None) };
    match &args.passphrase {
        // Work for the processor, which would keep the runtime from seeing a signal.
        Some(variable) => {
            let (path, passphrase) = (path.clone(), variable.read()?);
            let opened = tokio::task::spawn_blocking(move || Identity::from_file_with_passphrase(path, &passphrase));
            opened.await.map_err(|error| Error::unexpected("the identity could not be read").with_source(error))?
        }
        None => Identity::from_file(path),
    }
    .map(Some)
}
