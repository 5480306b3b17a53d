//! `cargo xtask servers`: the servers and tools that the tests, the demo and the benches run against.

mod debian;
mod go;
mod packages;
mod place;
mod postgres;
mod search;
mod table;
mod wheel;

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

/// Packages first, then what is unpacked or built: that may need one of them.
fn install(missing: &[&Server], dry_run: bool) -> Result {
    let mut wanted = Vec::new();
    let mut built = Vec::new();
    let mut unpacked = Vec::new();
    for server in missing {
        match &server.source {
            Source::Packages(packages) => wanted.push(packages),
            Source::Go(module) => built.push((server.name, module)),
            source @ (Source::Debian(_) | Source::Wheel(_)) => unpacked.push((server.name, source)),
        }
    }
    wanted.extend(go::package_for(!built.is_empty()));
    wanted.extend(postgres::packages_for(!unpacked.is_empty()));
    if !wanted.is_empty() {
        packages::install(&wanted, dry_run)?;
    }
    unpacked.into_iter().try_for_each(|(name, source)| postgres::unpack(name, source, dry_run))?;
    built.into_iter().try_for_each(|(name, module)| go::build(name, module, dry_run))
}

/// Prints one row for each server and returns those that are not complete.
fn look<'a>(servers: impl Iterator<Item = &'a Server>) -> Vec<&'a Server> {
    let usual = search::folders();
    let mut looked = usual.clone();
    let mut missing = Vec::new();
    for server in servers {
        let folders = match &server.source {
            Source::Packages(_) => usual.clone(),
            // The pinned version before whatever else is there.
            Source::Go(module) => [vec![go::folder(server.name, module)], usual.clone()].concat(),
            // No other version.
            source @ (Source::Debian(_) | Source::Wheel(_)) => postgres::folders(server.name, source),
        };
        let found: Vec<_> = server.binaries.iter().map(|names| (names, search::find(names, &folders))).collect();
        let absent: Vec<_> =
            found.iter().filter(|(_, path)| path.is_none()).map(|(names, _)| names.join(" or ")).collect();
        let first = found.iter().find_map(|(_, path)| path.as_deref());
        let state = match (absent.as_slice(), first) {
            ([], Some(path)) => format!("found, {}", path.display()),
            _ => format!("missing: {}", absent.join(", ")),
        };
        line(&format!("{:<14}{state} ({})", server.name, server.purpose));
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
        let stores = ["postgresql", "postgresql-16", "postgresql-17", "postgresql-18", "pgbouncer", "redis"];
        let tools = ["zstd", "tar", "age", "openssl", "g++", "chromium", "promtool", "minio"];
        assert_eq!(wanted(&Args::default()), [stores.as_slice(), &tools].concat());
        assert_eq!(wanted(&Args::for_benches()).len(), SERVERS.len());
    }

    #[test]
    fn names_choose_whatever_the_tier() {
        let args = Args { names: vec!["wrk".into(), "redis".into()], ..Args::default() };
        assert_eq!(wanted(&args), ["redis", "wrk"]);
    }
}
