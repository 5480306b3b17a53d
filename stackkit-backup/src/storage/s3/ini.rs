//! The files of the AWS tools: sections in brackets, `key = value` lines.

use std::collections::BTreeMap;
use std::fmt;

use stackkit_core::Secret;

/// What one section says. Every value is treated as a secret: some are.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Section(BTreeMap<String, Secret>);

impl Section {
    /// The value of a key, if it is there and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&Secret> {
        self.0.get(key).filter(|value| !value.is_empty())
    }

    /// The first key that begins with `start`.
    pub(super) fn key_starting_with(&self, start: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|key| key.starts_with(start))
    }

    /// Takes the keys of `other` that this section does not have.
    pub(super) fn complete_with(&mut self, other: Self) {
        for (key, value) in other.0 {
            self.0.entry(key).or_insert(value);
        }
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The sections of a file, by their names: `default`, `backup`. A section `[profile backup]`, as the configuration file
/// has it, counts as `backup`. Lines that are neither a section nor `key = value` say nothing: other tools write them.
/// Lines that are indented belong to the key above, and are not kept. A key that stands twice keeps its last value.
pub(super) fn parse(text: &str) -> BTreeMap<String, Section> {
    let mut sections = BTreeMap::new();
    let mut current: Option<&mut Section> = None;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().map(str::trim).unwrap_or_default();
            let name = match name.split_once(char::is_whitespace) {
                Some(("profile", name)) => Some(name.trim_start()),
                // `[sso-session x]` and `[services x]` are no profiles.
                Some(_) => None,
                None => Some(name),
            };
            current = name.map(|name| sections.entry(name.to_owned()).or_default());
            continue;
        }
        if let (Some(section), Some((key, value))) = (current.as_deref_mut(), line.split_once('=')) {
            section.0.insert(key.trim().to_ascii_lowercase(), Secret::new(without_comment(value)));
        }
    }
    sections
}

/// A comment begins with `#` or `;` after a space and a value; otherwise they belong to the value.
fn without_comment(value: &str) -> &str {
    let value = value.trim();
    let ends = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark));
    value[..ends.min().unwrap_or(value.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_kinds_of_files_are_read() {
        let text = "ignored = before\n\
            # a comment\n\
            [default]\n\
            aws_access_key_id=AKIA\r\n\
            AWS_Secret_Access_Key = abc#d;e/f+g=  ; told by hand\n\
            empty =\n\
            s3 =\n    endpoint_url = https://nested\n\
            just words\n\
            [profile backup]\n\
            region = eu-west-1\n\
            [sso-session x]\n\
            region = us-east-9\n\
            [ other ]\n\
            region = a\n\
            region = b\n\
            [default]\n\
            region = c\n";
        let sections = parse(text);
        let names: Vec<_> = sections.keys().map(String::as_str).collect();
        assert_eq!(names, ["backup", "default", "other"]);
        let value = |section: &str, key: &str| sections[section].get(key).map(|value| value.expose().to_owned());
        assert_eq!(value("default", "aws_access_key_id").as_deref(), Some("AKIA"));
        assert_eq!(value("default", "aws_secret_access_key").as_deref(), Some("abc#d;e/f+g="));
        assert_eq!(value("default", "empty"), None);
        assert_eq!(value("default", "endpoint_url"), None);
        assert_eq!(value("default", "region").as_deref(), Some("c"));
        assert_eq!(value("backup", "region").as_deref(), Some("eu-west-1"));
        assert_eq!(value("other", "region").as_deref(), Some("b"));
    }

    #[test]
    fn values_are_not_printed() {
        let printed = format!("{:?}", parse("[default]\naws_secret_access_key = hunter2\n"));
        assert!(printed.contains("aws_secret_access_key") && !printed.contains("hunter2"), "{printed}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(\\[|\\]|=|#|;| |\n|\r|profile |[a-z]|ü){0,200}") {
            parse(&text);
        }

        #[test]
        fn any_secret_survives(secret in "[A-Za-z0-9/+=#;]{1,60}") {
            let sections = parse(&format!("[default]\naws_secret_access_key = {secret}\n"));
            prop_assert_eq!(sections["default"].get("aws_secret_access_key").unwrap().expose(), secret.as_str());
        }
    }
}
