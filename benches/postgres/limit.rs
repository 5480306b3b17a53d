//! What the server can give: two connections that read `COPY` and drop the bytes without a look. No client can be faster with as
//! many connections.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::server::{DATABASE, Server};
use crate::{Result, data};

/// Connections, as many as ours and the peers have.
const CONNECTIONS: usize = 2;

/// What is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 196_608;

/// Every table, the largest first and in parts of 64 MiB, as ours reads them; then the large objects.
const STATEMENTS: &str = "
    with tables as (
        select oid::regclass as name, pg_table_size(oid) as bytes,
            greatest(1, ceil(pg_table_size(oid) / 67108864.0))::int as parts,
            pg_relation_size(oid) / current_setting('block_size')::int + 1 as pages
        from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace)
    select format('copy (select * from %s where ctid >= ''(%s,0)'' and ctid < ''(%s,0)'') to stdout',
        name, pages * part / parts, pages * (part + 1) / parts)
    from tables, generate_series(0, parts - 1) part order by bytes desc, part";
const LARGE_OBJECTS: &str = "copy (select loid, pageno, data from pg_largeobject) to stdout (format binary)";

/// Writes what is read to a file, for the child.
///
/// # Errors
/// If the server does not tell its tables.
pub(crate) fn statements(server: &Server) -> Result<PathBuf> {
    let mut statements = server.column(STATEMENTS)?;
    statements.push(LARGE_OBJECTS.to_owned());
    let path = data::scratch("postgres-limit")?.join("statements.sql");
    std::fs::write(&path, statements.join("\n"))?;
    Ok(path)
}

/// Reads everything once.
///
/// # Errors
/// If the arguments are wrong, or the server refuses something.
pub(crate) fn child(args: &[String]) -> Result {
    let [socket, statements] = args else { return Err("limit takes a socket and a file of statements".into()) };
    let statements = std::fs::read_to_string(statements)?;
    let queue = Mutex::new(statements.lines().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || drain(Path::new(socket), next).map_err(|error| error.to_string());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_panic| "a thread ended early".to_owned())?)
    })?;
    Ok(())
}

fn drain<'a>(socket: &Path, next: impl Fn() -> Option<&'a str>) -> Result {
    let mut server = BufReader::with_capacity(READ_BYTES, UnixStream::connect(socket)?);
    let words = format!("user\0postgres\0database\0{DATABASE}\0\0");
    send(&server, &[], &[&PROTOCOL.to_be_bytes(), words.as_bytes()].concat())?;
    skip_answer(&mut server)?;
    while let Some(statement) = next() {
        send(&server, b"Q", format!("{statement}\0").as_bytes())?;
        skip_answer(&mut server)?;
    }
    Ok(())
}

/// Sends one message: its type, its length, its body.
fn send(server: &BufReader<UnixStream>, kind: &[u8], body: &[u8]) -> Result {
    let length = u32::try_from(body.len() + 4)?.to_be_bytes();
    Ok(server.get_ref().write_all(&[kind, &length, body].concat())?)
}

/// Drops messages until the server is ready for the next statement.
fn skip_answer(server: &mut BufReader<UnixStream>) -> Result {
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let mut left = usize::try_from(u32::from_be_bytes(length))?.saturating_sub(4);
        while left > 0 {
            let taken = server.fill_buf()?.len().min(left);
            if taken == 0 {
                return Err("the server ended the connection".into());
            }
            server.consume(taken);
            left -= taken;
        }
        match kind {
            b'Z' => return Ok(()),
            b'E' => return Err("the server refused a statement".into()),
            _ => {}
        }
    }
}
