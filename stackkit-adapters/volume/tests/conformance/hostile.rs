//! Archives that try to write where they must not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stackkit_core::backup::TargetState;
use stackkit_core::{BackupProvider, ErrorKind};

use crate::memory::Backup;
use crate::support::{Place, listing, restore};
use crate::{Case, Ending, cases};

pub(crate) const CASES: &[Case] = cases![
    nothing_is_written_outside,
    inspect_refuses_what_a_restore_refuses,
    no_mix_of_members_leaves_the_target,
    nothing_is_written_twice,
    unknown_formats_are_unsupported,
    devices_are_skipped_with_a_warning,
    foreign_order_keeps_modes_and_times,
];

/// A member: its name, type flag, link target, content.
pub(crate) type Member<'a> = (&'a str, u8, &'a str, &'a [u8]);

/// A plain ustar archive.
pub(crate) fn archive(members: &[Member<'_>]) -> Backup {
    let mut archive = Vec::new();
    for (name, flag, link, content) in members {
        let mut block = [0u8; 512];
        let mode = if *flag == b'5' { "0000750" } else { "0000640" };
        let size = format!("{:011o}", content.len());
        let fields: [(usize, &[u8]); 7] = [
            (0, name.as_bytes()),
            (100, mode.as_bytes()),
            (124, size.as_bytes()),
            (136, b"00000001750"),
            (148, b"        "),
            (157, link.as_bytes()),
            (257, b"ustar\x0000"),
        ];
        for (start, bytes) in fields {
            block[start..start + bytes.len()].copy_from_slice(bytes);
        }
        block[156] = *flag;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&block);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    Backup::foreign(archive)
}

pub(crate) async fn refused(members: &[Member<'_>], kind: ErrorKind) {
    let place = Place::empty();
    fs::write(place.path().join("old"), "old").unwrap();
    let outside = place.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let before = listing(place.directory.path()).await;
    let backup = archive(members);
    let error = restore(&place.volume, &backup, None).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (kind, Some(TargetState::Old)), "{members:?}: {error:?}");
    // The directory that holds the volume was written to and cleaned up, so only its own time differs.
    let without_root =
        |listing: &str| listing.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("\n");
    assert_eq!(without_root(&listing(place.directory.path()).await), without_root(&before), "{members:?}");
    assert!(!std::path::Path::new("/tmp/stackkit-evil").exists());
}

async fn nothing_is_written_outside() -> Ending {
    let cases: &[&[Member<'_>]] = &[
        &[("../evil", b'0', "", b"x")],
        &[("a/../../evil", b'0', "", b"x")],
        &[("..", b'5', "", b"")],
        &[("/tmp/stackkit-evil", b'0', "", b"x")],
        &[("out", b'2', "../outside", b""), ("out/evil", b'0', "", b"x")],
        &[("out", b'2', "/tmp", b""), ("out/stackkit-evil", b'0', "", b"x")],
        &[("out", b'2', "../outside", b""), ("out", b'5', "", b"")],
        &[("out", b'2', "../outside/secret", b""), ("out", b'0', "", b"x")],
        &[("link", b'1', "../outside/secret", b"")],
        &[("link", b'1', "/etc/passwd", b"")],
        &[("out", b'2', "../outside", b""), ("link", b'1', "out/secret", b"")],
        &[("link", b'1', "old", b"")],
        &[("dir", b'5', "", b""), ("link", b'1', "dir", b"")],
        &[("", b'0', "", b"x")],
        &[("file", b'0', "", b"x"), ("file/below", b'0', "", b"x")],
        &[(".stackkit-old-1/x", b'0', "", b"x")],
    ];
    for members in cases {
        refused(members, ErrorKind::Integrity).await;
    }
    Ok(())
}

/// Members at random, of names that mean something to each other.
async fn no_mix_of_members_leaves_the_target() -> Ending {
    const NAMES: [&str; 9] =
        ["a", "a/b", "a/b/c", "./a//b/", "b", "..", "a/../../outside/x", "b/secret", "/tmp/stackkit-evil"];
    const TARGETS: [&str; 6] = ["../outside", "a", "a/b", "../outside/secret", "/tmp", "."];
    let mut state = 7u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::from(state.to_be_bytes()[0]) % below
    };
    for _ in 0..30 {
        let members: Vec<Member<'_>> = (0..5)
            .map(|_| (NAMES[random(NAMES.len())], b"01255"[random(5)], TARGETS[random(TARGETS.len())], &b""[..]))
            .collect();
        let place = Place::missing();
        let outside = place.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let before = listing(&outside).await;
        let restored = restore(&place.volume, &archive(&members), None).await;
        assert_eq!(listing(&outside).await, before, "{members:?}");
        assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1, "{members:?}");
        assert!(!std::path::Path::new("/tmp/stackkit-evil").exists(), "{members:?}");
        assert_eq!(place.siblings(), ["outside"]);
        assert_eq!(place.path().exists(), restored.is_ok());
    }
    Ok(())
}

async fn inspect_refuses_what_a_restore_refuses() -> Ending {
    let place = Place::missing();
    for name in ["../evil", "/tmp/stackkit-evil", "a/../../evil"] {
        let backup = archive(&[(name, b'0', "", b"x")]);
        let error = place.volume.inspect(&backup.info, backup.reader()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
    }
    Ok(())
}

async fn nothing_is_written_twice() -> Ending {
    let cases: &[&[Member<'_>]] = &[
        &[("a", b'0', "", b"x"), ("./a", b'0', "", b"y")],
        &[("a", b'0', "", b"x"), ("a", b'2', "b", b"")],
        &[("a", b'0', "", b"x"), ("b", b'0', "", b"x"), ("b", b'1', "a", b"")],
        &[("a", b'5', "", b""), ("a", b'0', "", b"x")],
    ];
    for members in cases {
        refused(members, ErrorKind::Integrity).await;
    }
    Ok(())
}

async fn unknown_formats_are_unsupported() -> Ending {
    refused(&[("old-sparse", b'S', "", b"")], ErrorKind::Unsupported).await;
    refused(&[("volume", b'V', "", b"")], ErrorKind::Unsupported).await;
    Ok(())
}

async fn devices_are_skipped_with_a_warning() -> Ending {
    let place = Place::empty();
    let members: &[Member<'_>] = &[("null", b'3', "", b""), ("pipe", b'6', "", b""), ("file", b'0', "", b"x")];
    let report = restore(&place.volume, &archive(members), None).await.unwrap();
    assert_eq!(report.warnings.len(), 2);
    assert_eq!(report.census.count("files"), 1);
    Ok(())
}

async fn foreign_order_keeps_modes_and_times() -> Ending {
    let place = Place::empty();
    let members: &[Member<'_>] = &[
        ("d", b'5', "", b""),
        ("implied/deep/file", b'0', "", b"x"),
        ("d/late", b'0', "", b"x"),
        ("implied/other", b'0', "", b"x"),
        ("implied/deep", b'5', "", b""),
    ];
    restore(&place.volume, &archive(members), None).await.unwrap();
    let stat = |name: &str| fs::metadata(place.path().join(name)).unwrap();
    for name in ["d", "implied/deep", "d/late"] {
        assert_eq!(stat(name).mtime(), 0o1750, "{name}");
    }
    assert_eq!((stat("d").mode() & 0o777, stat("implied").mode() & 0o777), (0o750, 0o755));
    Ok(())
}
