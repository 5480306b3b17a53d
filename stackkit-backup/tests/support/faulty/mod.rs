//! An object store that fails at call n, in one of several ways.

mod store;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use object_store::path::Path;
use object_store::{Error, Result};
use tokio::sync::Notify;

pub(crate) use store::{Faulty, PUT_PART};

/// When and how a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// It fails, and nothing was done.
    Before,
    /// Everything was done, and the answer was lost.
    After,
    /// A part of it was done: of what was written or read the first half, of a list the first items.
    Torn,
    /// It never returns, and nothing was done.
    HangBefore,
    /// Everything was done, and the call never returns.
    HangAfter,
    /// The process ends with this call, before it had an effect. No later call has one.
    CrashBefore,
    /// The process ends with this call, after its effect.
    CrashAfter,
    /// The process ends in the middle of this call.
    CrashTorn,
}

impl When {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Before,
        Self::After,
        Self::Torn,
        Self::HangBefore,
        Self::HangAfter,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::CrashTorn,
    ];

    /// Whether it leaves a part of what was to be done.
    pub(crate) fn tears(self) -> bool {
        matches!(self, Self::Torn | Self::CrashTorn)
    }

    /// Whether the process ends with the call.
    pub(crate) fn is_crash(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter | Self::CrashTorn)
    }
}

/// What is left of a small object whose write fails halfway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Puts {
    /// Nothing, as in a directory, a bucket, or memory.
    Whole,
    /// Its first half.
    Torn,
}

/// Which call fails, and how; shared by every store that is wrapped with it.
#[derive(Debug)]
pub(crate) struct Plan {
    calls: AtomicUsize,
    fail_at: AtomicUsize,
    when: When,
    puts: Puts,
    /// Only calls of this name are counted.
    only: Option<&'static str>,
    /// The process has ended: no call has an effect any more.
    dead: AtomicBool,
    /// The failing call hangs.
    cut: Notify,
    /// What the failing call was.
    failed: Mutex<Option<String>>,
    /// Parts are not taken any more.
    stalled: AtomicBool,
    /// Objects whose names end like this lose their last byte, and nobody is told.
    lossy: Mutex<Option<&'static str>>,
    /// Lets other tasks run before a call, so that two actors meet in many ways.
    pauses: Option<Mutex<fastrand::Rng>>,
}

/// The most that other tasks are let run before one call.
const PAUSES_MAX: u8 = 3;

/// The number of a call that is not counted.
const NOT_COUNTED: usize = usize::MAX - 1;

impl Plan {
    /// Fails call number `fail_at`, from 0.
    pub(crate) fn new(fail_at: usize, when: When) -> Arc<Self> {
        Arc::new(Self::failing(fail_at, when))
    }

    /// As [`new`](Self::new), and says what is left of a torn small object.
    pub(crate) fn with_puts(fail_at: usize, when: When, puts: Puts) -> Arc<Self> {
        Arc::new(Self { puts, ..Self::failing(fail_at, when) })
    }

    /// As [`new`](Self::new), and counts only the calls of that name.
    pub(crate) fn only(name: &'static str, fail_at: usize, when: When) -> Arc<Self> {
        Arc::new(Self { only: Some(name), ..Self::failing(fail_at, when) })
    }

    /// As [`new`](Self::new), and lets other tasks run before some calls, drawn from `seed`.
    pub(crate) fn interleaved(fail_at: usize, when: When, seed: u64) -> Arc<Self> {
        let pauses = Some(Mutex::new(fastrand::Rng::with_seed(seed)));
        Arc::new(Self { pauses, ..Self::failing(fail_at, when) })
    }

    fn failing(fail_at: usize, when: When) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            fail_at: AtomicUsize::new(fail_at),
            when,
            puts: Puts::Torn,
            only: None,
            dead: AtomicBool::new(false),
            cut: Notify::new(),
            failed: Mutex::new(None),
            stalled: AtomicBool::new(false),
            lossy: Mutex::new(None),
            pauses: None,
        }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The call that failed, in words; `None` if it was not reached.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap().clone()
    }

    /// Fails call number `call` instead.
    pub(crate) fn fail_at(&self, call: usize) {
        self.fail_at.store(call, Ordering::SeqCst);
    }

    /// From now on every part hangs.
    pub(crate) fn stall_parts(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    /// From now on every object whose name ends with `ending` loses its last byte.
    pub(crate) fn lose_bytes(&self, ending: &'static str) {
        *self.lossy.lock().unwrap() = Some(ending);
    }

    /// Runs an operation to its end, or drops it when its failing call hangs: `None`.
    pub(crate) async fn run<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.cut.notified() => None,
            done = operation => Some(done),
        }
    }

    fn loses(&self, path: &Path) -> bool {
        self.lossy.lock().unwrap().is_some_and(|ending| path.as_ref().ends_with(ending))
    }

    /// One call. `torn` is what is left of it when it fails halfway.
    async fn call<T>(
        &self,
        name: Name<'_>,
        work: impl Future<Output = Result<T>>,
        torn: impl Future<Output = ()>,
    ) -> Result<T> {
        self.pause().await;
        if self.is_dead() {
            return std::future::pending().await;
        }
        self.numbered(self.number(name.0), name, work, torn).await
    }

    /// The number of a call that begins now.
    fn number(&self, name: &'static str) -> usize {
        match self.only {
            Some(only) if only != name => NOT_COUNTED,
            _ => self.calls.fetch_add(1, Ordering::SeqCst),
        }
    }

    /// Whether the call of that number fails halfway.
    fn tears(&self, number: usize) -> bool {
        number == self.fail_at.load(Ordering::SeqCst) && self.when.tears()
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// As [`call`](Self::call), for one that has its number.
    async fn numbered<T>(
        &self,
        number: usize,
        name: Name<'_>,
        work: impl Future<Output = Result<T>>,
        torn: impl Future<Output = ()>,
    ) -> Result<T> {
        if number != self.fail_at.load(Ordering::SeqCst) {
            return work.await;
        }
        *self.failed.lock().unwrap() = Some(format!("{:?} call {number}, {name}", self.when));
        match self.when {
            When::Before => Err(injected()),
            When::After => work.await.and_then(|_| Err(injected())),
            When::Torn => {
                torn.await;
                Err(injected())
            }
            When::HangBefore | When::CrashBefore => self.hang().await,
            When::HangAfter | When::CrashAfter => {
                // Whatever the answer is, nobody hears it.
                let _ = work.await;
                self.hang().await
            }
            When::CrashTorn => {
                torn.await;
                self.hang().await
            }
        }
    }

    async fn hang<T>(&self) -> T {
        self.dead.store(self.when.is_crash(), Ordering::SeqCst);
        self.cut.notify_one();
        std::future::pending().await
    }

    async fn pause(&self) {
        let pauses = self.pauses.as_ref().map_or(0, |random| random.lock().unwrap().u8(..=PAUSES_MAX));
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
    }
}

/// A call in words.
#[derive(Debug, Clone, Copy)]
struct Name<'a>(&'static str, &'a Path);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.0, self.1.as_ref())
    }
}

/// The error of a call that fails.
fn injected() -> Error {
    Error::Generic { store: "Faulty", source: "injected".into() }
}
