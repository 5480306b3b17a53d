//! Probes of directories that are there, wrong or missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use stackkit_core::health::{Severity, Status, Thresholds, Tier};
use stackkit_core::{Clock, ErrorKind, HealthCheck, Observation, ProbeContext};
use stackkit_volume::Volume;

use crate::support::{Place, names};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    a_probe_measures_and_leaves_nothing,
    the_trend_goes_from_probe_to_probe,
    a_backup_that_does_not_fit_is_a_risk,
    a_foreign_owner_is_told,
    a_missing_directory_is_not_found,
    a_file_is_not_a_volume,
    a_directory_for_everybody_is_a_risk,
    an_unmounted_volume_is_found,
    a_left_over_probe_file_is_removed,
    nothing_is_written_where_nobody_writes,
    many_probes_at_once_all_answer,
];

/// Ten seconds: far more than a look at a local directory takes.
pub(crate) fn probe_context(tier: Tier) -> ProbeContext {
    ProbeContext::new(tier, Clock::system().instant() + Duration::from_secs(10))
}

async fn a_probe_measures_and_leaves_nothing() -> Ending {
    let place = Place::full();
    let before = names(place.path());
    let seen = place.volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert!(seen.value("capacity_bytes").unwrap() > 0.0);
    assert!((0.0..=1.0).contains(&seen.value("used_ratio").unwrap()));
    assert!(seen.value("write_probe_ms").unwrap() > 0.0);
    assert!(seen.info.contains_key("mount_point"));
    let seen = place.volume.probe(&probe_context(Tier::Inventory)).await.unwrap();
    assert!(seen.value("sync_probe_ms").unwrap() > 0.0);
    assert_eq!(seen.value("files_count"), Some(14.0));
    assert_eq!(names(place.path()), before);
    Ok(())
}

async fn the_trend_goes_from_probe_to_probe() -> Ending {
    let place = Place::empty();
    let first = place.volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert_eq!(first.value("time_to_full_seconds"), None);
    let available = first.value("available_bytes").unwrap();
    // As if twice as much had been free six hours ago.
    let before = Observation::new().gauge("available_average_bytes", available * 2.0);
    let now = Clock::system().instant();
    let cx = probe_context(Tier::Vitals)
        .with_previous(Some(Arc::new(before)))
        .with_previous_at(now.checked_sub(Duration::from_secs(6 * 3600)));
    let seen = place.volume.probe(&cx).await.unwrap();
    let hours = seen.value("time_to_full_seconds").unwrap() / 3600.0;
    // What e-fold is left of the difference: 1 / (1 / e) of six hours.
    assert!((14.0..19.0).contains(&hours), "{hours} h");
    let verdict = Thresholds::new().verdict(&place.volume.rules(), &seen);
    assert!(verdict.findings.iter().any(|finding| finding.code == "volume.space.filling"), "{verdict:?}");
    Ok(())
}

async fn a_backup_that_does_not_fit_is_a_risk() -> Ending {
    let place = Place::empty();
    let volume = place.volume.clone().with_expected_write(|| Some(u64::MAX));
    let seen = volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    let verdict = Thresholds::new().verdict(&volume.rules(), &seen);
    let short = verdict.findings.iter().find(|finding| finding.code == "volume.space.short").unwrap();
    assert_eq!((short.severity, verdict.ready), (Severity::Critical, Status::Healthy));
    let unknown = place.volume.clone().with_expected_write(|| None).probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert_eq!(unknown.value("expected_write_ratio"), None);
    Ok(())
}

async fn a_foreign_owner_is_told() -> Ending {
    if !rustix::process::geteuid().is_root() {
        return Err(Ignored("only root can give a directory away".to_owned()));
    }
    let place = Place::empty();
    std::os::unix::fs::chown(place.path(), Some(12_345), None).unwrap();
    assert_eq!(codes(&place.volume).await, ["volume.owner.foreign"]);
    assert_eq!(codes(&place.volume.clone().with_read_only()).await, [""; 0]);
    Ok(())
}

async fn a_missing_directory_is_not_found() -> Ending {
    let place = Place::missing();
    let error = place.volume.probe(&probe_context(Tier::Vitals)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some("volume.missing")));
    Ok(())
}

async fn a_file_is_not_a_volume() -> Ending {
    let place = Place::missing();
    fs::write(place.path(), "file").unwrap();
    let error = place.volume.probe(&probe_context(Tier::Vitals)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}

async fn codes(volume: &Volume) -> Vec<String> {
    let seen = volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    seen.findings.into_iter().map(|finding| finding.code.into_owned()).collect()
}

async fn a_directory_for_everybody_is_a_risk() -> Ending {
    let place = Place::empty();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(codes(&place.volume).await, ["volume.world_writable"]);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(codes(&place.volume).await, [""; 0]);
    Ok(())
}

async fn an_unmounted_volume_is_found() -> Ending {
    let place = Place::empty();
    assert_eq!(codes(&place.volume.clone().with_mount_required()).await, ["volume.unmounted"]);
    Ok(())
}

async fn a_left_over_probe_file_is_removed() -> Ending {
    let place = Place::empty();
    fs::write(place.path().join(".stackkit-probe"), "").unwrap();
    let seen = place.volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert!(seen.value("write_probe_ms").is_some());
    assert_eq!(names(place.path()), [""; 0]);
    Ok(())
}

async fn nothing_is_written_where_nobody_writes() -> Ending {
    let place = Place::empty();
    let volume = place.volume.clone().with_read_only();
    let seen = volume.probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert_eq!(seen.value("write_probe_ms"), None);
    let seen = volume.probe(&probe_context(Tier::Inventory)).await.unwrap();
    assert_eq!(seen.value("sync_probe_ms"), None);
    Ok(())
}

async fn many_probes_at_once_all_answer() -> Ending {
    let place = Place::empty();
    let probes = (0..50).map(|_| {
        let volume = place.volume.clone();
        tokio::spawn(async move { volume.probe(&probe_context(Tier::Vitals)).await.map(drop) })
    });
    for probe in probes.collect::<Vec<_>>() {
        probe.await.unwrap().unwrap();
    }
    Ok(())
}
