//! A real process that is killed at random moments.

use std::path::Path;
use std::time::Duration;

use stackkit_backup::{BackupId, Repository};
use stackkit_core::ErrorKind;

use crate::support::worker::{Task, Word, Worker, stack};
use crate::support::{options, promise, seed};

/// How many processes are killed.
const KILLS: u64 = 200;

/// Kills of one repository, from its making on.
const KILLS_EACH: u64 = 20;

/// The longest life of a process after it has opened the repository: some backups.
const LIFE_MAX: Duration = Duration::from_millis(80);

pub(crate) async fn at_any_moment_it_leaves_no_false_backup() {
    let (seed, mut random) = seed("STACKKIT_KILL_SEED");
    let (mut made, mut kills) = (0, 0);
    for place in 0..KILLS.div_ceil(KILLS_EACH) {
        let directory = tempfile::tempdir().unwrap();
        let mut needed: Vec<BackupId> = Vec::new();
        for kill in 0..KILLS_EACH {
            let context = format!("seed {seed}, repository {place}, kill {kill}");
            let mut worker = Worker::start(Task::Loop, directory.path());
            // Every fourth one is killed at a moment of its start.
            if kill % 4 != 0 {
                assert_eq!(worker.word().await, Some(Word::Ready), "{context}");
            }
            let life = Duration::from_micros(random.u64(..u64::try_from(LIFE_MAX.as_micros()).unwrap()));
            // Not a wait for something: the moment is the test.
            tokio::time::sleep(life).await;
            let said = worker.kill().await;
            needed.extend(said.iter().filter_map(|word| match word {
                Word::Made(id) => Some(*id),
                Word::Ready => None,
            }));
            check(directory.path(), &needed, &context).await;
            kills += 1;
        }
        made += needed.len();
    }
    assert_eq!(kills, KILLS);
    // Otherwise the moments were not among those of a backup.
    assert!(made > 50, "seed {seed}: only {made} backups were made before a kill");
}

/// The promises, by another process.
async fn check(directory: &Path, needed: &[BackupId], context: &str) {
    let repository = match Repository::open(directory.to_str().unwrap(), options()).await {
        Err(error) if error.kind() == ErrorKind::NotFound && needed.is_empty() => return,
        opened => opened.unwrap_or_else(|e| panic!("{context}: {e:?}")),
    };
    promise::holds(&repository, &stack(), needed, context).await;
}
