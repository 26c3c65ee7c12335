//! `whiskraft dev`: one scheduler and one invoker in this process, on loopback, for a first try.

use std::path::PathBuf;

use clap::Args;
use whiskraft_invoker::backend::process::ProcessConfig;
use whiskraft_types::{ByteSize, SchedulerId};

use super::{invoker, scheduler};
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft dev                            # forgets everything when it ends
  whiskraft dev --data-dir ~/.whiskraft    # remembers actions and limits
  whiskraft dev --listen 127.0.0.1:7501    # then: whiskraft status -e 127.0.0.1:7501

It is a cluster of one: what a failover looks like is shown by scripts/quickstart.sh.";

/// Address for clients when nothing says otherwise: the one that every command uses by default.
const LISTEN: &str = "127.0.0.1:7401";

/// Arguments of `whiskraft dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where the cluster answers
    #[arg(long, value_name = "HOST:PORT", default_value = LISTEN)]
    listen: String,
    /// Directory to keep the state in [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Memory for containers [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
}

impl DevArgs {
    /// The settings that these arguments override.
    pub(crate) fn overrides(&self) -> Overrides {
        let mut flags = Overrides::default();
        flags.set("node.client-listen", Some(&self.listen));
        flags.set("invoker.pool.memory", self.memory);
        flags
    }
}

/// Serves until the first signal.
///
/// # Errors
/// If an address is in use, or the scheduler or the invoker does not start.
pub(crate) async fn run(args: DevArgs, mut config: Config) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let temporary = tempfile::tempdir()
        .map_err(|error| Failure::new(Exit::Refused, "cannot make a temporary directory").caused_by(error))?;
    let data_dir = args.data_dir.unwrap_or_else(|| temporary.path().join("data"));
    make_single(&mut config, data_dir)?;
    // Apart from an invoker of this host that serves a real cluster.
    if config.backend.process.root == ProcessConfig::default().root {
        config.backend.process.root = temporary.path().join("containers");
    }
    let mut scheduler = scheduler::Running::start(config.clone()).await?;
    let started = tokio::select! {
        started = invoker::start(config) => started.map(Some),
        failure = scheduler.failed() => Err(failure),
        _ = signals.next() => Ok(None),
    };
    let (invoker, stopped) = match started {
        Ok(Some(invoker)) => {
            print_usage(&args.listen);
            let stopped = tokio::select! {
                failure = scheduler.failed() => Err(failure),
                reason = invoker.stopped() => Err(invoker::stop_failure(reason)),
                _ = signals.next() => Ok(()),
            };
            (Some(invoker), stopped)
        }
        Ok(None) => (None, Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    let shutdown = async {
        if let Some(invoker) = invoker {
            invoker.shutdown().await;
        }
        scheduler.shutdown().await;
    };
    signals.or_force(shutdown).await?;
    stopped
}

/// Makes this process the only member of its cluster. The peer port is never used, but is part of the identity that
/// the data directory remembers, so it may not change from run to run: it follows from the client port.
fn make_single(config: &mut Config, data_dir: PathBuf) -> Result<(), Failure> {
    let listen = config
        .node
        .client_listen
        .clone()
        .unwrap_or_else(|| LISTEN.to_owned());
    let port = listen
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok())
        .filter(|port| *port > 1);
    let port = port.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("--listen {listen:?} must be HOST:PORT with a port above 1"),
        )
    })?;
    let id = SchedulerId(1);
    config.node.id = Some(id);
    config.node.join = Vec::new();
    config.node.initial_cluster = [(id, format!("127.0.0.1:{}", port - 1))].into();
    config.node.data_dir = data_dir;
    config.invoker.schedulers = vec![format!("127.0.0.1:{port}")];
    Ok(())
}

fn print_usage(listen: &str) {
    let option = if listen == LISTEN {
        String::new()
    } else {
        format!(" -e {listen}")
    };
    eprintln!(
        "\nA scheduler and an invoker are running. In another terminal:\n  \
         whiskraft invoke examples/hello.py -p name=Ada{option}\n  \
         whiskraft action put hello examples/hello.py{option}\n  \
         whiskraft status --watch{option}\n\
         Ctrl-C ends it.\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_member_on_ports_that_stay_the_same() {
        let mut config = Config::default();
        config.node.client_listen = Some("127.0.0.1:7501".to_owned());
        make_single(&mut config, PathBuf::from("/data")).unwrap();
        let addresses = config.node.addresses().unwrap();
        assert_eq!(addresses.peer_listen, "127.0.0.1:7500");
        assert_eq!(addresses.client_listen, "127.0.0.1:7501");
        assert_eq!(config.invoker.schedulers, ["127.0.0.1:7501"]);
        config.node.client_listen = Some("127.0.0.1:0".to_owned());
        assert!(make_single(&mut config, PathBuf::from("/data")).is_err());
    }
}
