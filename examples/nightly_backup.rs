//! A backup tool in 30 lines: back up, verify, and show what a restore would do.
//!
//! `DATABASE_URL=postgres://… REDIS_URL=redis://… cargo run --example nightly_backup -- file:///var/backups/shop`

#![expect(clippy::print_stdout, reason = "a program tells its user what it did")]

use stackkit::backup::OldData;
use stackkit::{Postgres, Redis, Repository, RepositoryOptions, RestoreOptions, Stack, VerifyLevel};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("name the repository: file:///var/backups/shop")?;
    let stack = Stack::builder("shop").service(Postgres::from_env()?).service(Redis::from_env()?).build()?;

    let repository = Repository::open_or_create(&url, RepositoryOptions::new().unencrypted()).await?;
    let backup = repository.backup(&stack).with_tag("nightly").run().await?;
    println!("{backup}"); // one row per artifact: bytes, stored, rate, rows or keys; the spread of the barrier

    let verified = repository.verify(backup.id(), VerifyLevel::Stored).await?;
    println!("{verified}");
    if !verified.is_ok() {
        return Err("the backup does not verify".into());
    }

    // A restore is plan, then apply; the plan is a value that says what will be overwritten.
    let options = RestoreOptions::new().only(["postgres"]).with_old_data(OldData::Keep);
    let plan = repository.plan_restore(backup.id(), &stack, &options).await?;
    println!("{plan}");
    // `repository.apply_restore(plan, &stack).await?` compares the census before the old data goes.
    Ok(())
}
