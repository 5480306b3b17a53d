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

/// How long four processes may take for a few small backups.
const TOGETHER: Duration = Duration::from_secs(60);

/// The longest life of a process after it has opened the repository: some backups.
const LIFE_MAX: Duration = Duration::from_millis(150);

pub(crate) async fn at_any_moment_it_leaves_no_false_backup() {
    let (seed, mut random) = seed("STACKKIT_KILL_SEED");
    let (mut made, mut deleted, mut kills) = (0, 0, 0);
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
            for word in said {
                match word {
                    Word::Made(id) => {
                        needed.push(id);
                        made += 1;
                    }
                    Word::Deleting(id) => {
                        deleted += 1;
                        needed.retain(|kept| *kept != id);
                    }
                    Word::Ready | Word::Done => {}
                }
            }
            check(directory.path(), &needed, &context).await;
            kills += 1;
        }
    }
    assert_eq!(kills, KILLS);
    // Otherwise the moments were not among those of a backup.
    assert!(made > 50 && deleted > 20, "seed {seed}: only {made} backups were made and {deleted} deleted");
}

/// Two processes make backups of the same stack while a third prunes and a fourth verifies.
pub(crate) async fn backups_a_prune_and_a_verify_at_once_all_finish() {
    let directory = tempfile::tempdir().unwrap();
    Worker::start(Task::BackUp, directory.path()).finish().await;
    let workers = [Task::BackUp, Task::Prune, Task::BackUp, Task::Verify];
    let workers = workers.map(|task| Worker::start(task, directory.path()));
    let ended = futures_util::future::join_all(workers.into_iter().map(Worker::finish));
    let said = tokio::time::timeout(TOGETHER, ended).await.unwrap();
    assert!(said.iter().all(|words| words.last() == Some(&Word::Done)), "{said:?}");
    let made = said.iter().flatten().filter_map(|word| if let Word::Made(id) = word { Some(*id) } else { None });
    let deleted: Vec<_> =
        said.iter().flatten().filter_map(|word| if let Word::Deleting(id) = word { Some(*id) } else { None }).collect();
    let needed: Vec<_> = made.filter(|id| !deleted.contains(id)).collect();
    check(directory.path(), &needed, "at once").await;
}

/// The promises, by another process.
async fn check(directory: &Path, needed: &[BackupId], context: &str) {
    let repository = match Repository::open(directory.to_str().unwrap(), options()).await {
        Err(error) if error.kind() == ErrorKind::NotFound && needed.is_empty() => return,
        opened => opened.unwrap_or_else(|e| panic!("{context}: {e:?}")),
    };
    promise::holds(&repository, &stack(), needed, context).await;
}
