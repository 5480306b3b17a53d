//! A small RESP2 client for seeding and looking at a fixture: the adapter's own client is what is being tested.

use std::path::Path;

use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How many commands of a pipeline are sent before their replies are read; bounds what the server must buffer.
const PIPELINE_COMMANDS: usize = 512;
/// The deepest reply that is read: none of the commands of tests nests deeper.
const DEPTH_MAX: usize = 16;

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisReply {
    /// Nothing there.
    Nil,
    /// A number.
    Integer(i64),
    /// A status or a string.
    Bytes(Vec<u8>),
    /// A list.
    Array(Vec<RedisReply>),
}

impl RedisReply {
    /// The reply as text: a status, a string or a number; empty for nothing and for a list.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Nil | Self::Array(_) => String::new(),
            Self::Integer(number) => number.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

pub(crate) struct RespClient {
    stream: BufReader<UnixStream>,
}

impl RespClient {
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| Error::unreachable("connect", error))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) async fn command<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Result<RedisReply> {
        let mut request = Vec::new();
        encode(command, &mut request);
        self.stream.write_all(&request).await.map_err(io)?;
        self.reply().await
    }

    pub(crate) async fn pipeline<A: AsRef<[u8]>>(&mut self, commands: impl IntoIterator<Item = Vec<A>>) -> Result<()> {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut request = Vec::new();
            let mut sent = 0;
            for command in commands.by_ref().take(PIPELINE_COMMANDS) {
                encode(&command, &mut request);
                sent += 1;
            }
            self.stream.write_all(&request).await.map_err(io)?;
            for _ in 0..sent {
                self.reply().await?;
            }
        }
        Ok(())
    }

    /// Reads one reply, without recursion: open lists wait on a stack.
    async fn reply(&mut self) -> Result<RedisReply> {
        let mut open: Vec<(usize, Vec<RedisReply>)> = Vec::new();
        loop {
            let mut reply = match self.element().await? {
                Element::Array(0) => RedisReply::Array(Vec::new()),
                Element::Array(length) if open.len() < DEPTH_MAX => {
                    open.push((length, Vec::new()));
                    continue;
                }
                Element::Array(_) => return Err(malformed()),
                Element::Whole(reply) => reply,
            };
            loop {
                let Some((length, mut items)) = open.pop() else { return Ok(reply) };
                items.push(reply);
                if items.len() < length {
                    open.push((length, items));
                    break;
                }
                reply = RedisReply::Array(items);
            }
        }
    }

    async fn element(&mut self) -> Result<Element> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.map_err(io)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(malformed)?;
        let number = || rest.parse::<i64>().map_err(|error| malformed().with_source(error));
        Ok(match kind {
            "+" => Element::Whole(RedisReply::Bytes(rest.as_bytes().to_vec())),
            "-" => return Err(refused(rest)),
            ":" => Element::Whole(RedisReply::Integer(number()?)),
            "$" => match usize::try_from(number()?) {
                Ok(length) => Element::Whole(RedisReply::Bytes(self.bulk(length).await?)),
                Err(_negative) => Element::Whole(RedisReply::Nil),
            },
            "*" => match usize::try_from(number()?) {
                Ok(length) => Element::Array(length),
                Err(_negative) => Element::Whole(RedisReply::Nil),
            },
            _ => return Err(malformed()),
        })
    }

    async fn bulk(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await.map_err(io)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

enum Element {
    Whole(RedisReply),
    Array(usize),
}

fn encode<A: AsRef<[u8]>>(command: &[A], request: &mut Vec<u8>) {
    request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for word in command {
        let word = word.as_ref();
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

fn io(error: std::io::Error) -> Error {
    Error::io("talk to redis", error)
}

fn malformed() -> Error {
    Error::unexpected("the reply is not RESP2")
}

fn refused(text: &str) -> Error {
    let code = text.split(' ').next().unwrap_or_default().to_owned();
    Error::new(ErrorKind::ToolFailed, "redis refused the command").with_code(code).with_source(text.to_owned())
}
