//! Probes of directories that are there, wrong or missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use stackkit_core::health::Tier;
use stackkit_core::{Clock, ErrorKind, HealthCheck, ProbeContext};
use stackkit_volume::Volume;

use crate::support::{Place, names};
use crate::{Case, Ending, cases};

pub(crate) const CASES: &[Case] = cases![
    a_probe_measures_and_leaves_nothing,
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
    let seen = place.volume.probe(&probe_context(Tier::Inventory)).await.unwrap();
    assert!(seen.value("capacity_bytes").unwrap() > 0.0);
    assert!((0.0..=1.0).contains(&seen.value("used_ratio").unwrap()));
    assert!(seen.value("write_probe_ms").unwrap() > 0.0);
    assert_eq!(seen.value("files_count"), Some(14.0));
    assert!(seen.info.contains_key("mount_point"));
    assert_eq!(names(place.path()), before);
    for measurement in &seen.measurements {
        let unit = measurement.name.rsplit('_').next().unwrap();
        assert!(["bytes", "ratio", "count", "ms", "bool"].contains(&unit), "{}", measurement.name);
    }
    Ok(())
}

async fn a_missing_directory_is_not_found() -> Ending {
    let place = Place::missing();
    let error = place.volume.probe(&probe_context(Tier::Ping)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, Some("volume.missing")));
    Ok(())
}

async fn a_file_is_not_a_volume() -> Ending {
    let place = Place::missing();
    fs::write(place.path(), "file").unwrap();
    let error = place.volume.probe(&probe_context(Tier::Ping)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}

async fn codes(volume: &Volume) -> Vec<String> {
    let seen = volume.probe(&probe_context(Tier::Ping)).await.unwrap();
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
    assert!(seen.measurements.iter().all(|measurement| measurement.name != "write_probe_ms"));
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
