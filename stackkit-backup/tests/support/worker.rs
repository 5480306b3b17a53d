//! This program again, as a process of its own that works on a repository, for tests that kill it or run several.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use stackkit_backup::{BackupId, GcOptions, Repository, Retention, VerifyLevel};
use stackkit_core::process::{Child, Tool};
use stackkit_core::{Result, Stack};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use super::shelf::Shelf;
use super::{noise, options, text};

/// The variable that makes this program a worker: what it does.
const TASK: &str = "STACKKIT_TEST_WORKER";

/// The variable that holds the repository's directory.
const DIRECTORY: &str = "STACKKIT_TEST_DIRECTORY";

/// Backups that the loop keeps.
const KEPT: u32 = 3;

/// How often the newest backup is verified.
const VERIFIES: usize = 4;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Backs up, prunes and collects garbage until it is killed.
    Loop,
    /// Two backups, one after the other.
    BackUp,
    /// A prune that keeps the newest backup, then a backup.
    Prune,
    /// Verifies of the newest backup, one after the other.
    Verify,
}

impl Task {
    const ALL: [(&'static str, Self); 4] =
        [("loop", Self::Loop), ("back up", Self::BackUp), ("prune", Self::Prune), ("verify", Self::Verify)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, task)| *task == self).unwrap().0
    }
}

/// What a worker says, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The repository is open.
    Ready,
    /// A backup was made.
    Made(BackupId),
    /// The deletion of a backup begins.
    Deleting(BackupId),
    /// All was done.
    Done,
}

impl Word {
    fn parse(line: &str) -> Self {
        match line.split_once(' ') {
            None if line == "ready" => Self::Ready,
            None if line == "done" => Self::Done,
            Some(("deleting", id)) => Self::Deleting(id.parse().unwrap()),
            Some(("made", id)) => Self::Made(id.parse().unwrap()),
            _ => panic!("a worker said {line:?}"),
        }
    }

    fn say(self) {
        let line = match self {
            Self::Ready => "ready".to_owned(),
            Self::Made(id) => format!("made {id}"),
            Self::Deleting(id) => format!("deleting {id}"),
            Self::Done => "done".to_owned(),
        };
        let mut out = std::io::stdout().lock();
        // One write of one line: a kill leaves whole lines.
        out.write_all(format!("{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// The stack that every worker backs up. Time is the system's.
pub(crate) fn stack() -> Stack {
    let shelf =
        Shelf::new("shelf").with("noise", noise(200 << 10, 1)).with("text", text(50 << 10, 2)).with("empty", "");
    Stack::builder("shop").service(shelf).build().unwrap()
}

/// Runs the worker that the environment asks for; `None` if it asks for none.
pub(crate) fn run() -> Option<Result<()>> {
    let task = std::env::var(TASK).ok()?;
    let task = Task::ALL.iter().find(|(name, _)| *name == task).unwrap().1;
    let directory = std::env::var(DIRECTORY).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Some(runtime.block_on(work(task, &directory)))
}

async fn work(task: Task, directory: &str) -> Result<()> {
    let repository = Repository::open_or_create(directory, options()).await?;
    Word::Ready.say();
    let stack = stack();
    match task {
        Task::Loop => loop {
            back_up(&repository, &stack).await?;
            prune(&repository, KEPT).await?;
            let garbage = repository.plan_gc(&GcOptions::new()).await?;
            repository.apply_gc(garbage).await?;
        },
        Task::BackUp => {
            back_up(&repository, &stack).await?;
            back_up(&repository, &stack).await?;
        }
        Task::Prune => {
            prune(&repository, 1).await?;
            back_up(&repository, &stack).await?;
        }
        Task::Verify => {
            for _ in 0..VERIFIES {
                let newest = repository.latest(stack.name()).await?;
                let report = repository.verify(&newest, VerifyLevel::Content).await?;
                assert!(report.is_restorable(), "{report}");
            }
        }
    }
    Word::Done.say();
    Ok(())
}

async fn back_up(repository: &Repository, stack: &Stack) -> Result<()> {
    let backup = repository.backup(stack).run().await?;
    Word::Made(*backup.id()).say();
    Ok(())
}

/// Deletes all but the newest `keep`, at once.
async fn prune(repository: &Repository, keep: u32) -> Result<()> {
    let policy = Retention::new().keep_last(keep).with_grace(Duration::ZERO);
    let plan = repository.plan_retention(&policy).await?.force();
    plan.deletions().for_each(|deletion| Word::Deleting(deletion.backup).say());
    repository.apply_retention(plan).await.map(drop)
}

/// A worker that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(task: Task, directory: &Path) -> Self {
        let tool = Tool::new(std::env::current_exe().unwrap()).env(TASK, task.name()).env(DIRECTORY, directory);
        let mut child = tool.stdout_piped().spawn().unwrap();
        let lines = BufReader::new(child.take_stdout().unwrap()).lines();
        Self { child, lines }
    }

    /// What it says next; `None` at its end.
    pub(crate) async fn word(&mut self) -> Option<Word> {
        self.lines.next_line().await.unwrap().map(|line| Word::parse(&line))
    }

    /// What it says until its end, which is a good one.
    pub(crate) async fn finish(self) -> Vec<Word> {
        let Self { mut child, mut lines } = self;
        let mut words = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            words.push(Word::parse(&line));
        }
        child.wait().await.unwrap();
        words
    }

    /// Kills it as nothing can prevent (`SIGKILL`), and gives what it had said.
    pub(crate) async fn kill(self) -> Vec<Word> {
        let Self { mut child, mut lines } = self;
        if child.try_wait().unwrap().is_some() {
            panic!("the worker ended before it was killed: {:?}", child.wait().await);
        }
        drop(child);
        let mut words = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            words.push(Word::parse(&line));
        }
        words
    }
}
