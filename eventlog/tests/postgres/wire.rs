//! The way to a server, in the hands of a test: it can lead elsewhere, and break at a bad moment.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// When a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What was sent does not reach the server.
    BeforeTheServer,
    /// The server has carried it out, but its answer does not come back.
    BeforeTheAnswer,
}

/// Passes connections on to a server.
pub struct Wire {
    port: u16,
    state: Arc<Mutex<State>>,
    _passing: JoinSet<()>,
}

struct State {
    /// The server's port; `None` lets nobody through.
    leads_to: Option<u16>,
    /// Breaks the connection on which these bytes are sent next, and all that come after it until
    /// it is mended, if so told.
    trap: Option<(Vec<u8>, Cut)>,
    breaks_for_good: bool,
}

impl Wire {
    /// A way to a port on this machine.
    pub async fn to(port: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let state = State { leads_to: Some(port), trap: None, breaks_for_good: false };
        let state = Arc::new(Mutex::new(state));
        let mut passing = JoinSet::new();
        let shared = state.clone();
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(pass(client, shared.clone()));
            }
        });
        Wire { port: own_port, state, _passing: passing }
    }

    /// An address that goes this way.
    pub fn url(&self, url: &str) -> String {
        let (before, after) = url.rsplit_once("@127.0.0.1:").unwrap();
        let (_, database) = after.split_once('/').unwrap();
        format!("{before}@127.0.0.1:{}/{database}", self.port)
    }

    /// Leads elsewhere from the next connection on, or mends what was broken.
    pub fn lead_to(&self, port: u16) {
        let mut state = self.state.lock();
        state.leads_to = Some(port);
        state.breaks_for_good = false;
    }

    /// Breaks once, on the connection on which this text is sent next.
    pub fn cut_at(&self, text: &str, cut: Cut) {
        self.state.lock().trap = Some((text.as_bytes().to_vec(), cut));
    }

    /// As [`Wire::cut_at`], and lets nobody through afterwards.
    pub fn cut_for_good_at(&self, text: &str, cut: Cut) {
        let mut state = self.state.lock();
        state.trap = Some((text.as_bytes().to_vec(), cut));
        state.breaks_for_good = true;
    }

    /// Whether the trap was sprung.
    pub fn was_cut(&self) -> bool {
        self.state.lock().trap.is_none()
    }
}

async fn pass(client: TcpStream, state: Arc<Mutex<State>>) {
    let Some(port) = state.lock().leads_to else { return };
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let doomed = Arc::new(Mutex::new(false));
    tokio::select! {
        () = requests(from_client, to_server, state, doomed.clone()) => {}
        () = answers(from_server, to_client, doomed) => {}
    }
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    state: Arc<Mutex<State>>,
    doomed: Arc<Mutex<bool>>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(count @ 1..) = client.read(&mut buffer).await else { return };
        let sent = &buffer[..count];
        let cut = {
            let mut state = state.lock();
            let is_caught = state.trap.as_ref().is_some_and(|(text, _)| {
                sent.windows(text.len()).any(|window| window == text.as_slice())
            });
            if is_caught && state.breaks_for_good {
                state.leads_to = None;
            }
            if is_caught { state.trap.take().map(|(_, cut)| cut) } else { None }
        };
        match cut {
            Some(Cut::BeforeTheServer) => return,
            Some(Cut::BeforeTheAnswer) => *doomed.lock() = true,
            None => {}
        }
        if server.write_all(sent).await.is_err() {
            return;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, doomed: Arc<Mutex<bool>>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(count @ 1..) = server.read(&mut buffer).await else { return };
        if *doomed.lock() || client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
