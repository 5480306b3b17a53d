//! Every class of object and every odd value, through each engine.

use stackkit_fixtures::PostgresServer;

use crate::memory::{Memory, dump, restore};
use crate::torture::compare::{Picture, by_hand, pg_restore};
use crate::torture::{ENGINES, run_if_built, server, service};

/// Where every table of the schema is, in the order of their making.
pub(super) const SCHEMA: [&str; 5] = ["types", "icu", "tables", "logic", "outside"];

pub(super) async fn every_object_survives() {
    comes_back(&SCHEMA).await;
}

pub(super) async fn every_value_survives() {
    comes_back(&["values", "documents"]).await;
}

pub(super) async fn extensions_survive() {
    comes_back(&["extensions"]).await;
}

/// Dumps what the files make, restores it with each engine, and with `pg_restore` from the artifacts put together by hand.
async fn comes_back(files: &[&str]) {
    let server = server().await;
    server.create_database("torture").await.expect("a database");
    for file in files {
        run_if_built(&server, "torture", file).await;
    }
    let before = Picture::of(&server, "torture").await;
    for engine in ENGINES {
        let (memory, report) = dump(&service(&server, "torture", engine)).await.expect("a dump");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        the_vendor_reads(&server, &memory, &before).await;

        let name = format!("restored_{engine:?}");
        let copy = service(&server, &name, engine);
        let restored = restore(&copy, &memory, &report).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(restored.census.diff(&report.census), [], "{name}");
        before.assert_same(&Picture::of(&server, &name).await, &name);
    }
}

/// `pg_restore`, by one connection and by two, makes the same of the artifacts.
async fn the_vendor_reads(server: &PostgresServer, dump: &Memory, before: &Picture) {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = by_hand(dump, directory.path()).await;
    for jobs in ["-j1", "-j2"] {
        let name = format!("by_hand_{}{jobs}", dump.count());
        pg_restore(server, &[jobs], &archive, &name).await;
        before.assert_same(&Picture::of(server, &name).await, &name);
    }
}
