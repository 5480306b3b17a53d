//! Retention through the tool: a plan by default, deletion in two steps, and the way back.

use serde_json::Value;

use crate::site::Site;
use crate::tool::{Test, files, folder_bytes};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("a_plan_is_shown_and_deletes_nothing", a_plan_is_shown_and_deletes_nothing),
    Test::new("what_is_announced_can_be_had_back_until_it_is_purged", announced_can_be_had_back),
    Test::new("a_prune_without_grace_deletes_and_the_kept_backup_restores", a_prune_without_grace_deletes),
    Test::new("what_a_policy_must_not_say_is_refused", what_a_policy_must_not_say_is_refused),
    Test::new("gc_removes_what_a_crash_left", gc_removes_what_a_crash_left),
];

/// A volume with `count` backups; the first one has the tag `first`.
fn site(count: usize) -> Site {
    let site = Site::new(64 * 1024);
    site.run(&["backup", "--unencrypted", "--tag", "first"]).expect(0);
    for _ in 1..count {
        site.backup().expect(0);
    }
    site
}

fn ids(site: &Site) -> Vec<String> {
    let list = site.run(&["--json", "list"]).expect(0);
    let rows = list.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn a_plan_is_shown_and_deletes_nothing() {
    let site = site(3);
    let before = folder_bytes(&site.repository());
    let plan = site.run(&["prune", "--keep-last", "2"]).expect(0);
    assert_eq!(plan.stdout.matches("  delete  ").count(), 1, "{plan:?}");
    assert!(plan.stderr.contains("nothing was deleted"), "{plan:?}");
    let plan = site.run(&["--json", "prune", "--keep-daily", "1", "--keep-tag", "first"]).expect(0);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let actions: Vec<&str> =
        plan["decisions"].as_array().unwrap().iter().map(|decision| decision["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["keep", "delete", "keep"], "{plan}");
    assert_eq!((ids(&site).len(), folder_bytes(&site.repository())), (3, before));
}

fn announced_can_be_had_back() {
    let site = site(3);
    let oldest = ids(&site).pop().unwrap();
    let announced = site.run(&["prune", "--keep-last", "2", "--apply"]).expect(0);
    assert!(announced.stdout.contains("to be purged after"), "{announced:?}");
    assert_eq!(ids(&site).len(), 2, "an announced backup is listed");
    let all = site.run(&["--json", "list", "--all"]).expect(0);
    assert!(all.stdout.contains("\"state\":\"announced\""), "{all:?}");
    // The time of grace has not passed.
    site.run(&["prune", "--keep-last", "2", "--apply"]).expect(0);
    site.run(&["verify", &oldest, "--level", "content"]).expect(0);
    site.run(&["undelete", &oldest]).expect(0);
    assert_eq!(ids(&site).len(), 3);
    site.run(&["undelete", &oldest]).expect(1);
    site.run(&["undelete", "20200101T000000Z-00000000"]).expect(1);
}

fn a_prune_without_grace_deletes() {
    let site = site(3);
    let newest = ids(&site).remove(0);
    let prune = ["prune", "--keep-last", "1", "--grace", "0s", "--apply"];
    let held = site.run(&prune).expect(2);
    assert!(held.stderr.contains("more than half"), "{held:?}");
    assert_eq!(ids(&site).len(), 3, "a prune that needs force deleted something");
    let before = folder_bytes(&site.repository());
    let forced = [&prune[..], &["--force"]].concat();
    let purged = site.run(&forced).expect(0);
    assert_eq!(purged.stdout.matches("purged, ").count(), 2, "{purged:?}");
    assert_eq!(purged.stderr.matches(": removed, ").count(), 2, "{purged:?}");
    assert!(folder_bytes(&site.repository()) < before / 2, "nothing is freed");
    assert_eq!(ids(&site), [newest]);
    site.run(&["verify", "--level", "content"]).expect(0);
    let content = site.content();
    std::fs::remove_file(site.volume().join("file-0")).unwrap();
    site.run(&["restore", "--yes"]).expect(0);
    assert_eq!(site.content(), content);
}

fn what_a_policy_must_not_say_is_refused() {
    let site = site(1);
    for odd in [
        &["prune"][..],
        &["prune", "--apply"],
        &["prune", "--keep-last", "0"],
        &["prune", "--keep-last", "-1"],
        &["prune", "--keep-within", "soon"],
        &["prune", "--keep-last", "1", "--time-zone", "Nowhere/Land"],
        &["prune", "--keep-last", "1", "--grace", "1d"],
        &["prune", "--keep-id", "x"],
        &["prune", "--keep-tag", ""],
        &["gc", "--older-than", "1m"],
    ] {
        site.run(odd).expect(2);
    }
    site.run(&["prune", "--keep-within", "1 month 3 days", "--time-zone", "Europe/Berlin"]).expect(0);
    assert_eq!(ids(&site).len(), 1);
}

fn gc_removes_what_a_crash_left() {
    let site = site(1);
    let left = site.repository().join("backups/shop/20200101T000000Z-00000000/uploads");
    std::fs::create_dir_all(&left).unwrap();
    let object = left.join("data.tar.zst");
    std::fs::write(&object, [7; 5000]).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_577_836_800);
    std::fs::File::options().write(true).open(&object).unwrap().set_modified(long_ago).unwrap();
    let plan = site.run(&["gc"]).expect(0);
    assert!(plan.stdout.contains("20200101T000000Z-00000000") && object.exists(), "{plan:?}");
    let done = site.run(&["gc", "--apply"]).expect(0);
    assert!(!object.exists(), "{done:?}");
    assert!(files(&site.repository()).iter().any(|path| path.ends_with("manifest.json")));
    site.run(&["verify", "--level", "content"]).expect(0);
}
