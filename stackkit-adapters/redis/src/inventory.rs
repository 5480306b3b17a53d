//! The inventory: how the server is set, and how many keys it has of each prefix.

use stackkit_core::{Clock, Observation, ProbeContext, Result};
use tokio::time::Instant;

use crate::census::scanned;
use crate::client::Connection;
use crate::error::RedisError;
use crate::metrics::{Info, Keyspace, Sheet, Why, float};
use crate::posture;
use crate::probe::deadline;
use crate::resp::Reply;
use crate::sample::{Sample, Tally, lines};
use crate::service::Redis;

/// Buckets that one `SCAN` looks at: it takes the server 0.14 ms (measured), less than a slow command of a client.
const SCAN_COUNT: u64 = 250;
/// The most pages of one inventory: a table that is nearly empty after deletions has many pages without a key.
const SCAN_CALLS_MAX: u32 = 1000;
/// The most databases that are sampled, the largest first.
const DATABASES_MAX: usize = 16;
/// The part of the time to the deadline that sampling may take; then it makes do with what it has.
const SAMPLING_DIVISOR: u32 = 2;

const BY_PREFIX: [&str; 4] =
    ["keys_by_prefix_count", "keys_by_prefix_error_count", "keys_sampled_count", "keys_by_prefix_exact_bool"];

impl Redis {
    pub(crate) async fn inventory(&self, connection: &mut Connection, cx: &ProbeContext) -> Result<Observation> {
        let mut sheet = Sheet::new();
        let info = Info::from_reply(connection.call(&[b"INFO"], deadline(cx)).await?)?;
        let facts = posture::ask(connection, self.config(), deadline(cx)).await?;
        posture::judge(&mut sheet, self, &facts, info.version_pair());
        self.prefixes(&mut sheet, connection, (&info, cx)).await?;
        Ok(sheet.into_observation())
    }

    async fn prefixes(
        &self,
        sheet: &mut Sheet,
        connection: &mut Connection,
        (info, cx): (&Info, &ProbeContext),
    ) -> Result<(), RedisError> {
        let mut databases = info.keyspaces();
        databases.sort_by_key(|database| std::cmp::Reverse(database.keys));
        databases.truncate(DATABASES_MAX);
        let off = match self.config().sample_keys {
            0 => Some("sampling is switched off"),
            _ => databases.is_empty().then_some("no keys"),
        };
        if let Some(reason) = off {
            BY_PREFIX.into_iter().for_each(|name| sheet.without(name, reason));
            return Ok(());
        }
        let all = databases.iter().map(|database| database.keys).sum::<u64>().max(1);
        let mut scan = Scan {
            connection,
            clock: cx.clock(),
            deadline: deadline(cx),
            until: cx.clock().instant() + cx.remaining() / SAMPLING_DIVISOR,
            calls_left: SCAN_CALLS_MAX,
            selected: 0,
        };
        let mut tallies = Vec::new();
        for database in databases {
            // A share of the sample by its share of the keys, one page at least.
            let part = float(self.config().sample_keys) * float(database.keys) / float(all);
            match scan.sample(self, database, part).await? {
                Ok(tally) => tallies.push(tally),
                Err(why) => {
                    let labels: [(&'static str, &dyn std::fmt::Display); 1] = [("db", &database.database)];
                    BY_PREFIX.into_iter().for_each(|name| sheet.refused_of(name, &labels, why));
                }
            }
        }
        scan.select(0).await?.ok();
        tell(sheet, &tallies);
        Ok(())
    }
}

/// A walk through the keys.
struct Scan<'a> {
    connection: &'a mut Connection,
    clock: &'a Clock,
    deadline: Instant,
    /// When to make do with what was found.
    until: Instant,
    calls_left: u32,
    selected: u64,
}

impl Scan<'_> {
    async fn select(&mut self, database: u64) -> Result<Result<(), Why>, RedisError> {
        if self.selected == database {
            return Ok(Ok(()));
        }
        let number = database.to_string();
        match self.ask(&[b"SELECT", number.as_bytes()]).await? {
            Ok(_) => self.selected = database,
            Err(why) => return Ok(Err(why)),
        }
        Ok(Ok(()))
    }

    /// Looks at about `wanted` keys, from the cursor 0 on. A cursor walks the table by the hash of the keys, which has
    /// nothing to do with their names: a part of the table is a random sample.
    async fn sample(
        &mut self,
        redis: &Redis,
        database: Keyspace,
        wanted: f64,
    ) -> Result<Result<Tally, Why>, RedisError> {
        if let Err(why) = self.select(database.database).await? {
            return Ok(Err(why));
        }
        let count = SCAN_COUNT.to_string();
        let mut sample = Sample::new(&redis.config().separators);
        let mut cursor = b"0".to_vec();
        loop {
            let page = match self.ask(&[b"SCAN", &cursor, b"COUNT", count.as_bytes()]).await? {
                Ok(reply) => scanned(reply)?,
                Err(why) => return Ok(Err(why)),
            };
            page.1.iter().for_each(|key| sample.add(key));
            let is_whole = page.0 == b"0";
            self.calls_left = self.calls_left.saturating_sub(1);
            let is_late = self.calls_left == 0 || self.clock.instant() >= self.until;
            if is_whole || is_late || float(sample.keys()) >= wanted {
                return Ok(Ok(sample.finish(database.database, database.keys, is_whole)));
            }
            cursor = page.0;
        }
    }

    /// A reply, or why the server gives none.
    async fn ask(&mut self, command: &[&[u8]]) -> Result<Result<Reply, Why>, RedisError> {
        match self.connection.call(command, self.deadline).await {
            Ok(reply) => Ok(Ok(reply)),
            Err(RedisError::Server(error)) => Ok(Err(Why::of(&error))),
            Err(error) => Err(error),
        }
    }
}

fn tell(sheet: &mut Sheet, tallies: &[Tally]) {
    for line in lines(tallies) {
        for (name, value) in [(BY_PREFIX[0], line.keys), (BY_PREFIX[1], line.error)] {
            sheet.labelled(name, &[("db", &line.database), ("prefix", &line.prefix)], value.into());
        }
    }
    for tally in tallies {
        let exact = f64::from(u8::from(tally.is_whole));
        for (name, value) in [(BY_PREFIX[2], float(tally.sampled)), (BY_PREFIX[3], exact)] {
            sheet.labelled(name, &[("db", &tally.database)], value.into());
        }
    }
}
