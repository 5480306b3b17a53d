//! The example programs, run as a user runs them.

use crate::tool::{Test, command, finish};

/// What this file tests.
pub(crate) const TESTS: &[Test] = &[
    Test::new("the_quickstart_runs_without_any_server", the_quickstart_runs_without_any_server),
    Test::new("the_demo_brings_three_real_stores_back", the_demo_brings_three_real_stores_back)
        .needs(&["postgres", "redis"]),
    Test::new("a_datastore_of_ones_own_is_probed", a_datastore_of_ones_own_is_probed),
];

fn the_quickstart_runs_without_any_server() {
    let outcome = finish(command("quickstart", &[])).expect(0);
    assert!(outcome.stdout.contains("every file, mode and byte is back: 2000 files"), "{}", outcome.stdout);
}

fn the_demo_brings_three_real_stores_back() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let outcome = finish(command("demo", &[repository.to_str().unwrap()])).expect(0);
    for line in ["/readyz says 503", "/readyz says 200", "every count and content hash is as before"] {
        assert!(outcome.stdout.contains(line), "{line} is missing in:\n{}", outcome.stdout);
    }
    assert!(repository.join("stackkit.json").exists());
}

fn a_datastore_of_ones_own_is_probed() {
    finish(command("custom_service", &[])).expect(0);
}
