//! The process-wide pool of threads that compress and decompress frames.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use bytes::Bytes;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::buffers::{Buffer, Buffers};
use super::parts::{IN_FLIGHT_EXTRA_BYTES, IN_FLIGHT_UNIT_BYTES, PART_BYTES_LEAST, PART_BYTES_LOCAL};
use super::subtrees::Subtree;
use super::{FRAME_BYTES, ZSTD_LEVEL};
use crate::age::SEALED_CHUNK_BYTES;

/// Frames in flight for each thread: one that is compressed, one that waits, so no thread idles.
const FRAMES_PER_THREAD: usize = 2;

/// Frames in flight beside those: one that is stored, one that is being filled.
const FRAMES_EXTRA: usize = 2;

/// Small part buffers that are kept when unused: two of each of the artifacts that a stack of eight writes at once.
const PARTS_KEPT: usize = 16;

/// Large ones: they cost more to keep than to make.
const PARTS_LARGE_KEPT: usize = 4;

type Job = Box<dyn FnOnce(&mut Codec) + Send>;

/// One thread's contexts, made once and used for every frame.
struct Codec {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
}

/// The threads, one a core, and the buffers of everything that they work on.
///
/// The threads start with the first frame and live as long as the process; idle, they cost nothing but their stacks.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
    permits: Arc<Semaphore>,
    threads: usize,
    frames: Buffers,
    /// Apart from the others: a frame fills a fraction of such a buffer, and only that is ever in memory.
    packed: Buffers,
    parts: Buffers,
    parts_large: Buffers,
    parts_in_flight: Arc<Semaphore>,
}

/// The plain bytes of one frame: filled from small chunks, or cut out of a large one without a copy.
#[derive(Debug)]
pub(crate) enum Plain {
    Filled(Buffer),
    Shared(Bytes),
}

impl AsRef<[u8]> for Plain {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Filled(buffer) => buffer,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// A compressed frame. It holds its place among the frames in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Buffer,
    pub(crate) plain_bytes: usize,
    /// The plain bytes as a piece of [`FRAME_BYTES`]; `None` if they can't be one.
    pub(crate) plain: Option<Subtree>,
    _permit: OwnedSemaphorePermit,
}

/// One place for a frame in flight that an artifact shares with no other: it moves on even while a storage that hangs
/// keeps all the places of the pool.
#[derive(Debug)]
pub(crate) struct OwnPlace(Arc<Semaphore>);

impl OwnPlace {
    /// A free place.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Pool {
    /// The pool of this process, started if it does not run.
    pub(crate) fn get() -> Result<&'static Self> {
        static POOL: OnceLock<Pool> = OnceLock::new();
        match POOL.get() {
            Some(pool) => Ok(pool),
            None => {
                // Of two pools started at once one is dropped here; its threads end with its sender.
                let pool = Self::start()?;
                Ok(POOL.get_or_init(|| pool))
            }
        }
    }

    fn start() -> Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let mut codec = Codec::new().map_err(|e| Error::io("start the compression threads", e))?;
            thread::Builder::new()
                .name("stackkit-zstd".to_owned())
                .spawn(move || work(&queue, &mut codec))
                .map_err(|e| Error::io("start the compression threads", e))?;
        }
        let in_flight = threads * FRAMES_PER_THREAD + FRAMES_EXTRA;
        Ok(Self {
            jobs,
            permits: Arc::new(Semaphore::new(in_flight)),
            threads,
            frames: Buffers::new(FRAME_BYTES, in_flight),
            packed: Buffers::new(zstd::compress_bound(FRAME_BYTES), in_flight),
            parts: Buffers::new(PART_BYTES_LOCAL + SEALED_CHUNK_BYTES, PARTS_KEPT),
            parts_large: Buffers::new(PART_BYTES_LEAST + SEALED_CHUNK_BYTES, PARTS_LARGE_KEPT),
            parts_in_flight: Arc::new(Semaphore::new(IN_FLIGHT_EXTRA_BYTES / IN_FLIGHT_UNIT_BYTES)),
        })
    }

    /// How many threads work.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// An empty buffer for the plain bytes of one frame.
    pub(crate) fn frame(&'static self) -> Buffer {
        self.frames.take()
    }

    /// An empty buffer for one part of `bytes`.
    pub(super) fn part(&'static self, bytes: usize) -> Buffer {
        let small = bytes <= PART_BYTES_LOCAL + SEALED_CHUNK_BYTES;
        let mut part = if small { self.parts.take() } else { self.parts_large.take() };
        part.reserve_exact(bytes);
        part
    }

    /// Leave to have another part of `bytes` on its way, if this process has not too many.
    pub(super) fn extra_in_flight(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(IN_FLIGHT_UNIT_BYTES)).ok()?;
        Arc::clone(&self.parts_in_flight).try_acquire_many_owned(units).ok()
    }

    /// Hashes and compresses frame `number`. Waits while too many frames are in flight in this process; only a frame that is ready to
    /// go takes a place, so artifacts that are open and idle hold up nobody.
    pub(crate) async fn compress(
        &'static self,
        number: u64,
        plain: Plain,
        own: &OwnPlace,
    ) -> Result<oneshot::Receiver<Result<Packed>>> {
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&own.0).acquire_owned() => permit,
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
        };
        let permit = permit.map_err(|e| Error::unexpected("the compression pool is closed").with_source(e))?;
        let (reply, packed) = oneshot::channel();
        let mut bytes = self.packed.take();
        self.submit(Box::new(move |codec| {
            let subtree = Subtree::of(FRAME_BYTES, number, plain.as_ref());
            let done = codec.compressor.compress_to_buffer(plain.as_ref(), &mut *bytes);
            let plain_bytes = plain.as_ref().len();
            drop(plain);
            let done = done.map(|_| Packed { bytes, plain_bytes, plain: subtree, _permit: permit });
            // Nobody waits for the frame of a dropped artifact.
            let _ = reply.send(done.map_err(|e| Error::unexpected("zstd can't compress a frame").with_source(e)));
        }))?;
        Ok(packed)
    }

    /// Decompresses one frame of exactly `plain_bytes` bytes, and looks at them with `look` while a core has them at hand.
    ///
    /// # Errors
    /// `Integrity` if the frame is damaged.
    pub(crate) async fn decompress<T: Send + 'static>(
        &'static self,
        stored: Bytes,
        plain_bytes: usize,
        look: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<(Buffer, T)> {
        let (reply, plain) = oneshot::channel();
        let mut bytes = self.frame();
        self.submit(Box::new(move |codec| {
            if bytes.capacity() < plain_bytes {
                bytes.reserve_exact(plain_bytes);
            }
            let done = codec.decompressor.decompress_to_buffer(&stored, &mut *bytes);
            drop(stored);
            // Nobody waits for the frame of a dropped reader.
            let _ = reply.send(done.map(|_| {
                let seen = look(&bytes);
                (bytes, seen)
            }));
        }))?;
        let plain = plain.await.map_err(|e| Error::unexpected("a compression thread ended").with_source(e))?;
        let (plain, seen) = plain.map_err(|e| damaged().with_source(e))?;
        if plain.len() == plain_bytes { Ok((plain, seen)) } else { Err(damaged()) }
    }

    /// Runs other work of one frame's size on the threads.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (reply, done) = oneshot::channel();
        self.submit(Box::new(move |_codec| {
            // Nobody waits for the work of a dropped reader.
            let _ = reply.send(work());
        }))?;
        done.await.map_err(|e| Error::unexpected("a compression thread ended").with_source(e))
    }

    fn submit(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_closed| Error::unexpected("all compression threads ended"))
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::Integrity, "a frame is damaged")
}

impl Codec {
    fn new() -> std::io::Result<Self> {
        let mut compressor = Compressor::new(ZSTD_LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { compressor, decompressor: Decompressor::new()? })
    }
}

fn work(queue: &Mutex<Receiver<Job>>, codec: &mut Codec) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(codec),
            Err(mpsc::RecvError) => return,
        }
    }
}
