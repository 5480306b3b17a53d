//! The whole way of a backup in a bucket of a real S3 server.

use std::fs;
use std::process::Command;

use stackkit_fixtures::{BucketKind, MinioServer, minio};

use crate::keys::Keys;
use crate::site::Site;
use crate::tool::{Outcome, Test, command, finish};

/// What this file tests.
pub(crate) const TESTS: &[Test] =
    &[Test::new("a_bucket_keeps_verifies_prunes_and_restores", a_bucket_keeps_verifies_prunes_and_restores)
        .needs(&["minio"])];

/// A site whose repository is in a bucket.
struct Bucket {
    site: Site,
    server: &'static MinioServer,
    url: String,
}

impl Bucket {
    fn run(&self, rest: &[&str]) -> Outcome {
        let service = format!("uploads=file://{}", self.site.volume().display());
        let mut tool: Command = command(
            "stackctl",
            &[&["--stack", "shop", "--service", &service, "--repository", "env:REPOSITORY"], rest].concat(),
        );
        tool.env("REPOSITORY", &self.url)
            .env("AWS_ACCESS_KEY_ID", self.server.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key())
            .env("AWS_REGION", self.server.region())
            .env("AWS_ENDPOINT_URL", self.server.endpoint())
            .env("AWS_ALLOW_HTTP", "true");
        let outcome = finish(tool);
        assert!(!outcome.text().contains(self.server.secret_key()), "the secret key is shown");
        outcome
    }
}

fn a_bucket_keeps_verifies_prunes_and_restores() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (server, name) = runtime.block_on(async {
        let server = minio().await.unwrap();
        (server, server.bucket_of(BucketKind::Locking).await.unwrap())
    });
    let bucket = Bucket { site: Site::new(512 * 1024), server, url: format!("s3://{name}/backups/shop") };
    let keys = Keys::make(&bucket.site, "keys");
    let (recipient, signing_key, trust) = (keys.recipient(), keys.signing_key(), keys.trust());
    let backup = ["backup", "--recipient", &recipient, "--signing-key", &signing_key];
    bucket.run(&backup).expect(0);
    bucket.run(&[&backup[..], &["--retain-for", "2d"]].concat()).expect(0);
    let list = bucket.run(&["list", "--trust", &trust]).expect(0);
    assert_eq!(list.stdout.matches("complete").count(), 2, "{list:?}");
    let doctor = bucket.run(&["doctor", "--trust", &trust]);
    assert!(doctor.stdout.contains("put-if-absent, compare-and-swap, versioning, object lock"), "{doctor:?}");
    bucket.run(&["verify", "--trust", &trust]).expect(0);
    let identity = keys.identity();
    let read = ["--trust", &trust, "--identity", &identity];
    bucket.run(&[&["verify", "--level", "drill"], &read[..]].concat()).expect(0);
    let prune =
        ["prune", "--keep-last", "1", "--grace", "0s", "--apply", "--trust", &trust, "--signing-key", &signing_key];
    let pruned = bucket.run(&prune).expect(0);
    assert!(pruned.stdout.contains("purged, "), "{pruned:?}");
    let before = bucket.site.content();
    fs::remove_file(bucket.site.volume().join("file-5")).unwrap();
    bucket.run(&[&["restore", "--yes"], &read[..]].concat()).expect(0);
    assert_eq!(bucket.site.content(), before);
}
