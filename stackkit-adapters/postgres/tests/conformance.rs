//! The adapter against real servers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed expectation fails the case"
)]

#[path = "conformance/archives.rs"]
mod archives;
#[path = "conformance/backup.rs"]
mod backup;
#[path = "conformance/copy_tls.rs"]
mod copy_tls;
#[path = "conformance/edges.rs"]
mod edges;
#[path = "conformance/exports.rs"]
mod exports;
#[path = "conformance/faults.rs"]
mod faults;
#[path = "conformance/health.rs"]
mod health;
#[path = "conformance/hostile.rs"]
mod hostile;
#[path = "conformance/in_place.rs"]
mod in_place;
#[path = "conformance/in_place_locks.rs"]
mod in_place_locks;
#[path = "conformance/inventory.rs"]
mod inventory;
#[path = "conformance/large_objects.rs"]
mod large_objects;
#[path = "conformance/load.rs"]
mod load;
#[path = "conformance/load_order.rs"]
mod load_order;
#[path = "conformance/maintenance.rs"]
mod maintenance;
#[path = "conformance/maintenance_further.rs"]
mod maintenance_further;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/oracles.rs"]
mod oracles;
#[path = "conformance/parallel_dump.rs"]
mod parallel_dump;
#[path = "conformance/parallel_dump_elsewhere.rs"]
mod parallel_dump_elsewhere;
#[path = "conformance/parallel_dump_memory.rs"]
mod parallel_dump_memory;
#[path = "conformance/parallel_dump_wide.rs"]
mod parallel_dump_wide;
#[path = "conformance/physical.rs"]
mod physical;
#[path = "conformance/pooler.rs"]
mod pooler;
#[path = "conformance/posture.rs"]
mod posture;
#[path = "conformance/recover.rs"]
mod recover;
#[path = "conformance/restore.rs"]
mod restore;
#[path = "conformance/restore_faults.rs"]
mod restore_faults;
#[path = "conformance/restore_memory.rs"]
mod restore_memory;
#[path = "conformance/rights.rs"]
mod rights;
#[path = "conformance/several.rs"]
mod several;
#[path = "conformance/several_killed.rs"]
mod several_killed;
#[path = "conformance/sqltext.rs"]
mod sqltext;
#[path = "conformance/standby.rs"]
mod standby;
#[path = "conformance/swap.rs"]
mod swap;
#[path = "conformance/tap.rs"]
mod tap;
#[path = "conformance/torture/mod.rs"]
mod torture;
#[path = "conformance/versions.rs"]
mod versions;
#[path = "conformance/vitals.rs"]
mod vitals;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use libtest_mimic::{Completion, Failed, Trial};
use stackkit_fixtures::conformance::{targets, trial};

use crate::versions::Extent;

/// One case: its name, and what it does.
type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Makes a table of cases from async functions.
macro_rules! cases {
    ($($case:path),* $(,)?) => { &[$((stringify!($case), || Box::pin($case()))),*] };
}
pub(crate) use cases;

fn main() -> ExitCode {
    if let Ok(urls) = std::env::var(recover::CHILD) {
        recover::child(&urls);
        return ExitCode::SUCCESS;
    }
    if let Ok(url) = std::env::var(parallel_dump_memory::CHILD) {
        println!("{}", parallel_dump_memory::child(&url));
        return ExitCode::SUCCESS;
    }
    if let Ok(told) = std::env::var(restore_memory::CHILD) {
        println!("{}", restore_memory::child(&told));
        return ExitCode::SUCCESS;
    }
    versions::run(|extent| stackkit_fixtures::conformance::main(targets::postgres(), trials(extent)))
}

/// The cases of those versions that are tested in full.
const FURTHER: &[&[Case]] = &[
    inventory::CASES,
    posture::CASES,
    rights::CASES,
    edges::CASES,
    faults::CASES,
    load::CASES,
    load_order::CASES,
    hostile::CASES,
    in_place::CASES,
    in_place_locks::CASES,
    physical::CASES,
    maintenance::CASES,
    maintenance_further::CASES,
    swap::CASES,
    recover::CASES,
    restore_faults::CASES,
    parallel_dump::CASES,
    parallel_dump_elsewhere::CASES,
    parallel_dump_memory::CASES,
    parallel_dump_wide::CASES,
    torture::CASES,
    archives::CASES,
    exports::CASES,
    oracles::CASES,
    several::CASES,
    several_killed::CASES,
    restore_memory::CASES,
    sqltext::CASES,
];

/// What every version runs, and what those run that are tested in full.
fn trials(extent: Extent) -> Vec<Trial> {
    let mut core = [health::CASES, vitals::CASES, backup::CASES, restore::CASES, torture::CORE].concat();
    core.extend([large_objects::CASES, exports::CORE].concat());
    let cases = match extent {
        Extent::Whole => [core, FURTHER.concat()].concat(),
        Extent::Core => {
            [&core, load::CASES, load_order::CASES, swap::CASES, parallel_dump::CASES, archives::CASES].concat()
        }
    };
    let case = |(name, run): Case| {
        trial(name, stackkit_fixtures::postgres_kind(), async move || {
            // The first step of each case; it tells a missing server apart from a failed case.
            stackkit_fixtures::postgres().await?;
            run().await;
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = cases.into_iter().map(case).collect();
    trials.extend(pooler::trials());
    let grouped = large_objects::OTHERS.iter();
    trials.extend(grouped.map(|(name, case)| Trial::ignorable_test(*name, move || ignorable(case))));
    if extent == Extent::Whole {
        trials.extend(ignorables());
    }
    trials
}

/// What is run in full only, and may be ignored.
fn ignorables() -> Vec<Trial> {
    let mut trials = Vec::new();
    let pooler = || ignorable(torture::faults::a_pooler_of_transactions_is_told);
    trials.push(Trial::ignorable_test("a_pooler_of_transactions_is_told", pooler));
    let huge = || ignorable(parallel_dump_memory::memory_does_not_grow_with_huge_values);
    trials.push(Trial::ignorable_test("memory_does_not_grow_with_huge_values", huge));
    let huge = || ignorable(restore_memory::huge_values_come_back);
    trials.push(Trial::ignorable_test("huge_values_come_back", huge));
    let no_text = || ignorable(hostile::a_value_that_no_text_holds_is_told);
    trials.push(Trial::ignorable_test("a_value_that_no_text_holds_is_told", no_text));
    let vectors = || ignorable(torture::odd::vectors_survive);
    trials.push(Trial::ignorable_test("vectors_survive", vectors));
    let over = || ignorable(torture::later::later_servers_hold_the_same);
    trials.push(Trial::ignorable_test("later_servers_hold_the_same", over));
    let later = || ignorable(torture::later::a_later_pg_dump_is_as_good);
    trials.push(Trial::ignorable_test("a_later_pg_dump_is_as_good", later));
    let later = || ignorable(torture::odd::later_versions_read_the_dump);
    trials.push(Trial::ignorable_test("later_versions_read_the_dump", later));
    trials.push(Trial::ignorable_test("tls_encrypts_and_verifies", || ignorable(health::tls_encrypts_and_verifies)));
    let encrypted = || ignorable(copy_tls::a_dump_and_its_restore_are_encrypted_throughout);
    trials.push(Trial::ignorable_test("a_dump_and_its_restore_are_encrypted_throughout", encrypted));
    let slow_statements = || ignorable(inventory::slow_statements_are_told_by_id);
    trials.push(Trial::ignorable_test("slow_statements_are_told_by_id", slow_statements));
    let standby = || ignorable(standby::a_primary_and_its_standby_tell_of_each_other);
    trials.push(Trial::ignorable_test("a_primary_and_its_standby_tell_of_each_other", standby));
    let standby = || ignorable(parallel_dump_elsewhere::a_standby_is_dumped_or_its_snapshot_is_lost);
    trials.push(Trial::ignorable_test("a_standby_is_dumped_or_its_snapshot_is_lost", standby));
    let standby = || ignorable(parallel_dump_elsewhere::a_snapshot_lost_in_the_middle_of_a_copy_is_told);
    trials.push(Trial::ignorable_test("a_snapshot_lost_in_the_middle_of_a_copy_is_told", standby));
    let full_target = || ignorable(restore::a_full_target_keeps_the_old_data);
    trials.push(Trial::ignorable_test("a_full_target_keeps_the_old_data", full_target));
    let explained = async || Ok(restore_faults::a_pooler_in_transaction_mode_is_explained().await?);
    trials.push(trial("a_pooler_in_transaction_mode_is_explained", "pgbouncer", explained));
    let enough = async || Ok(restore_faults::a_pooler_in_session_mode_is_enough().await?);
    trials.push(trial("a_pooler_in_session_mode_is_enough", "pgbouncer", enough));
    let others = archives::OTHERS.iter().chain(exports::OTHERS);
    trials.extend(others.map(|(name, case)| Trial::ignorable_test(*name, move || ignorable(case))));
    trials
}

/// Runs a case that can be ignored for another reason than a missing server.
fn ignorable(case: impl AsyncFnOnce() -> Completion) -> Result<Completion, Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match stackkit_fixtures::postgres().await {
            Ok(_server) => Ok(case().await),
            Err(error) => Ok(Completion::ignored_with(error)),
        }
    })
}
