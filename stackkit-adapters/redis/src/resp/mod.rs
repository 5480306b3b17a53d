//! RESP2, the wire protocol, sans-IO: commands to bytes, bytes to replies, and the framing of a full synchronisation.

mod reply;
mod sync;

pub(crate) use reply::{Invalid, Reply, ServerError, parse};
pub(crate) use sync::{Body, Preamble};

/// Appends a command: an array of bulk strings.
pub(crate) fn push_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    push_array(out, arguments.len());
    for argument in arguments {
        push_bulk(out, argument);
    }
}

/// Appends the head of an array; its elements follow.
pub(crate) fn push_array(out: &mut Vec<u8>, count: usize) {
    push_head(out, b'*', count);
}

/// Appends a bulk string.
pub(crate) fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    push_head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn push_head(out: &mut Vec<u8>, sigil: u8, number: usize) {
    out.push(sigil);
    push_number(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal, without going through a `String`.
fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        // A remainder of ten always fits.
        out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        push_command(&mut out, &[b"SET", b"k\r\n", &[0; 10]]);
        assert_eq!(out, [&b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$10\r\n"[..], &[0; 10], b"\r\n"].concat());
        out.clear();
        push_number(&mut out, 1_234_567_890);
        assert_eq!(out, b"1234567890");
    }
}
