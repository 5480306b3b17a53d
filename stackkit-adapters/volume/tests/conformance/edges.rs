//! What is rare: attributes of read-only files, inherited access lists, dangling links, numbers at their limits.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use stackkit_core::backup::{RestoreContext, TargetState};
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_volume::Volume;

use crate::hostile::{Member, archive, refused};
use crate::support::{Place, dump, listing, names, plan, restore};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    read_only_entries_keep_their_attributes,
    access_lists_are_restored_and_not_inherited,
    a_dangling_link_is_followed,
    a_file_of_the_same_size_and_time_makes_a_plan_stale,
    records_at_their_limits,
    records_without_end_are_refused,
    a_hard_link_to_a_symbolic_link_is_one,
    the_deepest_tree_survives,
    two_restores_at_once_lose_nothing,
    a_large_hole_can_be_given_up,
];

async fn read_only_entries_keep_their_attributes() -> Ending {
    let place = Place::empty();
    let (directory, file) = (place.path().join("d"), place.path().join("d/f"));
    fs::create_dir(&directory).unwrap();
    fs::write(&file, "x").unwrap();
    for (path, mode) in [(&file, 0o444), (&directory, 0o555)] {
        setxattr(path, "user.note", b"kept", XattrFlags::empty()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = listing(place.path()).await;
    let (backup, report) = dump(&place.volume).await;
    restore(&place.volume, &backup, Some(&report.census)).await.unwrap();
    assert_eq!(listing(place.path()).await, before);
    Ok(())
}

/// A list of POSIX access rights as Linux stores it: version 2, then tag, rights and id of each line; user 1234 may
/// read and write.
fn access_list() -> Vec<u8> {
    let lines: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 6, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
    let line = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), lines.into_iter().flat_map(line).collect()].concat()
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    getxattr(path, name, &mut value[..]).ok().map(|length| value[..length].to_vec())
}

async fn access_lists_are_restored_and_not_inherited() -> Ending {
    const ACCESS: &str = "system.posix_acl_access";
    const DEFAULT: &str = "system.posix_acl_default";
    let place = Place::empty();
    fs::create_dir(place.path().join("plain")).unwrap();
    fs::write(place.path().join("plain/file"), "x").unwrap();
    fs::write(place.path().join("listed"), "x").unwrap();
    if setxattr(place.path().join("listed"), ACCESS, &access_list(), XattrFlags::empty()).is_err() {
        return Err(Ignored("the file system has no access lists".to_owned()));
    }
    let (backup, report) = dump(&place.volume).await;
    setxattr(place.directory.path(), DEFAULT, &access_list(), XattrFlags::empty()).unwrap();
    let before = listing(place.path()).await;
    restore(&place.volume, &backup, Some(&report.census)).await.unwrap();
    assert_eq!(listing(place.path()).await, before);
    assert_eq!(attribute(&place.path().join("listed"), ACCESS), Some(access_list()));
    for name in ["", "plain", "plain/file"] {
        let path = place.path().join(name);
        assert_eq!((attribute(&path, ACCESS), attribute(&path, DEFAULT)), (None, None), "{name:?}");
    }
    Ok(())
}

/// The link is how the volume is found; where it leads is where the data belongs.
async fn a_dangling_link_is_followed() -> Ending {
    let place = Place::full();
    let (backup, report) = dump(&place.volume).await;
    let other = tempfile::tempdir().unwrap();
    let real = other.path().join("real");
    for (name, target) in [("absolute", real.clone()), ("relative", PathBuf::from("absolute"))] {
        let link = other.path().join(name);
        symlink(&target, &link).unwrap();
        let volume = Volume::new("uploads", &link);
        restore(&volume, &backup, Some(&report.census)).await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::symlink_metadata(&real).unwrap().is_dir());
        assert_eq!(volume.census().await.unwrap(), report.census);
        fs::rename(&real, place.directory.path().join(name)).unwrap();
    }
    Ok(())
}

async fn a_file_of_the_same_size_and_time_makes_a_plan_stale() -> Ending {
    let place = Place::empty();
    let file = place.path().join("file");
    fs::write(&file, "old").unwrap();
    let (backup, _) = dump(&place.volume).await;
    let planned = plan(&place.volume, &backup).await;
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let other = place.directory.path().join("other");
    fs::write(&other, "new").unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
    fs::rename(&other, &file).unwrap();
    let error = place.volume.restore(planned, &backup, &RestoreContext::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    assert_eq!(fs::read(&file).unwrap(), b"new");
    Ok(())
}

/// One record of an extended header.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
    format!("{length} {key}={value}\n").into_bytes()
}

async fn records_at_their_limits() -> Ending {
    let extended = |records: &[(&str, &str)]| records.iter().flat_map(|(key, value)| record(key, value)).collect();
    for time in ["9223372036854775807", "-9223372036854775807.5", "-1.000000001", "99999999999"] {
        let records: Vec<u8> = extended(&[("mtime", time)]);
        let place = Place::empty();
        restore(&place.volume, &archive(&[("x", b'x', "", &records), ("f", b'0', "", b"x")]), None).await.unwrap();
        assert_eq!(names(place.path()), ["f"], "{time}");
    }
    let sparse = |size| {
        extended(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "f"),
            ("GNU.sparse.realsize", size),
        ])
    };
    let map = |text: &str, data: usize| {
        let mut map = text.as_bytes().to_vec();
        map.resize(512 + data, 0);
        map
    };
    let cases: [(Vec<u8>, Vec<u8>, ErrorKind); 9] = [
        (extended(&[("path", "a\0b")]), Vec::new(), ErrorKind::Integrity),
        (extended(&[("path", "../evil")]), Vec::new(), ErrorKind::Integrity),
        (extended(&[("size", "9223372036854775808")]), Vec::new(), ErrorKind::Integrity),
        (extended(&[("mtime", "9223372036854775808")]), Vec::new(), ErrorKind::Integrity),
        (sparse("100"), map("2\n0\n60\n50\n50\n", 110), ErrorKind::Integrity),
        (sparse("100"), map("1\n60\n60\n", 60), ErrorKind::Integrity),
        (sparse("100"), map("1\n0\n100\n", 60), ErrorKind::Integrity),
        (sparse("100"), map("1\n18446744073709551615\n1\n", 1), ErrorKind::Integrity),
        (sparse("9999999999999999999"), map("1\n0\n1\n", 1), ErrorKind::Integrity),
    ];
    for (records, content, kind) in &cases {
        refused(&[("x", b'x', "", records), ("f", b'0', "", content)], *kind).await;
    }
    Ok(())
}

/// Attributes that pile up: in many global headers, and many in one.
async fn records_without_end_are_refused() -> Ending {
    let value = "v".repeat(1_000_000);
    let global: Vec<_> = (0..12).map(|number| record(&format!("SCHILY.xattr.user.a{number}"), &value)).collect();
    let mut members: Vec<Member<'_>> = global.iter().map(|records| ("g", b'g', "", &records[..])).collect();
    members.push(("f", b'0', "", b"x"));
    refused(&members, ErrorKind::Unsupported).await;
    let many: Vec<u8> = (0..200_000).flat_map(|number| record(&format!("SCHILY.xattr.user.{number}"), "")).collect();
    let members: &[Member<'_>] = &[("x", b'x', "", &many), ("f", b'0', "", b"x")];
    let refusal = refused(members, ErrorKind::Unsupported);
    tokio::time::timeout(Duration::from_secs(20), refusal).await.expect("the time grows with the size only");
    Ok(())
}

async fn a_hard_link_to_a_symbolic_link_is_one() -> Ending {
    let place = Place::empty();
    let members: &[Member<'_>] = &[("l", b'2', "nowhere", b""), ("h", b'1', "l", b"")];
    restore(&place.volume, &archive(members), None).await.unwrap();
    assert_eq!(fs::read_link(place.path().join("h")).unwrap(), Path::new("nowhere"));
    assert_eq!(fs::symlink_metadata(place.path().join("h")).unwrap().nlink(), 2);
    Ok(())
}

async fn the_deepest_tree_survives() -> Ending {
    let place = Place::empty();
    // The volume itself is the first level; the names are short, so that the whole path is one.
    let deepest = place.path().join("d/".repeat(511));
    fs::create_dir_all(&deepest).unwrap();
    fs::write(deepest.join("leaf"), "leaf").unwrap();
    let (backup, report) = dump(&place.volume).await;
    place.wipe();
    restore(&place.volume, &backup, Some(&report.census)).await.unwrap();
    fs::create_dir(deepest.join("d")).unwrap();
    assert_eq!(place.volume.census().await.unwrap_err().kind(), ErrorKind::Unsupported);
    Ok(())
}

async fn two_restores_at_once_lose_nothing() -> Ending {
    let place = Place::full();
    let (backup, report) = dump(&place.volume).await;
    fs::write(place.path().join("only-here"), "old").unwrap();
    let planned = plan(&place.volume, &backup).await;
    let cx = RestoreContext::new().with_expected(report.census.clone());
    let (one, two) = tokio::join!(
        place.volume.restore(planned.clone(), &backup, &cx),
        place.volume.restore(planned.clone(), &backup, &cx)
    );
    assert_eq!(place.volume.census().await.unwrap(), report.census);
    let kept: Vec<_> = [one, two].into_iter().flatten().filter_map(|report| report.old_data_kept_as).collect();
    assert!(kept.iter().any(|kept| Path::new(kept).join("only-here").exists()), "{kept:?}");
    assert_eq!(place.siblings().len(), kept.len());
    Ok(())
}

/// A hole costs no bytes, but time to hash: nobody has to wait for the end of it.
async fn a_large_hole_can_be_given_up() -> Ending {
    let place = Place::empty();
    fs::File::create(place.path().join("hole")).unwrap().set_len(1 << 42).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let volume = place.volume.clone();
    let census = runtime.spawn(async move { tokio::time::timeout(Duration::from_millis(200), volume.census()).await });
    census.await.unwrap().expect_err("four terabytes take minutes");
    let ended = tokio::task::spawn_blocking(move || drop(runtime));
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the thread stops").unwrap();
    Ok(())
}
