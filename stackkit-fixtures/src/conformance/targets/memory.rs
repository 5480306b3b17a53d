//! The store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use stackkit_core::{Result, Secret, Service, ServiceId};

use crate::conformance::target::{Capability, Fault, Instance, Seed, Target};
use crate::conformance::targets::{LARGE_VALUE_BYTES, UNICODE, pattern};
use crate::memory::MemoryStore;

const PASSWORD: &str = "canary-of-the-store-in-memory";

/// [`MemoryStore`] as a target: the suite's own test, and an example of how to write one.
#[must_use]
pub fn memory() -> impl Target {
    MemoryTarget
}

struct MemoryTarget;

#[async_trait]
impl Target for MemoryTarget {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::Health, Capability::Backup, Capability::Password, Capability::Checksum]
    }

    async fn instance(&self) -> Result<Box<dyn Instance>> {
        Ok(Box::new(MemoryInstance(MemoryStore::with_password(ServiceId::new("memory")?, PASSWORD))))
    }
}

struct MemoryInstance(MemoryStore);

#[async_trait]
impl Instance for MemoryInstance {
    fn service(&self) -> Arc<dyn Service> {
        Arc::new(self.0.clone())
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        match fault {
            Fault::Absent => Some(Arc::new(MemoryStore::absent(self.0.id().clone()))),
            Fault::WrongPassword(wrong) => Some(Arc::new(self.0.knowing(wrong.clone()))),
            Fault::Address(_) => None,
        }
    }

    fn password(&self) -> Option<Secret> {
        Some(Secret::new(PASSWORD))
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        match seed {
            Seed::Empty => {}
            Seed::Small => {
                (0..100).for_each(|number| self.0.insert(format!("key {number}"), format!("value {number}")));
                self.0.insert("large", pattern(LARGE_VALUE_BYTES));
            }
            Seed::UnicodeAndBinary => {
                UNICODE.into_iter().for_each(|text| self.0.insert(text, text));
                self.0.insert([0, 0xFF, b'\n'], [0xFE, 0]);
                self.0.insert("", "");
            }
        }
        Ok(())
    }

    async fn change(&self) -> Result<()> {
        self.0.insert(format!("change {}", fastrand::u64(..)), "changed");
        Ok(())
    }

    async fn wipe(&self) -> Result<()> {
        self.0.clear();
        Ok(())
    }

    async fn content(&self) -> Result<String> {
        Ok(self.0.content())
    }

    async fn held(&self) -> Result<u64> {
        Ok(self.0.held())
    }
}
