//! What the project runs against, and what the package managers call it.

/// When a tool is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// By the test command and the demo.
    Tests,
    /// By the benches only, as a peer or a load generator.
    Bench,
}

/// A server or a tool.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) tier: Tier,
    pub(crate) purpose: &'static str,
    /// Each entry lists names that serve equally; one of them must be found for every entry.
    pub(crate) binaries: &'static [&'static [&'static str]],
    pub(crate) source: Source,
}

/// Where a server comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The system's package manager. No version is pinned: the tests run against what the system ships.
    Packages(Packages),
    /// Built from source by Go, in a pinned version, because Debian has no package of it.
    Go(GoModule),
}

/// What the package managers call it.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) debian: &'static [&'static str],
    pub(crate) brew: &'static str,
    pub(crate) dnf: &'static str,
    pub(crate) pacman: &'static str,
}

/// A program in the Go module proxy; Go's checksum database vouches for every byte of it.
#[derive(Debug)]
pub(crate) struct GoModule {
    pub(crate) module: &'static str,
    pub(crate) version: &'static str,
    /// The toolchain that its `go.mod` names.
    pub(crate) toolchain: &'static str,
}

/// All of them.
pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "postgresql",
        tier: Tier::Tests,
        purpose: "server and client tools of PostgreSQL",
        binaries: &[&["initdb"], &["postgres"], &["pg_dump"], &["pg_restore"], &["psql"]],
        source: Source::Packages(Packages {
            debian: &["postgresql", "postgresql-client"],
            brew: "postgresql@17",
            dnf: "postgresql-server",
            pacman: "postgresql",
        }),
    },
    Server {
        name: "redis",
        tier: Tier::Tests,
        purpose: "server and client tools of Redis",
        binaries: &[
            &["redis-server", "valkey-server"],
            &["redis-cli", "valkey-cli"],
            &["redis-check-rdb", "valkey-check-rdb"],
        ],
        source: Source::Packages(Packages {
            debian: &["redis-server", "redis-tools"],
            brew: "redis",
            dnf: "redis",
            pacman: "valkey",
        }),
    },
    Server {
        name: "zstd",
        tier: Tier::Tests,
        purpose: "reads the repository without stackkit",
        binaries: &[&["zstd"]],
        source: Source::Packages(Packages { debian: &["zstd"], brew: "zstd", dnf: "zstd", pacman: "zstd" }),
    },
    Server {
        name: "tar",
        tier: Tier::Tests,
        purpose: "reads a volume's artifact without stackkit",
        binaries: &[&["tar", "gtar"]],
        source: Source::Packages(Packages { debian: &["tar"], brew: "gnu-tar", dnf: "tar", pacman: "tar" }),
    },
    Server {
        name: "age",
        tier: Tier::Tests,
        purpose: "decrypts the repository without stackkit",
        binaries: &[&["age"], &["age-keygen"]],
        source: Source::Packages(Packages { debian: &["age"], brew: "age", dnf: "age", pacman: "age" }),
    },
    Server {
        name: "openssl",
        tier: Tier::Tests,
        purpose: "checks a signature without stackkit",
        binaries: &[&["openssl"]],
        source: Source::Packages(Packages { debian: &["openssl"], brew: "openssl", dnf: "openssl", pacman: "openssl" }),
    },
    Server {
        name: "g++",
        tier: Tier::Tests,
        purpose: "compiles libFuzzer for the fuzz targets",
        binaries: &[&["c++", "g++", "clang++"]],
        source: Source::Packages(Packages { debian: &["g++"], brew: "gcc", dnf: "gcc-c++", pacman: "gcc" }),
    },
    Server {
        name: "chromium",
        tier: Tier::Tests,
        purpose: "shows the status page as people see it",
        binaries: &[&["chromium", "chromium-browser", "google-chrome"], &["chromedriver"]],
        source: Source::Packages(Packages {
            debian: &["chromium", "chromium-driver"],
            brew: "chromium chromedriver",
            dnf: "chromium chromedriver",
            pacman: "chromium",
        }),
    },
    Server {
        name: "promtool",
        tier: Tier::Tests,
        purpose: "reads metrics and alert rules as Prometheus does",
        binaries: &[&["promtool"]],
        source: Source::Packages(Packages {
            debian: &["prometheus"],
            brew: "prometheus",
            dnf: "golang-github-prometheus",
            pacman: "prometheus",
        }),
    },
    Server {
        name: "minio",
        tier: Tier::Tests,
        purpose: "S3 server",
        binaries: &[&["minio"]],
        source: Source::Go(GoModule {
            module: "github.com/minio/minio",
            version: "v0.0.0-20260212201848-7aac2a2c5b7c",
            toolchain: "1.24.8",
        }),
    },
    Server {
        name: "restic",
        tier: Tier::Bench,
        purpose: "peer of the pipeline bench",
        binaries: &[&["restic"]],
        source: Source::Packages(Packages { debian: &["restic"], brew: "restic", dnf: "restic", pacman: "restic" }),
    },
    Server {
        name: "wrk",
        tier: Tier::Bench,
        purpose: "load for the health bench",
        binaries: &[&["wrk"]],
        source: Source::Packages(Packages { debian: &["wrk"], brew: "wrk", dnf: "wrk", pacman: "wrk" }),
    },
];
