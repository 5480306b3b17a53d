//! Many backups without dumping each: one is made, and its copies get other ids and times.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stackkit_backup::manifest::{Manifest, Previous};
use stackkit_backup::{BackupId, Repository, RepositoryOptions};
use stackkit_core::Clock;

use super::shelf::Shelf;
use super::{options, stack_of, text};

/// Where the clock of a history stands at first.
pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";

pub(crate) struct History {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) repository: Repository,
    pub(crate) clock: Clock,
    template: Manifest,
    /// The artifacts, by their path below the backup's folder.
    artifacts: Vec<(String, Bytes)>,
    added: u32,
}

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Options with a clock that stands.
pub(crate) fn at(clock: &Clock) -> RepositoryOptions {
    options().with_clock(clock.clone())
}

impl History {
    /// A repository without backups.
    pub(crate) async fn new(store: Arc<dyn ObjectStore>) -> Self {
        let clock = Clock::fixed(time(NOW));
        let repository = Repository::with_store(Arc::clone(&store), at(&clock)).await.unwrap();
        Self::of(store, repository, clock).await
    }

    /// The same of a repository that was opened by its URL; `store` shows the same objects.
    pub(crate) async fn of(store: Arc<dyn ObjectStore>, repository: Repository, clock: Clock) -> Self {
        let shelf = Shelf::new("shelf").with("a", text(1000, 1)).with("b", text(100, 2));
        let backup = repository.backup(&stack_of([shelf])).run().await.unwrap();
        let template = backup.manifest().clone();
        let folder = format!("backups/shop/{}", backup.id());
        let mut artifacts = Vec::new();
        for (_, artifact) in template.artifacts() {
            let path = Path::from(format!("{folder}/{}", artifact.path));
            artifacts.push((artifact.path.clone(), store.get(&path).await.unwrap().bytes().await.unwrap()));
            store.delete(&path).await.unwrap();
        }
        store.delete(&Path::from(format!("{folder}/manifest.json"))).await.unwrap();
        Self { store, repository, clock, template, artifacts, added: 0 }
    }

    /// Adds a complete backup of `shop`.
    pub(crate) async fn add(&mut self, started: &str) -> BackupId {
        self.add_with(started, |_| {}).await
    }

    /// Adds a backup whose manifest is changed by `change`; it is chained to nothing.
    pub(crate) async fn add_with(&mut self, started: &str, change: impl FnOnce(&mut Manifest)) -> BackupId {
        let started = time(started);
        self.added += 1;
        let id: BackupId = format!("{}-{:08x}", started.strftime("%Y%m%dT%H%M%SZ"), self.added).parse().unwrap();
        let mut manifest = self.template.clone();
        (manifest.id, manifest.started, manifest.finished, manifest.prev) = (id, started, started, None);
        change(&mut manifest);
        let folder = format!("backups/{}/{id}", manifest.stack);
        for (path, bytes) in &self.artifacts {
            self.put(&format!("{folder}/{path}"), bytes.clone()).await;
        }
        self.put(&format!("{folder}/manifest.json"), manifest.to_json().unwrap()).await;
        id
    }

    pub(crate) async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.store.put(&Path::from(path), bytes.into().into()).await.unwrap();
    }

    /// What the next backup names as the one before it.
    pub(crate) async fn previous(&self, stack: &str, id: &BackupId) -> Previous {
        let path = Path::from(format!("backups/{stack}/{id}/manifest.json"));
        let bytes = self.store.get(&path).await.unwrap().bytes().await.unwrap();
        Previous::new(*id, blake3::hash(&bytes).to_hex().to_string())
    }
}

/// The names of all objects below `prefix`.
pub(crate) async fn objects(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    use futures_util::TryStreamExt;
    let listed: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|object| object.location.to_string()).collect();
    names.sort();
    names
}
