//! A backup tool in 50 lines: back up encrypted and signed, expire, verify, and show what a restore would do.
//!
//! `stackctl keygen --out keys` makes the keys; the host that makes backups needs two of the four files:
//! `DATABASE_URL=postgres://… REDIS_URL=redis://… cargo run --example nightly_backup -- file:///var/backups/shop age1… keys/signing.key`

#![expect(clippy::print_stdout, reason = "a program tells its user what it did")]

use std::sync::Arc;

use stackkit::backup::{OldData, ProgressEvent};
use stackkit::{
    Identity, Postgres, Redis, Repository, RepositoryOptions, RestoreOptions, Retention, SigningKey, Stack, VerifyLevel,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, recipient, signing_key, identity @ ..] = args.as_slice() else {
        return Err("URL RECIPIENT SIGNING_KEY_FILE [IDENTITY_FILE]".into());
    };
    let stack = Stack::builder("shop").service(Postgres::from_env()?).service(Redis::from_env()?).build()?;

    // Whoever has the recipient's identity can read the backups; this host has not.
    let options =
        RepositoryOptions::new().encrypt_to(recipient.parse()?).sign_with(SigningKey::from_file(signing_key)?);
    let repository = Repository::open_or_create(url, options).await?; // or s3://bucket/prefix

    let bars = Arc::new(|event: &ProgressEvent| {
        if let ProgressEvent::Stored { service, artifact, plain_bytes, .. } = event {
            println!("{service}/{artifact}: {plain_bytes} bytes");
        }
    });
    let backup = repository.backup(&stack).with_tag("nightly").with_progress(bars).run().await?;
    println!("{backup}"); // one row per artifact: bytes, stored, rate, rows or keys; the spread of the barrier

    let plan =
        repository.plan_retention(&Retention::new().keep_last(3).keep_daily(7).keep_weekly(4).keep_monthly(12)).await?;
    println!("{plan}"); // keep or delete, with the reasons for each
    println!("{}", repository.apply_retention(plan).await?);

    let verified = repository.verify(backup.id(), VerifyLevel::Stored).await?; // needs no identity
    println!("{verified}");
    if !verified.is_ok() {
        return Err("the backup does not verify".into());
    }

    // A restore is plan, then apply, on a host that has the identity; the plan is a value that says what will be
    // overwritten.
    if let [identity] = identity {
        let repository = repository.with_identity(Identity::from_file(identity)?);
        let options = RestoreOptions::new().only(["postgres"]).with_old_data(OldData::Keep);
        let plan = repository.plan_restore(backup.id(), &stack, &options).await?;
        println!("{plan}");
        // `repository.apply_restore(plan, &stack).await?` checks every byte before it touches a store, and compares the
        // census before the old data goes.
    }
    Ok(())
}
