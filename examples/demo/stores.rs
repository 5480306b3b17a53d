//! The three stores: started, filled, wiped, hashed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use stackkit::{BackupProvider, Census, Error, Result, Volume};
use stackkit_fixtures::{PostgresFixture, RedisFixture};

use crate::data;

/// Three real stores, gone with the value.
pub(crate) struct Stores {
    pub(crate) postgres: PostgresFixture,
    pub(crate) redis: RedisFixture,
    pub(crate) volume: Volume,
    folder: tempfile::TempDir,
}

impl Stores {
    pub(crate) async fn start() -> Result<Self> {
        let (postgres, redis) = tokio::try_join!(stackkit_fixtures::postgres(), stackkit_fixtures::redis())?;
        let folder = tempfile::tempdir().map_err(|error| Error::io("create a folder", error))?;
        let uploads = folder.path().join("uploads");
        fs::create_dir(&uploads).map_err(|error| Error::io("create a folder", error))?;
        Ok(Self { postgres, redis, volume: Volume::new("uploads", uploads), folder })
    }

    pub(crate) async fn fill(&mut self) -> Result<()> {
        self.postgres.execute(&data::tables()).await?;
        for database in ["0", "3"] {
            let per_type = (data::KEYS_PER_TYPE / 2).to_string();
            let commands = [vec!["SELECT", database], vec!["EVAL", data::KEYS_SCRIPT, "0", &per_type]];
            self.redis.pipeline(commands).await?;
        }
        let uploads = self.folder.path().join("uploads");
        data::write_files(&uploads).map_err(|error| Error::io("write the files", error))
    }

    pub(crate) async fn wipe(&mut self) -> Result<()> {
        self.postgres.execute("drop table order_lines, orders cascade; drop type state").await?;
        self.redis.command(&["FLUSHALL"]).await?;
        let uploads = self.folder.path().join("uploads");
        let wiped = fs::remove_dir_all(&uploads).and_then(|()| fs::create_dir(&uploads));
        wiped.map_err(|error| Error::io("wipe the folder", error))
    }

    /// Counts and content hashes of all three, taken by the stores themselves where they can.
    pub(crate) async fn content(&self) -> Result<Content> {
        let postgres = self.postgres.service()?.census().await?;
        let rows = match postgres.count("tables.public.orders.rows") {
            0 => String::new(),
            _ => self.postgres.query(data::ROWS_HASH).await?.into_iter().flatten().flatten().collect(),
        };
        let digest = self.redis.command(&["DEBUG", "DIGEST"]).await?.text();
        let redis = self.redis.service()?.census().await?;
        let stores = [
            ("postgres", postgres.with_digest("rows", rows)),
            ("redis", redis.with_digest("keys", digest)),
            ("uploads", self.volume.census().await?),
        ];
        Ok(Content(BTreeMap::from(stores)))
    }
}

/// The census of each store.
#[derive(Debug, PartialEq)]
pub(crate) struct Content(BTreeMap<&'static str, Census>);

impl Content {
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.0.iter().any(|(store, census)| other.0.get(store) == Some(census))
    }

    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let each = self.0.iter().zip(found.0.values()).flat_map(|((store, expected), found)| {
            expected.diff(found).into_iter().map(move |difference| format!("{store} {difference}"))
        });
        each.collect()
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (store, census) in &self.0 {
            for (name, count) in &census.counts {
                writeln!(f, "{store:<10} {name:<40} {count:>12}")?;
            }
            for (name, digest) in &census.digests {
                writeln!(f, "{store:<10} {name:<40} {digest}")?;
            }
        }
        Ok(())
    }
}
