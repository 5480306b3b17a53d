//! A finished backup, as a value and as a table.

use std::collections::BTreeMap;
use std::fmt;

use stackkit_core::Census;

use crate::id::BackupId;
use crate::manifest::{Manifest, ServiceRecord, Status};

/// A backup that exists. `Display` prints a table: a row for each service, with the name of its artifact or how many it
/// has, then the spread of the barrier. The artifacts are in the [`manifest`](Self::manifest).
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    manifest: Manifest,
}

impl Backup {
    pub(crate) fn new(manifest: Manifest) -> Self {
        Self { manifest }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &BackupId {
        &self.manifest.id
    }

    /// Its manifest, as it was written.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a service is missing.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.manifest.status == Status::Partial
    }
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        let status = if self.is_partial() { "partial backup" } else { "backup" };
        writeln!(f, "{status} {} of {}", manifest.id, manifest.stack)?;
        let mut rows = vec![["service", "artifacts", "plain", "stored", "ratio", "rate", "holds"].map(str::to_owned)];
        rows.extend(manifest.services.iter().filter_map(row));
        table(f, &rows)?;
        write!(f, "points in time within {} ms", manifest.consistency.spread_ms)?;
        let warnings = manifest.services.iter().flat_map(|service| service.warnings.iter().map(|w| (&service.id, w)));
        warnings.into_iter().try_for_each(|(service, warning)| write!(f, "\nwarning: {service}: {warning}"))
    }
}

/// A service in one line, however many artifacts it has: a database may have hundreds. None for one that neither failed
/// nor has any.
fn row(service: &ServiceRecord) -> Option<[String; 7]> {
    if let Some(failure) = &service.error {
        return Some([service.id.as_str(), "-", "-", "-", "-", "-", &failure.message].map(str::to_owned));
    }
    let artifacts = match service.artifacts.as_slice() {
        [] => return None,
        [only] => only.spec.name.to_string(),
        several => several.len().to_string(),
    };
    let plain_bytes = service.artifacts.iter().map(|artifact| artifact.plain.bytes).sum();
    let stored_bytes = service.artifacts.iter().map(|artifact| artifact.stored.bytes).sum();
    Some([
        service.id.to_string(),
        artifacts,
        format_bytes(plain_bytes),
        format_bytes(stored_bytes),
        ratio(plain_bytes, stored_bytes),
        // Artifacts may be written side by side: the dump's own time counts.
        rate(plain_bytes, service.run_ms),
        service.census.as_ref().map(|census| summary(&census.value)).unwrap_or_default(),
    ])
}

/// Prints rows with their columns aligned; the first row is the header.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(f, "  {}", line.trim_end())?;
    }
    Ok(())
}

/// A census in a few words: what there is, counts added up by the first part of their names, or by the last where all agree on it.
fn summary(census: &Census) -> String {
    let mut groups: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for (name, count) in census.counts.iter().filter(|(_, count)| **count > 0) {
        let (first, last) = (name.split('.').next().unwrap_or(name), name.rsplit('.').next().unwrap_or(name));
        let group = groups.entry(first).or_insert((0, Some(last)));
        group.0 = group.0.saturating_add(*count);
        group.1 = group.1.filter(|same| *same == last && !last.starts_with(|c: char| c.is_ascii_digit()));
    }
    let words = groups.iter().map(|(first, (count, last))| format!("{count} {}", last.unwrap_or(first)));
    words.collect::<Vec<_>>().join(", ")
}

fn ratio(plain_bytes: u64, stored_bytes: u64) -> String {
    match stored_bytes {
        0 => "-".to_owned(),
        stored => {
            let tenths = u128::from(plain_bytes) * 10 / u128::from(stored);
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    }
}

fn rate(plain_bytes: u64, elapsed_ms: u64) -> String {
    let per_second = u128::from(plain_bytes) * 1000 / u128::from(elapsed_ms.max(1));
    format!("{}/s", format_bytes(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

/// A size for people: `512 B`, `1.5 KiB`, `2.0 GiB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for larger in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (2 << 30, "2.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }

    #[test]
    fn a_census_is_told_in_words() {
        let census = Census::new()
            .with_count("tables.public.a.rows", 2)
            .with_count("tables.public.b.rows", 3)
            .with_count("keys.0", 4)
            .with_count("keys.1", 5)
            .with_count("files", 6)
            .with_count("symlinks", 0);
        assert_eq!(summary(&census), "6 files, 9 keys, 5 rows");
    }
}
