//! What goes wrong between a volume and its repository, and what the tool says then.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::site::Site;
use crate::tool::{SmallDisk, Test, command, files, folder_bytes, stackctl};

/// Enough that a backup has ten distinguishable moments; random, so that stored bytes grow with plain ones.
const VOLUME_BYTES: usize = 48 * 1024 * 1024;

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("kill_nine_at_ten_moments_leaves_no_false_backup", kill_nine_at_ten_moments_leaves_no_false_backup),
    Test::new("an_interrupted_backup_leaves_nothing", an_interrupted_backup_leaves_nothing),
    Test::new(
        "one_flipped_byte_is_named_with_its_offset_and_refused",
        one_flipped_byte_is_named_with_its_offset_and_refused,
    ),
    Test::new("a_cut_tail_is_named_with_its_offset_and_refused", a_cut_tail_is_named_with_its_offset_and_refused),
    Test::new("a_missing_object_is_named_and_refused", a_missing_object_is_named_and_refused),
    Test::new("a_full_repository_gets_no_manifest", a_full_repository_gets_no_manifest).needs(&["root"]),
    Test::new("a_full_volume_keeps_its_data", a_full_volume_keeps_its_data).needs(&["root"]),
    Test::new("restore_without_a_yes_changes_nothing", restore_without_a_yes_changes_nothing),
    Test::new("a_round_trip_gives_every_byte_back", a_round_trip_gives_every_byte_back),
    Test::new("exit_codes_are_as_documented", exit_codes_are_as_documented),
];

fn kill_nine_at_ten_moments_leaves_no_false_backup() {
    let site = Site::new(VOLUME_BYTES);
    let args = site.args(&["backup", "--unencrypted"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut finished_before_the_kill = 0;
    for moment in 0..10 {
        let before = folder_bytes(&site.repository());
        let until = before + u64::try_from(VOLUME_BYTES / 10 * moment).unwrap();
        let mut child = command("stackctl", &args).spawn().unwrap();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if folder_bytes(&site.repository()) >= until {
                break None;
            }
            std::thread::park_timeout(Duration::from_micros(200));
        };
        match child.kill() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}"),
        }
        child.wait().unwrap();
        finished_before_the_kill += usize::from(ended.is_some_and(|status| status.success()));
        let listed = site.listed_count();
        assert!(
            (finished_before_the_kill..=moment + 1).contains(&listed),
            "moment {moment}: {listed} listed, {finished_before_the_kill} known to be finished"
        );
        // Whatever is listed is whole, also one that was committed just before the kill.
        if listed > 0 {
            site.run(&["verify", "latest", "--level", "content"]).expect(0);
        }
    }
    assert!(finished_before_the_kill < 8, "the kills came too late to test anything");
    let before = site.listed_count();
    site.backup().expect(0);
    assert_eq!(site.listed_count(), before + 1, "the backup after the kills succeeds");
    site.run(&["verify", "latest", "--level", "content"]).expect(0);
}

fn an_interrupted_backup_leaves_nothing() {
    let site = Site::new(VOLUME_BYTES);
    let args = site.args(&["backup", "--unencrypted"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = command("stackctl", &args).spawn().unwrap();
    while folder_bytes(&site.repository()) < 2 * 1024 * 1024 {
        assert_eq!(child.try_wait().unwrap(), None, "the backup ended before it could be interrupted");
        std::thread::park_timeout(Duration::from_micros(200));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(site.listed_count(), 0);
    let left = folder_bytes(&site.repository());
    assert!(
        left < 64 * 1024,
        "{left} bytes of the interrupted backup are still there: {:?}",
        files(&site.repository())
    );
}

/// Damages the stored artifact, then expects `verify` to name it with an offset, and `restore` to refuse untouched.
fn damaged(damage: impl FnOnce(&Path), names_offset: bool) {
    let site = Site::new(4 * 1024 * 1024);
    site.backup().expect(0);
    site.run(&["verify"]).expect(0);
    damage(&site.artifact());
    let verify = site.run(&["verify", "latest"]).expect(1);
    assert!(verify.text().contains("data.tar"), "the artifact is not named:\n{}", verify.text());
    assert_eq!(verify.text().contains("offset"), names_offset, "{}", verify.text());

    fs::write(site.volume().join("later"), "written after the backup").unwrap();
    let before = site.content();
    let restore = site.run(&["restore", "latest", "--yes"]).expect(4);
    assert!(restore.stderr.contains("artifact=data.tar") && restore.stderr.contains("target=old"), "{restore:?}");
    assert_eq!(site.content(), before, "a refused restore touched the store");
    let beside: Vec<_> = fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "a refused restore left something beside the store: {beside:?}");
}

fn one_flipped_byte_is_named_with_its_offset_and_refused() {
    damaged(
        |artifact| {
            let mut bytes = fs::read(artifact).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(artifact, bytes).unwrap();
        },
        true,
    );
}

fn a_cut_tail_is_named_with_its_offset_and_refused() {
    damaged(
        |artifact| {
            let file = fs::OpenOptions::new().write(true).open(artifact).unwrap();
            file.set_len(file.metadata().unwrap().len() * 2 / 3).unwrap();
        },
        true,
    );
}

fn a_missing_object_is_named_and_refused() {
    damaged(|artifact| fs::remove_file(artifact).unwrap(), false);
}

fn a_full_repository_gets_no_manifest() {
    let site = Site::new(8 * 1024 * 1024);
    let before = site.content();
    let _disk = SmallDisk::mount(&site.repository(), "2m");
    let outcome = site.backup().expect(4);
    assert!(outcome.stderr.contains("the disk is full"), "{outcome:?}");
    assert_eq!(site.content(), before, "the service was touched");
    assert_eq!(site.listed_count(), 0);
    let left = files(&site.repository());
    assert!(left.iter().all(|path| !path.starts_with(site.repository().join("backups"))), "{left:?}");
    // There is room again for what fits.
    for file in &before[1..] {
        fs::remove_file(&file.0).unwrap();
    }
    site.backup().expect(0);
}

fn a_full_volume_keeps_its_data() {
    let site = Site::new(3 * 1024 * 1024);
    site.backup().expect(0);
    let disk = site.folder.path().join("disk");
    let _disk = SmallDisk::mount(&disk, "2m");
    let volume = disk.join("uploads");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("old"), "old data").unwrap();
    let to = format!("uploads=file://{}", volume.display());
    let outcome = site.run(&["restore", "--to", &to, "--yes"]).expect(3);
    assert!(outcome.stderr.contains("the disk is full") && outcome.stderr.contains("target=old"), "{outcome:?}");
    assert_eq!(files(&disk), [volume.join("old")]);
    assert_eq!(fs::read(volume.join("old")).unwrap(), b"old data");
}

fn restore_without_a_yes_changes_nothing() {
    let site = Site::new(1024 * 1024);
    site.backup().expect(0);
    let before = site.content();
    site.run(&["restore", "latest"]).expect(2);
    let plan = site.run(&["restore", "latest", "--plan"]).expect(0);
    assert!(plan.stdout.contains("uploads"), "{}", plan.stdout);
    assert_eq!(site.content(), before);
}

fn a_round_trip_gives_every_byte_back() {
    let site = Site::new(4 * 1024 * 1024);
    let before = site.content();
    site.backup().expect(0);
    fs::remove_dir_all(site.volume()).unwrap();
    fs::create_dir(site.volume()).unwrap();
    site.run(&["restore", "latest", "--yes"]).expect(0);
    assert_eq!(site.content(), before);
}

fn exit_codes_are_as_documented() {
    let site = Site::new(8 * 1024);
    site.run(&["verify", "latest"]).expect(4);
    site.backup().expect(0);
    site.run(&["restore", "20200101T000000Z-00000000", "--yes"]).expect(1);
    stackctl(&["--service", "gopher://x", "health"]).expect(2);
    stackctl(&["--no-such-flag"]).expect(2);
    let nowhere = format!("--service=file://{}/nowhere", site.folder.path().display());
    stackctl(&[&nowhere, "health"]).expect(1);
    let args = ["--service", &nowhere[10..], "--repository", "file:///proc/nowhere", "backup", "--unencrypted"];
    stackctl(&args).expect(4);
    let missing = site.volume().join("no/such/folder");
    let to = format!("uploads=file://{}", missing.display());
    site.run(&["restore", "--to", &to, "--yes"]).expect(3);
}
