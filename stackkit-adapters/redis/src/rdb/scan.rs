use std::collections::{BTreeMap, BTreeSet};

use super::layout::{self, ValueKind};
use super::reader::{Event, Key, ModuleType, Reader};
use super::{Checksum, Fault, Seal};

/// Longest text kept of one auxiliary field; a server's own are far shorter.
const AUX_BYTES_MAX: usize = 256;
/// Most auxiliary fields kept; a server writes about ten.
const AUX_COUNT_MAX: usize = 64;

/// Most types of modules kept; all modules of a server have about ten.
const MODULE_TYPES_MAX: usize = 64;

/// How many keys there are of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// All of them.
    pub keys: u64,
    /// Those that have an expiry.
    pub expiring: u64,
}

/// Keys per database and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    databases: BTreeMap<u64, [Tally; ValueKind::ALL.len()]>,
}

impl Counts {
    /// Counts one key.
    pub fn add(&mut self, database: u64, kind: ValueKind, expires: bool) {
        let tally = &mut self.databases.entry(database).or_default()[kind.index()];
        tally.keys += 1;
        tally.expiring += u64::from(expires);
    }

    /// Each database that has keys, with its tallies by kind, kinds without keys left out.
    pub fn databases(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = (ValueKind, Tally)>)> {
        self.databases.iter().map(|(number, tallies)| {
            let kinds = ValueKind::ALL.into_iter().zip(tallies.iter().copied());
            (*number, kinds.filter(|(_, tally)| tally.keys > 0))
        })
    }

    /// Whether a key is of a module's type.
    #[must_use]
    pub fn has_modules(&self) -> bool {
        self.databases.values().any(|tallies| tallies[ValueKind::Module.index()].keys > 0)
    }

    /// All keys together.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.databases.values().flatten().fold(Tally::default(), |sum, tally| Tally {
            keys: sum.keys + tally.keys,
            expiring: sum.expiring + tally.expiring,
        })
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Header, length and checksum.
    pub seal: Seal,
    /// The counts, or why they could not be taken; the bytes are whole either way.
    pub content: Result<Content, Fault>,
}

/// What a file that is understood holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// Keys per database and kind.
    pub counts: Counts,
    /// Function libraries.
    pub functions: u64,
    /// Auxiliary fields of modules.
    pub module_fields: u64,
    /// The types of the modules' values and fields.
    pub module_types: BTreeSet<ModuleType>,
    /// Auxiliary fields, `redis-ver` and `used-mem` among them.
    pub aux: BTreeMap<String, String>,
    /// The oldest version that has every type met.
    pub needs_version: u16,
    /// Length of the longest value as stored.
    pub largest_value_bytes: u64,
}

impl Content {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Key(Key { database, code, kind, expires_at_ms, .. }) => {
                self.counts.add(database, kind, expires_at_ms.is_some());
                self.needs_version = self.needs_version.max(layout::since_version(code).unwrap_or(u16::MAX));
            }
            Event::KeyEnd { value_bytes } => self.largest_value_bytes = self.largest_value_bytes.max(value_bytes),
            Event::Function(_) => self.functions += 1,
            Event::ModuleAux => self.module_fields += 1,
            Event::ModuleType(known) if self.module_types.len() < MODULE_TYPES_MAX => {
                self.module_types.insert(known);
            }
            Event::Aux { name, value } if self.aux.len() < AUX_COUNT_MAX && value.len() <= AUX_BYTES_MAX => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                self.aux.insert(text(name), text(value));
            }
            _ => {}
        }
    }
}

/// Verifies a file and counts what it holds, in one pass. A file that is not understood is still verified.
#[derive(Debug)]
pub struct Scan {
    checksum: Checksum,
    content: Content,
    /// The reader, until it met what it does not know.
    reader: Result<Reader, Fault>,
}

impl Scan {
    /// A scan at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self { checksum: Checksum::new(), content: Content::default(), reader: Ok(Reader::new()) }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// A [`Fault`] that no newer format explains: see [`Fault::is_unsupported`].
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        self.checksum.feed(chunk);
        if let Ok(reader) = &mut self.reader
            && let Err(fault) = reader.feed(chunk, &mut |event| self.content.on(event))
        {
            if !fault.is_unsupported() {
                return Err(fault);
            }
            self.reader = Err(fault);
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::Checksum`], [`Fault::Magic`].
    pub fn finish(self) -> Result<Summary, Fault> {
        let seal = self.checksum.finish()?;
        let content = match self.reader {
            Ok(reader) => {
                reader.finish()?;
                Ok(self.content)
            }
            Err(fault) => Err(fault),
        };
        Ok(Summary { seal, content })
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}
