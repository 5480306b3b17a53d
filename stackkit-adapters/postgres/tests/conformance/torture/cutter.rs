//! A TCP proxy that cuts all connections after so many bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A proxy in front of a server.
pub(crate) struct Cutter {
    address: SocketAddr,
    answered: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

/// What the relays share: how much was answered, where the cut is, and whether it was made.
#[derive(Clone)]
struct Cut {
    answered: Arc<AtomicU64>,
    after: u64,
    made: watch::Sender<bool>,
}

impl Cutter {
    /// In front of the server at that port of 127.0.0.1: after so many bytes of answers every connection is reset, and
    /// so is every later one.
    pub(crate) async fn start(port: u16, after: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answered = Arc::new(AtomicU64::new(0));
        let cut = Cut { answered: Arc::clone(&answered), after, made: watch::Sender::new(after == 0) };
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, port, cut)));
        Self { address, answered, _task: task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How much the server has answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, port: u16, cut: Cut) {
    let mut relays = JoinSet::new();
    while let Ok((client, _peer)) = listener.accept().await {
        relays.spawn(relay(client, port, cut.clone()));
        while relays.try_join_next().is_some() {}
    }
}

async fn relay(client: TcpStream, port: u16, cut: Cut) {
    let mut made = cut.made.subscribe();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let _ = client.set_zero_linger();
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asks = async {
        // Either side's end is the end of both.
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let answers = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let before = cut.answered.fetch_add(count as u64, Ordering::SeqCst);
            let through = usize::try_from(cut.after.saturating_sub(before)).unwrap_or(usize::MAX).min(count);
            if to_client.write_all(&buffer[..through]).await.is_err() {
                return;
            }
            if through < count {
                cut.made.send_replace(true);
                return;
            }
        }
    };
    tokio::select! {
        () = asks => {}
        () = answers => {}
        _made = made.wait_for(|made| *made) => {}
    }
}
