/// Longest reply that is taken apart here: `INFO` and one page of `SCAN` are far below. An RDB is not read this way.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// Longest line: an error text or a number.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Most arrays inside each other; the commands sent nest two deep.
const DEPTH_MAX: usize = 8;

/// An error reply, cut into its code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// The first word, such as `WRONGPASS`; `ERR` is generic.
    pub(crate) code: String,
    /// The rest. It may quote the command, so it goes to logs only.
    pub(crate) text: String,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(Vec<u8>),
    Error(ServerError),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Self>),
    Nil,
}

impl Reply {
    /// The text of a status or bulk reply.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Status(bytes) | Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number in the reply of `CONFIG GET` for one setting; `None` if the user may not ask.
    pub(crate) fn setting(&self) -> Option<u64> {
        std::str::from_utf8(self.array()?.get(1)?.bytes()?).ok()?.parse().ok()
    }

    /// The elements of an array.
    pub(crate) fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Bytes that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reply of the redis protocol: {0}")]
pub(crate) struct Invalid(pub(crate) &'static str);

/// Takes one reply from the front of `bytes` and says how long it was; `None` while it is not complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Invalid> {
    let mut at = 0;
    Ok(reply(bytes, &mut at, 0)?.map(|reply| (reply, at)))
}

fn reply(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Reply>, Invalid> {
    let Some(line) = line(bytes, at)? else { return Ok(None) };
    let Some((&sigil, rest)) = line.split_first() else { return Err(Invalid("empty line")) };
    Ok(Some(match sigil {
        b'+' => Reply::Status(rest.to_vec()),
        b'-' => Reply::Error(server_error(rest)),
        b':' => Reply::Integer(number(rest)?),
        b'$' => match length(rest)? {
            None => Reply::Nil,
            Some(count) => {
                let end = at.saturating_add(count);
                let Some(tail) = bytes.get(end..end.saturating_add(2)) else { return Ok(None) };
                if tail != b"\r\n" {
                    return Err(Invalid("bulk string without an end"));
                }
                let body = bytes[*at..end].to_vec();
                *at = end + 2;
                Reply::Bulk(body)
            }
        },
        b'*' => match length(rest)? {
            None => Reply::Nil,
            Some(_) if depth == DEPTH_MAX => return Err(Invalid("nested too deeply")),
            Some(count) => {
                let mut elements = Vec::new();
                for _ in 0..count {
                    let Some(element) = reply(bytes, at, depth + 1)? else { return Ok(None) };
                    elements.push(element);
                }
                Reply::Array(elements)
            }
        },
        _ => return Err(Invalid("unknown type")),
    }))
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, Invalid> {
    let rest = bytes.get(*at..).unwrap_or_default();
    match rest.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') {
        Some(end) => {
            *at += end + 1;
            rest[..end].strip_suffix(b"\r").map(Some).ok_or(Invalid("line without a carriage return"))
        }
        None if rest.len() >= LINE_BYTES_MAX => Err(Invalid("line too long")),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Result<i64, Invalid> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Invalid("number"))
}

/// `None` is the null of RESP2, a length of -1.
fn length(digits: &[u8]) -> Result<Option<usize>, Invalid> {
    match number(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length)
            .ok()
            .filter(|&length| length <= REPLY_BYTES_MAX)
            .map(Some)
            .ok_or(Invalid("length out of range")),
    }
}

pub(super) fn server_error(line: &[u8]) -> ServerError {
    let text = String::from_utf8_lossy(line);
    let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
    ServerError { code: code.to_owned(), text: rest.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(reply: &Reply, out: &mut Vec<u8>) {
        match reply {
            Reply::Status(text) => out.extend([b"+", &text[..], b"\r\n"].concat()),
            Reply::Error(error) => out.extend(format!("-{} {}\r\n", error.code, error.text).into_bytes()),
            Reply::Integer(number) => out.extend(format!(":{number}\r\n").into_bytes()),
            Reply::Bulk(body) => super::super::push_bulk(out, body),
            Reply::Nil => out.extend(b"$-1\r\n"),
            Reply::Array(elements) => {
                super::super::push_array(out, elements.len());
                elements.iter().for_each(|element| encode(element, out));
            }
        }
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            "[A-Za-z ]{0,12}".prop_map(|text| Reply::Status(text.into_bytes())),
            ("[A-Z]{1,9}", "[a-z ]{0,12}").prop_map(|(code, text)| Reply::Error(ServerError { code, text })),
            any::<i64>().prop_map(Reply::Integer),
            prop::collection::vec(any::<u8>(), 0..30).prop_map(Reply::Bulk),
            Just(Reply::Nil),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Reply::Array))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_reply_is_read_back_and_no_prefix_of_it_is(reply in any_reply()) {
            let mut bytes = Vec::new();
            encode(&reply, &mut bytes);
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
            let length = bytes.len();
            bytes.extend(b"+next\r\n");
            prop_assert_eq!(parse(&bytes), Ok(Some((reply, length))));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), sigil in "[-+:$*]") {
            let _ = parse(&[sigil.as_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        for bytes in
            [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"+OK\n", b":x\r\n", b"$-2\r\n", b"*99999999999\r\n", b"$1\r\nab\r\n"]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(parse(&b"*1\r\n".repeat(20)).is_err());
        assert!(parse(&[b'+'; LINE_BYTES_MAX]).is_err());
    }
}
