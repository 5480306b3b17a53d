//! A volume with its repository beside it, for tests that need no server.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::{Outcome, files, stackctl};

/// A folder of files with its repository beside it, both gone with the value.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(volume_bytes: usize) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(site.volume()).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let per_file = volume_bytes / 8;
        for number in 0..8 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(per_file).collect();
            fs::write(site.volume().join(format!("file-{number}")), bytes).unwrap();
        }
        site
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.folder.path().join("uploads")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn args(&self, rest: &[&str]) -> Vec<String> {
        let service = format!("uploads=file://{}", self.volume().display());
        let repository = format!("file://{}", self.repository().display());
        let stack = ["--stack", "shop", "--service", &service, "--repository", &repository];
        stack.iter().chain(rest).map(|arg| (*arg).to_owned()).collect()
    }

    pub(crate) fn run(&self, rest: &[&str]) -> Outcome {
        let args = self.args(rest);
        stackctl(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn backup(&self) -> Outcome {
        self.run(&["backup", "--unencrypted"])
    }

    pub(crate) fn listed_count(&self) -> usize {
        if !self.repository().exists() {
            return 0;
        }
        let list = self.run(&["--json", "list"]).expect(0);
        list.stdout.lines().filter(|line| line.contains("\"id\"")).count()
    }

    /// The one stored artifact of the newest backup.
    pub(crate) fn artifact(&self) -> PathBuf {
        let all = files(&self.repository());
        let is_artifact = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "zst");
        all.into_iter().filter(is_artifact).max().unwrap()
    }

    pub(crate) fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        content_of(&self.volume())
    }
}

fn content_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = files(folder).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    all.sort();
    all
}
