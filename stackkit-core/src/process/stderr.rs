//! The last words of a child.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::secret::Secret;

/// How much of a child's standard error is kept: its last 4 KiB. The cause of a failure stands at the end.
pub const STDERR_TAIL_BYTES: usize = 4096;

/// What a failed tool wrote to standard error, at most the last [`STDERR_TAIL_BYTES`], secrets stripped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolStderr(pub String);

impl fmt::Display for ToolStderr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim())
    }
}

impl StdError for ToolStderr {}

/// The end of a byte stream, shared between the task that reads it and the one that asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Whether there was more before it.
    is_cut: bool,
}

impl Tail {
    /// Reads to the end, keeping the last bytes. A read error ends it as an end of file does.
    pub(crate) async fn drain(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = [0; STDERR_TAIL_BYTES];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            self.push(buffer.get(..read).unwrap_or_default());
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes.extend(bytes);
        let surplus = kept.bytes.len().saturating_sub(STDERR_TAIL_BYTES);
        kept.bytes.drain(..surplus);
        kept.is_cut |= surplus > 0;
    }

    /// The text so far, with each of `secrets` replaced.
    pub(crate) fn text(&self, secrets: &[Secret]) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cut = kept.is_cut;
        let bytes = &*kept.bytes.make_contiguous();
        let torn = if is_cut { secrets.iter().map(|secret| torn(bytes, secret)).max().unwrap_or(0) } else { 0 };
        let whole = bytes.get(torn..).unwrap_or_default();
        Secret::redact_all(secrets, &String::from_utf8_lossy(whole))
    }
}

/// How many bytes at the start are the end of a secret whose beginning was cut off.
fn torn(bytes: &[u8], secret: &Secret) -> usize {
    let secret = secret.expose().as_bytes();
    let mut ends_longest_first = (1..secret.len()).filter_map(|at| secret.get(at..));
    ends_longest_first.find(|end| bytes.starts_with(end)).map_or(0, <[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_secrets_are_stripped() {
        let tail = Tail::default();
        tail.push(&[b'x'; 10_000]);
        tail.push(b" password hunter2 refused");
        let text = tail.text(&[Secret::new("hunter2")]);
        assert!(text.ends_with(" password *** refused"), "{text}");
        assert!(text.len() <= STDERR_TAIL_BYTES);
    }

    #[test]
    fn a_secret_that_the_cut_tears_is_stripped_too() {
        let secret = Secret::new("hunter2-geheim");
        for kept in 1..secret.expose().len() {
            let tail = Tail::default();
            tail.push(secret.expose().as_bytes());
            tail.push(&vec![b'.'; STDERR_TAIL_BYTES - kept]);
            let text = tail.text(std::slice::from_ref(&secret));
            assert_eq!(text.trim_matches('.'), "", "{kept} bytes of the secret were left");
        }
    }
}
