//! A TCP proxy that counts what clients send, and at one message cuts everything off.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What is read at once: a message of the protocol is sent by one write, and small.
const READ_BYTES: usize = 64 << 10;

/// Whether the message at which it happens still gets to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    Dropped,
    Delivered,
}

/// Passes everything on until it is armed.
pub(crate) struct Tap {
    port: u16,
    state: Arc<State>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    sent: AtomicUsize,
    trap: Mutex<Option<Trap>>,
    cut: watch::Sender<usize>,
}

/// Which message it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// The one of that number since it was armed.
    Number(usize),
    /// The first one with that text in it.
    Holds(&'static str),
}

impl When {
    fn is_now(self, number: usize, message: &[u8]) -> bool {
        match self {
            Self::Number(at) => at == number,
            Self::Holds(text) => message.windows(text.len()).any(|window| window == text.as_bytes()),
        }
    }
}

struct Trap {
    when: When,
    last: Last,
    /// What happens beside the cut.
    then: Box<dyn FnOnce() + Send>,
}

impl Tap {
    /// In front of the server at that port of 127.0.0.1.
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, upstream, Arc::clone(&state))));
        Self { port, state, _accepting: accepting }
    }

    /// The URL with the proxy's port instead of the server's.
    pub(crate) fn url(&self, url: &str, upstream: u16) -> String {
        url.replace(&format!(":{upstream}/"), &format!(":{}/", self.port))
    }

    /// Counts anew, and cuts every connection at message number `at`.
    pub(crate) fn arm(&self, at: usize, last: Last, then: impl FnOnce() + Send + 'static) {
        self.arm_when(When::Number(at), last, then);
    }

    /// The same, with the message told otherwise than by its number.
    pub(crate) fn arm_when(&self, when: When, last: Last, then: impl FnOnce() + Send + 'static) {
        *self.state.trap.lock().expect("no panic") = Some(Trap { when, last, then: Box::new(then) });
        self.state.sent.store(0, Ordering::SeqCst);
    }

    /// Whether it did; it does not any more.
    pub(crate) fn disarm(&self) -> bool {
        self.state.trap.lock().expect("no panic").take().is_none()
    }

    /// How many messages were sent since it was armed.
    pub(crate) fn sent(&self) -> usize {
        self.state.sent.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, upstream: u16, state: Arc<State>) {
    let mut relays = JoinSet::new();
    while let Ok((client, _peer)) = listener.accept().await {
        while relays.try_join_next().is_some() {}
        relays.spawn(relay(client, upstream, Arc::clone(&state)));
    }
}

async fn relay(mut client: TcpStream, upstream: u16, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    client.set_nodelay(true).expect("a socket");
    server.set_nodelay(true).expect("a socket");
    let (mut asked, mut answer) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    loop {
        tokio::select! {
            biased;
            _cut = cut.changed() => return,
            read = server.read(&mut answer) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&answer[..count]).await.is_err() {
                    return;
                }
            }
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let number = state.sent.fetch_add(1, Ordering::SeqCst) + 1;
                let trap = state.trap.lock().expect("no panic").take_if(|trap| trap.when.is_now(number, &asked[..count]));
                let Some(trap) = trap else {
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                    continue;
                };
                (trap.then)();
                if trap.last == Last::Delivered {
                    // A server that is gone has lost it.
                    let _ = server.write_all(&asked[..count]).await;
                }
                state.cut.send_modify(|cuts| *cuts += 1);
                return;
            }
        }
    }
}
