//! What was found, with the statement that mends it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::maintenance::task::{MaintenanceAction, MaintenanceTask};

/// One thing that wants maintenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceFinding {
    /// A stable code such as `pg.maintenance.table.bloat`.
    pub code: String,
    /// The table or index: schema and name, quoted.
    pub relation: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What was measured; the unit ends each name: `bloat_bytes`, `dead_ratio`, `age_transactions`.
    pub numbers: BTreeMap<String, f64>,
    /// The statement that mends it.
    pub command: String,
    /// The same as a task; nothing where only a person can decide, as to drop an index that works.
    pub task: Option<MaintenanceTask>,
}

impl MaintenanceFinding {
    /// A finding that `action` mends.
    pub(crate) fn new(code: &str, relation: &str, message: &str, action: MaintenanceAction) -> Self {
        let task = MaintenanceTask::new(action, relation);
        let command = task.to_string();
        Self { task: Some(task), ..Self::told(code, relation, message, &command) }
    }

    /// A finding whose mending is left to a person.
    pub(crate) fn told(code: &str, relation: &str, message: &str, command: &str) -> Self {
        Self {
            code: format!("pg.maintenance.{code}"),
            relation: relation.to_owned(),
            message: message.to_owned(),
            numbers: BTreeMap::new(),
            command: command.to_owned(),
            task: None,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.numbers.insert(name.to_owned(), value);
        self
    }
}

impl fmt::Display for MaintenanceFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, self.relation, self.message)?;
        let numbers: Vec<String> =
            self.numbers.iter().map(|(name, value)| format!("{name}={}", shown(*value))).collect();
        write!(f, " ({}); {}", numbers.join(", "), self.command)
    }
}

/// Whole numbers as they are, shares with two digits.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// All that was found, and what could not be looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceFindings {
    /// What wants maintenance, by code and relation.
    pub findings: Vec<MaintenanceFinding>,
    /// What the reader should know: tables whose statistics are missing or may not be read.
    pub notes: Vec<String>,
}

impl MaintenanceFindings {
    /// The findings with this code, such as `pg.maintenance.index.invalid`.
    pub fn with_code<'a>(&'a self, code: &'a str) -> impl Iterator<Item = &'a MaintenanceFinding> {
        self.findings.iter().filter(move |finding| finding.code == code)
    }
}

impl fmt::Display for MaintenanceFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_prints_its_numbers_and_its_command() {
        let finding =
            MaintenanceFinding::new("table.dead_rows", "public.t", "dead rows", MaintenanceAction::VacuumAnalyze)
                .with("dead_rows_count", 1200.0)
                .with("dead_ratio", 0.4);
        let line = "pg.maintenance.table.dead_rows: public.t: dead rows (dead_ratio=0.40, dead_rows_count=1200); \
            VACUUM (ANALYZE) public.t";
        assert_eq!(finding.to_string(), line);
        let json = serde_json::to_string(&finding).expect("JSON");
        assert_eq!(serde_json::from_str::<MaintenanceFinding>(&json).expect("a finding"), finding);
    }
}
