use std::mem;

use super::checksum::Header;
use super::input::{Input, Stop};
use super::layout::{self, MODULE_AUX, ValueKind, Walk};
use super::{Fault, MAX_VERSION, MIN_VERSION};

/// The opcode that ends the records.
pub(super) const EOF: u8 = 255;

const SLOT_INFO: u8 = 244;
const FUNCTION: u8 = 245;
const MODULE_AUX_CODE: u8 = 247;
const IDLE: u8 = 248;
const FREQ: u8 = 249;
const AUX: u8 = 250;
const RESIZE: u8 = 251;
const EXPIRE_MS: u8 = 252;
const EXPIRE: u8 = 253;
const SELECT: u8 = 254;
/// Opcodes below this are value types, known or not.
const OPCODE_MIN: u8 = 242;
/// The checksum after the end opcode.
const CRC_BYTES: usize = 8;

/// What a record says. Slices are valid during the call only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An auxiliary field, such as `redis-ver`.
    Aux {
        /// Its name.
        name: &'a [u8],
        /// Its text.
        value: &'a [u8],
    },
    /// The keys that follow are of this database.
    Database(u64),
    /// The source of a function library.
    Function(&'a [u8]),
    /// A module's auxiliary field; its bytes are skipped.
    ModuleAux,
    /// Whose type the value or the field is that ends now, if it is a module's.
    ModuleType(ModuleType),
    /// A key; its value follows.
    Key(Key<'a>),
    /// The next bytes of the value as they stand in the file; a value has one or more of these.
    Value(&'a [u8]),
    /// The value is complete.
    KeyEnd {
        /// Its length as stored, without the type byte.
        value_bytes: u64,
    },
    /// The end opcode.
    End,
}

/// The type of a module's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleType([u8; Self::CHARS]);

impl ModuleType {
    /// How long each name is.
    const CHARS: usize = 9;
    /// What names are made of; the place of a letter is its six bits of the id.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    /// The id's lowest bits, which tell the version of the encoding (`moduleTypeEncodeId` of Redis).
    const VERSION_BITS: u32 = 10;

    fn of(id: u64) -> Self {
        let mut name = [0; Self::CHARS];
        let mut bits = id >> Self::VERSION_BITS;
        for letter in name.iter_mut().rev() {
            let place = usize::try_from(bits & 63).unwrap_or(0);
            *letter = Self::LETTERS.get(place).copied().unwrap_or(b'-');
            bits >>= 6;
        }
        Self(name)
    }

    /// Its name, such as `vectorset`: nine letters, digits, `-` and `_`.
    #[must_use]
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The head of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key<'a> {
    /// Its name, decoded.
    pub name: &'a [u8],
    /// The database that it is in.
    pub database: u64,
    /// The type byte.
    pub code: u8,
    /// What the type byte means.
    pub kind: ValueKind,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// How long it was idle, in seconds (`maxmemory-policy` of the LRU family).
    pub idle_seconds: Option<u64>,
    /// How often it was used, on the server's logarithmic scale (`maxmemory-policy` of the LFU family).
    pub frequency: Option<u8>,
}

/// What precedes a key and belongs to it.
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// At the byte that says what follows.
    Record,
    /// After an opcode, at its arguments.
    Opcode(u8),
    /// After a type byte, at the key.
    Key(u8),
    /// Inside a value, or a module's auxiliary field, which is no key.
    Value {
        key: bool,
    },
    Trailer,
    End,
}

/// Walks a file that is fed in chunks of any size. Memory: the longest key, never a value.
///
/// After an error the reader is of no more use.
#[derive(Debug)]
pub struct Reader {
    state: State,
    version: u16,
    database: u64,
    attributes: Attributes,
    walk: Walk,
    value_bytes: u64,
    /// The start of a step that the chunk cut.
    pending: Vec<u8>,
    /// How many bytes the pending step needs to go on.
    needed: usize,
    scratch: Vec<u8>,
    /// Bytes consumed, `pending` not counted.
    offset: u64,
}

impl Reader {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Header,
            version: 0,
            database: 0,
            attributes: Attributes::default(),
            walk: Walk::default(),
            value_bytes: 0,
            pending: Vec::new(),
            needed: 0,
            scratch: Vec::new(),
            offset: 0,
        }
    }

    /// The version in the header; 0 before it was read.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// Takes the next bytes and reports what they complete.
    ///
    /// # Errors
    /// Every [`Fault`] but `Truncated` and `Checksum`.
    pub fn feed(&mut self, mut chunk: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        while !chunk.is_empty() {
            if self.pending.is_empty() {
                match self.step(chunk, on) {
                    Ok(consumed) => chunk = &chunk[consumed..],
                    Err(Stop::Need(needed)) => {
                        self.needed = needed;
                        self.pending.extend_from_slice(chunk);
                        return Ok(());
                    }
                    Err(Stop::Fault(fault)) => return Err(fault.at(self.offset)),
                }
            } else {
                let (more, rest) = chunk.split_at(chunk.len().min(self.needed - self.pending.len()));
                self.pending.extend_from_slice(more);
                chunk = rest;
                if self.pending.len() == self.needed {
                    self.resume(on)?;
                }
            }
        }
        Ok(())
    }

    /// Tries the pending step again. It asks for no byte too many, so it consumes all or needs more.
    fn resume(&mut self, on: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let mut pending = mem::take(&mut self.pending);
        match self.step(&pending, on) {
            Ok(consumed) => {
                pending.drain(..consumed);
                self.needed = pending.len() + 1;
            }
            Err(Stop::Need(needed)) => self.needed = needed,
            Err(Stop::Fault(fault)) => return Err(fault.at(self.offset)),
        }
        self.pending = pending;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if it was not complete.
    pub fn finish(self) -> Result<(), Fault> {
        let offset = self.offset + u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        if self.state == State::End { Ok(()) } else { Err(Fault::Truncated { offset }) }
    }

    /// Takes one step on `bytes`, which are not empty, and returns how many of them it consumed.
    fn step(&mut self, bytes: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<usize, Stop> {
        let mut input = Input::new(bytes);
        match self.state {
            State::Header => self.header(&mut input)?,
            State::Record => self.record(&mut input, on)?,
            State::Opcode(code) => self.opcode(code, &mut input, on)?,
            State::Key(code) => self.key(code, &mut input, on)?,
            State::Value { key } => self.value(key, bytes, &mut input, on)?,
            State::Trailer => {
                input.take(CRC_BYTES)?;
                self.state = State::End;
            }
            State::End => return Err(Stop::Fault(Fault::Trailing { offset: 0 })),
        }
        self.offset += input.offset();
        Ok(input.position())
    }

    fn header(&mut self, input: &mut Input<'_>) -> Result<(), Stop> {
        let Header { version, valkey } = Header::parse(input.take(9)?).map_err(Stop::Fault)?;
        if valkey {
            return Err(Stop::Fault(Fault::Valkey { version }));
        }
        if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
            return Err(Stop::Fault(Fault::Version { version }));
        }
        self.version = version;
        self.state = State::Record;
        Ok(())
    }

    fn record(&mut self, input: &mut Input<'_>, on: &mut impl FnMut(Event<'_>)) -> Result<(), Stop> {
        let code = input.byte()?;
        let since = match code {
            SLOT_INFO => 12,
            FUNCTION => 10,
            MODULE_AUX_CODE..=SELECT | EOF => 1,
            OPCODE_MIN..EOF => u16::MAX,
            _ => layout::since_version(code).unwrap_or(u16::MAX),
        };
        let known = since <= self.version;
        self.state = match code {
            EOF => {
                on(Event::End);
                State::Trailer
            }
            OPCODE_MIN.. if known => State::Opcode(code),
            OPCODE_MIN.. => return Err(Stop::Fault(Fault::Opcode { code, version: self.version, offset: 0 })),
            _ if known => State::Key(code),
            _ => return Err(layout::unknown_type(code, self.version)),
        };
        Ok(())
    }

    fn opcode(&mut self, code: u8, input: &mut Input<'_>, on: &mut impl FnMut(Event<'_>)) -> Result<(), Stop> {
        match code {
            SELECT => {
                self.database = input.length()?;
                on(Event::Database(self.database));
            }
            EXPIRE_MS => self.attributes.expires_at_ms = Some(input.i64_le()?),
            EXPIRE => self.attributes.expires_at_ms = Some(i64::from(input.i32_le()?) * 1000),
            IDLE => self.attributes.idle_seconds = Some(input.length()?),
            FREQ => self.attributes.frequency = Some(input.byte()?),
            AUX => {
                let mut value = Vec::new();
                let name = input.string(&mut self.scratch)?;
                on(Event::Aux { name, value: input.string(&mut value)? });
            }
            FUNCTION => on(Event::Function(input.string(&mut self.scratch)?)),
            RESIZE => {
                input.length()?;
                input.length()?;
            }
            SLOT_INFO => {
                input.length()?;
                input.length()?;
                input.length()?;
            }
            _ => {
                // MODULE_AUX: no argument of its own; its pieces are walked like a value.
                on(Event::ModuleAux);
                self.walk.start(MODULE_AUX);
                self.state = State::Value { key: false };
                return Ok(());
            }
        }
        self.state = State::Record;
        Ok(())
    }

    fn key(&mut self, code: u8, input: &mut Input<'_>, on: &mut impl FnMut(Event<'_>)) -> Result<(), Stop> {
        let layout = layout::layout(code).ok_or(layout::unknown_type(code, self.version))?;
        let name = input.string(&mut self.scratch)?;
        let Attributes { expires_at_ms, idle_seconds, frequency } = mem::take(&mut self.attributes);
        let (database, kind) = (self.database, layout.kind);
        on(Event::Key(Key { name, database, code, kind, expires_at_ms, idle_seconds, frequency }));
        self.walk.start(layout.pieces);
        self.value_bytes = 0;
        self.state = State::Value { key: true };
        Ok(())
    }

    fn value(
        &mut self,
        key: bool,
        bytes: &[u8],
        input: &mut Input<'_>,
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Stop> {
        let done = self.walk.run(input)?;
        if key {
            self.value_bytes += input.offset();
            on(Event::Value(&bytes[..input.position()]));
        }
        if done {
            self.state = State::Record;
            if let Some(id) = self.walk.module_id() {
                on(Event::ModuleType(ModuleType::of(id)));
            }
            if key {
                on(Event::KeyEnd { value_bytes: self.value_bytes });
            }
        }
        Ok(())
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Fault {
    /// Turns an offset that counts from a step into one that counts from the start of the file.
    fn at(mut self, base: u64) -> Self {
        match &mut self {
            Self::Type { offset, .. }
            | Self::Opcode { offset, .. }
            | Self::Malformed { offset, .. }
            | Self::TooLarge { offset, .. }
            | Self::Trailing { offset } => *offset = offset.saturating_add(base),
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests;
