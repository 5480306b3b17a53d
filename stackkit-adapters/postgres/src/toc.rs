//! What an archive holds in sum, learned from the entries of its table of contents. Pure.

use stackkit_core::Census;

use crate::archive::{Entry, Header};

/// What was learned.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: Header,
    /// Entries by kind.
    pub(crate) kinds: Census,
    /// The extensions that it creates.
    pub(crate) extensions: Vec<String>,
    /// The roles that own something, sorted.
    pub(crate) owners: Vec<String>,
    /// The statement that creates the database.
    pub(crate) create_database: Option<String>,
    /// Whether it carries settings, grants or a comment of the database itself.
    pub(crate) has_database_properties: bool,
}

impl Contents {
    fn new(header: Header) -> Self {
        Self {
            header,
            kinds: Census::new(),
            extensions: Vec::new(),
            owners: Vec::new(),
            create_database: None,
            has_database_properties: false,
        }
    }

    /// What a whole table of contents tells.
    pub(crate) fn of<'a>(header: &Header, entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut contents = Self::new(header.clone());
        entries.for_each(|entry| contents.note(entry));
        contents
    }

    /// Adds an entry.
    pub(crate) fn note(&mut self, entry: &Entry) {
        self.kinds.add(&format!("entries.{}", entry.kind.to_lowercase().replace(' ', "_")), 1);
        if !entry.owner.is_empty()
            && !is_of_server(entry)
            && let Err(place) = self.owners.binary_search(&entry.owner)
        {
            self.owners.insert(place, entry.owner.clone());
        }
        match entry.kind.as_str() {
            "EXTENSION" => self.extensions.push(entry.tag.clone()),
            "DATABASE" => self.create_database = Some(entry.definition.clone()),
            "DATABASE PROPERTIES" => self.has_database_properties = true,
            "ACL" | "COMMENT" if entry.tag.starts_with("DATABASE ") => self.has_database_properties = true,
            _ => {}
        }
    }

    /// What follows the name in the statement that creates the database: template, encoding and locale.
    pub(crate) fn database_options(&self) -> Option<&str> {
        let statement = self.create_database.as_deref()?.trim().trim_end_matches(';');
        statement.rfind(" WITH TEMPLATE = ").map(|at| &statement[at..])
    }
}

/// Whether an entry is about what every new database has, and belongs to who set the server up as a rule: the schema
/// `public`, an extension's or language's comment, and the database itself.
pub(crate) fn is_of_server(entry: &Entry) -> bool {
    let tag = entry.tag.as_str();
    let is_of_all = matches!(tag, "SCHEMA public" | "LANGUAGE plpgsql") || tag.starts_with("DATABASE ");
    match entry.kind.as_str() {
        "DATABASE" | "DATABASE PROPERTIES" => true,
        "SCHEMA" => tag == "public",
        "ACL" => is_of_all,
        "COMMENT" => is_of_all || tag.starts_with("EXTENSION "),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::samples;

    #[test]
    fn entries_are_summed_up() {
        let (header, _) = crate::archive::header(&samples::header(14, 2)).expect("a header").expect("all of it");
        let of =
            |kind| crate::archive::entry(&header, &samples::entry(14, kind)).expect("an entry").expect("all of it").0;
        let entries = [of("TABLE"), of("EXTENSION")];
        let contents = Contents::of(&header, entries.iter());
        assert_eq!(contents.kinds.count("entries.table"), 1);
        assert_eq!((contents.extensions, contents.owners), (vec!["orders".to_owned()], vec!["app".to_owned()]));
    }
}
