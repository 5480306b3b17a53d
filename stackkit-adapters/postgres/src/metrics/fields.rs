//! One row of an answer, by column name.

use std::collections::BTreeMap;

use tokio_postgres::SimpleQueryRow;

/// The columns of a row that are not NULL.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    pub(crate) fn read(row: &SimpleQueryRow) -> Self {
        let column = |(index, column): (usize, &tokio_postgres::SimpleColumn)| {
            row.get(index).map(|value| (column.name().to_owned(), value.to_owned()))
        };
        Self(row.columns().iter().enumerate().filter_map(column).collect())
    }

    /// The number in a column; nothing if it is NULL, missing in this version, or no number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// The text in a column.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a column holds 1.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.number(name) == Some(1.0)
    }

    /// Takes the columns of another row over, those in `renamed` under another name.
    pub(crate) fn take(&mut self, row: &Self, renamed: &[(&str, &str)]) {
        for (name, value) in &row.0 {
            let other = renamed.iter().find(|(from, _to)| from == name).map(|(_from, to)| *to);
            self.0.insert(other.unwrap_or(name).to_owned(), value.clone());
        }
    }

    /// A row for a test.
    #[cfg(test)]
    pub(crate) fn of(values: &[(&str, &str)]) -> Self {
        Self(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The row with other values, for a test.
    #[cfg(test)]
    pub(crate) fn with(&self, values: &[(&str, &str)]) -> Self {
        let mut all = self.clone();
        all.0.extend(Self::of(values).0);
        all
    }
}

/// All rows of an answer.
pub(crate) fn read_all(rows: &[SimpleQueryRow]) -> Vec<Fields> {
    rows.iter().map(Fields::read).collect()
}
