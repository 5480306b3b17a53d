//! The main job on real stores: PostgreSQL, Redis and a folder are filled, served, backed up as one encrypted and signed
//! backup, verified, restored into private servers as a drill, wiped, restored, compared, and pruned.
//!
//! `cargo xtask demo` installs the servers and runs it. It exits non-zero when anything differs, and leaves nothing
//! behind but the repository that it names, with its keys beside it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

mod data;
mod http;
mod keys;
mod steps;
mod stores;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use stackkit::backup::{Backup, OldData};
use stackkit::{
    Error, Intervals, Monitor, Repository, RestoreOptions, Result, Retention, ServiceExt, Stack, VerifyLevel,
};

use crate::steps::Steps;
use crate::stores::{Content, Stores};

/// Where the repository goes unless the first argument names another folder.
const REPOSITORY: &str = "target/demo/repository";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(REPOSITORY), PathBuf::from);
    let folder = std::path::absolute(folder).map_err(|error| Error::io("name the repository", error))?;
    let mut steps = Steps::new();

    let mut stores = steps.time("start PostgreSQL, Redis and a folder", Stores::start()).await?;
    steps.time("fill them", stores.fill()).await?;
    let filled = steps.time("count and hash them", stores.content()).await?;
    println!("{filled}");

    let stack = stack(&stores)?;
    let monitor = Monitor::start(&stack);
    let (server, address) = http::serve(&monitor).await?;
    steps.time("/readyz says 200", http::until(address, "/readyz", 200)).await?;

    let location = format!("file://{}", folder.display());
    let repository = Repository::open_or_create(&location, keys::options(&folder)?).await?;
    let backup = back_up(&repository, &stack, &mut steps).await?;
    wipe(&mut stores, &filled, &mut steps).await?;
    interrupt_redis(&mut stores, address, &mut steps).await?;
    restore(&repository, &backup, &stack, &mut steps).await?;
    let found = steps.time("count and hash them again", stores.content()).await?;
    compare(&filled, &found)?;
    prune(&repository, &stack, &mut steps).await?;

    drop((server, monitor, stores));
    println!("{steps}");
    println!("every count and content hash is as before; the repository is {}", folder.display());
    Ok(())
}

async fn back_up(repository: &Repository, stack: &Stack, steps: &mut Steps) -> Result<Backup> {
    let backup = steps.time("back up all three as one", repository.backup(stack).with_tag("demo").run()).await?;
    println!("{backup}");
    let verified = steps.time("verify", repository.verify_with(backup.id(), VerifyLevel::Content, stack)).await?;
    println!("{verified}");
    let scratch = stackkit_fixtures::scratch();
    let drill = repository.verification(backup.id()).level(VerifyLevel::Drill).with_scratch(&scratch);
    let drilled = steps.time("restore it into private servers, as a drill", drill.run()).await?;
    println!("{drilled}");
    match verified.is_restorable() && drilled.is_restorable() {
        true => Ok(backup),
        false => Err(Error::integrity("the backup does not verify")),
    }
}

/// Of a demo's backups the newest is enough. Without a time of grace they go at once.
async fn prune(repository: &Repository, stack: &Stack, steps: &mut Steps) -> Result<()> {
    let newest = steps.time("back up again", repository.backup(stack).with_tag("demo").run()).await?;
    repository.verify(newest.id(), VerifyLevel::Content).await?;
    let policy = Retention::new().keep_last(1).with_grace(Duration::ZERO);
    let plan = repository.plan_retention(&policy).await?.force();
    println!("{plan}");
    let report = steps.time("prune all but that", repository.apply_retention(plan)).await?;
    println!("{report}");
    match report.freed_bytes() {
        0 => Err(Error::unexpected("nothing was deleted")),
        _ => Ok(()),
    }
}

async fn wipe(stores: &mut Stores, filled: &Content, steps: &mut Steps) -> Result<()> {
    steps.time("wipe all three", stores.wipe()).await?;
    let wiped = stores.content().await?;
    if wiped.is_like(filled) { Err(Error::unexpected("the wipe wiped nothing")) } else { Ok(()) }
}

async fn interrupt_redis(stores: &mut Stores, address: SocketAddr, steps: &mut Steps) -> Result<()> {
    stores.redis.stop().await?;
    steps.time("Redis is stopped: /readyz says 503", http::until(address, "/readyz", 503)).await?;
    stores.redis.start().await?;
    steps.time("Redis is back: /readyz says 200", http::until(address, "/readyz", 200)).await?;
    Ok(())
}

async fn restore(repository: &Repository, backup: &Backup, stack: &Stack, steps: &mut Steps) -> Result<()> {
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = repository.plan_restore(backup.id(), stack, &options).await?;
    println!("{plan}");
    let restored = steps.time("restore all three", repository.apply_restore(plan, stack)).await?;
    println!("{restored}");
    Ok(())
}

fn stack(stores: &Stores) -> Result<Stack> {
    let often = Intervals::new().with_poll(Duration::from_millis(250));
    Stack::builder("demo")
        .service(stores.postgres.service()?.with_intervals(often))
        .service(stores.redis.service()?.with_intervals(often).after(["postgres"]))
        .service(stores.volume.clone().with_intervals(often))
        .build()
}

fn compare(before: &Content, after: &Content) -> Result<()> {
    match before.differences(after) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(Error::integrity(format!("what was restored differs: {}", differences.join("; ")))),
    }
}
