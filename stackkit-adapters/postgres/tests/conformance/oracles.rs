//! Archives that we wrote, read by other programs' readers: libraries that know nothing of this project.

use std::collections::BTreeMap;
use std::io::Read;

use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_postgres::{Archive, ExportCompression, ExportFormat, ExportOptions, ExportTo, export};
use tokio::io::AsyncReadExt;

use crate::archives::{pg_dump, server};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![exports_are_read_by_libpgdump, exports_are_read_by_pgarchive];

/// The rows of every table, as we read them.
async fn rows(archive: &Archive) -> BTreeMap<i32, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for artifact in archive.artifacts() {
        let number = artifact.name().as_str().strip_suffix(".dat").and_then(|name| name.parse().ok());
        let Some(number) = number else { continue };
        let mut bytes = Vec::new();
        let name = ArtifactName::new(artifact.name().as_str()).expect("a name");
        archive.open(&name).await.expect("rows").read_to_end(&mut bytes).await.expect("all of them");
        rows.insert(number, bytes);
    }
    rows
}

async fn exports_are_read_by_libpgdump() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let dump = directory.path().join("shop.dump");
    pg_dump(&server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let expected = rows(&archive).await;
    let of_vendor = libpgdump::load(&dump).expect("the vendor's");
    for (at, compression) in [ExportCompression::None, ExportCompression::Gzip].into_iter().enumerate() {
        for (kind, format) in [("custom", ExportFormat::Custom), ("folder", ExportFormat::Directory)] {
            let path = directory.path().join(format!("{kind}{at}"));
            let options = ExportOptions::new(format).with_compression(compression);
            let report = export(&archive, &options, ExportTo::Path(path.clone())).await.expect("an export");
            let read = libpgdump::load(&path).unwrap_or_else(|error| panic!("{kind} {compression:?}: {error}"));
            assert_eq!(read.entries().len() as u64, report.entries, "{kind} {compression:?}");
            assert_eq!(read.dbname(), "shop");
            // Of several packed large objects in a custom archive it finds a part, in the vendor's own archives too.
            match (kind, compression) {
                ("custom", ExportCompression::Gzip) => assert_eq!(read.blobs().len(), of_vendor.blobs().len()),
                _ => assert_eq!(read.blobs().len() as u64, report.large_objects, "{kind} {compression:?}"),
            }
            for (id, bytes) in &expected {
                assert!(read.entry_data(*id) == Some(bytes.as_slice()), "{kind} {compression:?}: entry {id}");
            }
        }
    }
}

async fn exports_are_read_by_pgarchive() {
    let server = server(15).await.expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let (dump, path) = (directory.path().join("shop.dump"), directory.path().join("export"));
    pg_dump(&server, &["-Fc"], &dump).await;
    let archive = Archive::open(&dump).await.expect("an archive");
    let expected = rows(&archive).await;
    export(&archive, &ExportOptions::new(ExportFormat::Custom), ExportTo::Path(path.clone())).await.expect("an export");
    let mut file = std::fs::File::open(&path).expect("a file");
    let read = pgarchive::Archive::parse(&mut file).expect("an archive");
    assert_eq!(read.database_name, "shop");
    let mut found = 0;
    for entry in read.toc_entries.iter().filter(|entry| entry.desc == "TABLE DATA") {
        let mut bytes = Vec::new();
        read.read_data(&mut file, entry).expect("rows").read_to_end(&mut bytes).expect("all of them");
        assert!(expected.values().any(|rows| *rows == bytes), "{}", entry.tag);
        found += 1;
    }
    assert_eq!(found, expected.len());
}
