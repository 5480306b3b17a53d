//! The rules, as plain tables.

/// Licences that anything in the tree may have. `DESIGN.md` names who needs the rarer ones.
pub(super) const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "Unlicense",
    "MPL-2.0",
];

/// Packages that stay out of the tree: with a second crypto provider beside ring, rustls panics at the first connect.
pub(super) const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

/// Features of rustls that choose a provider other than ring.
pub(super) const BANNED_RUSTLS_FEATURES: [&str; 4] = ["aws-lc-rs", "aws_lc_rs", "fips", "prefer-post-quantum"];

/// The only `major.minor` of rustls in the tree.
pub(super) const RUSTLS: (u64, u64) = (0, 23);

/// The package that re-exports the others behind features.
pub(crate) const FACADE: &str = "stackkit";
const CORE: &str = "stackkit-core";
const DRIVERS: [&str; 3] = ["tokio-postgres", "redis", "tokio-postgres-rustls"];

/// What a member of the workspace may depend on.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: &'static str,
    /// Members that it may use, build and test dependencies of tests aside.
    pub(super) uses: &'static [&'static str],
    /// Packages that must not be below it, however deep.
    pub(super) never: &'static [&'static [&'static str]],
    /// Features for the count of packages.
    pub(super) features: &'static str,
    /// Most packages below it, itself included: normal and build dependencies on x86-64 Linux. A little above the count of the
    /// day, so that a patch release passes and a new tree of dependencies does not.
    pub(super) packages_max: usize,
}

const HTTP: &[&str] = &["axum", "hyper", "reqwest", "h2"];
const CLOUD: &[&str] = &["object_store"];
const FORMATS: &[&str] = &["zstd-sys"];

/// The direction of dependencies and the weight of each member.
pub(super) const MEMBERS: &[Member] = &[
    Member { name: CORE, uses: &[], never: &[&DRIVERS, HTTP, CLOUD, FORMATS], features: "", packages_max: 48 },
    Member {
        name: "stackkit-postgres",
        uses: &[CORE],
        never: &[&["redis"], HTTP, CLOUD],
        features: "codecs",
        packages_max: 150,
    },
    Member {
        name: "stackkit-redis",
        uses: &[CORE],
        never: &[&["tokio-postgres"], HTTP, CLOUD, FORMATS],
        features: "",
        packages_max: 100,
    },
    Member {
        name: "stackkit-volume",
        uses: &[CORE],
        never: &[&DRIVERS, HTTP, CLOUD, FORMATS],
        features: "",
        packages_max: 57,
    },
    Member {
        name: "stackkit-checks",
        uses: &[CORE],
        never: &[&DRIVERS, CLOUD, FORMATS, &["axum", "reqwest", "h2"]],
        features: "http",
        packages_max: 110,
    },
    Member {
        name: "stackkit-backup",
        uses: &[CORE],
        never: &[&DRIVERS, &["axum", "aws-sdk-s3", "age"]],
        features: "s3",
        packages_max: 178,
    },
    Member {
        name: "stackkit-http",
        uses: &[CORE],
        never: &[&DRIVERS, CLOUD, FORMATS],
        features: "grpc",
        packages_max: 100,
    },
    Member {
        name: "stackkit-fixtures",
        uses: &[CORE, "stackkit-postgres", "stackkit-redis", "stackkit-volume"],
        never: &[HTTP, CLOUD],
        features: "",
        packages_max: 166,
    },
    Member {
        name: FACADE,
        uses: &[
            CORE,
            "stackkit-postgres",
            "stackkit-redis",
            "stackkit-volume",
            "stackkit-checks",
            "stackkit-backup",
            "stackkit-http",
        ],
        never: &[],
        features: "full",
        packages_max: 240,
    },
    Member { name: "xtask", uses: &[], never: &[&DRIVERS, HTTP, CLOUD, FORMATS], features: "", packages_max: 40 },
];
