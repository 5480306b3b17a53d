#![doc = include_str!("../README.md")]

mod archive;
mod census;
mod client;
mod column_options;
mod config;
mod connect;
mod dump;
mod error;
mod export;
mod inspect;
mod layout;
mod maintenance;
mod metrics;
mod options;
mod physical;
mod plan;
mod pooler;
mod posture;
mod prepared;
mod probe;
mod provider;
mod recover;
mod restore;
mod runner;
mod service;
mod source;
mod sql;
mod sqltext;
mod swap;
mod target;
mod tls;
mod toc;
mod tools;
mod wire;

pub use archive::Archive;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub use archive::fuzzing;
pub use config::{
    CONNECT_TIMEOUT_DEFAULT, IDENTIFIER_BYTES_MAX, LOCK_TIMEOUT_DEFAULT, PORT_DEFAULT, PostgresConfig, TlsMode,
};
pub use export::{ExportCompression, ExportFormat, ExportOptions, ExportReport, ExportTo, export};
pub use maintenance::{
    MAINTENANCE_PROGRESS_INTERVAL, MaintenanceAction, MaintenanceAudit, MaintenanceFinding, MaintenanceFindings,
    MaintenanceLimits, MaintenanceOutcome, MaintenancePlan, MaintenanceProgress, MaintenanceReport, MaintenanceStep,
    MaintenanceTask, PostgresMaintenance, RelationId,
};
pub use options::{
    Databases, Engine, Globals, JOBS_MAX_DEFAULT, Owners, PostgresDump, PostgresRestore, SPLIT_BYTES_DEFAULT, Strategy,
};
pub use physical::BaseBackup;
pub use recover::{RecoveryAction, RecoveryPlan, RecoveryPurpose, RecoveryReport, RecoveryStep, RemoveOld};
pub use runner::{DockerExec, KubectlExec, ToolCall, ToolRunner, ToolStart};
pub use service::Postgres;
pub use sqltext::{SqlReport, TrustedSql};
