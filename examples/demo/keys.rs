//! The demo's keys: beside its repository, so that the next run can read what this one wrote. A real identity is kept
//! elsewhere.

use std::fs;
use std::path::Path;

use stackkit::{Error, Identity, RepositoryOptions, Result, SigningKey};

/// Encrypts, signs and reads with the keys beside `repository`; makes them if they are not there.
pub(crate) fn options(repository: &Path) -> Result<RepositoryOptions> {
    let folder = repository.with_extension("keys");
    fs::create_dir_all(&folder).map_err(|error| Error::io("make a folder for keys", error))?;
    let (identity, signing_key) = (folder.join("identity.txt"), folder.join("signing.key"));
    if !identity.exists() {
        Identity::generate()?.write_file(&identity)?;
    }
    if !signing_key.exists() {
        write_private(&signing_key, SigningKey::generate()?.to_pem().expose())?;
    }
    let identity = Identity::from_file(&identity)?;
    let signed = RepositoryOptions::new().sign_with(SigningKey::from_file(&signing_key)?);
    Ok(identity.recipients().into_iter().fold(signed, RepositoryOptions::encrypt_to).with_identity(identity))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| Error::io("write the signing key", error))
}
