//! The other processes, servers each with a worker of its own, and the connections to them.

use std::time::Duration;

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use whiskraft_client::Settings;
use whiskraft_proto::transport::{self, Patience, controller_endpoint};

use super::frames::PerFrame;
use super::link::Link;
use crate::bench::member::{Members, Orders};
use crate::bench::ports::free_ports;
use crate::clock;
use crate::exit::{Exit, Failure};

/// Longest wait until a process serves; far above what it takes, so that only a hang fails.
const SERVE_MAX: Duration = Duration::from_secs(30);
/// Time between two looks whether it does.
const LOOK: Duration = Duration::from_millis(20);

/// Servers and their workers. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Trio {
    pub(super) members: Members,
    channels: Vec<Channel>,
    /// Their logs.
    _dir: TempDir,
}

impl Trio {
    /// Starts so many of both and connects to the servers.
    ///
    /// # Errors
    /// If a process cannot be started or ends.
    pub(super) async fn start(servers: u32, per_frame: PerFrame) -> Result<Self, Failure> {
        let refused = |what: &str, error| Failure::new(Exit::Refused, what).caused_by(error);
        let dir = tempfile::Builder::new().prefix("whiskraft-bench-").tempdir();
        let dir = dir.map_err(|error| refused("cannot make a directory", error))?;
        let ports = free_ports(servers as usize)
            .map_err(|error| refused("cannot find a free port on 127.0.0.1", error))?;
        let per_frame = ["--per-frame", per_frame.text()];
        let (mut members, mut channels) = (Members::default(), Vec::new());
        for (n, port) in ports.iter().enumerate() {
            let address = format!("127.0.0.1:{port}");
            let orders = |role, command, option| Orders {
                role,
                name: format!("echo-{role}-{}", n + 1),
                command,
                args: option,
                set: &[],
            };
            let (serve, work) = (
                [["--listen", &*address], per_frame],
                [["--server", &*address], per_frame],
            );
            members.start(dir.path(), orders("server", &["bench", "echo-server"], &serve))?;
            channels.push(connect(&address, &mut members).await?);
            members.start(dir.path(), orders("worker", &["bench", "echo-worker"], &work))?;
        }
        Ok(Self {
            members,
            channels,
            _dir: dir,
        })
    }

    /// Opens the controller's stream to each server.
    ///
    /// # Errors
    /// If a server refuses it.
    pub(super) async fn links(&self, per_frame: PerFrame) -> Result<Vec<Link>, Failure> {
        let links = self
            .channels
            .iter()
            .map(|channel| Link::open(channel.clone(), per_frame));
        futures::future::try_join_all(links)
            .await
            .map_err(|error| Failure::new(Exit::Failed, "cannot open a stream").caused_by(error))
    }
}

/// Connects as the SDK does, as soon as somebody listens.
async fn connect(address: &str, members: &mut Members) -> Result<Channel, Failure> {
    let settings = Settings::default();
    let patience = Patience {
        connect: settings.tcp_connect_deadline,
        ping_interval: settings.keepalive_interval,
        ping_wait: settings.keepalive_timeout,
    };
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).expect("the address has a host and a port");
    let endpoint = controller_endpoint(endpoint, patience);
    let deadline = clock::now() + SERVE_MAX;
    loop {
        let error = match transport::connect(&endpoint).await {
            Ok(channel) => return Ok(channel),
            Err(error) => error,
        };
        members.check()?;
        if clock::now() > deadline {
            let text = format!("nobody serves after {SERVE_MAX:?}\n{}", members.last_words());
            return Err(Failure::new(Exit::Refused, text).caused_by(error));
        }
        tokio::time::sleep(LOOK).await;
    }
}
