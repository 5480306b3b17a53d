//! Restores: what is there afterwards, and what is there after a failure.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use stackkit_core::backup::{OldData, RestoreAction, RestoreContext, RestoreOptions, TargetState};
use stackkit_core::{BackupProvider, Census, ErrorKind};

use crate::memory::Fault;
use crate::support::{Place, SPARSE_BYTES, context, dump, listing, plan, replace, restore};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    a_dump_is_restored_as_it_was,
    a_missing_target_is_made,
    old_data_is_kept_beside,
    old_data_is_removed_when_that_is_asked_for,
    a_plan_for_another_state_is_refused,
    what_a_killed_restore_left_is_told,
    a_missing_parent_is_told_by_the_plan,
    another_census_stops_before_the_swap,
    a_damaged_artifact_stops_before_the_swap,
    a_cut_artifact_stops_before_the_swap,
    a_dropped_restore_leaves_the_old_data,
    a_parent_that_is_not_writable_does_not_matter,
    a_link_to_the_directory_stays_a_link,
];

async fn a_dump_is_restored_as_it_was() -> Ending {
    let place = Place::full();
    let before = listing(place.path()).await;
    let (backup, dumped) = dump(&place.volume).await;
    place.wipe();
    fs::create_dir(place.path()).unwrap();
    let report = restore(&place.volume, &backup, Some(&dumped.census)).await.unwrap();
    assert_eq!(report.census, dumped.census);
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(listing(place.path()).await, before);
    assert_eq!(place.volume.census().await.unwrap(), dumped.census);
    let stat = |name: &str| fs::metadata(place.path().join(name)).unwrap();
    assert_eq!(stat("a/large").ino(), stat("z-hard-link").ino());
    assert!(stat("sparse").blocks() * 512 < SPARSE_BYTES / 8);
    assert_eq!(stat("all-hole").blocks(), 0);
    Ok(())
}

async fn a_missing_target_is_made() -> Ending {
    let (backup, dumped) = dump(&Place::full().volume).await;
    let place = Place::missing();
    let plan = plan(&place.volume, &backup).await;
    assert!(!plan.is_destructive());
    place.volume.restore(plan, &backup, &context(Some(&dumped.census))).await.unwrap();
    assert_eq!(place.siblings(), [""; 0]);
    Ok(())
}

async fn old_data_is_kept_beside() -> Ending {
    let (backup, _) = dump(&Place::full().volume).await;
    let place = Place::empty();
    fs::write(place.path().join("old"), "old data").unwrap();
    let plan = plan(&place.volume, &backup).await;
    assert!(plan.is_destructive());
    assert_eq!((plan.actions[0].action, plan.actions[0].size_bytes), (RestoreAction::Rename, Some(8)));
    let report = place.volume.restore(plan, &backup, &RestoreContext::new()).await.unwrap();
    let kept = report.old_data_kept_as.unwrap();
    assert_eq!(fs::read_to_string(Path::new(&kept).join("old")).unwrap(), "old data");
    assert!(!place.path().join("old").exists());
    assert_eq!(place.siblings().len(), 1);
    Ok(())
}

async fn old_data_is_removed_when_that_is_asked_for() -> Ending {
    let place = Place::full();
    let (backup, dumped) = dump(&place.volume).await;
    fs::write(place.path().join("old"), "old data").unwrap();
    let report = replace(&place.volume, &backup).await.unwrap();
    assert_eq!((report.census, report.old_data_kept_as), (dumped.census, None));
    assert_eq!(place.siblings(), [""; 0]);
    Ok(())
}

async fn a_plan_for_another_state_is_refused() -> Ending {
    let place = Place::full();
    let (backup, _) = dump(&place.volume).await;
    for change in [|place: &Place| fs::write(place.path().join("more"), "x").unwrap(), Place::wipe] {
        let plan = plan(&place.volume, &backup).await;
        change(&place);
        let error = place.volume.restore(plan, &backup, &RestoreContext::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    }
    assert_eq!(place.siblings(), [""; 0]);
    Ok(())
}

async fn what_a_killed_restore_left_is_told() -> Ending {
    let place = Place::full();
    let (backup, _) = dump(&place.volume).await;
    let left = place.directory.path().join(".uploads.stackkit-0123abcd");
    fs::create_dir(&left).unwrap();
    let plan = plan(&place.volume, &backup).await;
    assert_eq!(plan.warnings, [format!("an earlier restore left {}", left.display())]);
    place.volume.restore(plan, &backup, &RestoreContext::new()).await.unwrap();
    assert!(left.exists(), "it may be the only copy of something");
    Ok(())
}

async fn a_missing_parent_is_told_by_the_plan() -> Ending {
    let (backup, _) = dump(&Place::full().volume).await;
    let place = Place::missing();
    let volume = stackkit_volume::Volume::new("deep", place.path().join("not/there"));
    let plan = plan(&volume, &backup).await;
    assert_eq!(plan.missing.len(), 1);
    let error = volume.restore(plan, &backup, &RestoreContext::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    Ok(())
}

/// Restores over data, which must fail with `kind` and leave that data and nothing else.
async fn fails(place: &Place, backup: &crate::memory::Backup, expected: Option<&Census>, kind: ErrorKind) {
    let before = listing(place.path()).await;
    let error = restore(&place.volume, backup, expected).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (kind, Some(TargetState::Old)), "{error:?}");
    assert_eq!(listing(place.path()).await, before);
    assert_eq!(place.siblings(), [""; 0]);
}

async fn another_census_stops_before_the_swap() -> Ending {
    let place = Place::full();
    let (backup, dumped) = dump(&place.volume).await;
    let other = dumped.census.with_count("files", 1);
    fails(&place, &backup, Some(&other), ErrorKind::Integrity).await;
    Ok(())
}

async fn a_damaged_artifact_stops_before_the_swap() -> Ending {
    let place = Place::full();
    let (mut backup, _) = dump(&place.volume).await;
    backup.fault = Some((backup.data.len() / 2, Fault::Fails));
    fails(&place, &backup, None, ErrorKind::Integrity).await;
    Ok(())
}

async fn a_cut_artifact_stops_before_the_swap() -> Ending {
    let place = Place::full();
    let (mut backup, _) = dump(&place.volume).await;
    for length in [0, 511, 512, 100_000, backup.data.len() - 1024, backup.data.len() - 1] {
        backup.data = backup.data.slice(..length.min(backup.data.len()));
        fails(&place, &backup, None, ErrorKind::Integrity).await;
    }
    Ok(())
}

async fn a_dropped_restore_leaves_the_old_data() -> Ending {
    let place = Place::full();
    let (mut backup, _) = dump(&place.volume).await;
    backup.fault = Some((backup.data.len() / 2, Fault::Stalls));
    let before = listing(place.path()).await;
    let plan = plan(&place.volume, &backup).await;
    let cx = RestoreContext::new();
    let begun = async {
        while place.siblings().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = begun => {}
        done = place.volume.restore(plan, &backup, &cx) => panic!("the artifact stalls, and yet: {done:?}"),
    }
    let cleaned = async {
        while !place.siblings().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), cleaned).await.expect("the staging directory goes");
    assert_eq!(listing(place.path()).await, before);
    Ok(())
}

async fn a_parent_that_is_not_writable_does_not_matter() -> Ending {
    if rustix::process::geteuid().is_root() {
        return Err(Ignored("root writes everywhere".to_owned()));
    }
    let place = Place::full();
    let (backup, dumped) = dump(&place.volume).await;
    fs::write(place.path().join("old"), "old data").unwrap();
    let parent = |mode| fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    parent(0o555);
    let report = restore(&place.volume, &backup, Some(&dumped.census)).await;
    parent(0o700);
    let kept = report.unwrap().old_data_kept_as.unwrap();
    assert!(Path::new(&kept).starts_with(place.path()));
    assert_eq!(fs::read_to_string(Path::new(&kept).join("old")).unwrap(), "old data");
    assert_eq!(place.volume.census().await.unwrap(), dumped.census);
    Ok(())
}

async fn a_link_to_the_directory_stays_a_link() -> Ending {
    let place = Place::full();
    let (backup, dumped) = dump(&place.volume).await;
    let link = place.directory.path().join("link");
    std::os::unix::fs::symlink(place.path(), &link).unwrap();
    let volume = stackkit_volume::Volume::new("linked", &link);
    let options = RestoreOptions::new().with_old_data(OldData::Remove);
    let plan = volume.plan_restore(&backup, &options).await.unwrap();
    volume.restore(plan, &backup, &context(Some(&dumped.census))).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(place.volume.census().await.unwrap(), dumped.census);
    Ok(())
}
