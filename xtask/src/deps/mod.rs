//! `cargo xtask deps`: the rules on dependencies, checked on cargo's own view of the tree.

mod check;
mod licence;
mod rules;

use std::collections::BTreeSet;

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand};

use crate::output::{Result, line};
use crate::shell::{self, Run};
use check::{Faults, Package};
pub(crate) use rules::FACADE;
use rules::{MEMBERS, Member};

/// Counts are compared with limits, so they are taken for one platform wherever they are taken.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Checks every rule and prints the packages per member.
///
/// # Errors
/// With every fault found, not only the first.
pub(crate) fn run(_: &Args) -> Result {
    let metadata = metadata()?;
    let packages = packages(&metadata);
    let mut faults = Faults::default();
    check::licences(&packages, &mut faults);
    check::banned(&packages, &mut faults);
    check::rustls(&packages, &mut faults);
    check::members(&uses(&metadata), &mut faults);
    line(&format!("{:<20}{:>9}{:>7}", "member", "packages", "limit"));
    for member in MEMBERS {
        let below = below(member)?;
        line(&format!("{:<20}{:>9}{:>7}", member.name, below.len(), member.packages_max));
        check::below(member, &below, &mut faults);
    }
    line(&format!("{} packages on all platforms, licences and bans checked", packages.len()));
    faults.into_result()
}

/// The members of the workspace by name.
pub(crate) fn members() -> impl Iterator<Item = &'static str> {
    MEMBERS.iter().map(|member| member.name)
}

/// The features of the facade, without those that stand for others.
///
/// # Errors
/// If cargo can't read the workspace.
pub(crate) fn facade_features() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let facade = metadata.workspace_packages().into_iter().find(|package| package.name == FACADE);
    let features = facade.map(|package| package.features.clone()).unwrap_or_default();
    let single = features.into_iter().filter(|(name, _)| !["default", "full"].contains(&name.as_str()));
    Ok(single.map(|(name, _)| name).collect())
}

fn metadata() -> Result<Metadata> {
    let manifest = shell::root().join("Cargo.toml");
    Ok(MetadataCommand::new().manifest_path(manifest).features(CargoOpt::AllFeatures).exec()?)
}

/// Every package of the tree: all members, all features, all platforms, tests included.
fn packages(metadata: &Metadata) -> Vec<Package> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    nodes
        .map(|node| {
            let package = &metadata[&node.id];
            Package {
                name: package.name.to_string(),
                version: (package.version.major, package.version.minor),
                licence: package.license.clone(),
                features: node.features.iter().map(ToString::to_string).collect(),
            }
        })
        .collect()
}

/// For each member of the workspace, the members that it uses outside its tests.
fn uses(metadata: &Metadata) -> Vec<(String, Vec<String>)> {
    let members = metadata.workspace_packages();
    let is_member = |name: &str| members.iter().any(|member| member.name == name);
    let used = |member: &cargo_metadata::Package| {
        let dependencies =
            member.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        dependencies.map(|dependency| dependency.name.clone()).filter(|name| is_member(name)).collect()
    };
    members.iter().map(|member| (member.name.to_string(), used(member))).collect()
}

/// The packages below `member` when it is built alone, itself included, as `name version`.
fn below(member: &Member) -> Result<BTreeSet<String>> {
    let tree = Run::cargo()
        .args(["tree", "--quiet", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(["--target", PLATFORM, "--package", member.name, "--features", member.features])
        .read()?;
    let name_and_version = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().map(name_and_version).filter(|package| !package.is_empty()).collect())
}
