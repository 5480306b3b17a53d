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
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Reads to the end, keeping the last bytes. A read error ends it as an end of file does.
    pub(crate) async fn drain(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = [0; STDERR_TAIL_BYTES];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            self.push(buffer.get(..read).unwrap_or_default());
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }

    /// The text so far, with each of `secrets` replaced.
    pub(crate) fn text(&self, secrets: &[Secret]) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(tail.make_contiguous()).into_owned();
        secrets.iter().fold(text, |text, secret| secret.redact(&text))
    }
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
}
