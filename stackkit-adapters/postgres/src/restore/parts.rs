//! Which database of a dump goes into which one of the server.

use stackkit_core::backup::{ArtifactSource, RestorePlan};
use stackkit_core::{Census, Error, ErrorKind, Result, Service};

use super::dumped::Dumped;
use crate::census;
use crate::client::Session;
use crate::options::Strategy;
use crate::service::Postgres;
use crate::target;

/// A database of a dump, and the handle on the one that it goes into.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) dumped: Dumped,
    pub(crate) service: Postgres,
    /// What the names of its counts begin with; empty in a dump of one.
    pub(crate) prefix: String,
}

impl Part {
    /// The database that is filled.
    pub(crate) fn name(&self) -> &str {
        &self.service.config().database
    }

    /// The plan's entry called `name` for it: of its own where a dump holds several.
    pub(crate) fn detail(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{name}.{}", self.name()) }
    }

    /// What it holds, as the census of the dump names it.
    pub(crate) fn counted(&self, found: Census, into: &mut Census) {
        let named = |name: String| format!("{}{name}", self.prefix);
        into.counts.extend(found.counts.into_iter().map(|(name, count)| (named(name), count)));
        into.digests.extend(found.digests.into_iter().map(|(name, digest)| (named(name), digest)));
    }

    /// What the census of a dump says of it.
    pub(crate) fn expected(&self, census: &Census) -> Census {
        let own = |name: &String| name.strip_prefix(&self.prefix).map(str::to_owned);
        let mut expected = Census::new();
        expected.counts.extend(census.counts.iter().filter_map(|(name, count)| Some((own(name)?, *count))));
        expected.digests.extend(census.digests.iter().filter_map(|(name, hash)| Some((own(name)?, hash.clone()))));
        expected
    }
}

impl Postgres {
    /// The databases of a dump that are restored, and where each goes: that of a dump of one into the database of this
    /// handle, those of a dump of several into those of their names.
    ///
    /// # Errors
    /// Those of [`Dumped::all`]; `Unsupported` where several shall go into one.
    pub(crate) async fn parts(&self, source: &dyn ArtifactSource) -> Result<Vec<Part>> {
        let restore = &self.config().restore;
        let all = Dumped::all(source, restore).await?;
        if all.len() > 1 && restore.strategy != Strategy::Swap {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            let message = "the dump holds several databases, which can't go into one: \
                restore them by a swap, or choose one (only_databases)";
            return Err(Error::new(ErrorKind::Unsupported, message).with_context("databases", names.join(", ")));
        }
        let part = |(name, dumped): (String, Dumped)| {
            let prefix = if dumped.is_alone { String::new() } else { census::prefix(&name) };
            let service = match dumped.is_alone || restore.strategy != Strategy::Swap {
                true => self.clone(),
                false => Self::new(self.config().clone().with_database(name)).with_id(self.id().as_str()),
            };
            Part { dumped, service, prefix }
        };
        Ok(all.into_iter().map(part).collect())
    }
}

/// The names of the databases that are filled.
pub(crate) fn names(parts: &[Part]) -> Vec<&str> {
    parts.iter().map(Part::name).collect()
}

/// What each target is at this moment.
pub(crate) async fn fingerprints(parts: &[Part]) -> Result<Vec<String>> {
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        all.push(target::fingerprint(part.service.config()).await?);
    }
    Ok(all)
}

/// What all targets are, in one.
pub(crate) async fn fingerprint(admin: &Session, parts: &[Part], each: &[String]) -> Result<String> {
    if let ([part], [one]) = (parts, each)
        && part.prefix.is_empty()
    {
        return Ok(one.clone());
    }
    let lines = parts.iter().zip(each).map(|(part, one)| format!("{:?} {one}", part.name()));
    target::hash(admin, &lines.collect::<Vec<_>>().join("\n")).await
}

/// Says things of several databases once where they are true of all, else with the database's name.
pub(crate) fn told(parts: &[&Part], each: &[Vec<String>]) -> Vec<String> {
    let mut told = Vec::new();
    for (part, own) in parts.iter().zip(each) {
        for what in own {
            let is_of_all = each.iter().all(|other| other.contains(what));
            let line = if is_of_all { what.clone() } else { format!("database {}: {what}", part.name()) };
            if !told.contains(&line) {
                told.push(line);
            }
        }
    }
    told
}

/// The artifacts that the restore of all reads.
pub(crate) fn artifacts(parts: &[Part], source: &dyn ArtifactSource, plan: &mut RestorePlan) -> Result<()> {
    for part in parts {
        let more = part.dumped.artifacts(source)?;
        plan.artifacts.extend(more);
    }
    if parts.len() > 1 {
        plan.artifacts.sort_unstable();
        plan.artifacts.dedup();
    }
    Ok(())
}
