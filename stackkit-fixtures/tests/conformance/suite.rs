//! The suite finds what is wrong: a store with one defect fails the scenario that is about it, and only because of it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use libtest_mimic::Trial;
use stackkit_core::backup::{
    ArtifactInfo, ArtifactReader, ArtifactReceipt, ArtifactSink, ArtifactSource, ArtifactSpec, ArtifactWriter,
    DumpContext, DumpReport, Inspection, PointInTime, RestoreContext, RestoreOptions, RestorePlan, RestoreReport,
};
use stackkit_core::health::{Axis, Finding, Metric, Rule, Severity, Tier};
use stackkit_core::{
    BackupProvider, Census, Dump, Endpoint, Error, ErrorKind, HealthCheck, Observation, ProbeContext, Result, Secret,
    Service, ServiceId,
};
use stackkit_fixtures::MemoryStore;
use stackkit_fixtures::conformance::{
    Capability, Failure, Fault, Instance, Outcome, Seed, Target, scenario, targets, trial,
};

/// What is wrong with the store, and which scenario is about it.
const DEFECTS: &[(Defect, &str)] = &[
    (Defect::MetricWithoutUnit, "metrics_carry_units"),
    (Defect::MetricUnknown, "metrics_are_in_the_catalogue"),
    (Defect::MetricOfAnotherKind, "metrics_are_in_the_catalogue"),
    (Defect::CatalogueMissing, "metrics_are_in_the_catalogue"),
    (Defect::CatalogueWithoutHelp, "metrics_are_in_the_catalogue"),
    (Defect::RuleOfNothing, "rules_fit_the_catalogue"),
    (Defect::RuleWithoutHint, "rules_fit_the_catalogue"),
    (Defect::ForeignCode, "codes_carry_the_prefix"),
    (Defect::DroppedProbeHolds, "a_dropped_probe_does_not_delay_the_next"),
    (Defect::ConnectionsPile, "probes_hold_one_connection"),
    (Defect::WrongKind, "wrong_password_is_unauthenticated"),
    (Defect::SecretInDebug, "no_secret_in_any_output"),
    (Defect::SinkErrorIgnored, "sink_error_stops_the_dump"),
    (Defect::CensusOfNothing, "dump_counts_what_it_holds"),
    (Defect::PlanWrites, "plan_changes_nothing"),
    (Defect::PlanRenewed, "restore_refuses_a_stale_plan"),
    (Defect::PlanRenewed, "restore_refuses_a_plan_that_misses_something"),
    (Defect::CensusNotCompared, "restore_compares_the_census_before_the_old_data_goes"),
    (Defect::RestoreForgets, "dump_wipe_restore_equals_census_and_content"),
    (Defect::FailedRestoreLoses, "restore_of_damaged_bytes_keeps_the_old_data"),
    (Defect::TargetStateUnsaid, "restore_refuses_a_stale_plan"),
    (Defect::InspectLooksAway, "inspect_refuses_a_cut_artifact"),
    (Defect::InspectLooksAway, "inspect_refuses_a_foreign_format"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    MetricWithoutUnit,
    MetricUnknown,
    MetricOfAnotherKind,
    CatalogueMissing,
    CatalogueWithoutHelp,
    RuleOfNothing,
    RuleWithoutHint,
    ForeignCode,
    DroppedProbeHolds,
    ConnectionsPile,
    WrongKind,
    SecretInDebug,
    SinkErrorIgnored,
    CensusOfNothing,
    PlanWrites,
    PlanRenewed,
    CensusNotCompared,
    RestoreForgets,
    FailedRestoreLoses,
    TargetStateUnsaid,
    InspectLooksAway,
}

pub(crate) fn trials() -> Vec<Trial> {
    let row = |(defect, name): &(Defect, &'static str)| {
        let (defect, name) = (*defect, *name);
        trial(format!("suite::{name}_finds_{defect:?}"), "memory", async move || finds(defect, name).await)
    };
    DEFECTS.iter().map(row).collect()
}

async fn finds(defect: Defect, name: &str) -> Outcome {
    scenario(&targets::memory(), name).await?;
    match scenario(&DefectiveTarget(defect), name).await {
        Ok(()) => Err(Failure::Broken(format!("{name} does not find {defect:?}"))),
        Err(Failure::Broken(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

struct DefectiveTarget(Defect);

#[async_trait]
impl Target for DefectiveTarget {
    fn name(&self) -> &'static str {
        "defective"
    }

    fn capabilities(&self) -> Vec<Capability> {
        targets::memory().capabilities()
    }

    async fn instance(&self) -> Result<Box<dyn Instance>> {
        Ok(Box::new(DefectiveInstance {
            sound: targets::memory().instance().await?,
            defect: self.0,
            probes: Arc::default(),
        }))
    }
}

struct DefectiveInstance {
    sound: Box<dyn Instance>,
    defect: Defect,
    probes: Arc<AtomicU64>,
}

impl DefectiveInstance {
    fn wrap(&self, sound: Arc<dyn Service>) -> Arc<dyn Service> {
        let (probes, is_held) = (Arc::clone(&self.probes), AtomicBool::new(false));
        Arc::new(Defective { sound, secret: self.sound.password(), defect: self.defect, probes, is_held })
    }
}

#[async_trait]
impl Instance for DefectiveInstance {
    fn service(&self) -> Arc<dyn Service> {
        self.wrap(self.sound.service())
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        self.sound.faulty(fault).map(|sound| self.wrap(sound))
    }

    fn password(&self) -> Option<Secret> {
        self.sound.password()
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        self.sound.seed(seed).await
    }

    async fn change(&self) -> Result<()> {
        self.sound.change().await
    }

    async fn wipe(&self) -> Result<()> {
        self.sound.wipe().await
    }

    async fn content(&self) -> Result<String> {
        self.sound.content().await
    }

    async fn held(&self) -> Result<u64> {
        match self.defect {
            Defect::ConnectionsPile => Ok(self.probes.load(Ordering::SeqCst)),
            _ => self.sound.held().await,
        }
    }

    async fn vendor_reads(&self, artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        self.sound.vendor_reads(artifact, file).await
    }
}

struct Defective {
    sound: Arc<dyn Service>,
    secret: Option<Secret>,
    defect: Defect,
    probes: Arc<AtomicU64>,
    is_held: AtomicBool,
}

impl Defective {
    fn provider(&self) -> &dyn BackupProvider {
        self.sound.backup_provider().expect("the store in memory has one")
    }

    fn sound_check(&self) -> &dyn HealthCheck {
        self.sound.health_check().expect("the store in memory has one")
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Restores nothing over what is there.
    async fn lose_everything(&self) {
        let empty = MemoryStore::new(self.id().clone());
        let nothing = stackkit_fixtures::conformance::dump(&(Arc::new(empty) as _)).await.expect("a dump of nothing");
        stackkit_fixtures::conformance::restore(&self.sound, &nothing).await.expect("a restore of nothing");
    }
}

impl fmt::Debug for Defective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secret {
            Some(secret) if self.has(Defect::SecretInDebug) => write!(f, "{}", secret.expose()),
            _ => self.sound.fmt(f),
        }
    }
}

impl Service for Defective {
    fn id(&self) -> &ServiceId {
        self.sound.id()
    }

    fn kind(&self) -> &'static str {
        self.sound.kind()
    }

    fn endpoint(&self) -> Endpoint {
        self.sound.endpoint()
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        Some(self)
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[async_trait]
impl HealthCheck for Defective {
    async fn probe(&self, cx: &ProbeContext) -> Result<Observation> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        if self.has(Defect::DroppedProbeHolds) {
            if self.is_held.swap(true, Ordering::SeqCst) {
                tokio::time::sleep_until(cx.deadline()).await;
            }
            tokio::task::yield_now().await;
            self.is_held.store(false, Ordering::SeqCst);
        }
        let observed = self.sound_check().probe(cx).await;
        match self.defect {
            Defect::MetricWithoutUnit => observed.map(|observation| observation.gauge("objects", 1.0)),
            Defect::MetricUnknown => observed.map(|observation| observation.gauge("dreams_count", 1.0)),
            Defect::MetricOfAnotherKind => observed.map(|_| Observation::new().counter("objects_count", 1.0)),
            Defect::ForeignCode => observed.map(|observation| {
                observation.finding(Finding::new("moon.full", Axis::Risk, Severity::Info, "the moon is full"))
            }),
            Defect::WrongKind => observed.map_err(|error| error.with_kind(ErrorKind::Unreachable)),
            _ => observed,
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        const HELPLESS: &[Metric] = &[Metric::gauge("objects_count", "the map's length", "").on(Tier::Ping)];
        match self.defect {
            Defect::CatalogueMissing => &[],
            Defect::CatalogueWithoutHelp => HELPLESS,
            _ => self.sound_check().metrics(),
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let rule = match self.defect {
            Defect::RuleOfNothing => Rule::above("dreams_count", "memory.dreams.many").saying("dreams", "wake up"),
            Defect::RuleWithoutHint => Rule::above("objects_count", "memory.objects.few"),
            _ => return self.sound_check().rules(),
        };
        vec![rule.warning(1.0)]
    }
}

#[async_trait]
impl BackupProvider for Defective {
    async fn begin(&self, cx: &DumpContext) -> Result<Box<dyn Dump>> {
        let begun = self.provider().begin(cx).await?;
        Ok(Box::new(DefectiveDump { begun, defect: self.defect }))
    }

    async fn inspect(&self, artifact: &ArtifactInfo, data: ArtifactReader) -> Result<Inspection> {
        let inspected = self.provider().inspect(artifact, data).await;
        if self.has(Defect::InspectLooksAway) { inspected.or(Ok(Inspection::new(1))) } else { inspected }
    }

    async fn plan_restore(&self, source: &dyn ArtifactSource, options: &RestoreOptions) -> Result<RestorePlan> {
        if self.has(Defect::PlanWrites) {
            self.lose_everything().await;
        }
        self.provider().plan_restore(source, options).await
    }

    async fn restore(
        &self,
        mut plan: RestorePlan,
        source: &dyn ArtifactSource,
        cx: &RestoreContext,
    ) -> Result<RestoreReport> {
        if self.has(Defect::PlanRenewed) {
            plan = self.provider().plan_restore(source, &RestoreOptions::new()).await?;
        }
        let mut cx = cx.clone();
        if self.has(Defect::CensusNotCompared) {
            cx.expected = None;
        }
        let restored = self.provider().restore(plan, source, &cx).await;
        match self.defect {
            Defect::RestoreForgets => self.lose_everything().await,
            Defect::FailedRestoreLoses if restored.is_err() => self.lose_everything().await,
            Defect::TargetStateUnsaid => return restored.map_err(|error| Error::new(error.kind(), error.message())),
            _ => {}
        }
        restored
    }

    async fn census(&self) -> Result<Census> {
        self.provider().census().await
    }
}

struct DefectiveDump {
    begun: Box<dyn Dump>,
    defect: Defect,
}

#[async_trait]
impl Dump for DefectiveDump {
    fn point(&self) -> &PointInTime {
        self.begun.point()
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> Result<DumpReport> {
        let careless = CarelessSink(sink);
        let sink = if self.defect == Defect::SinkErrorIgnored { &careless } else { sink };
        let mut report = self.begun.run(sink).await?;
        if self.defect == Defect::CensusOfNothing {
            report.census = Census::new();
        }
        Ok(report)
    }
}

/// Hides the failures of writes.
struct CarelessSink<'a>(&'a dyn ArtifactSink);

struct CarelessWriter(Box<dyn ArtifactWriter>);

#[async_trait]
impl ArtifactSink for CarelessSink<'_> {
    async fn create(&self, spec: ArtifactSpec) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(CarelessWriter(self.0.create(spec).await?)))
    }
}

#[async_trait]
impl ArtifactWriter for CarelessWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.0.write(chunk).await.or(Ok(()))
    }

    async fn finish(self: Box<Self>) -> Result<ArtifactReceipt> {
        self.0.finish().await
    }
}
