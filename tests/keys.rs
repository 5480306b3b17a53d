//! Encrypted and signed backups through the tool: made without the identity, read only with it, believed only when
//! signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::site::Site;
use crate::tool::{Outcome, Test, files, shell, stackctl};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("keygen_makes_private_files_and_overwrites_none", keygen_makes_private_files_and_overwrites_none),
    Test::new("a_backup_is_made_without_the_identity_and_read_with_it", made_without_the_identity_and_read_with_it),
    Test::new("an_identity_comes_from_a_command_and_is_never_shown", an_identity_comes_from_a_command),
    Test::new("an_open_or_foreign_key_file_is_refused", an_open_or_foreign_key_file_is_refused),
    Test::new("only_what_a_trusted_key_signed_is_believed", only_what_a_trusted_key_signed_is_believed),
    Test::new("every_recipient_reads_the_backup", every_recipient_reads_the_backup),
    Test::new("an_encrypted_manifest_hides_the_census", an_encrypted_manifest_hides_the_census),
    Test::new("a_drill_tells_what_it_restored", a_drill_tells_what_it_restored),
    Test::new("a_copy_needs_no_identity_and_restores_like_the_original", a_copy_needs_no_identity),
    Test::new("a_stranger_reads_the_artifact_with_age_zstd_and_tar", a_stranger_reads_the_artifact).needs(&["age"]),
];

const VOLUME_BYTES: usize = 256 * 1024;

/// A set of keys in a folder of the site.
pub(crate) struct Keys(PathBuf);

impl Keys {
    pub(crate) fn make(site: &Site, name: &str) -> Self {
        let folder = site.folder.path().join(name);
        stackctl(&["keygen", "--out", folder.to_str().unwrap()]).expect(0);
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn identity(&self) -> String {
        self.file("identity.txt")
    }

    pub(crate) fn recipient(&self) -> String {
        self.file("recipient.txt")
    }

    pub(crate) fn signing_key(&self) -> String {
        self.file("signing.key")
    }

    pub(crate) fn trust(&self) -> String {
        self.file("trust.pem")
    }
}

fn backup(site: &Site, keys: &Keys) -> Outcome {
    site.run(&["backup", "--recipient", &keys.recipient(), "--signing-key", &keys.signing_key()])
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn keygen_makes_private_files_and_overwrites_none() {
    let site = Site::new(8);
    let folder = site.folder.path().join("keys");
    let made = stackctl(&["--json", "keygen", "--out", folder.to_str().unwrap()]).expect(0);
    let keys = Keys(folder.clone());
    let told: Value = serde_json::from_str(&made.stdout).unwrap();
    let recipient = fs::read_to_string(keys.recipient()).unwrap();
    assert_eq!(told["recipient"], recipient.trim());
    assert!(recipient.starts_with("age1"));
    assert_eq!((mode(&keys.identity()), mode(&keys.signing_key())), (0o600, 0o600));
    assert!(!made.text().contains("SECRET-KEY") && !made.text().contains("PRIVATE"), "{made:?}");

    let before = fs::read(keys.identity()).unwrap();
    fs::remove_file(keys.recipient()).unwrap();
    let again = stackctl(&["keygen", "--out", folder.to_str().unwrap()]).expect(2);
    assert!(again.stderr.contains("identity.txt"), "{again:?}");
    assert_eq!(fs::read(keys.identity()).unwrap(), before);
    assert!(!Path::new(&keys.recipient()).exists(), "half a set of other keys was written");
}

fn made_without_the_identity_and_read_with_it() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    site.run(&["backup"]).expect(2);
    assert!(!site.repository().exists());
    backup(&site, &keys).expect(0);
    let (trust, identity) = (keys.trust(), keys.identity());
    let list = site.run(&["--json", "list", "--trust", &trust]).expect(0);
    let row: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&row["state"], &row["signature"]["state"]), (&"complete".into(), &"trusted".into()));

    site.run(&["verify", "--trust", &trust]).expect(0);
    let keyless = site.run(&["verify", "--trust", &trust, "--level", "content"]).expect(2);
    assert!(keyless.stderr.contains("identity"), "{keyless:?}");
    let with_keys = ["--trust", &trust, "--identity", &identity];
    site.run(&[&["verify", "--level", "content"], &with_keys[..]].concat()).expect(0);
    let drill = site.run(&[&["verify", "--level", "drill"], &with_keys[..]].concat()).expect(0);
    assert!(drill.stdout.contains("restored"), "{drill:?}");
    site.run(&[&["verify", "--level", "content", "--sample", "today/2"], &with_keys[..]].concat()).expect(0);

    let before = site.content();
    fs::remove_file(site.volume().join("file-3")).unwrap();
    site.run(&["restore", "--trust", &trust, "--yes"]).expect(2);
    assert_eq!(site.content().len() + 1, before.len(), "a restore without the identity changed the store");
    site.run(&[&["restore", "--yes"], &with_keys[..]].concat()).expect(0);
    assert_eq!(site.content(), before);
}

fn an_identity_comes_from_a_command() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    backup(&site, &keys).expect(0);
    let content = ["verify", "--level", "content", "--trust", &keys.trust(), "--identity-command"];
    let verify = |command: &str| site.run(&[&content[..], &[command]].concat());
    verify(&format!("cat {}", keys.identity())).expect(0);
    for (command, code) in [("no-such-vault-client", 2), ("false", 2), ("echo AGE-SECRET-KEY-1CANARY", 2), ("", 2)] {
        let outcome = verify(command);
        assert!(outcome.code.is_some_and(|found| found != 0), "{command}: expected {code}: {outcome:?}");
        assert!(!outcome.text().contains("1CANARY"), "{outcome:?}");
    }
}

fn an_open_or_foreign_key_file_is_refused() {
    let site = Site::new(8);
    let (keys, others) = (Keys::make(&site, "keys"), Keys::make(&site, "others"));
    backup(&site, &keys).expect(0);
    let content = ["verify", "--level", "content", "--trust", &keys.trust(), "--identity"];
    let verify = |identity: &str| site.run(&[&content[..], &[identity]].concat());
    let foreign = verify(&others.identity());
    assert_ne!(foreign.code, Some(0), "{foreign:?}");
    for open in [keys.identity(), keys.signing_key()] {
        fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
    }
    let open = verify(&keys.identity()).expect(2);
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
    let open = backup(&site, &keys).expect(2);
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
    let secret = fs::read_to_string(others.identity()).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-")).unwrap();
    let mistaken = site.run(&["backup", "--recipient", secret]).expect(2);
    assert!(mistaken.stderr.contains("secret key"), "{mistaken:?}");
    assert!(!mistaken.stderr.contains(&secret[20..]), "a secret key that was given by mistake is repeated");
}

fn only_what_a_trusted_key_signed_is_believed() {
    let site = Site::new(VOLUME_BYTES);
    let (keys, others) = (Keys::make(&site, "keys"), Keys::make(&site, "others"));
    backup(&site, &keys).expect(0);
    site.run(&["verify", "--trust", &keys.trust()]).expect(0);
    for refused in [&["verify", "--trust", &others.trust()][..], &["verify"], &["restore", "--yes"]] {
        let outcome = site.run(refused);
        assert!(matches!(outcome.code, Some(1 | 4)), "{refused:?}: {outcome:?}");
    }
    site.run(&["verify", "--untrusted"]).expect(0);
    // Whoever can write to the repository, but has no key, adds a backup.
    let forged = site.run(&["backup", "--recipient", &keys.recipient()]).expect(0);
    let id = forged.stdout.split_whitespace().nth(1).unwrap().to_owned();
    let outcome = site.run(&["verify", &id, "--trust", &keys.trust()]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let outcome = site.run(&["restore", &id, "--yes", "--trust", &keys.trust(), "--identity", &keys.identity()]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    let list = site.run(&["list", "--trust", &keys.trust()]).expect(0);
    assert!(list.stdout.contains(&id) && list.stdout.contains("damaged"), "{list:?}");
}

fn every_recipient_reads_the_backup() {
    let site = Site::new(VOLUME_BYTES);
    let (first, second) = (Keys::make(&site, "first"), Keys::make(&site, "second"));
    let second_key = fs::read_to_string(second.recipient()).unwrap();
    site.run(&["backup", "--recipient", &first.recipient(), "--recipient", second_key.trim()]).expect(0);
    for keys in [first, second] {
        site.run(&["verify", "--level", "content", "--identity", &keys.identity()]).expect(0);
    }
}

fn an_encrypted_manifest_hides_the_census() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    fs::write(site.volume().join("file-0"), vec![7; 12_345]).unwrap();
    let args = ["backup", "--recipient", &keys.recipient(), "--signing-key", &keys.signing_key()];
    site.run(&args).expect(0);
    let shows = |site: &Site| {
        let manifests = files(&site.repository()).into_iter().filter(|path| path.ends_with("manifest.json"));
        manifests.map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    assert!(shows(&site).iter().all(|manifest| manifest.contains("\"files\": 8")), "the test would test nothing");
    fs::remove_dir_all(site.repository()).unwrap();
    site.run(&[&args[..], &["--encrypt-manifest"]].concat()).expect(0);
    let manifests = shows(&site);
    assert!(
        !manifests.is_empty() && manifests.iter().all(|manifest| !manifest.contains("\"files\": 8")),
        "{manifests:?}"
    );
    site.run(&["verify", "--trust", &keys.trust()]).expect(0);
    let before = site.content();
    fs::remove_file(site.volume().join("file-1")).unwrap();
    site.run(&["restore", "--yes", "--trust", &keys.trust(), "--identity", &keys.identity()]).expect(0);
    assert_eq!(site.content(), before);
}

fn a_drill_tells_what_it_restored() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    backup(&site, &keys).expect(0);
    let before = site.content();
    let args = ["--json", "verify", "--level", "drill", "--trust", &keys.trust(), "--identity", &keys.identity()];
    let drill = site.run(&args).expect(0);
    let report: Value = serde_json::from_str(&drill.stdout).unwrap();
    assert_eq!(report["drills"][0]["service"], "uploads", "{report}");
    assert_eq!(site.content(), before, "a drill touched the store itself");
    // Refused, because a drill restores all of a backup.
    site.run(&[&args[..], &["--sample", "1/2"]].concat()).expect(2);
}

fn a_copy_needs_no_identity() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    backup(&site, &keys).expect(0);
    backup(&site, &keys).expect(0);
    let (trust, recipient, identity) = (keys.trust(), keys.recipient(), keys.identity());
    let folder = site.folder.path().join("elsewhere");
    let elsewhere = format!("file://{}", folder.display());
    let copy = ["copy", "--to", &elsewhere, "--trust", &trust];
    site.run(&copy).expect(4);
    let made = ["--recipient", &recipient, "--signing-key", &keys.signing_key()];
    let copied = site.run(&[&copy[..], &made].concat()).expect(0);
    assert_eq!(copied.stdout.matches("copied  ").count(), 2, "{copied:?}");
    let again = site.run(&[&copy[..], &made].concat()).expect(0);
    assert_eq!(again.stdout.matches("already there").count(), 2, "{again:?}");

    fs::remove_dir_all(site.repository()).unwrap();
    fs::rename(&folder, site.repository()).unwrap();
    let before = site.content();
    fs::remove_file(site.volume().join("file-2")).unwrap();
    site.run(&["verify", "--level", "content", "--trust", &trust, "--identity", &identity]).expect(0);
    site.run(&["restore", "--yes", "--trust", &trust, "--identity", &identity]).expect(0);
    assert_eq!(site.content(), before);
}

fn a_stranger_reads_the_artifact() {
    let site = Site::new(VOLUME_BYTES);
    let keys = Keys::make(&site, "keys");
    backup(&site, &keys).expect(0);
    let artifacts: Vec<PathBuf> = files(&site.repository().join("backups"))
        .into_iter()
        .filter(|path| path.extension() == Some("age".as_ref()))
        .collect();
    let [artifact] = artifacts.as_slice() else { panic!("{artifacts:?}") };
    let pipeline = format!("age -d -i '{}' '{}' | zstd -dc | tar -t", keys.identity(), artifact.display());
    let listed = shell(&pipeline);
    for number in 0..8 {
        assert!(listed.contains(&format!("./file-{number}\n")), "{listed}");
    }
    // No frame of the volume's own bytes is readable without the identity.
    let stored = fs::read(artifact).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
}
