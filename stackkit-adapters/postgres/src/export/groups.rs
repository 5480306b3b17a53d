//! The large objects of a dump, entry by entry: from archive 1.16 on each entry holds those of its own group only.
//!
//! A dump may hold them in any order. What is passed on the way to a group's own is noted, and read again when its turn
//! comes: so a dump in the order of its groups is read once, and any other at most twice.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;

use super::pack::BLOCK_BYTES;
use super::parts::{Blobs, Place, other_length};
use crate::archive::{GROUPS_SINCE, Header, Input, List, of_io};
use crate::layout::DatabaseLayout;

/// How much is read over to come to the next object of a group instead of beginning anew: a repository reads a whole
/// frame of that size for any byte in it.
const GAP_BYTES: u64 = 1024 * 1024;

/// All large objects of a dump.
pub(super) struct Groups<'a> {
    source: &'a dyn ArtifactSource,
    database: &'a DatabaseLayout,
    has_groups: bool,
    is_asked: bool,
    /// What nobody has come to.
    ahead: Blobs<'a>,
    /// What was passed on the way to others.
    passed: BTreeMap<u32, Place<'a>>,
}

impl<'a> Groups<'a> {
    /// Those of a dump, for an archive with this header.
    pub(super) fn new(source: &'a dyn ArtifactSource, database: &'a DatabaseLayout, header: &Header) -> Self {
        let has_groups = header.version >= GROUPS_SINCE;
        Self {
            source,
            database,
            has_groups,
            is_asked: false,
            ahead: Blobs::new(source, database),
            passed: BTreeMap::new(),
        }
    }

    /// Those of the entry `id`; all of them in a version of archives without groups.
    ///
    /// # Errors
    /// `Integrity` if the dump does not tell them.
    pub(super) async fn of(&mut self, id: i32) -> Result<Group<'_, 'a>> {
        self.is_asked = true;
        let mut wanted = match self.has_groups {
            true => Some(self.listed(id).await?),
            false => None,
        };
        let mut behind = Vec::new();
        if let Some(wanted) = &mut wanted {
            let of_group = |number: &u32| Some((self.passed.remove(number)?, *number));
            behind = wanted.iter().filter_map(of_group).collect();
            for (_, number) in &behind {
                wanted.remove(number);
            }
            behind.sort_unstable();
        }
        Ok(Group { groups: self, wanted, behind: behind.into_iter(), current: Current::None })
    }

    /// The numbers that the list of an entry names.
    async fn listed(&self, id: i32) -> Result<HashSet<u32>> {
        let name = ArtifactName::new(format!("{}blobs_{id}.toc", self.database.prefix))?;
        let mut reader = self.source.open(&name).await?;
        let (mut list, mut piece) = (List::default(), vec![0; BLOCK_BYTES]);
        loop {
            let count = reader.read(&mut piece).await.map_err(of_io)?;
            if count == 0 {
                break;
            }
            list.push(piece.get(..count).unwrap_or_default())?;
        }
        Ok(list.finish()?.into_iter().collect())
    }

    /// Checks that every object was in a group.
    ///
    /// # Errors
    /// `Integrity` if one was not.
    pub(super) async fn finish(mut self) -> Result<()> {
        let left_over = match self.passed.pop_first() {
            Some((number, _)) => Some(number),
            None if self.is_asked => self.ahead.next().await?,
            None => None,
        };
        match left_over {
            None => Ok(()),
            Some(number) => {
                let error = Error::integrity("the dump holds a large object that belongs to no entry");
                Err(error.with_context("large_object", number))
            }
        }
    }
}

/// The large objects of one entry.
pub(super) struct Group<'g, 'a> {
    groups: &'g mut Groups<'a>,
    /// Those that nobody has come to yet; nothing if all belong to it.
    wanted: Option<HashSet<u32>>,
    /// Those that were passed, in the order of their places.
    behind: std::vec::IntoIter<(Place<'a>, u32)>,
    current: Current<'a>,
}

/// Where the bytes of the object under way come from.
enum Current<'a> {
    None,
    Ahead,
    Behind(Behind<'a>),
}

impl<'a> Group<'_, 'a> {
    /// The number of the next one; nothing behind the last. The one before must have been read to its end.
    ///
    /// # Errors
    /// `Integrity` if one is missing.
    pub(super) async fn next(&mut self) -> Result<Option<u32>> {
        if let Some((place, number)) = self.behind.next() {
            let before = match std::mem::replace(&mut self.current, Current::None) {
                Current::Behind(before) => Some(before),
                _ => None,
            };
            self.current = Current::Behind(Behind::at(self.groups.source, place, before).await?);
            return Ok(Some(number));
        }
        self.current = Current::Ahead;
        while self.wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()) {
            match self.groups.ahead.next().await? {
                Some(number) if self.takes(number) => return Ok(Some(number)),
                Some(number) => self.pass(number).await?,
                None => return self.ended(),
            }
        }
        Ok(None)
    }

    /// The dump holds no more.
    fn ended(&self) -> Result<Option<u32>> {
        match self.wanted.as_ref().and_then(|wanted| wanted.iter().min()) {
            None => Ok(None),
            Some(number) => {
                let error = Error::integrity("the dump lacks a large object that its list names");
                Err(error.with_context("large_object", number))
            }
        }
    }

    /// Whether the object is one of its own.
    fn takes(&mut self, number: u32) -> bool {
        self.wanted.as_mut().is_none_or(|wanted| wanted.remove(&number))
    }

    /// Leaves an object of another group for later.
    async fn pass(&mut self, number: u32) -> Result<()> {
        let place = self.groups.ahead.place().ok_or_else(other_length)?;
        while self.groups.ahead.piece().await?.is_some() {}
        match self.groups.passed.insert(number, place) {
            None => Ok(()),
            Some(_) => {
                let error = Error::integrity("the dump holds a large object twice");
                Err(error.with_context("large_object", number))
            }
        }
    }

    /// The next bytes of the one under way; nothing at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        match &mut self.current {
            Current::None => Ok(None),
            Current::Ahead => self.groups.ahead.piece().await,
            Current::Behind(behind) => behind.piece().await,
        }
    }
}

/// Objects that were passed, read by their places.
struct Behind<'a> {
    tar: &'a str,
    input: Input,
    /// How many bytes of the object are left.
    left: u64,
}

impl<'a> Behind<'a> {
    /// Stands at `place`: by reading on, where it is near.
    async fn at(source: &dyn ArtifactSource, place: Place<'a>, before: Option<Self>) -> Result<Self> {
        let gap = |before: &Self| place.at.checked_sub(before.input.position()).filter(|gap| *gap <= GAP_BYTES);
        let near = before.filter(|before| before.tar == place.tar).and_then(|before| Some((gap(&before)?, before)));
        let input = match near {
            Some((mut gap, mut before)) => {
                while gap > 0 {
                    gap -= before.input.piece(gap).await?.ok_or_else(other_length)?.len() as u64;
                }
                before.input
            }
            None => {
                let name = ArtifactName::new(place.tar)?;
                let end = source.info(&name)?.plain_bytes;
                Input::new(source.open_range(&name, place.at..end).await?, place.at)
            }
        };
        Ok(Self { tar: place.tar, input, left: place.bytes })
    }

    async fn piece(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self.input.piece(self.left).await?.ok_or_else(other_length)?;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}
