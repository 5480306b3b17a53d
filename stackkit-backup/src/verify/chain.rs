//! The chain of a stack's backups: each manifest names the one before it by its hash.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stackkit_core::{Error, ErrorKind, Result};

use crate::id::BackupId;
use crate::manifest::{Manifest, Previous};
use crate::repository::{BackupEntry, EntryState, Repository};
use crate::retention::FoundTombstone;

/// Faults of one chain that are told. More say nothing that these don't.
const FINDINGS_MAX: usize = 64;

/// The newest backup of a stack at some moment, for a caller to keep: with it, a later
/// [`check_chain`](Repository::check_chain) finds that the newest backups were taken away, which nothing inside the
/// repository can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChainHead {
    /// The backup.
    pub id: BackupId,
    /// The BLAKE3 of its manifest, 64 hex digits.
    pub manifest_blake3: String,
}

impl ChainHead {
    /// The backup `id`, whose manifest has this hash.
    #[must_use]
    pub fn new(id: BackupId, manifest_blake3: impl Into<String>) -> Self {
        Self { id, manifest_blake3: manifest_blake3.into() }
    }
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChainFault {
    /// A later manifest names it, it is not there, and no record says that it was deleted by a policy.
    Missing,
    /// A later manifest names it, and it is not the one that it names.
    Replaced,
    /// Its manifest can't be used: damaged, another backup's, or not signed by a trusted key.
    Damaged,
    /// It names no backup before it, although there was one.
    Unchained,
    /// The newest backup that the caller knows of is gone.
    RolledBack,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::Damaged => "damaged",
            Self::Unchained => "unchained",
            Self::RolledBack => "rolled back",
        })
    }
}

/// One fault of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChainFinding {
    /// The backup that it is about.
    pub backup: BackupId,
    /// What is wrong.
    pub fault: ChainFault,
    /// The same in words.
    pub message: String,
}

impl fmt::Display for ChainFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.backup, self.message)
    }
}

/// What a look at a stack's chain found. `Display` prints a line for each finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChainReport {
    /// The stack.
    pub stack: String,
    /// Its newest backup; `None`: there is none.
    pub head: Option<ChainHead>,
    /// How many manifests were read.
    pub backups: u64,
    /// What is wrong, oldest backup first; at most 64.
    pub findings: Vec<ChainFinding>,
}

impl ChainReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for ChainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chain of {} ({} backups)", self.stack, self.backups)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        f.write_str(if self.is_ok() { "nothing is wrong" } else { "the chain is broken" })
    }
}

/// What the chain needs to know of one manifest.
#[derive(Debug, Clone)]
struct Link {
    started: Timestamp,
    finished: Timestamp,
    blake3: String,
    prev: Option<Previous>,
    /// The repository that the manifest was written to: of a copy another one.
    repository: String,
}

/// What lies in a stack's folder.
#[derive(Debug, Default)]
struct Links {
    good: BTreeMap<BackupId, Link>,
    damaged: BTreeMap<BackupId, Error>,
}

/// A backup that should be there.
struct Expected {
    wanted: ChainHead,
    /// What it means if it is not.
    absent: ChainFault,
    /// How that is known.
    why: String,
}

/// What is known of a backup that is not there.
enum Gone {
    /// Deleted by a policy.
    Pruned,
    /// It had another manifest when it was.
    PrunedOther,
    /// Nobody says why.
    Unknown,
}

impl Repository {
    /// Follows the chain of a stack's backups: finds backups that were taken away, replaced, renamed or put in from
    /// elsewhere, without reading an artifact.
    ///
    /// `known_head` is the [`ChainReport::head`] of an earlier look, kept elsewhere: without it the chain can't tell
    /// that its newest backups are gone. Deleting by [retention](crate::Repository) leaves records under `pruned/`, so
    /// it breaks no chain; deleting by hand does, until the backup after the hole is deleted too.
    ///
    /// # Errors
    /// The storage's kinds. A manifest that can't be used is a finding.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn check_chain(&self, stack: &str, known_head: Option<&ChainHead>) -> Result<ChainReport> {
        let links = self.links(stack).await?;
        let mut findings: Vec<ChainFinding> = links.damaged.iter().map(|(id, error)| damaged(*id, error)).collect();
        // Forks are no fault: two backups at once have the same one before them.
        let mut named: Vec<(&Previous, BackupId)> =
            links.good.iter().filter_map(|(id, link)| Some((link.prev.as_ref()?, *id))).collect();
        named.sort_by_key(|(prev, by)| (prev.id, *by));
        for (prev, by) in named {
            let wanted = ChainHead::new(prev.id, prev.manifest_blake3.clone());
            let why = format!("the manifest of {by} names it");
            let found = self.expect(stack, &links, Expected { wanted, absent: ChainFault::Missing, why }).await?;
            // A copy may have been made without the one before it; only the repository of both can miss that.
            let copied = links.good.get(&by).is_some_and(|link| link.repository != self.id());
            findings.extend(found.filter(|found| !(copied && found.fault == ChainFault::Missing)));
        }
        findings.extend(unchained(&links.good, self.id()));
        if let Some(known) = known_head {
            let why = "it was the newest backup".to_owned();
            let expected = Expected { wanted: known.clone(), absent: ChainFault::RolledBack, why };
            findings.extend(self.expect(stack, &links, expected).await?);
        }
        findings.sort_by_key(|finding| (finding.backup, finding.fault));
        findings.dedup_by_key(|finding| (finding.backup, finding.fault));
        findings.truncate(FINDINGS_MAX);
        let newest = links.good.iter().max_by_key(|(id, link)| (link.started, **id));
        Ok(ChainReport {
            stack: stack.to_owned(),
            head: newest.map(|(id, link)| ChainHead::new(*id, link.blake3.clone())),
            backups: links.good.len() as u64,
            findings,
        })
    }

    /// Reads every manifest of a stack.
    async fn links(&self, stack: &str) -> Result<Links> {
        let mut links = Links::default();
        for (id, link) in self.entries_of(stack, link_of).await? {
            match link {
                Seen::Good(link) => drop(links.good.insert(id, link)),
                Seen::Damaged(error) => drop(links.damaged.insert(id, error)),
                Seen::Nothing => {}
            }
        }
        Ok(links)
    }

    /// Whether the backup is there with that manifest, or was deleted by a policy.
    async fn expect(&self, stack: &str, links: &Links, expected: Expected) -> Result<Option<ChainFinding>> {
        let Expected { wanted, absent, why } = expected;
        let found = |fault, message: String| Some(ChainFinding { backup: wanted.id, fault, message });
        let replaced = || found(ChainFault::Replaced, format!("the manifest is another one: {why} with another hash"));
        match links.good.get(&wanted.id) {
            Some(link) if link.blake3 == wanted.manifest_blake3 => return Ok(None),
            Some(_) => return Ok(replaced()),
            // It is told already.
            None if links.damaged.contains_key(&wanted.id) => return Ok(None),
            None => {}
        }
        Ok(match self.gone(stack, &wanted).await? {
            Gone::Pruned => None,
            Gone::PrunedOther => replaced(),
            Gone::Unknown => found(absent, format!("the backup is gone, and no policy deleted it: {why}")),
        })
    }

    async fn gone(&self, stack: &str, wanted: &ChainHead) -> Result<Gone> {
        // A record that anybody can have written says nothing.
        Ok(match self.pruned_record(stack, &wanted.id).await {
            Ok(FoundTombstone::Usable(record, _)) if record.manifest_blake3 == wanted.manifest_blake3 => Gone::Pruned,
            Ok(FoundTombstone::Usable(..)) => Gone::PrunedOther,
            Ok(FoundTombstone::Nothing | FoundTombstone::Unusable(_)) => Gone::Unknown,
            Err(error) if error.kind() == ErrorKind::Io => Gone::Unknown,
            Err(error) => return Err(error),
        })
    }
}

/// What the chain sees of one folder.
enum Seen {
    Good(Link),
    Damaged(Error),
    /// A backup that runs, or what a killed one left.
    Nothing,
}

fn link_of(entry: BackupEntry) -> (BackupId, Seen) {
    let seen = match (entry.state, entry.manifest_blake3) {
        (EntryState::Damaged(error), _) => Seen::Damaged(error),
        (EntryState::Ready(manifest) | EntryState::Announced(manifest), Some(blake3)) => {
            let Manifest { started, finished, prev, repository, .. } = *manifest;
            Seen::Good(Link { started, finished, blake3, prev, repository })
        }
        _ => Seen::Nothing,
    };
    (entry.id, seen)
}

fn damaged(backup: BackupId, error: &Error) -> ChainFinding {
    ChainFinding { backup, fault: ChainFault::Damaged, message: format!("the manifest can't be used: {error}") }
}

/// Manifests of this repository that name none before them, although a chained one was finished before they began. The
/// first backup of a stack names none, and neither do those of a version that did not chain; a copy's chain is that of
/// its own repository.
fn unchained(links: &BTreeMap<BackupId, Link>, repository: &str) -> Vec<ChainFinding> {
    let own = || links.iter().filter(|(_, link)| link.repository == repository);
    let chained_since = own().filter(|(_, link)| link.prev.is_some()).map(|(_, link)| link.finished).min();
    let Some(since) = chained_since else { return Vec::new() };
    let late = own().filter(|(_, link)| link.prev.is_none() && link.started > since);
    let message = "the manifest names no backup before it, although there was one";
    late.map(|(id, _)| ChainFinding { backup: *id, fault: ChainFault::Unchained, message: message.to_owned() })
        .collect()
}
