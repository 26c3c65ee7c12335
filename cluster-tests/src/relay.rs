//! A TCP relay in front of every listener, so that a test can cut who may talk to whom.
//!
//! All processes are told the relay's address of their peers. For each connection the relay finds out which process
//! opened it (its socket in `/proc`), so one relay per listener is enough for any partition, symmetric or one-way
//! by who dials. A cut link swallows bytes and keeps connections open, like a network that drops packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes moved at a time.
const BUFFER_LEN: usize = 64 * 1024;

/// Who may talk to whom, and which process is who. Shared by all relays of a cluster.
#[derive(Debug, Clone)]
pub struct Switchboard {
    pids: Arc<Mutex<BTreeMap<u32, String>>>,
    cuts: Arc<watch::Sender<BTreeSet<(String, String)>>>,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self {
            pids: Arc::default(),
            cuts: Arc::new(watch::Sender::new(BTreeSet::new())),
        }
    }
}

impl Switchboard {
    /// Says that a process is `name` from now on.
    pub fn is_process(&self, pid: u32, name: &str) {
        self.pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pid, name.to_owned());
    }

    /// Cuts `name` off from everybody else in `others`, both ways.
    pub fn isolate(&self, name: &str, others: &[String]) {
        self.cuts.send_modify(|cuts| {
            for other in others.iter().filter(|other| *other != name) {
                cuts.insert((name.to_owned(), other.clone()));
                cuts.insert((other.clone(), name.to_owned()));
            }
        });
    }

    /// Ends every cut.
    pub fn heal(&self) {
        self.cuts.send_modify(BTreeSet::clear);
    }

    /// The process that opened the connection whose local end is `port`.
    fn who(&self, port: u16) -> String {
        let inode = socket_inode(port);
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let owner = inode.and_then(|inode| pids.iter().find(|(pid, _)| holds_socket(**pid, inode)));
        owner.map_or_else(|| "driver".to_owned(), |(_, name)| name.clone())
    }
}

/// Inode of the socket on the loopback with this local port, from the kernel's table.
fn socket_inode(port: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        // State 0A is a listener: it has the port without being the connection.
        (local == port && *fields.get(3)? != "0A").then(|| fields.get(9)?.parse().ok())?
    })
}

fn holds_socket(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| link.as_os_str() == wanted.as_str())
}

/// One listener's relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free loopback port and forwards to `target`, the listener of process `to`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(to: &str, target: SocketAddr, board: Switchboard) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let to = to.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((near, from)) = listener.accept().await {
                let (board, to) = (board.clone(), to.clone());
                tokio::spawn(async move { carry(near, from.port(), target, &to, &board).await });
            }
        });
        Ok(Self { address, task })
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Moves the bytes of one connection both ways until one end closes.
async fn carry(near: TcpStream, port: u16, target: SocketAddr, to: &str, board: &Switchboard) {
    let from = board.who(port);
    let mut cuts = board.cuts.subscribe();
    let link = (from.clone(), to.to_owned());
    // A connection that is opened while the link is cut hangs, as a SYN without answer does.
    if cuts.wait_for(|cuts| !cuts.contains(&link)).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = pump(near_read, far_write, board, (from.clone(), to.to_owned())) => (),
        () = pump(far_read, near_write, board, (to.to_owned(), from)) => (),
    }
}

/// One direction; bytes that arrive while the link is cut wait until it heals, as a retransmitting sender's would.
async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    board: &Switchboard,
    link: (String, String),
) {
    let mut cuts = board.cuts.subscribe();
    let mut buffer = vec![0; BUFFER_LEN];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if cuts.wait_for(|cuts| !cuts.contains(&link)).await.is_err()
            || to.write_all(&buffer[..len]).await.is_err()
        {
            return;
        }
    }
}
