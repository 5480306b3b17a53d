//! What a repository promises, whatever went wrong before.

use stackkit_backup::{BackupId, EntryState, Repository, VerifyLevel};
use stackkit_core::Stack;
use stackkit_core::backup::RestoreOptions;

/// As [`verifies`], and every listed backup comes back too.
pub(crate) async fn holds(repository: &Repository, stack: &Stack, needed: &[BackupId], context: &str) -> Vec<BackupId> {
    let ids = verifies(repository, needed, context).await;
    for id in &ids {
        let plan = repository.plan_restore(id, stack, &RestoreOptions::new()).await.unwrap();
        repository.apply_restore(plan, stack).await.unwrap_or_else(|e| panic!("{context}: {e:?}"));
    }
    ids
}

/// Every listed backup verifies at the level of its content, and the `needed` ones are among them. So does every one
/// whose deletion is only announced: it can be taken back. Returns which are listed.
pub(crate) async fn verifies(repository: &Repository, needed: &[BackupId], context: &str) -> Vec<BackupId> {
    let mut ids = Vec::new();
    for entry in repository.list_all().await.unwrap_or_else(|e| panic!("{context}: {e:?}")) {
        if entry.manifest().is_none() {
            // Listed as damaged, or not listed: nobody is told that it is a backup.
            continue;
        }
        let report = repository.verify(&entry.id, VerifyLevel::Content).await;
        let report = report.unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert!(report.is_ok(), "{context}: {report}");
        if matches!(entry.state, EntryState::Ready(_)) {
            ids.push(entry.id);
        }
    }
    for id in needed {
        assert!(ids.contains(id), "{context}: {id} is gone; listed are {ids:?}");
    }
    ids
}
