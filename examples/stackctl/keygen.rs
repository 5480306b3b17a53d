//! `keygen`: the keys of a new installation, in files.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use stackkit::backup::{Identity, SigningKey};
use stackkit::{Error, Result};

use crate::cli::KeygenArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// The modes of a file that is its owner's only, and of one that everybody may read.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// What was made, and where.
#[derive(Debug, Serialize)]
struct Keys {
    identity_file: PathBuf,
    recipient_file: PathBuf,
    recipient: String,
    signing_key_file: PathBuf,
    trust_file: PathBuf,
    trusted_key: String,
}

/// Makes one identity and one signing key, and writes them with their public halves.
pub(crate) fn keygen(args: &KeygenArgs, out: &Output) -> Outcome {
    let keys = generate(&args.out).map_err(Failure::usage)?;
    out.result(&keys, &keys).map_err(Failure::usage)?;
    Ok(Exit::Done)
}

fn generate(folder: &Path) -> Result<Keys> {
    let (identity, signing_key) = (Identity::generate()?, SigningKey::generate()?);
    let recipient = identity.recipients().first().map(ToString::to_string).unwrap_or_default();
    let keys = Keys {
        identity_file: folder.join("identity.txt"),
        recipient_file: folder.join("recipient.txt"),
        recipient,
        signing_key_file: folder.join("signing.key"),
        trust_file: folder.join("trust.pem"),
        trusted_key: signing_key.trusted().to_string(),
    };
    let files = [&keys.identity_file, &keys.recipient_file, &keys.signing_key_file, &keys.trust_file];
    // All of them first: half a set of keys would be worse than none.
    if let Some(there) = files.iter().find(|path| path.symlink_metadata().is_ok()) {
        let message = "a file of that name is there, and a key that is overwritten is lost: name another folder";
        return Err(Error::config(message).with_context("path", there.display()));
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Error::io("make the folder for keys", error).with_context("path", folder.display()))?;
    identity.write_file(&keys.identity_file)?;
    write(&keys.recipient_file, &format!("{}\n", keys.recipient), PUBLIC)?;
    write(&keys.signing_key_file, signing_key.to_pem().expose(), PRIVATE)?;
    write(&keys.trust_file, &signing_key.trusted().to_pem(), PUBLIC)?;
    Ok(keys)
}

/// Writes a file that must not be there yet, and has it on the disk.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Error::io("write a key", error).with_context("path", path.display()))
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            (
                &self.identity_file,
                "SECRET, decrypts: keep it off the backup host, in two places; without it no restore",
            ),
            (&self.recipient_file, "public, encrypts: `backup --recipient` on the backup host"),
            (&self.signing_key_file, "SECRET, signs: `backup --signing-key` on the backup host, and nowhere else"),
            (&self.trust_file, "public, proves who signed: `verify --trust` and `restore --trust`, wherever they run"),
        ];
        let width = rows.iter().map(|(path, _)| path.display().to_string().len()).max().unwrap_or_default();
        for (path, use_of_it) in rows {
            writeln!(f, "{:<width$}  {use_of_it}", path.display().to_string())?;
        }
        writeln!(f, "recipient  {}", self.recipient)?;
        write!(f, "signer     {}", self.trusted_key)
    }
}
