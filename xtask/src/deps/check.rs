//! The checks: pure functions over what cargo reported.

use std::collections::BTreeSet;

use super::licence;
use super::rules::{BANNED, BANNED_RUSTLS_FEATURES, LICENCES, MEMBERS, Member, RUSTLS};
use crate::output::Result;

/// A package of the tree.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Major and minor.
    pub(super) version: (u64, u64),
    pub(super) licence: Option<String>,
    /// The features that are on.
    pub(super) features: Vec<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, fault: String) {
        self.0.push(fault);
    }

    /// # Errors
    /// If there are any, with all of them.
    pub(super) fn into_result(self) -> Result {
        if self.0.is_empty() { Ok(()) } else { Err(self.0.join("\n  ").into()) }
    }
}

pub(super) fn licences(packages: &[Package], faults: &mut Faults) {
    for package in packages {
        let expression = package.licence.as_deref().unwrap_or_default();
        if !licence::is_met(expression, |licence| LICENCES.contains(&licence)) {
            faults.add(format!("{}: licence `{expression}` is not on the list", package.name));
        }
    }
}

pub(super) fn banned(packages: &[Package], faults: &mut Faults) {
    for package in packages.iter().filter(|package| BANNED.contains(&package.name.as_str())) {
        faults.add(format!(
            "{} is banned: `cargo tree --all-features --target all -i {0}` says who brings it",
            package.name
        ));
    }
}

/// Exactly one rustls, with ring as its only provider.
pub(super) fn rustls(packages: &[Package], faults: &mut Faults) {
    let found: Vec<_> = packages.iter().filter(|package| package.name == "rustls").collect();
    let [rustls] = found.as_slice() else {
        faults.add(format!("{} versions of rustls in the tree, there must be one", found.len()));
        return;
    };
    if rustls.version != RUSTLS {
        faults.add(format!(
            "rustls {}.{} in the tree, not {}.{}",
            rustls.version.0, rustls.version.1, RUSTLS.0, RUSTLS.1
        ));
    }
    if !rustls.features.iter().any(|feature| feature == "ring") {
        faults.add("rustls has no provider: its feature `ring` is off".into());
    }
    for feature in rustls.features.iter().filter(|feature| BANNED_RUSTLS_FEATURES.contains(&feature.as_str())) {
        faults.add(format!("rustls has a second provider: its feature `{feature}` is on"));
    }
}

/// `uses` lists, for each member of the workspace, the members that it uses.
pub(super) fn members(uses: &[(String, Vec<String>)], faults: &mut Faults) {
    for (name, used) in uses {
        let Some(member) = MEMBERS.iter().find(|member| member.name == name) else {
            faults.add(format!("{name} has no row in the table of members"));
            continue;
        };
        for other in used.iter().filter(|other| !member.uses.contains(&other.as_str())) {
            faults.add(format!("{name} must not depend on {other}"));
        }
    }
}

/// `below` lists the packages below `member` as `name version`.
pub(super) fn below(member: &Member, below: &BTreeSet<String>, faults: &mut Faults) {
    if below.len() > member.packages_max {
        faults.add(format!("{} builds {} packages, its limit is {}", member.name, below.len(), member.packages_max));
    }
    let names = below.iter().filter_map(|package| package.split(' ').next());
    for name in names.filter(|name| member.never.iter().any(|group| group.contains(name))) {
        faults.add(format!("{name} must not be below {}", member.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: (u64, u64), licence: &str, features: &[&str]) -> Package {
        let features = features.iter().map(ToString::to_string).collect();
        Package { name: name.into(), version, licence: Some(licence.into()), features }
    }

    fn found(check: impl FnOnce(&mut Faults)) -> Vec<String> {
        let mut faults = Faults::default();
        check(&mut faults);
        faults.0
    }

    #[test]
    fn a_licence_that_is_not_on_the_list_or_absent_is_a_fault() {
        let mut packages = vec![package("a", (1, 0), "MIT OR GPL-3.0", &[]), package("b", (1, 0), "GPL-3.0", &[])];
        packages.push(Package { licence: None, ..package("c", (1, 0), "", &[]) });
        let faults = found(|faults| licences(&packages, faults));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("b:") && faults[1].starts_with("c:"));
    }

    #[test]
    fn a_banned_package_is_a_fault() {
        assert_eq!(found(|faults| banned(&[package("native-tls", (0, 2), "MIT", &[])], faults)).len(), 1);
    }

    #[test]
    fn rustls_is_one_with_ring_only() {
        let good = || package("rustls", RUSTLS, "MIT", &["ring", "std", "tls12"]);
        assert!(found(|faults| rustls(&[good()], faults)).is_empty());
        assert_eq!(
            found(|faults| rustls(&[good(), package("rustls", (0, 21), "MIT", &[])], faults)).len(),
            1,
            "two of them"
        );
        assert_eq!(found(|faults| rustls(&[], faults)).len(), 1, "none");
        assert_eq!(found(|faults| rustls(&[package("rustls", (0, 21), "MIT", &["ring"])], faults)).len(), 1, "too old");
        assert_eq!(
            found(|faults| rustls(&[package("rustls", RUSTLS, "MIT", &["std"])], faults)).len(),
            1,
            "no provider"
        );
        let both = package("rustls", RUSTLS, "MIT", &["ring", "aws_lc_rs"]);
        assert_eq!(found(|faults| rustls(&[both], faults)).len(), 1, "two providers");
    }

    #[test]
    fn adapters_know_neither_each_other_nor_the_engine() {
        let uses = |name: &str, used: &[&str]| vec![(name.to_owned(), used.iter().map(ToString::to_string).collect())];
        assert!(found(|faults| members(&uses("stackkit-redis", &["stackkit-core"]), faults)).is_empty());
        let wrong = uses("stackkit-redis", &["stackkit-backup", "stackkit-postgres"]);
        assert_eq!(found(|faults| members(&wrong, faults)).len(), 2);
        assert_eq!(found(|faults| members(&uses("stackkit-unknown", &[]), faults)).len(), 1);
    }

    #[test]
    fn weight_and_layering_are_limits() {
        let core = MEMBERS.iter().find(|member| member.name == "stackkit-core").unwrap();
        let light = BTreeSet::from(["stackkit-core v0.1.0".to_owned(), "bytes v1.12.0".to_owned()]);
        assert!(found(|faults| below(core, &light, faults)).is_empty());
        let layered = BTreeSet::from(["redis v1.8.1".to_owned()]);
        assert_eq!(found(|faults| below(core, &layered, faults)).len(), 1);
        let heavy = (0..=core.packages_max).map(|n| format!("p{n} v1.0.0")).collect();
        assert_eq!(found(|faults| below(core, &heavy, faults)).len(), 1);
    }
}
