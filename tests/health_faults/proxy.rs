//! A TCP proxy that fails on demand: a fault of the network in front of a server that is well.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// How many connections wait to be accepted.
const BACKLOG: u32 = 1024;
/// The loopback answers a SYN within microseconds. One that has no answer for so long was dropped.
const SYN_WAIT: Duration = Duration::from_millis(100);

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Hands every byte on, both ways.
    Pass,
    /// Nothing listens; open connections are reset.
    Refuse,
    /// Packets vanish: a new connection has no answer to its SYN, an open one no answer to anything.
    BlackHole,
    /// Accepts and reads, and never answers.
    Hang,
    /// Resets the connection when this many bytes of the next answer are through.
    Reset(usize),
    /// Hands every answer on this much later.
    Delay(Duration),
}

/// A proxy on a port of its own, the same in every mode.
pub(crate) struct Proxy {
    address: SocketAddr,
    upstream: SocketAddr,
    /// Keeps the port while nothing listens on it: bound, never listened on, so that the kernel refuses.
    _reserved: TcpSocket,
    modes: watch::Sender<Mode>,
    gate: Gate,
    relays: Arc<Relays>,
}

#[derive(Default)]
struct Relays {
    tasks: Mutex<JoinSet<()>>,
    accepted: AtomicUsize,
}

enum Gate {
    Closed,
    Open(JoinHandle<()>),
    /// A queue of connections that is full and never taken from: the kernel drops what else comes.
    Full {
        _listener: TcpListener,
        _queue: Vec<TcpStream>,
    },
}

impl Proxy {
    /// Starts in [`Mode::Pass`], in front of the server at that port of 127.0.0.1.
    pub(crate) async fn start(port: u16) -> Self {
        let reserved = socket((Ipv4Addr::LOCALHOST, 0).into());
        let address = reserved.local_addr().unwrap();
        let mut proxy = Self {
            address,
            upstream: (Ipv4Addr::LOCALHOST, port).into(),
            _reserved: reserved,
            modes: watch::Sender::new(Mode::Pass),
            gate: Gate::Closed,
            relays: Arc::default(),
        };
        proxy.set(Mode::Pass).await;
        proxy
    }

    /// Where it is.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.relays.accepted.load(Ordering::SeqCst)
    }

    /// Does something else from here on, for open connections too.
    pub(crate) async fn set(&mut self, mode: Mode) {
        if let Gate::Open(accepting) = std::mem::replace(&mut self.gate, Gate::Closed) {
            accepting.abort();
            // The listener is closed when the task is gone, not before.
            let _ = accepting.await;
        }
        self.modes.send_replace(mode);
        self.gate = match mode {
            Mode::Refuse => Gate::Closed,
            Mode::BlackHole => self.full_gate().await,
            Mode::Pass | Mode::Hang | Mode::Reset(_) | Mode::Delay(_) => {
                let listener = socket(self.address).listen(BACKLOG).unwrap();
                Gate::Open(tokio::spawn(accept(listener, self.upstream, self.relays.clone(), self.modes.subscribe())))
            }
        };
    }

    async fn full_gate(&self) -> Gate {
        let listener = socket(self.address).listen(1).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = tokio::time::timeout(SYN_WAIT, TcpStream::connect(self.address)).await {
            queue.push(stream.unwrap());
        }
        Gate::Full { _listener: listener, _queue: queue }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Gate::Open(accepting) = &self.gate {
            accepting.abort();
        }
        self.relays.tasks.lock().unwrap().abort_all();
    }
}

/// A socket on a port that is kept by another one.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(listener: TcpListener, upstream: SocketAddr, relays: Arc<Relays>, modes: watch::Receiver<Mode>) {
    while let Ok((client, _peer)) = listener.accept().await {
        relays.accepted.fetch_add(1, Ordering::SeqCst);
        let mut tasks = relays.tasks.lock().unwrap();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(relay(client, upstream, modes.clone()));
    }
}

/// Hands bytes on until one side ends, or the mode says so.
async fn relay(mut client: TcpStream, upstream: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut asked, mut answer) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut answered = 0;
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Refuse {
            let _ = client.set_zero_linger();
            return;
        }
        let is_silent = matches!(mode, Mode::Hang | Mode::BlackHole);
        tokio::select! {
            changed = modes.changed() => match changed {
                Ok(()) => answered = 0,
                Err(_proxy_is_gone) => return,
            },
            read = client.read(&mut asked), if mode != Mode::BlackHole => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if is_silent => {}
                Ok(count) if server.write_all(&asked[..count]).await.is_err() => return,
                Ok(_) => {}
            },
            read = server.read(&mut answer), if !is_silent => {
                let Ok(count @ 1..) = read else { return };
                if !hand_on(&mut client, &answer[..count], mode, &mut answered).await {
                    return;
                }
            }
        }
    }
}

/// Hands an answer on as the mode says; false if that was the last of it.
async fn hand_on(client: &mut TcpStream, answer: &[u8], mode: Mode, answered: &mut usize) -> bool {
    let mut part = answer;
    match mode {
        Mode::Delay(delay) => tokio::time::sleep(delay).await,
        Mode::Reset(after) => part = &answer[..answer.len().min(after - *answered)],
        Mode::Pass | Mode::Refuse | Mode::BlackHole | Mode::Hang => {}
    }
    *answered += part.len();
    let is_written = client.write_all(part).await.is_ok();
    if mode == Mode::Reset(*answered) {
        let _ = client.set_zero_linger();
        return false;
    }
    is_written
}
