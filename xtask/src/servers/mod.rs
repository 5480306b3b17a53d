//! `cargo xtask servers`: the servers and tools that the tests, the demo and the benches run against.

mod go;
mod packages;
mod search;
mod table;

use clap::builder::PossibleValuesParser;

use crate::output::{Result, headline, line};
use table::{SERVERS, Server, Source, Tier};

#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Only these; the default is everything that the tests need
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(SERVERS.iter().map(|server| server.name)))]
    names: Vec<String>,
    /// Also the tools that only the benches need
    #[arg(long)]
    bench: bool,
    /// Say what would be done, do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// What the benches need.
    pub(crate) fn for_benches() -> Self {
        Self { bench: true, ..Self::default() }
    }

    fn wants(&self, server: &Server) -> bool {
        if self.names.is_empty() {
            self.bench || server.tier == Tier::Tests
        } else {
            self.names.iter().any(|name| name == server.name)
        }
    }
}

/// Installs what is missing.
///
/// # Errors
/// If something is missing and could not be installed.
pub(crate) fn run(args: &Args) -> Result {
    let missing = look(SERVERS.iter().filter(|server| args.wants(server)));
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing, args.dry_run)?;
    if args.dry_run {
        return Ok(());
    }
    headline("looking again");
    let missing = look(missing.into_iter());
    if missing.is_empty() { Ok(()) } else { Err(format!("still missing: {}", names(&missing)).into()) }
}

/// Packages first, then what is built: building may need one of them.
fn install(missing: &[&Server], dry_run: bool) -> Result {
    let mut wanted = Vec::new();
    let mut built = Vec::new();
    for server in missing {
        match &server.source {
            Source::Packages(packages) => wanted.push(packages),
            Source::Go(module) => built.push((server.name, module)),
        }
    }
    let toolchain = go::package_for(!built.is_empty());
    wanted.extend(toolchain);
    if !wanted.is_empty() {
        packages::install(&wanted, dry_run)?;
    }
    built.into_iter().try_for_each(|(name, module)| go::build(name, module, dry_run))
}

/// Prints one row for each server and returns those that are not complete.
fn look<'a>(servers: impl Iterator<Item = &'a Server>) -> Vec<&'a Server> {
    let usual = search::folders();
    let mut looked = usual.clone();
    let mut missing = Vec::new();
    for server in servers {
        let mut folders = usual.clone();
        if let Source::Go(module) = &server.source {
            // The pinned version before whatever else is there.
            folders.insert(0, go::folder(server.name, module));
        }
        let found: Vec<_> = server.binaries.iter().map(|names| (names, search::find(names, &folders))).collect();
        let absent: Vec<_> =
            found.iter().filter(|(_, path)| path.is_none()).map(|(names, _)| names.join(" or ")).collect();
        let first = found.iter().find_map(|(_, path)| path.as_deref());
        let state = match (absent.as_slice(), first) {
            ([], Some(path)) => format!("found, {}", path.display()),
            _ => format!("missing: {}", absent.join(", ")),
        };
        line(&format!("{:<12}{state} ({})", server.name, server.purpose));
        if !absent.is_empty() {
            looked.extend(folders.into_iter().filter(|folder| !usual.contains(folder)));
            missing.push(server);
        }
    }
    if !missing.is_empty() {
        let looked: Vec<_> = looked.iter().map(|folder| folder.display().to_string()).collect();
        line(&format!("looked in {}", looked.join(":")));
    }
    missing
}

fn names(servers: &[&Server]) -> String {
    servers.iter().map(|server| server.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(args: &Args) -> Vec<&'static str> {
        SERVERS.iter().filter(|server| args.wants(server)).map(|server| server.name).collect()
    }

    #[test]
    fn the_default_is_what_the_tests_need() {
        let servers = ["postgresql", "redis", "zstd", "tar", "age", "openssl", "g++", "chromium", "promtool", "minio"];
        assert_eq!(wanted(&Args::default()), servers);
        assert_eq!(wanted(&Args::for_benches()).len(), SERVERS.len());
    }

    #[test]
    fn names_choose_whatever_the_tier() {
        let args = Args { names: vec!["wrk".into(), "redis".into()], ..Args::default() };
        assert_eq!(wanted(&args), ["redis", "wrk"]);
    }
}
