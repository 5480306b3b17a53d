//! What restores an artifact without us: a command for its plain bytes.
//!
//! Run in the order of their names, the commands put all files of a database into one folder. The table of contents has
//! the last name, so its command restores the folder.

use stackkit_core::Result;
use stackkit_core::backup::{ArtifactName, ArtifactSpec};

use crate::layout::{TOC, formats};

/// Joins the parts of large tables. `.[0-9]*` sorts as the parts do.
const JOIN: &str =
    "for part in *.dat.000; do [ ! -e \"$part\" ] || cat \"${part%.000}\".[0-9]* > \"${part%.000}\"; done";

/// The artifact `file` of the database whose artifacts begin with `prefix`.
pub(super) fn spec(prefix: &str, file: &str, format: &str) -> Result<ArtifactSpec> {
    let spec = ArtifactSpec::new(ArtifactName::new(format!("{prefix}{file}"))?, format);
    Ok(spec.with_restore_command(command(prefix, file, format)))
}

fn command(prefix: &str, file: &str, format: &str) -> String {
    let folder = format!("{prefix}DIRECTORY");
    match format {
        formats::FILES => format!("tar --extract --file=- --directory={folder}"),
        formats::SQL => "psql --dbname=postgres --file=-".to_owned(),
        formats::TOC => format!(
            "cat > {folder}/{TOC} && (cd {folder} && {JOIN}) && createdb --template=template0 {prefix}NEW_DATABASE && \
             pg_restore --exit-on-error --dbname={prefix}NEW_DATABASE {folder}"
        ),
        _ => format!("cat > {folder}/{file}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_the_last_name_restores() {
        let specs = [
            ("7.dat.000", formats::ROWS),
            ("contents.json", formats::CONTENTS),
            ("tables.000.tar", formats::FILES),
            ("toc.dat", formats::TOC),
            ("blobs_5.toc", formats::BLOBS_TOC),
        ];
        let mut specs = specs.map(|(file, format)| spec("d1.", file, format).unwrap());
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let (last, others) = specs.split_last().unwrap();
        assert!(last.restore_command.contains("pg_restore"), "{last:?}");
        assert!(others.iter().all(|other| other.restore_command.contains("d1.DIRECTORY")), "{others:?}");
    }
}
