//! From where on something is a finding.

use std::time::Duration;

/// From where on something is worth a finding. Every limit can be set; the defaults stay quiet on a healthy server.
///
/// ```
/// use stackkit_postgres::MaintenanceLimits;
/// let limits = MaintenanceLimits::new().with_bloat_bytes_min(1 << 30);
/// assert_eq!(limits.bloat_ratio_min, 0.3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MaintenanceLimits {
    /// Bytes that a table or index holds for nothing; 32 MiB unless set: less is not worth a lock.
    pub bloat_bytes_min: u64,
    /// Their share of the whole; 0.3 unless set: the estimate is off by a tenth, and 0.2 is what autovacuum lives with.
    pub bloat_ratio_min: f64,
    /// Rows that a table must have for its vacuum, statistics and dead rows to matter; 1000 unless set.
    pub rows_min: u64,
    /// Dead rows as a share of all; 0.3 unless set: autovacuum begins at 0.2 (`autovacuum_vacuum_scale_factor`).
    pub dead_ratio_min: f64,
    /// How long ago the last vacuum and the last analyze may be while rows change; 30 days unless set.
    pub age_max: Duration,
    /// Transactions since a table was frozen; 500 million unless set: autovacuum forces itself at 200 million
    /// (`autovacuum_freeze_max_age`), writes stop at 2.1 billion.
    pub wraparound_age_min: u64,
    /// Size from which on an index that nobody reads is told; 1 MiB unless set.
    pub unused_index_bytes_min: u64,
}

impl Default for MaintenanceLimits {
    fn default() -> Self {
        Self {
            bloat_bytes_min: 32 * 1024 * 1024,
            bloat_ratio_min: 0.3,
            rows_min: 1000,
            dead_ratio_min: 0.3,
            age_max: Duration::from_secs(30 * 24 * 3600),
            wraparound_age_min: 500_000_000,
            unused_index_bytes_min: 1024 * 1024,
        }
    }
}

impl MaintenanceLimits {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes must be held for nothing.
    #[must_use]
    pub fn with_bloat_bytes_min(mut self, bytes: u64) -> Self {
        self.bloat_bytes_min = bytes;
        self
    }

    /// Sets which share of the whole must be held for nothing, 0 to 1.
    #[must_use]
    pub fn with_bloat_ratio_min(mut self, ratio: f64) -> Self {
        self.bloat_ratio_min = ratio;
        self
    }

    /// Sets how many rows a table must have.
    #[must_use]
    pub fn with_rows_min(mut self, rows: u64) -> Self {
        self.rows_min = rows;
        self
    }

    /// Sets which share of the rows must be dead, 0 to 1.
    #[must_use]
    pub fn with_dead_ratio_min(mut self, ratio: f64) -> Self {
        self.dead_ratio_min = ratio;
        self
    }

    /// Sets how long ago vacuum and analyze may be.
    #[must_use]
    pub fn with_age_max(mut self, age: Duration) -> Self {
        self.age_max = age;
        self
    }

    /// Sets from how many transactions on the freeze of a table is due.
    #[must_use]
    pub fn with_wraparound_age_min(mut self, transactions: u64) -> Self {
        self.wraparound_age_min = transactions;
        self
    }

    /// Sets from which size on an unused index is told.
    #[must_use]
    pub fn with_unused_index_bytes_min(mut self, bytes: u64) -> Self {
        self.unused_index_bytes_min = bytes;
        self
    }
}
