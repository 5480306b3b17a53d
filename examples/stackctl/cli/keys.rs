//! Arguments about keys.

use std::path::PathBuf;

use clap::Args;

use super::value::{Passphrase, RecipientSource, TrustSource};

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The folder to write identity.txt, recipient.txt, signing.key and trust.pem into; made if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Whose backups are believed.
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// Believe backups that this key signed: a file such as trust.pem, or 64 hex digits; may be given again
    #[arg(long, value_name = "FILE|HEX")]
    pub(crate) trust: Vec<TrustSource>,
    /// Take backups too that are unsigned, or signed by somebody else
    #[arg(long)]
    pub(crate) untrusted: bool,
}

/// What is needed to read the content of a backup.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// The identity file that decrypts, as keygen or age-keygen made it
    #[arg(long, value_name = "FILE", conflicts_with = "identity_command")]
    pub(crate) identity: Option<PathBuf>,
    /// A command that prints the identity, such as a vault's client; its words are parted at spaces, there is no shell
    #[arg(long, value_name = "COMMAND")]
    pub(crate) identity_command: Option<String>,
    /// The variable with the passphrase of an identity file that `age -p` protected
    #[arg(long, value_name = "env:NAME", requires = "identity")]
    pub(crate) passphrase: Option<Passphrase>,
}

/// Who can read what is written.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Encrypt to this recipient: age1…, or a file such as recipient.txt; may be given again
    #[arg(long = "recipient", value_name = "age1…|FILE")]
    pub(crate) recipients: Vec<RecipientSource>,
    /// Say that backups may be stored unencrypted
    #[arg(long, conflicts_with = "recipients")]
    pub(crate) unencrypted: bool,
    /// Encrypt manifests too, but for what a listing needs
    #[arg(long, requires = "recipients")]
    pub(crate) encrypt_manifest: bool,
}

impl WriteArgs {
    /// Whether anything is said.
    pub(crate) fn is_given(&self) -> bool {
        self.unencrypted || !self.recipients.is_empty()
    }
}

/// How others are kept out meanwhile.
#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    /// Promise that nobody else prunes or restores: for a storage that can give no lease
    #[arg(long)]
    pub(crate) single_writer: bool,
}

/// Who signs what is written.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The key to sign with, as keygen or `openssl genpkey -algorithm ed25519` made it
    #[arg(long, value_name = "FILE")]
    pub(crate) signing_key: Option<PathBuf>,
}
