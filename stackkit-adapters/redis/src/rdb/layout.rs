use super::Fault;
use super::input::{Input, Stop};

/// What a value is to a client: the reply of `TYPE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueKind {
    /// `string`
    String,
    /// `list`
    List,
    /// `set`
    Set,
    /// `zset`
    Zset,
    /// `hash`
    Hash,
    /// `stream`
    Stream,
    /// A module's own type, whatever its name.
    Module,
}

impl ValueKind {
    /// Its place in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Every kind, in the order of the enum.
    pub const ALL: [Self; 7] =
        [Self::String, Self::List, Self::Set, Self::Zset, Self::Hash, Self::Stream, Self::Module];

    /// The word that `TYPE` answers; `module` for a module's type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        }
    }
}

/// One piece of a value. A layout is a list of them; together they are a grammar that [`Walk`] interprets, so that a
/// value can be left and re-entered at any byte.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// This many bytes as they are.
    Raw(u64),
    /// A length.
    Len,
    /// A string in any encoding.
    Str,
    /// One byte of length and that much text, or 253 to 255 alone: a score in the old sorted set.
    Score,
    /// A count, and the pieces that often.
    Many(&'static [Self]),
    /// The id of a module's type, which names it.
    ModuleId,
    /// A module's own serialisation, up to its end mark.
    Module,
}

use Piece::{Len, Many, Module, ModuleId, Raw, Score, Str};

const STRING: &[Piece] = &[Str];
const STRINGS: &[Piece] = &[Many(&[Str])];
const PAIRS: &[Piece] = &[Many(&[Str, Str])];
const PEL: Piece = Many(&[Raw(16), Raw(8), Len]);
const OWNED_IDS: Piece = Many(&[Raw(16)]);
const STREAM_1: &[Piece] =
    &[Many(&[Str, Str]), Len, Len, Len, Many(&[Str, Len, Len, PEL, Many(&[Str, Raw(8), OWNED_IDS])])];
const STREAM_2: &[Piece] = &[
    Many(&[Str, Str]),
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Many(&[Str, Len, Len, Len, PEL, Many(&[Str, Raw(8), OWNED_IDS])]),
];
const STREAM_3: &[Piece] = &[
    Many(&[Str, Str]),
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Len,
    Many(&[Str, Len, Len, Len, PEL, Many(&[Str, Raw(16), OWNED_IDS])]),
];
/// id, opcode of `when`, when, then the module's bytes.
pub(super) const MODULE_AUX: &[Piece] = &[ModuleId, Len, Len, Module];

/// What a type byte means, and since which version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) kind: ValueKind,
    pub(super) since: u16,
    pub(super) pieces: &'static [Piece],
}

/// The allow-list. Types 6 and 8, and those above 25, are absent on purpose.
pub(super) fn layout(code: u8) -> Option<Layout> {
    use ValueKind::{Hash, List, Module as ModuleKind, Set, Stream, String, Zset};
    let (kind, since, pieces) = match code {
        0 => (String, 1, STRING),
        1 => (List, 1, STRINGS),
        2 => (Set, 1, STRINGS),
        3 => (Zset, 1, &[Many(&[Str, Score])][..]),
        4 => (Hash, 1, PAIRS),
        5 => (Zset, 8, &[Many(&[Str, Raw(8)])][..]),
        7 => (ModuleKind, 8, &[ModuleId, Module][..]),
        9 | 13 => (Hash, 1, STRING),
        10 => (List, 1, STRING),
        11 => (Set, 1, STRING),
        12 => (Zset, 1, STRING),
        14 => (List, 7, STRINGS),
        15 => (Stream, 9, STREAM_1),
        16 => (Hash, 10, STRING),
        17 => (Zset, 10, STRING),
        18 => (List, 10, &[Many(&[Len, Str])][..]),
        19 => (Stream, 10, STREAM_2),
        20 => (Set, 11, STRING),
        21 => (Stream, 11, STREAM_3),
        22 => (Hash, 12, &[Many(&[Len, Str, Str])][..]),
        23 => (Hash, 12, STRING),
        24 => (Hash, 12, &[Raw(8), Many(&[Len, Str, Str])][..]),
        25 => (Hash, 12, &[Raw(8), Str][..]),
        _ => return None,
    };
    Some(Layout { kind, since, pieces })
}

/// The first RDB version that has this value type; `None` for a type that is not on the allow-list.
#[must_use]
pub fn since_version(code: u8) -> Option<u16> {
    layout(code).map(|layout| layout.since)
}

/// A place inside a layout: which pieces, the next of them, and how often they are still to come.
#[derive(Debug, Clone, Copy)]
struct Frame {
    pieces: &'static [Piece],
    next: usize,
    left: u64,
}

/// Steps through one value. Holds its place between calls and no byte of the value.
#[derive(Debug, Default)]
pub(super) struct Walk {
    frames: Vec<Frame>,
    skip: u64,
    module_id: Option<u64>,
}

impl Walk {
    pub(super) fn start(&mut self, pieces: &'static [Piece]) {
        self.frames.clear();
        self.frames.push(Frame { pieces, next: 0, left: 1 });
        self.skip = 0;
        self.module_id = None;
    }

    /// The type of the value, if it is a module's, once it was met.
    pub(super) fn module_id(&self) -> Option<u64> {
        self.module_id
    }

    /// Goes as far as the input does, at least one step. `true` at the end of the value.
    pub(super) fn run(&mut self, input: &mut Input<'_>) -> Result<bool, Stop> {
        let start = input.position();
        loop {
            self.skip -= input.skip(self.skip);
            if self.skip > 0 {
                return Ok(false);
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(true) };
            let Some(&piece) = frame.pieces.get(frame.next) else {
                frame.left -= 1;
                frame.next = 0;
                if frame.left == 0 {
                    self.frames.pop();
                }
                continue;
            };
            let here = input.position();
            match self.enter(piece, input) {
                Ok(()) => {}
                Err(Stop::Need(_)) if here > start => {
                    input.rewind(here);
                    return Ok(false);
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    fn enter(&mut self, piece: Piece, input: &mut Input<'_>) -> Result<(), Stop> {
        let (skip, inner) = match piece {
            Raw(count) => (count, None),
            Len => (input.length().map(|_| 0)?, None),
            ModuleId => {
                self.module_id = Some(input.length()?);
                (0, None)
            }
            Str => (input.string_head()?, None),
            Score => (Some(input.byte()?).filter(|&length| length < 253).map_or(0, u64::from), None),
            Many(pieces) => (0, Some((pieces, input.length()?))),
            Module => match module_piece(input)? {
                Some(skip) => {
                    self.skip = skip;
                    return Ok(());
                }
                None => (0, None),
            },
        };
        self.skip = skip;
        if let Some(frame) = self.frames.last_mut() {
            frame.next += 1;
        }
        if let Some((pieces, left)) = inner.filter(|&(_, count)| count > 0) {
            self.frames.push(Frame { pieces, next: 0, left });
        }
        Ok(())
    }
}

/// Reads the head of one item of a module's serialisation: the bytes that follow it, or `None` at the end mark.
fn module_piece(input: &mut Input<'_>) -> Result<Option<u64>, Stop> {
    Ok(Some(match input.length()? {
        0 => return Ok(None),
        1 | 2 => input.length().map(|_| 0)?,
        3 => 4,
        4 => 8,
        5 => input.string_head()?,
        _ => return Err(input.malformed("module value")),
    }))
}

/// The error for a type byte that is not allowed in a file of `version`.
pub(super) const fn unknown_type(code: u8, version: u16) -> Stop {
    Stop::Fault(Fault::Type { code, version, offset: 0 })
}
