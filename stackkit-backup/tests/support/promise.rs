//! What a repository promises, whatever went wrong before.

use stackkit_backup::{BackupId, Repository, VerifyLevel};
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

/// Every listed backup verifies at the level of its content, and the `needed` ones are among them. Returns which are
/// listed.
pub(crate) async fn verifies(repository: &Repository, needed: &[BackupId], context: &str) -> Vec<BackupId> {
    let mut ids = Vec::new();
    for entry in repository.list().await.unwrap_or_else(|e| panic!("{context}: {e:?}")) {
        if entry.manifest().is_none() {
            // Listed as damaged: nobody is told that it is a backup.
            continue;
        }
        let report = repository.verify(&entry.id, VerifyLevel::Content).await;
        let report = report.unwrap_or_else(|e| panic!("{context}: {e:?}"));
        assert!(report.is_ok(), "{context}: {report}");
        ids.push(entry.id);
    }
    for id in needed {
        assert!(ids.contains(id), "{context}: {id} is gone; listed are {ids:?}");
    }
    ids
}
