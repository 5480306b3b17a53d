//! Which services are backed up.

use std::sync::Arc;

use stackkit_core::{Error, ErrorKind, Result, Service};

use super::Settings;
use crate::repository::RESERVED_NAMES;

impl Settings<'_> {
    /// The services to back up.
    pub(super) fn services(&self) -> Result<Vec<Arc<dyn Service>>> {
        let services = self.chosen()?;
        match services.iter().find(|service| RESERVED_NAMES.contains(&service.id().as_str())) {
            None => Ok(services),
            Some(service) => {
                Err(Error::config("a service with this id can't be backed up: the repository uses the name")
                    .with_service(service.id().clone()))
            }
        }
    }

    fn chosen(&self) -> Result<Vec<Arc<dyn Service>>> {
        let Some(only) = &self.only else {
            let services: Vec<_> =
                self.stack.services().filter(|service| service.backup_provider().is_some()).cloned().collect();
            return match services.is_empty() {
                true => {
                    Err(Error::config("no service of the stack can be backed up")
                        .with_context("stack", self.stack.name()))
                }
                false => Ok(services),
            };
        };
        if only.is_empty() {
            return Err(Error::config("no service was chosen"));
        }
        for id in only {
            let service = self.stack.service(id).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "the stack has no such service").with_context("service", id)
            })?;
            if service.backup_provider().is_none() {
                return Err(Error::new(ErrorKind::Unsupported, "the service can't be backed up")
                    .with_service(service.id().clone()));
            }
        }
        let chosen = |service: &&Arc<dyn Service>| only.iter().any(|id| *service.id() == **id);
        Ok(self.stack.services().filter(chosen).cloned().collect())
    }
}
