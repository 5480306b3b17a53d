//! `backup_label`: where recovery of a base backup starts.

use stackkit_core::{Error, Result};

use crate::physical::lsn::Lsn;

/// The longest label file that is read: a dozen short lines and a path.
pub(crate) const LABEL_BYTES_MAX: usize = 8 * 1024;

/// What the label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) start: Lsn,
    pub(crate) timeline: u32,
}

impl Label {
    /// Reads the file: `build_backup_content` in `access/transam/xlogbackup.c`.
    pub(crate) fn parse(content: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(content);
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if value("INCREMENTAL FROM LSN").is_some() {
            let message = "the backup is an incremental one; only whole base backups are read";
            return Err(Error::new(stackkit_core::ErrorKind::Unsupported, message));
        }
        let start = value("START WAL LOCATION").and_then(|rest| rest.split_whitespace().next()).and_then(Lsn::parse);
        let timeline = value("START TIMELINE").and_then(|number| number.trim().parse().ok());
        match (start, timeline) {
            (Some(start), Some(timeline)) => Ok(Self { start, timeline }),
            _ => Err(Error::integrity("backup_label does not say where recovery starts")),
        }
    }

    /// The position in words: `0/2000028 on timeline 1`.
    pub(crate) fn position(self) -> String {
        format!("{} on timeline {}", self.start, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_where_recovery_starts() {
        let text = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
            BACKUP METHOD: streamed\nLABEL: x\nSTART TIMELINE: 3\n";
        assert_eq!(Label::parse(text).expect("a label").position(), "0/2000028 on timeline 3");
        let whole = String::from_utf8_lossy(text).into_owned();
        let incremental = format!("{whole}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        let error = Label::parse(incremental.as_bytes()).expect_err("incremental");
        assert_eq!(error.kind(), stackkit_core::ErrorKind::Unsupported);
        assert!(Label::parse(b"START TIMELINE: 1\n").is_err());
        assert!(Label::parse(&[0xFF; 40]).is_err());
    }
}
