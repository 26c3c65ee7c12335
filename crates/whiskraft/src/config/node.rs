//! Section `[node]`: who this scheduler is, where its data lives, and under which addresses it is known.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use whiskraft_types::SchedulerId;

use super::check::RelationError;
use super::cluster::{self, is_address};

/// Port for other schedulers when nothing says otherwise.
const PEER_PORT: u16 = 7400;
/// Port for controllers and invokers when nothing says otherwise.
const CLIENT_PORT: u16 = 7401;

/// This scheduler's place in its cluster (`[node]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NodeSection {
    /// Number of this scheduler in `initial-cluster`; unset for one that joins.
    pub(crate) id: Option<SchedulerId>,
    /// Peer addresses of the schedulers that form the cluster, the same on each of them.
    #[serde(deserialize_with = "cluster::members")]
    pub(crate) initial_cluster: BTreeMap<SchedulerId, String>,
    /// Peer addresses of members of a running cluster to join.
    #[serde(deserialize_with = "cluster::list")]
    pub(crate) join: Vec<String>,
    /// Whether one that joins stays without a vote until an operator promotes it. Default false.
    pub(crate) learner: bool,
    /// Directory for log, snapshots and documents. Default whiskraft-data.
    pub(crate) data_dir: PathBuf,
    /// Listen address for other schedulers.
    pub(crate) peer_listen: Option<String>,
    /// Listen address for controllers and invokers.
    pub(crate) client_listen: Option<String>,
    /// Peer address under which the others reach this scheduler.
    pub(crate) advertise_peer: Option<String>,
    /// Client address announced to controllers and invokers.
    pub(crate) advertise_client: Option<String>,
    /// Name of the cluster. Default whiskraft.
    pub(crate) cluster_name: String,
    /// Failure zone; may be empty.
    pub(crate) zone: String,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            id: None,
            initial_cluster: BTreeMap::new(),
            join: Vec::new(),
            learner: false,
            data_dir: PathBuf::from("whiskraft-data"),
            peer_listen: None,
            client_listen: None,
            advertise_peer: None,
            advertise_client: None,
            cluster_name: "whiskraft".to_owned(),
            zone: String::new(),
        }
    }
}

/// The addresses of a scheduler after defaults have been filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Where to listen for other schedulers.
    pub(crate) peer_listen: String,
    /// Where to listen for controllers and invokers.
    pub(crate) client_listen: String,
    /// What controllers and invokers are told.
    pub(crate) advertise_client: String,
}

impl NodeSection {
    /// Checks what a scheduler needs and derives the addresses that were not given.
    ///
    /// A host that is a loopback address makes the listeners loopback ones: the services have no authentication, so
    /// a cluster on one machine must not be open to the network by default.
    pub(crate) fn addresses(&self) -> Result<Addresses, RelationError> {
        let peer = self.peer_address()?;
        let (host, port) = split(&peer);
        let loopback = host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
        let any = if loopback { host } else { "0.0.0.0" };
        let peer_listen = self
            .peer_listen
            .clone()
            .unwrap_or_else(|| format!("{any}:{port}"));
        let client_listen = self
            .client_listen
            .clone()
            .unwrap_or_else(|| format!("{any}:{CLIENT_PORT}"));
        let advertise_client = match &self.advertise_client {
            Some(address) => address.clone(),
            None => format!("{host}:{}", split(&client_listen).1),
        };
        for (setting, address) in [
            ("node.peer-listen", &peer_listen),
            ("node.client-listen", &client_listen),
        ] {
            if address
                .rsplit_once(':')
                .is_none_or(|(_, port)| port.parse::<u16>().is_err())
            {
                return Err(RelationError::new(
                    setting,
                    format!("{address:?} must be HOST:PORT"),
                ));
            }
        }
        if !is_address(&advertise_client) {
            let reason = format!("{advertise_client:?} must be HOST:PORT as others reach it");
            return Err(RelationError::new("node.advertise-client", reason));
        }
        Ok(Addresses {
            peer_listen,
            client_listen,
            advertise_client,
        })
    }

    /// The address under which other schedulers reach this one.
    fn peer_address(&self) -> Result<String, RelationError> {
        match (self.id, self.join.is_empty()) {
            (None, true) => Err(RelationError::new(
                "node.id",
                "a scheduler needs --id and --initial-cluster (a member of a new cluster) or --join (a later member)",
            )),
            (Some(_), false) => Err(RelationError::new(
                "node.join",
                "a scheduler that joins is given its id; leave node.id away",
            )),
            (Some(_), true) if self.learner => Err(RelationError::new(
                "node.learner",
                "a scheduler of the initial cluster votes; only one that joins may be a learner at first",
            )),
            (Some(id), true) => self.initial_address(id),
            (None, false) => self.joining_address(),
        }
    }

    fn initial_address(&self, id: SchedulerId) -> Result<String, RelationError> {
        let own = self.initial_cluster.get(&id).ok_or_else(|| {
            let known: Vec<_> = self.initial_cluster.keys().map(ToString::to_string).collect();
            let reason = format!(
                "scheduler {id} is not in initial-cluster, which names [{}]",
                known.join(", ")
            );
            RelationError::new("node.id", reason)
        })?;
        Ok(self.advertise_peer.clone().unwrap_or_else(|| own.clone()))
    }

    fn joining_address(&self) -> Result<String, RelationError> {
        if let Some(wrong) = self.join.iter().find(|address| !is_address(address)) {
            return Err(RelationError::new(
                "node.join",
                format!("{wrong:?} must be HOST:PORT"),
            ));
        }
        let address = match (&self.advertise_peer, &self.peer_listen) {
            (Some(address), _) => address.clone(),
            (None, Some(listen)) => listen.clone(),
            (None, None) => format!("0.0.0.0:{PEER_PORT}"),
        };
        let host = split(&address).0.trim_matches(['[', ']']);
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            let reason =
                "a scheduler that joins must say how the others reach it: --advertise-peer HOST:PORT";
            return Err(RelationError::new("node.advertise-peer", reason));
        }
        Ok(address)
    }
}

/// Host and port of an address; the default peer port if there is none.
fn split(address: &str) -> (&str, u16) {
    let parts = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.unwrap_or((address, PEER_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(members: &str, id: u64) -> NodeSection {
        let initial_cluster = cluster::parse_members(members).unwrap();
        NodeSection {
            id: Some(SchedulerId(id)),
            initial_cluster,
            ..NodeSection::default()
        }
    }

    #[test]
    fn listeners_of_a_cluster_on_hosts_are_open() {
        let addresses = initial("1=a:7500,2=b:7500", 2).addresses().unwrap();
        assert_eq!(addresses.peer_listen, "0.0.0.0:7500");
        assert_eq!(addresses.client_listen, "0.0.0.0:7401");
        assert_eq!(addresses.advertise_client, "b:7401");
    }

    #[test]
    fn listeners_of_a_loopback_cluster_stay_on_loopback() {
        let addresses = initial("1=127.0.0.1:7500", 1).addresses().unwrap();
        assert_eq!(addresses.peer_listen, "127.0.0.1:7500");
        assert_eq!(addresses.client_listen, "127.0.0.1:7401");
        assert_eq!(addresses.advertise_client, "127.0.0.1:7401");
    }

    #[test]
    fn missing_or_contradicting_identity_is_refused() {
        let error = NodeSection::default().addresses().unwrap_err().to_string();
        assert!(
            error.contains("--initial-cluster") && error.contains("--join"),
            "{error}"
        );
        let error = initial("1=a:1,2=b:1", 7).addresses().unwrap_err().to_string();
        assert!(
            error.contains("scheduler 7") && error.contains("[1, 2]"),
            "{error}"
        );
    }

    #[test]
    fn joining_needs_a_reachable_address() {
        let join = NodeSection {
            join: vec!["a:7400".to_owned()],
            ..NodeSection::default()
        };
        assert!(
            join.addresses()
                .unwrap_err()
                .to_string()
                .contains("--advertise-peer")
        );
        let reachable = NodeSection {
            advertise_peer: Some("d:7400".to_owned()),
            ..join
        };
        assert_eq!(reachable.addresses().unwrap().advertise_client, "d:7401");
    }
}
