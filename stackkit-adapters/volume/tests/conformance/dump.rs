//! Dumps of directories that are awkward or do not stand still.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, Mode, mkfifoat};
use stackkit_core::backup::DumpContext;
use stackkit_core::{BackupProvider, ErrorKind};
use stackkit_fixtures::conformance::{MemorySink, SinkFault};

use crate::memory::Sink;
use crate::support::{Place, dump, restore};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    two_dumps_are_equal,
    the_census_is_that_of_the_directory,
    an_empty_directory_is_dumped,
    sockets_and_fifos_are_skipped_with_a_warning,
    a_file_that_shrinks_is_reported,
    a_file_that_vanishes_is_reported,
    a_file_that_never_stands_still_is_archived_whole,
    a_dropped_dump_stops_reading,
    an_unreadable_file_fails_the_dump,
    a_missing_directory_is_not_found,
    reserved_names_are_left_out,
];

async fn two_dumps_are_equal() -> Ending {
    let place = Place::full();
    let ((one, _), (other, _)) = tokio::join!(dump(&place.volume), dump(&place.volume));
    assert!(one.data == other.data);
    Ok(())
}

async fn the_census_is_that_of_the_directory() -> Ending {
    let place = Place::full();
    let (_, report) = dump(&place.volume).await;
    assert_eq!(place.volume.census().await.unwrap(), report.census);
    assert_eq!(report.census.count("symlinks"), 3);
    Ok(())
}

async fn an_empty_directory_is_dumped() -> Ending {
    let place = Place::empty();
    let (backup, report) = dump(&place.volume).await;
    assert!(report.census.counts.values().all(|count| *count == 0));
    let again = restore(&place.volume, &backup, Some(&report.census)).await.unwrap();
    assert_eq!(again.old_data_kept_as, None);
    assert_eq!(place.siblings(), [""; 0]);
    Ok(())
}

async fn sockets_and_fifos_are_skipped_with_a_warning() -> Ending {
    let place = Place::empty();
    let _socket = UnixListener::bind(place.path().join("socket")).unwrap();
    mkfifoat(CWD, place.path().join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    fs::write(place.path().join("file"), "x").unwrap();
    let (_, report) = dump(&place.volume).await;
    assert_eq!(report.warnings, ["fifo: a FIFO was skipped", "socket: a socket was skipped"]);
    assert_eq!(report.census.count("files"), 1);
    assert_eq!(place.volume.census().await.unwrap(), report.census);
    Ok(())
}

/// Larger than all buffers on the way to the sink.
const LARGE_BYTES: usize = 16 * 1024 * 1024;

async fn a_file_that_shrinks_is_reported() -> Ending {
    let place = Place::empty();
    let file = place.path().join("large");
    fs::write(&file, vec![1; LARGE_BYTES]).unwrap();
    let sink = Sink::watched(move |write| {
        if write == 1 {
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1000).unwrap();
        }
        Ok(())
    });
    let report = place.volume.begin(&DumpContext::new()).await.unwrap().run(&sink).await.unwrap();
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].starts_with("large: changed while it was read"), "{:?}", report.warnings);
    assert_eq!(report.census.count("bytes"), LARGE_BYTES as u64);
    // The archive is whole all the same, and holds what the census says.
    let backup = sink.backup().unwrap();
    restore(&place.volume, &backup, Some(&report.census)).await.unwrap();
    Ok(())
}

async fn a_file_that_vanishes_is_reported() -> Ending {
    let place = Place::empty();
    fs::write(place.path().join("large"), vec![1; LARGE_BYTES]).unwrap();
    let victim = place.path().join("victim");
    fs::write(&victim, "x").unwrap();
    let sink = Sink::watched(move |write| {
        if write == 1 {
            fs::remove_file(&victim).unwrap();
        }
        Ok(())
    });
    let report = place.volume.begin(&DumpContext::new()).await.unwrap().run(&sink).await.unwrap();
    assert_eq!(report.warnings, ["victim: vanished or changed its kind while the directory was read"]);
    assert_eq!(report.census.count("files"), 1);
    Ok(())
}

async fn a_file_that_never_stands_still_is_archived_whole() -> Ending {
    let place = Place::empty();
    let path = place.path().join("busy");
    fs::write(&path, "x").unwrap();
    let stop = Arc::new(AtomicUsize::new(0));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        for round in 0u32.. {
            if stopped.load(Ordering::SeqCst) > 0 {
                return;
            }
            let length = usize::from(round.to_le_bytes()[0]) * 400;
            fs::write(&path, vec![round.to_le_bytes()[1]; length]).unwrap();
        }
    });
    let mut dumps = Vec::new();
    for _ in 0..20 {
        dumps.push(dump(&place.volume).await);
    }
    stop.store(1, Ordering::SeqCst);
    writer.join().unwrap();
    for (backup, report) in dumps {
        let target = Place::missing();
        restore(&target.volume, &backup, Some(&report.census)).await.unwrap();
    }
    Ok(())
}

async fn a_dropped_dump_stops_reading() -> Ending {
    let place = Place::empty();
    fs::write(place.path().join("large"), vec![1; LARGE_BYTES]).unwrap();
    // The first call is `create`.
    let sink = MemorySink::new(SinkFault::StallAt(3));
    let dump = place.volume.begin(&DumpContext::new()).await.unwrap();
    tokio::select! {
        () = sink.stalled() => {}
        done = dump.run(&sink) => panic!("the sink stalls, and yet: {done:?}"),
    }
    let path = place.path().to_path_buf();
    let closed = async {
        while open_files().iter().any(|open| open.starts_with(&path)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), closed).await.expect("the files are closed");
    Ok(())
}

/// What this process holds open.
fn open_files() -> Vec<std::path::PathBuf> {
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).collect()
}

async fn an_unreadable_file_fails_the_dump() -> Ending {
    if rustix::process::geteuid().is_root() {
        return Err(Ignored("root reads every file".to_owned()));
    }
    let place = Place::empty();
    fs::write(place.path().join("secret"), "x").unwrap();
    fs::set_permissions(place.path().join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let sink = Sink::new();
    let error = place.volume.begin(&DumpContext::new()).await.unwrap().run(&sink).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.context().any(|context| context == ("path", "secret")));
    assert!(sink.backup().is_none());
    Ok(())
}

async fn a_missing_directory_is_not_found() -> Ending {
    let place = Place::missing();
    let error = place.volume.begin(&DumpContext::new()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.service().map(stackkit_core::ServiceId::as_str), Some("uploads"));
    Ok(())
}

async fn reserved_names_are_left_out() -> Ending {
    let place = Place::empty();
    fs::create_dir_all(place.path().join(".stackkit-old-1/deep")).unwrap();
    fs::create_dir_all(place.path().join("deep/.stackkit-mine")).unwrap();
    let (_, report) = dump(&place.volume).await;
    assert_eq!(report.census.count("directories"), 2);
    Ok(())
}
