//! Records of an RDB file as commands, sans-IO: `RESTORE`, with payloads cut out of the file.

use crate::rdb::{Event, Key, append_footer};
use crate::resp::{push_array, push_bulk, push_command};

/// Turns the events of one file into commands, in order.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Version in the payloads' footers: not above what the target knows, nor above the file's.
    version: u16,
    /// The target's time; a key that expired before it is left out.
    now_ms: i64,
    /// Commands to be sent.
    commands: Vec<u8>,
    count: usize,
    key: Vec<u8>,
    /// `ABSTTL` time and the eviction hint of the key, in the words of `RESTORE`.
    ttl: String,
    hint: Option<(&'static [u8], String)>,
    payload: Vec<u8>,
    skipping: bool,
    expired: u64,
}

impl Replay {
    /// A replay for a target that knows `version` and whose clock shows `now_ms`.
    pub(crate) fn new(version: u16, now_ms: i64) -> Self {
        Self {
            version,
            now_ms,
            commands: Vec::new(),
            count: 0,
            key: Vec::new(),
            ttl: String::new(),
            hint: None,
            payload: Vec::new(),
            skipping: false,
            expired: 0,
        }
    }

    /// Takes the next event of the file.
    pub(crate) fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Database(number) => self.push(&[b"SELECT", number.to_string().as_bytes()]),
            Event::Function(source) => self.push(&[b"FUNCTION", b"LOAD", b"REPLACE", source]),
            Event::Key(key) => self.start(key),
            Event::Value(bytes) if !self.skipping => self.payload.extend_from_slice(bytes),
            Event::KeyEnd { .. } if self.skipping => self.expired += 1,
            Event::KeyEnd { .. } => self.end(),
            _ => {}
        }
    }

    fn push(&mut self, command: &[&[u8]]) {
        push_command(&mut self.commands, command);
        self.count += 1;
    }

    fn start(&mut self, key: Key<'_>) {
        self.skipping = key.expires_at_ms.is_some_and(|at| at <= self.now_ms);
        if self.skipping {
            return;
        }
        self.key.clear();
        self.key.extend_from_slice(key.name);
        self.payload.clear();
        self.payload.push(key.code);
        self.ttl = key.expires_at_ms.unwrap_or(0).to_string();
        self.hint = match (key.idle_seconds, key.frequency) {
            (Some(seconds), _) => Some((b"IDLETIME", seconds.to_string())),
            (None, Some(frequency)) => Some((b"FREQ", frequency.to_string())),
            (None, None) => None,
        };
    }

    fn end(&mut self) {
        append_footer(&mut self.payload, 0, self.version);
        push_array(&mut self.commands, 6 + if self.hint.is_some() { 2 } else { 0 });
        for word in [b"RESTORE", self.key.as_slice(), self.ttl.as_bytes(), &self.payload, b"REPLACE", b"ABSTTL"] {
            push_bulk(&mut self.commands, word);
        }
        if let Some((word, value)) = &self.hint {
            push_bulk(&mut self.commands, word);
            push_bulk(&mut self.commands, value.as_bytes());
        }
        self.count += 1;
    }

    /// The commands so far; [`Self::clear`] after they were sent.
    pub(crate) fn commands(&self) -> (&[u8], usize) {
        (&self.commands, self.count)
    }

    pub(crate) fn clear(&mut self) {
        self.commands.clear();
        self.count = 0;
    }

    /// Keys left out because they had expired.
    pub(crate) const fn expired(&self) -> u64 {
        self.expired
    }
}

#[cfg(test)]
mod tests {
    use crc_fast::CrcAlgorithm::Crc64Redis;

    use super::*;
    use crate::rdb::{Reader, Writer};
    use crate::resp::{Reply, parse};

    fn replay(writer: &Writer) -> (Vec<Vec<Vec<u8>>>, Replay) {
        let mut replay = Replay::new(9, 1_000);
        let mut reader = Reader::new();
        writer.finish().chunks(5).for_each(|chunk| reader.feed(chunk, &mut |event| replay.on(event)).unwrap());
        reader.finish().unwrap();
        let (mut bytes, count) = replay.commands();
        let mut commands = Vec::new();
        while let Some((Reply::Array(words), length)) = parse(bytes).unwrap() {
            commands.push(words.iter().map(|word| word.bytes().unwrap().to_vec()).collect());
            bytes = &bytes[length..];
        }
        assert_eq!(commands.len(), count);
        (commands, replay)
    }

    #[test]
    fn a_record_becomes_one_restore_with_all_that_belongs_to_it() {
        let mut writer = Writer::new(10);
        writer.function(b"#!lua name=f").select(2);
        writer.expires_at_ms(1_001).idle_seconds(9).record(2, b"set", b"\x01\x01a");
        writer.frequency(5).record(0, b"n", &[0xc0, 7]);
        let (commands, _) = replay(&writer);
        let payload = |body: &[u8]| {
            let mut payload = body.to_vec();
            append_footer(&mut payload, 0, 9);
            payload
        };
        let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        let set = payload(b"\x02\x01\x01a");
        let number = payload(&[0, 0xc0, 7]);
        let expected = [
            words(&[b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=f"]),
            words(&[b"SELECT", b"2"]),
            words(&[b"RESTORE", b"set", b"1001", &set, b"REPLACE", b"ABSTTL", b"IDLETIME", b"9"]),
            words(&[b"RESTORE", b"n", b"0", &number, b"REPLACE", b"ABSTTL", b"FREQ", b"5"]),
        ];
        assert_eq!(commands, expected);
        let (body, crc) = number.split_at(number.len() - 8);
        assert_eq!(&body[body.len() - 2..], [9, 0]);
        assert_eq!(crc, crc_fast::checksum(Crc64Redis, body).to_le_bytes());
    }

    #[test]
    fn expired_keys_are_left_out_and_counted() {
        let mut writer = Writer::new(10);
        writer.expires_at_ms(1_000).record(0, b"gone", b"\x01x").record(0, b"stays", b"\x01y");
        let (commands, replay) = replay(&writer);
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0][1], b"stays");
        assert_eq!(replay.expired(), 1);
    }
}
