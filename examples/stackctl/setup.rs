//! From the command line to a stack.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stackkit::postgres::PostgresRestore;
use stackkit::{Error, Postgres, PostgresConfig, Result, Secret, Service, ServiceExt, ServiceId, Stack, StackEntry};

use crate::cli::Target;
use crate::cli::value::Named;
use crate::exit::{Failure, Outcome};
use crate::location::{Location, passwords};
use crate::output::Output;

/// The stack that the command line describes, with a warning for all that works and should not stay so.
///
/// # Errors
/// Usage, if there is no service, or one can't be read.
pub(crate) fn stack(target: &Target, out: &mut Output) -> Outcome<Stack> {
    stack_with(target, &[], None, out)
}

/// The same with some services somewhere else: each of `elsewhere` replaces the service of its id. PostgreSQL's are
/// restored as `postgres` says.
///
/// # Errors
/// As [`stack`]; also if one of `elsewhere` has no id.
pub(crate) fn stack_with(
    target: &Target,
    elsewhere: &[Named],
    postgres: Option<&PostgresRestore>,
    out: &mut Output,
) -> Outcome<Stack> {
    if elsewhere.iter().any(|named| named.id.is_none()) {
        return Err(Failure::usage(Error::config("--to needs the id of a service: ID=URL")));
    }
    let moved = |service: &&Arc<dyn Service>| elsewhere.iter().any(|named| named.id.as_ref() == Some(service.id()));
    let mut services = Vec::new();
    for named in &target.services {
        services.push(service(named, postgres, out).map_err(Failure::usage)?);
    }
    services.retain(|service| !moved(&service));
    for named in elsewhere {
        services.push(service(named, postgres, out).map_err(Failure::usage)?);
    }
    if services.is_empty() {
        return Err(Failure::usage(Error::config("the stack has no service: say --service [ID=]URL")));
    }
    let known = |id: &ServiceId| services.iter().any(|service| service.id() == id);
    let named = target.after.iter().map(|needs| &needs.id).chain(&target.optional);
    if let Some(unknown) = named.into_iter().find(|id| !known(id)) {
        let error = Error::config("--after or --optional names no service of the stack").with_context("id", unknown);
        return Err(Failure::usage(error));
    }
    let builder = services
        .into_iter()
        .fold(Stack::builder(target.stack_name()), |stack, service| stack.service(entry(target, service)));
    let stack = builder.build().map_err(Failure::usage)?;
    for warning in stack.warnings() {
        out.warning(&warning.to_string());
    }
    Ok(stack)
}

/// The service with what the command line says of it.
fn entry(target: &Target, service: Arc<dyn Service>) -> StackEntry {
    let needs = target.after.iter().filter(|needs| needs.id == *service.id()).flat_map(|needs| &needs.after);
    let needs: Vec<&str> = needs.map(ServiceId::as_str).collect();
    let is_optional = target.optional.contains(service.id());
    let entry = StackEntry::from(service).after(needs);
    if is_optional { entry.optional() } else { entry }
}

fn service(named: &Named, postgres: Option<&PostgresRestore>, out: &mut Output) -> Result<Arc<dyn Service>> {
    let url = url(&named.location, "--service", out)?;
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    if let Some(options) = postgres.filter(|_| is_postgres) {
        let config = PostgresConfig::from_url(url.expose())?.with_restore(options.clone());
        let service = Postgres::new(config);
        return Ok(Arc::new(named.id.iter().fold(service, |service, id| service.with_id(id.as_str()))));
    }
    match &named.id {
        Some(id) => stackkit::service_with_id(id, url.expose()).map_err(|error| error.with_service(id.clone())),
        None => stackkit::service(url.expose()),
    }
}

/// A PostgreSQL database: a service of the command line by its id, or a location.
///
/// # Errors
/// Usage, if there is no service of that id, or the URL is none of PostgreSQL.
pub(crate) fn postgres(target: &Target, wanted: &str, flag: &'static str, out: &mut Output) -> Outcome<Postgres> {
    let is_meant = |named: &&Named| named.id.as_ref().is_some_and(|id| id.as_str() == wanted);
    let (id, location) = match target.services.iter().find(is_meant) {
        Some(named) => (named.id.clone(), named.location.clone()),
        None if ServiceId::new(wanted).is_ok() => {
            let error = Error::config("the command names no service of the stack, and no URL");
            return Err(Failure::usage(error.with_context("argument", flag).with_context("id", wanted)));
        }
        None => (None, Location::from(wanted)),
    };
    let url = url(&location, flag, out).map_err(Failure::usage)?;
    let service = Postgres::new(PostgresConfig::from_url(url.expose()).map_err(Failure::usage)?);
    Ok(id.into_iter().fold(service, |service, id| service.with_id(id.as_str())))
}

/// The URL of a location, after a warning if it shows a password.
pub(crate) fn url(location: &Location, flag: &str, out: &mut Output) -> Result<Secret> {
    if location.shows_password() {
        out.warning(&format!("the password in {flag} can be read by every user of this machine; say env:NAME instead"));
    }
    let url = location.url()?;
    out.hide(passwords(url.expose()));
    Ok(url)
}

/// The repository's URL.
///
/// # Errors
/// Usage, if none was given, or its variable is not set.
pub(crate) fn repository_url(target: &Target, out: &mut Output) -> Outcome<Secret> {
    let missing = || Failure::usage(Error::config("the command needs --repository URL"));
    let location = target.repository.as_ref().ok_or_else(missing)?;
    url(location, "--repository", out).map_err(Failure::usage)
}

/// Refuses a repository inside a volume of the stack: a backup would hold the ones before it, and a restore would move
/// the repository away while it is read.
///
/// # Errors
/// Usage, naming the volume.
pub(crate) fn apart(stack: &Stack, repository: &Secret) -> Outcome<()> {
    let Some(repository) = folder(repository.expose()) else { return Ok(()) };
    let holds = |service: &&Arc<dyn Service>| {
        let path = service.endpoint().path.filter(|_| service.kind() == "volume");
        // One that does not exist holds nothing.
        let folder = path.and_then(|path| Path::new(&path).canonicalize().ok());
        folder.is_some_and(|folder| repository.starts_with(folder))
    };
    match stack.services().find(holds) {
        Some(volume) => {
            let error = Error::config("the repository lies inside the volume").with_service(volume.id().clone());
            Err(Failure::usage(error))
        }
        None => Ok(()),
    }
}

/// The folder of a repository on this machine, without symbolic links.
fn folder(url: &str) -> Option<PathBuf> {
    let path = match url.starts_with('/') {
        true => url.to_owned(),
        false => stackkit::service(url).ok()?.endpoint().path?,
    };
    // As far as it exists: a repository may be made later.
    Path::new(&path).ancestors().find_map(|path| path.canonicalize().ok())
}
