//! A reader that tells how far it is.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use stackkit_core::backup::{ArtifactName, ArtifactReader};
use stackkit_core::{Clock, ServiceId};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::{ProgressEvent, Reporter};

/// Bytes between two events of one artifact: a few dozen a second at full speed.
const STEP_BYTES: u64 = 8 << 20;

/// A slow artifact tells its bytes at least so often, while there are any.
const STEP: Duration = Duration::from_secs(1);

/// When an artifact's bytes are worth an event.
#[derive(Debug)]
pub(crate) struct Steps {
    clock: Clock,
    told: Instant,
    told_bytes: u64,
}

impl Steps {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), told: clock.instant(), told_bytes: 0 }
    }

    /// Whether to tell that there are `bytes` now.
    pub(crate) fn is_due(&mut self, bytes: u64) -> bool {
        if bytes == self.told_bytes {
            return false;
        }
        let now = self.clock.instant();
        let is_due = bytes.saturating_sub(self.told_bytes) >= STEP_BYTES || now.duration_since(self.told) >= STEP;
        if is_due {
            (self.told, self.told_bytes) = (now, bytes);
        }
        is_due
    }
}

/// A reader of an artifact that tells its bytes.
pub(crate) struct Counted {
    reader: ArtifactReader,
    reporter: Reporter,
    service: ServiceId,
    artifact: ArtifactName,
    bytes: u64,
    steps: Steps,
}

impl Counted {
    /// Wraps a reader, if anybody listens.
    pub(crate) fn wrap(
        reader: ArtifactReader,
        reporter: &Reporter,
        clock: &Clock,
        service: &ServiceId,
        artifact: &ArtifactName,
    ) -> ArtifactReader {
        if !reporter.is_heard() {
            return reader;
        }
        let (service, artifact) = (service.clone(), artifact.clone());
        let (reporter, steps) = (reporter.clone(), Steps::new(clock));
        Box::new(Self { reader, reporter, service, artifact, bytes: 0, steps })
    }

    fn tell(&self) {
        let (service, artifact, bytes) = (self.service.clone(), self.artifact.clone(), self.bytes);
        self.reporter.tell(|| ProgressEvent::Read { service, artifact, bytes });
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.bytes = self.bytes.saturating_add(read as u64);
        let bytes = self.bytes;
        // Nothing read is the end.
        if read == 0 || self.steps.is_due(bytes) {
            self.tell();
        }
        Poll::Ready(Ok(()))
    }
}
