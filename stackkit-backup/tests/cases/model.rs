//! Random acts of two actors on one repository, some cut off by a crash, against a model of what must exist.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use object_store::memory::InMemory;
use stackkit_backup::{
    BackupId, EntryState, GcOptions, PruneOutcome, Repository, RepositoryOptions, Retention, VerifyLevel,
};
use stackkit_core::{Clock, ErrorKind, Result, Stack};

use crate::support::faulty::{Faulty, Plan, When};
use crate::support::shelf::Shelf;
use crate::support::{promise, seed, signed, text};

/// Histories of one run of the tests; the environment's variable asks for more.
const CASES: usize = 25;

/// The variable that holds the number of histories.
const CASES_VARIABLE: &str = "STACKKIT_MODEL_CASES";

/// Acts of each actor in one history.
const ACTS: usize = 10;

/// The last call that a crash may happen at: beyond the end of most acts.
const CRASH_CALL_MAX: usize = 60;

/// How long a deletion is announced.
const GRACE: Duration = Duration::from_secs(6 * 3600);

/// The longest that time goes on at once, in hours: further than garbage must be old.
const HOURS_MAX: u64 = 80;

/// What an actor does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Backup,
    Prune {
        keep: u32,
    },
    PruneAtOnce {
        keep: u32,
    },
    Undelete,
    Collect,
    Copy,
    Verify,
    /// The time of all machines goes on.
    Wait,
}

impl Act {
    fn draw(random: &mut Rng) -> Self {
        match random.u8(..16) {
            0..5 => Self::Backup,
            5..7 => Self::Prune { keep: random.u32(1..4) },
            7..10 => Self::PruneAtOnce { keep: random.u32(1..3) },
            10 => Self::Undelete,
            11 => Self::Collect,
            12 | 13 => Self::Copy,
            14 => Self::Verify,
            _ => Self::Wait,
        }
    }
}

/// What must be true of the repository.
#[derive(Debug, Default)]
struct Model {
    /// Backups that somebody was told of.
    made: BTreeSet<BackupId>,
    /// Those that some prune may have announced or deleted.
    expendable: BTreeSet<BackupId>,
    /// Those that somebody was told are deleted.
    gone: BTreeSet<BackupId>,
    /// Those that somebody was told are at the second place.
    copied: BTreeSet<BackupId>,
    /// Acts that were cut off.
    crashed: usize,
}

/// How often something happened in all histories: what never does was not tried.
#[derive(Debug, Default)]
struct Tally {
    made: usize,
    gone: usize,
    copied: usize,
    crashed: usize,
}

/// One history.
struct History {
    store: Arc<InMemory>,
    second: Arc<InMemory>,
    clock: Clock,
    stack: Stack,
    options: RepositoryOptions,
    model: Mutex<Model>,
}

/// One actor's turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    act: Act,
    /// Where it is cut off; `None`: it is not.
    crash: Option<(usize, When)>,
    seed: u64,
}

impl Turn {
    fn draw(random: &mut Rng) -> Self {
        let crashes = [When::CrashBefore, When::CrashAfter, When::HangBefore, When::HangAfter];
        let crash = (random.u8(..3) == 0).then(|| (random.usize(..CRASH_CALL_MAX), crashes[random.usize(..4)]));
        Self { act: Act::draw(random), crash, seed: random.u64(..) }
    }
}

pub(crate) async fn random_histories_keep_the_promises() {
    let (seed, mut random) = seed("STACKKIT_MODEL_SEED");
    let cases = std::env::var(CASES_VARIABLE).ok().map_or(CASES, |cases| cases.parse().unwrap());
    let mut tally = Tally::default();
    for case in 0..cases {
        let case_seed = random.u64(..);
        let mut acts = Rng::with_seed(case_seed);
        let history = History::new().await;
        let mut told = Vec::new();
        for _ in 0..ACTS {
            let turns = [Turn::draw(&mut acts), Turn::draw(&mut acts)];
            told.push(turns);
            let context = format!("seed {seed}, case {case}: {told:#?}");
            tokio::join!(history.turn(turns[0], &context), history.turn(turns[1], &context));
            history.check(&context).await;
        }
        tally.add(&history.model.lock().unwrap());
    }
    let Tally { made, gone, copied, crashed } = tally;
    let seen = made >= 2 * cases && gone >= cases / 4 && copied >= cases / 2 && crashed >= cases;
    assert!(seen, "seed {seed}: {tally:?} in {cases} histories");
}

impl Tally {
    fn add(&mut self, model: &Model) {
        self.made += model.made.len();
        self.gone += model.gone.len();
        self.copied += model.copied.len();
        self.crashed += model.crashed;
    }
}

impl History {
    async fn new() -> Self {
        // What is in memory was written at the system's time, so the machines' time goes on from there.
        let clock = Clock::fixed(Clock::system().now());
        let shelf = Shelf::new("shelf").with("a", text(100, 1)).with("b", "");
        let options = signed().with_clock(clock.clone());
        Self {
            store: Arc::new(InMemory::new()),
            second: Arc::new(InMemory::new()),
            stack: Stack::builder("shop").clock(clock.clone()).service(shelf).build().unwrap(),
            clock,
            options,
            model: Mutex::default(),
        }
    }

    /// An actor's turn: an error that others can cause is none; its crash is the end of it.
    async fn turn(&self, turn: Turn, context: &str) {
        let (call, when) = turn.crash.unwrap_or((usize::MAX, When::Before));
        let plan = Plan::interleaved(call, when, turn.seed);
        let store = Arc::new(Faulty { inner: self.store.clone(), plan: Arc::clone(&plan) });
        let act = async {
            let repository = Repository::with_store(store, self.options.clone()).await?;
            self.act(turn, &repository).await
        };
        let ended = plan.run(act).await;
        if ended.is_none() {
            self.model.lock().unwrap().crashed += 1;
        }
        if let Some(Err(error)) = ended {
            // What the other actor removes meanwhile is not found, and who is too late for a lease is told so.
            let usual = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Busy);
            assert!(usual, "{turn:?}: {error:?}\n{context}");
        }
    }

    async fn act(&self, turn: Turn, repository: &Repository) -> Result<()> {
        match turn.act {
            Act::Backup => {
                let made = *repository.backup(&self.stack).run().await?.id();
                self.model.lock().unwrap().made.insert(made);
            }
            Act::Prune { keep } => self.prune(repository, keep, GRACE).await?,
            Act::PruneAtOnce { keep } => self.prune(repository, keep, Duration::ZERO).await?,
            Act::Undelete => self.undelete(turn, repository).await?,
            Act::Collect => {
                let plan = repository.plan_gc(&GcOptions::new()).await?;
                repository.apply_gc(plan).await?;
            }
            Act::Copy => {
                let target = Repository::with_store(self.second.clone(), self.options.clone()).await?;
                let report = repository.copy_to(&target).run().await?;
                if report.is_ok() {
                    let copied = target.list().await?;
                    self.model.lock().unwrap().copied.extend(copied.iter().map(|entry| entry.id));
                }
            }
            Act::Verify => {
                if let Some(entry) = repository.list().await?.first() {
                    repository.verify(&entry.id, VerifyLevel::Content).await?;
                }
            }
            Act::Wait => self.clock.advance(Duration::from_secs(3600 * (turn.seed % HOURS_MAX))),
        }
        Ok(())
    }

    /// From the moment of the plan its deletions are not promised any more, whatever becomes of the prune.
    async fn prune(&self, repository: &Repository, keep: u32, grace: Duration) -> Result<()> {
        let policy = Retention::new().keep_last(keep).with_grace(grace);
        let plan = repository.plan_retention(&policy).await?.force();
        self.model.lock().unwrap().expendable.extend(plan.deletions().map(|decision| decision.backup));
        let report = repository.apply_retention(plan).await?;
        let purged = report.backups.iter().filter(|one| matches!(one.outcome, PruneOutcome::Purged { .. }));
        self.model.lock().unwrap().gone.extend(purged.map(|one| one.backup));
        Ok(())
    }

    async fn undelete(&self, turn: Turn, repository: &Repository) -> Result<()> {
        let mut announced = repository.list_all().await?;
        announced.retain(|entry| matches!(entry.state, EntryState::Announced(_)));
        if announced.is_empty() {
            return Ok(());
        }
        let chosen = announced.swap_remove(Rng::with_seed(turn.seed).usize(..announced.len())).id;
        repository.undelete(&chosen).await
    }

    async fn check(&self, context: &str) {
        let (needed, gone, copied) = {
            let model = self.model.lock().unwrap();
            let needed: Vec<_> = model.made.difference(&model.expendable).copied().collect();
            (needed, model.gone.clone(), model.copied.iter().copied().collect::<Vec<_>>())
        };
        let repository = Repository::with_store(self.store.clone(), self.options.clone()).await.unwrap();
        let listed = promise::holds(&repository, &self.stack, &needed, context).await;
        assert!(listed.iter().all(|id| !gone.contains(id)), "a deleted backup is listed: {context}");
        let second = Repository::with_store(self.second.clone(), self.options.clone()).await.unwrap();
        promise::holds(&second, &self.stack, &copied, context).await;
    }
}
