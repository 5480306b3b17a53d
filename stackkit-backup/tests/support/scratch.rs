//! Shelves as scratch stores for drills; counts what is open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stackkit_core::backup::{ScratchRequest, ScratchStore, ScratchStores};
use stackkit_core::{Error, ErrorKind, Result, Service};

use super::shelf::{Fault, Shelf};

/// Makes empty shelves, with a fault perhaps.
#[derive(Debug, Default)]
pub(crate) struct Shelves {
    pub(crate) fault: Option<Fault>,
    pub(crate) open: Arc<AtomicUsize>,
    /// All that were ever made.
    pub(crate) made: Mutex<Vec<Shelf>>,
}

impl Shelves {
    pub(crate) fn with_fault(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn restores(&self) -> usize {
        self.made.lock().unwrap().iter().map(|shelf| shelf.content.restores.load(Ordering::SeqCst)).sum()
    }
}

#[async_trait]
impl ScratchStores for Shelves {
    async fn open(&self, request: &ScratchRequest) -> Result<Box<dyn ScratchStore>> {
        if request.kind != "shelf" {
            return Err(Error::new(ErrorKind::Unsupported, "there are only shelves here"));
        }
        let mut shelf = Shelf::new(request.service.as_str());
        if let Some(fault) = self.fault {
            shelf = shelf.with_fault(fault);
        }
        self.made.lock().unwrap().push(shelf.clone());
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Opened { shelf, open: Open(Arc::clone(&self.open)) }))
    }
}

struct Opened {
    shelf: Shelf,
    open: Open,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ScratchStore for Opened {
    fn service(&self) -> Arc<dyn Service> {
        Arc::new(self.shelf.clone())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        drop(self.open);
        Ok(())
    }
}
