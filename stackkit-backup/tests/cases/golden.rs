//! Repositories that version 1 wrote. Their files are never edited: whatever comes later restores them.

use std::path::{Path, PathBuf};

use stackkit_backup::{Identity, Repository, RepositoryOptions, SigningKey, VerifyLevel};
use stackkit_core::Secret;
use stackkit_core::backup::RestoreOptions;

use crate::support::shelf::Shelf;
use crate::support::{FRAME, files, stack_of, text};

/// Where this directory is set, the golden repositories are made there. Only for a new version of the format.
const MAKE: &str = "STACKKIT_MAKE_GOLDEN";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// What was backed up: nothing, one byte, text, and more than a frame.
fn shelf() -> Shelf {
    let zeros = vec![0; FRAME + 1];
    Shelf::new("books").with("empty", "").with("one", "1").with("titles", text(3000, 7)).with("zeros", zeros)
}

struct Keys {
    identity: Identity,
    signing: SigningKey,
}

impl Keys {
    fn read(directory: &Path) -> Self {
        let text = |name: &str| Secret::new(std::fs::read_to_string(directory.join(name)).unwrap());
        Self {
            identity: Identity::parse(&text("identity.txt")).unwrap(),
            signing: SigningKey::from_pem(&text("signing.key")).unwrap(),
        }
    }

    fn make(directory: &Path) -> Self {
        let keys = Self { identity: Identity::generate().unwrap(), signing: SigningKey::generate().unwrap() };
        std::fs::write(directory.join("identity.txt"), keys.identity.to_file_text().expose()).unwrap();
        std::fs::write(directory.join("signing.key"), keys.signing.to_pem().expose()).unwrap();
        keys
    }

    fn options(&self, name: &str) -> RepositoryOptions {
        let encrypted = RepositoryOptions::new().encrypt_to(self.identity.recipients().remove(0));
        let encrypted = encrypted.sign_with(self.signing.clone());
        match name {
            "plain" => RepositoryOptions::new().unencrypted(),
            "sealed" => encrypted.encrypt_manifest(),
            _ => encrypted,
        }
    }
}

const NAMES: [&str; 3] = ["plain", "encrypted", "sealed"];

async fn make(directory: &Path) {
    let keys = Keys::make(directory);
    for name in NAMES {
        let place = directory.join(name);
        let repository = Repository::open_or_create(place.to_str().unwrap(), keys.options(name)).await.unwrap();
        let stack = stack_of([shelf()]);
        repository.backup(&stack).with_tag("first").run().await.unwrap();
        stack.clock().advance(std::time::Duration::from_secs(3600));
        repository.backup(&stack).with_tag("second").with_label("the second").run().await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

pub(crate) async fn repositories_of_version_1_stay_restorable() {
    if let Some(directory) = std::env::var_os(MAKE) {
        return make(Path::new(&directory)).await;
    }
    let keys = Keys::read(&golden());
    for name in NAMES {
        // A restore takes a lease, and a verify leaves evidence: neither belongs into a golden file.
        let directory = tempfile::tempdir().unwrap();
        copy(&golden().join(name), directory.path());
        let options = RepositoryOptions::new().with_identity(keys.identity.clone());
        let options = if name == "plain" { options } else { options.trust(keys.signing.trusted()) };
        let repository = Repository::open(directory.path().to_str().unwrap(), options).await.unwrap();
        let entries = repository.list().await.unwrap();
        assert_eq!(entries.len(), 2, "{name}");
        for entry in entries {
            assert!(entry.is_complete(), "{name}: {entry}");
            let (target, expected) = (Shelf::new("books"), shelf().items());
            let stack = stack_of([target.clone()]);
            let report = repository.verify_with(&entry.id, VerifyLevel::Content, &stack).await.unwrap();
            assert!(report.is_ok(), "{name}: {report}");
            let plan = repository.plan_restore(&entry.id, &stack, &RestoreOptions::new()).await.unwrap();
            repository.apply_restore(plan, &stack).await.unwrap();
            assert_eq!(target.items(), expected, "{name}");
        }
        assert!(repository.check_chain("shop", None).await.unwrap().findings.is_empty(), "{name}");
    }
}
