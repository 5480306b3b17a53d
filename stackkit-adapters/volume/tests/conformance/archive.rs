//! GNU tar reads what is written here, and the other way round.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;

use stackkit_core::BackupProvider;
use stackkit_volume::Volume;

use crate::memory::Backup;
use crate::support::{Place, SPARSE_BYTES, dump, listing, restore, run};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    gnu_tar_extracts_the_same_tree,
    gnu_tar_finds_no_difference,
    gnu_tar_archives_of_every_format_are_restored,
    ustar_archives_are_restored,
    inspect_counts_what_the_census_counts,
    inspect_refuses_damage,
];

fn need_gnu_tar() -> Result<(), Ignored> {
    match std::path::Path::new("/usr/bin/tar").exists() || std::path::Path::new("/bin/tar").exists() {
        true => Ok(()),
        false => Err(Ignored("tar is not installed".to_owned())),
    }
}

async fn gnu_tar_extracts_the_same_tree() -> Ending {
    need_gnu_tar()?;
    let place = Place::full();
    let (backup, report) = dump(&place.volume).await;
    assert_eq!(report.warnings, [""; 0]);
    let archive = place.directory.path().join("data.tar");
    let extracted = place.directory.path().join("extracted");
    fs::write(&archive, &backup.data).unwrap();
    fs::create_dir(&extracted).unwrap();
    let args = ["-xpf".as_ref(), archive.as_os_str(), "-C".as_ref(), extracted.as_os_str()];
    let flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner"].map(OsStr::new);
    run("tar", &[&args[..], &flags].concat()).await.unwrap();
    assert_eq!(Volume::new("copy", &extracted).census().await.unwrap(), report.census);
    assert_eq!(listing(&extracted).await, listing(place.path()).await);
    assert!(fs::metadata(extracted.join("sparse")).unwrap().blocks() * 512 < SPARSE_BYTES / 8);
    Ok(())
}

async fn gnu_tar_finds_no_difference() -> Ending {
    need_gnu_tar()?;
    let place = Place::full();
    let (backup, _) = dump(&place.volume).await;
    let archive = place.directory.path().join("data.tar");
    fs::write(&archive, &backup.data).unwrap();
    let args = ["--compare".as_ref(), "--file".as_ref(), archive.as_os_str(), "-C".as_ref(), place.path().as_os_str()];
    let differences = run("tar", &args).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&differences), "");
    Ok(())
}

async fn gnu_tar_archives_of_every_format_are_restored() -> Ending {
    need_gnu_tar()?;
    for format in ["gnu", "pax", "pax --sparse --xattrs"] {
        let place = Place::full();
        let mut census = place.volume.census().await.unwrap();
        let expected = listing(place.path()).await;
        let archive = place.directory.path().join("gnu.tar");
        let flags: Vec<_> = format!("--format={format}").split(' ').map(str::to_owned).collect();
        let mut args: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        args.extend(["-cf".as_ref(), archive.as_os_str(), "-C".as_ref(), place.path().as_os_str(), ".".as_ref()]);
        run("tar", &args).await.unwrap();
        if !format.contains("xattrs") {
            census.digests.clear();
        }
        let backup = Backup::foreign(fs::read(&archive).unwrap());
        fs::remove_file(&archive).unwrap();
        restore(&place.volume, &backup, Some(&census)).await.unwrap_or_else(|error| panic!("{format}: {error:?}"));
        if format.starts_with("pax") {
            assert_eq!(listing(place.path()).await, expected, "{format}");
        }
    }
    Ok(())
}

async fn ustar_archives_are_restored() -> Ending {
    need_gnu_tar()?;
    let place = Place::empty();
    let deep = place.path().join("d".repeat(90)).join("e".repeat(90));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "leaf").unwrap();
    fs::write(place.path().join("short"), "short").unwrap();
    let census = place.volume.census().await.unwrap();
    let path = place.path().as_os_str();
    let args = ["--format=ustar".as_ref(), "-cf".as_ref(), "-".as_ref(), "-C".as_ref(), path, ".".as_ref()];
    let archive = run("tar", &args).await.unwrap();
    restore(&place.volume, &Backup::foreign(archive), Some(&census)).await.unwrap();
    Ok(())
}

async fn inspect_counts_what_the_census_counts() -> Ending {
    let place = Place::full();
    let (backup, report) = dump(&place.volume).await;
    let inspection = place.volume.inspect(&backup.info, backup.reader()).await.unwrap();
    assert_eq!(report.census.diff(&inspection.census), []);
    let entries = report.census.count("files") + report.census.count("directories") + report.census.count("symlinks");
    assert_eq!(inspection.entries, entries + 1, "the volume itself is an entry, too");
    Ok(())
}

async fn inspect_refuses_damage() -> Ending {
    let place = Place::full();
    let (mut backup, _) = dump(&place.volume).await;
    backup.data = backup.data.slice(..backup.data.len() - 600);
    let error = place.volume.inspect(&backup.info, backup.reader()).await.unwrap_err();
    assert_eq!(error.kind(), stackkit_core::ErrorKind::Integrity);
    Ok(())
}
