//! A TCP relay in front of every listener, so that a test can cut who may talk to whom.
//!
//! All processes are told the relay's address of their peers. Once something is cut the relay finds out for each
//! connection which process opened it (its socket in `/proc`), so one relay per listener is enough for any partition,
//! symmetric or one-way by who dials. A cut link swallows bytes and keeps connections open, like a network that drops
//! packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;

use crate::process::worker_of;
use crate::wait::Deadline;

/// Bytes moved at a time.
const BUFFER_LEN: usize = 64 * 1024;

/// Who may talk to whom, and which process is who. Shared by all relays of a cluster.
#[derive(Debug, Clone)]
pub struct Switchboard {
    pids: Arc<Mutex<BTreeMap<u32, String>>>,
    sockets: Arc<tokio::sync::Mutex<Sockets>>,
    cuts: Arc<watch::Sender<BTreeSet<(String, String)>>>,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self {
            pids: Arc::default(),
            sockets: Arc::default(),
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

    /// Waits until this direction is not cut. Who opened the connection is looked up when there is a cut at all.
    async fn open(&self, way: &Way<'_>, who: &OnceCell<String>) -> Result<(), watch::error::RecvError> {
        let mut cuts = self.cuts.subscribe();
        if cuts.borrow().is_empty() {
            return Ok(());
        }
        let who = who.get_or_init(|| self.who(way.port)).await;
        let (from, to) = (who.clone(), way.to.to_owned());
        let link = if way.returns { (to, from) } else { (from, to) };
        cuts.wait_for(|cuts| !cuts.contains(&link)).await.map(drop)
    }

    /// Ends every cut.
    pub fn heal(&self) {
        self.cuts.send_modify(BTreeSet::clear);
    }

    /// The process that opened the connection whose local end is `port`.
    async fn who(&self, port: u16) -> String {
        let asked = Deadline::after(Duration::ZERO);
        let mut sockets = self.sockets.lock().await;
        // Whoever waits for the same look shares it: a storm of connections costs one.
        if sockets
            .looked
            .is_none_or(|looked| looked.elapsed() > asked.elapsed())
        {
            let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let looked = Deadline::after(Duration::ZERO);
            let owners = tokio::task::spawn_blocking(move || owners(&pids)).await;
            *sockets = Sockets {
                looked: Some(looked),
                owners: owners.unwrap_or_default(),
            };
        }
        let owner = sockets.owners.get(&port);
        owner.map_or_else(|| "driver".to_owned(), Clone::clone)
    }
}

/// Who has which local port, at some moment.
#[derive(Debug, Default)]
struct Sockets {
    looked: Option<Deadline>,
    owners: BTreeMap<u16, String>,
}

/// Local ports of the connections of these processes.
fn owners(pids: &BTreeMap<u32, String>) -> BTreeMap<u16, String> {
    let by_inode: BTreeMap<u64, u16> = ports_by_inode();
    let mut owners = BTreeMap::new();
    for (pid, name) in pids {
        // A supervisor speaks for the process that it has lost.
        for pid in BTreeSet::from([*pid, worker_of(*pid)]) {
            let ports = inodes_of(pid).filter_map(|inode| by_inode.get(&inode));
            owners.extend(ports.map(|port| (*port, name.clone())));
        }
    }
    owners
}

/// Local ports of all connections on the loopback by the inode of their socket, from the kernel's table.
fn ports_by_inode() -> BTreeMap<u64, u16> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?.rsplit(':').next()?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        // State 0A is a listener: it has the port without being the connection.
        (state != "0A").then_some((inode, u16::from_str_radix(local, 16).ok()?))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// Inodes of the sockets of a process.
fn inodes_of(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        link.to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    })
}

/// One listener's relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
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
        let (to, aim) = (to.to_owned(), watch::Sender::new(target));
        let aimed = aim.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((near, from)) = listener.accept().await {
                let (board, to, target) = (board.clone(), to.clone(), *aimed.borrow());
                tokio::spawn(async move { carry(near, from.port(), target, &to, &board).await });
            }
        });
        Ok(Self {
            address,
            target: aim,
            task,
        })
    }

    /// Where its connections lead.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        *self.target.borrow()
    }

    /// Leads new connections to another listener: somebody else has the address now.
    pub fn divert(&self, target: SocketAddr) {
        self.target.send_replace(target);
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
    let (out, back) = (
        Way {
            port,
            to,
            returns: false,
        },
        Way {
            port,
            to,
            returns: true,
        },
    );
    // A connection that is opened while the link is cut hangs, as a SYN without answer does.
    if board.open(&out, &OnceCell::new()).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let who = OnceCell::new();
    tokio::select! {
        () = pump(near_read, far_write, board, &out, &who) => (),
        () = pump(far_read, near_write, board, &back, &who) => (),
    }
}

/// One direction of a connection: from the process with this local port to the listener of `to`, or back.
struct Way<'a> {
    port: u16,
    to: &'a str,
    returns: bool,
}

/// One direction; bytes that arrive while the link is cut wait until it heals, as a retransmitting sender's would.
async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    board: &Switchboard,
    way: &Way<'_>,
    who: &OnceCell<String>,
) {
    let mut buffer = vec![0; BUFFER_LEN];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if board.open(way, who).await.is_err() || to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
