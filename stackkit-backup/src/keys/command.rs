//! Identities from a command, for a vault.

use std::time::Duration;

use stackkit_core::process::Tool;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Identity;
use super::file::{FILE_BYTES_MAX, text};

/// How each secret key begins.
const KEY_START: &str = "AGE-SECRET-KEY-";

impl Identity {
    /// Takes the identity from the standard output of a command: `program[0]` is looked for in `PATH` unless it has a
    /// slash, the rest are its arguments. No shell is between, and what it writes is held in memory only.
    ///
    /// # Errors
    /// `Config` if `program` is empty or its output is no identity; `ToolMissing`; `ToolFailed` if it fails; `Timeout`
    /// if it does not end before `deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future kills the command.
    pub async fn from_command(program: &[String], deadline: Duration) -> Result<Self> {
        let Some((name, arguments)) = program.split_first() else {
            return Err(Error::config("the command for the identity is empty"));
        };
        let run = run(Tool::new(name).args(arguments));
        let output = match timeout(deadline, run).await {
            Ok(output) => output.map_err(without_keys),
            Err(_elapsed) => Err(Error::new(ErrorKind::Timeout, "the command did not give the identity in time")
                .with_context("deadline_ms", deadline.as_millis())),
        };
        let named = |e: Error| e.with_operation("ask a command for the identity").with_context("command", name);
        Self::parse(&text(output.map_err(named)?).map_err(named)?).map_err(named)
    }
}

async fn run(tool: Tool) -> Result<Zeroizing<Vec<u8>>> {
    let mut child = tool.stdout_piped().spawn()?;
    // Room for all at once: a buffer that grew would leave copies behind.
    let mut output = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    if let Some(stdout) = child.take_stdout() {
        let read = stdout.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut output).await;
        read.map_err(|e| Error::io("read a tool's output", e))?;
    }
    if output.len() > FILE_BYTES_MAX {
        let message = "the output of the command is too large for an identity";
        return Err(Error::config(message).with_context("bytes_max", FILE_BYTES_MAX));
    }
    child.wait().await?;
    Ok(output)
}

/// An error whose cause tells no key, whatever the command wrote to standard error.
fn without_keys(error: Error) -> Error {
    match error.chain().to_string().to_ascii_uppercase().contains(KEY_START) {
        false => error,
        true => Error::new(error.kind(), error.message()).with_context("stderr", "holds a key, so it is not told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn the_output_is_the_identity() {
        let identity = Identity::generate().unwrap();
        let text = identity.to_file_text();
        let given = Identity::from_command(&shell(&format!("printf '%s' '{}'", text.expose())), SOON).await.unwrap();
        assert_eq!(given.recipients(), identity.recipients());
    }

    #[tokio::test]
    async fn a_command_that_fails_tells_no_key() {
        let script = "echo AGE-SECRET-KEY-1LEAKED; echo oops AGE-SECRET-KEY-1LEAKED >&2; exit 3";
        let error = Identity::from_command(&shell(script), SOON).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ToolFailed);
        assert!(!error.chain().to_string().contains("LEAKED"), "{}", error.chain());
        let error = Identity::from_command(&shell("echo sealed >&2; exit 3"), SOON).await.err().unwrap();
        assert!(error.chain().to_string().contains("sealed"), "{}", error.chain());
    }

    #[tokio::test]
    async fn what_never_ends_or_is_too_much_is_refused() {
        let short = Duration::from_millis(50);
        let error = Identity::from_command(&shell("exec sleep 600"), short).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let error = Identity::from_command(&shell("cat /dev/zero"), SOON).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(Identity::from_command(&[], SOON).await.err().unwrap().kind(), ErrorKind::Config);
        let missing = ["/nonexistent/vault".to_owned()];
        assert_eq!(Identity::from_command(&missing, SOON).await.err().unwrap().kind(), ErrorKind::ToolMissing);
    }
}
