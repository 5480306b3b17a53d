//! The main job without any server: a folder is probed, backed up, verified, wiped and restored.
//!
//! `cargo run --example quickstart`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

use std::fs;
use std::path::Path;

use stackkit::backup::OldData;
use stackkit::{
    BackupProvider, Error, Repository, RepositoryOptions, RestoreOptions, Result, Stack, VerifyLevel, Volume,
};

/// Files in the folder.
const FILES_COUNT: u32 = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|error| Error::io("create a folder", error))?;
    let uploads = folder.path().join("uploads");
    fill(&uploads).map_err(|error| Error::io("fill the folder", error))?;

    let volume = Volume::new("uploads", &uploads);
    let stack = Stack::builder("quickstart").service(volume.clone()).build()?;
    println!("{}", stack.check_now(&[]).await);

    let location = format!("file://{}", folder.path().join("repository").display());
    let repository = Repository::open_or_create(&location, RepositoryOptions::new().unencrypted()).await?;
    let backup = repository.backup(&stack).with_tag("quickstart").run().await?;
    println!("{backup}");
    println!("{}", repository.verify(backup.id(), VerifyLevel::Content).await?);

    let before = volume.census().await?;
    wipe(&uploads).map_err(|error| Error::io("wipe the folder", error))?;
    println!("wiped: {} files left", volume.census().await?.count("files"));

    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = repository.plan_restore(backup.id(), &stack, &options).await?;
    println!("{plan}");
    println!("{}", repository.apply_restore(plan, &stack).await?);

    let differences = before.diff(&volume.census().await?);
    match differences.first() {
        None => println!("every file, mode and byte is back: {} files, content hash equal", before.count("files")),
        Some(first) => return Err(Error::integrity(format!("the restored folder differs: {first}"))),
    }
    Ok(())
}

fn fill(folder: &Path) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..FILES_COUNT {
        let day = folder.join(format!("day-{}", number % 30));
        fs::create_dir_all(&day)?;
        let bytes: Vec<u8> = (0..random.usize(0..8_192)).map(|_| random.u8(..)).collect();
        fs::write(day.join(format!("upload-{number}.bin")), bytes)?;
    }
    std::os::unix::fs::symlink("day-0", folder.join("latest"))
}

fn wipe(folder: &Path) -> std::io::Result<()> {
    fs::remove_dir_all(folder)?;
    fs::create_dir(folder)
}
