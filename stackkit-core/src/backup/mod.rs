//! The contracts of dump and restore: what a datastore offers, and what the backup engine hands to it.

mod artifact;
mod census;
mod provider;
mod restore;
mod scratch;

pub use artifact::{
    ARTIFACT_NAME_BYTES_MAX, ArtifactInfo, ArtifactName, ArtifactReader, ArtifactReceipt, ArtifactSink, ArtifactSource,
    ArtifactSpec, ArtifactWriter,
};
pub use census::{Census, CensusDifference};
pub use provider::{BackupProvider, Consistency, Dump, DumpContext, DumpReport, Inspection, PointInTime, VendorInfo};
pub use restore::{
    OldData, PlannedAction, RestoreAction, RestoreContext, RestoreOptions, RestorePlan, RestoreReport, TargetState,
};
pub use scratch::{ScratchRequest, ScratchStore, ScratchStores};
