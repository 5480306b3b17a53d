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
    pub(crate) debian: &'static [&'static str],
    pub(crate) brew: &'static str,
    pub(crate) dnf: &'static str,
    pub(crate) pacman: &'static str,
}

/// All of them. No version is pinned: the tests run against what the system ships.
pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "postgresql",
        tier: Tier::Tests,
        purpose: "server and client tools of PostgreSQL",
        binaries: &[&["initdb"], &["postgres"], &["pg_dump"], &["pg_restore"], &["psql"]],
        debian: &["postgresql", "postgresql-client"],
        brew: "postgresql@17",
        dnf: "postgresql-server",
        pacman: "postgresql",
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
        debian: &["redis-server", "redis-tools"],
        brew: "redis",
        dnf: "redis",
        pacman: "valkey",
    },
    Server {
        name: "zstd",
        tier: Tier::Tests,
        purpose: "reads the repository without stackkit",
        binaries: &[&["zstd"]],
        debian: &["zstd"],
        brew: "zstd",
        dnf: "zstd",
        pacman: "zstd",
    },
    Server {
        name: "tar",
        tier: Tier::Tests,
        purpose: "reads a volume's artifact without stackkit",
        binaries: &[&["tar", "gtar"]],
        debian: &["tar"],
        brew: "gnu-tar",
        dnf: "tar",
        pacman: "tar",
    },
    Server {
        name: "restic",
        tier: Tier::Bench,
        purpose: "peer of the pipeline bench",
        binaries: &[&["restic"]],
        debian: &["restic"],
        brew: "restic",
        dnf: "restic",
        pacman: "restic",
    },
    Server {
        name: "wrk",
        tier: Tier::Bench,
        purpose: "load for the health bench",
        binaries: &[&["wrk"]],
        debian: &["wrk"],
        brew: "wrk",
        dnf: "wrk",
        pacman: "wrk",
    },
];
