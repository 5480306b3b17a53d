//! `/metrics`: Prometheus' text format, and OpenMetrics.

pub(crate) mod engine;
pub(crate) mod family;
pub(crate) mod name;
pub(crate) mod store;

use stackkit_core::Report;

use crate::options::Access;

pub(crate) use family::TextFormat;
pub(crate) use store::Catalogues;

/// The report as metrics. Without details there is nothing in it that a check measured or found.
pub(crate) fn render(report: &Report, catalogues: &Catalogues, format: TextFormat, access: Access) -> String {
    let mut families = family::Families::default();
    engine::put(&mut families, report, access);
    if access.is_operator() {
        store::put(&mut families, report, catalogues);
    }
    families.write(format)
}
