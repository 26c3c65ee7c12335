//! The first step of a start: who the configuration says this node is, and whether the directory agrees.

use std::collections::BTreeMap;

use whiskraft_types::SchedulerId;

use crate::config::NodeConfig;
use crate::error::StartError;
use crate::identity::{self, DataDir, Identity};

/// What the configuration says about who this node is.
pub(super) struct Wanted {
    /// Its number; 0 for one that joins, whose number the cluster chooses.
    pub(super) id: u64,
    /// Cluster that the initial members form; empty for one that joins.
    pub(super) cluster_id: String,
    /// Peer addresses of the initial members.
    pub(super) cluster: BTreeMap<u64, String>,
    /// Where others reach this node.
    pub(super) peer_address: String,
}

impl Wanted {
    /// Reads the configuration.
    pub(super) fn new(config: &NodeConfig) -> Result<Self, StartError> {
        match &config.join {
            Some(_) => Self::joining(config),
            None => Self::initial(config),
        }
    }

    fn joining(config: &NodeConfig) -> Result<Self, StartError> {
        if !config.initial_cluster.is_empty() {
            return Err(StartError::Config(
                "both a join address and an initial cluster are given; a scheduler forms a cluster or joins one"
                    .to_owned(),
            ));
        }
        let local = config.peer_listener.local_addr();
        let local = local.map_err(|source| StartError::Listener {
            what: "its address is not known".to_owned(),
            source,
        })?;
        Ok(Self {
            id: config.id.map_or(0, |id| id.0),
            cluster_id: String::new(),
            cluster: BTreeMap::new(),
            peer_address: config.advertise_peer.clone().unwrap_or_else(|| local.to_string()),
        })
    }

    fn initial(config: &NodeConfig) -> Result<Self, StartError> {
        let missing = "the number of this scheduler in the initial cluster is not given";
        let id = config.id.ok_or_else(|| StartError::Config(missing.to_owned()))?;
        let cluster = &config.initial_cluster;
        if cluster.contains_key(&SchedulerId(0)) {
            return Err(StartError::Config(
                "0 is not a scheduler number; numbers start at 1".to_owned(),
            ));
        }
        let address = cluster.get(&id).ok_or_else(|| {
            let members: Vec<String> = cluster.keys().map(ToString::to_string).collect();
            StartError::Config(format!(
                "scheduler {id} is not in the initial cluster, which has the numbers {}",
                members.join(", ")
            ))
        })?;
        Ok(Self {
            id: id.0,
            cluster_id: identity::cluster_id(&config.cluster_name, cluster),
            cluster: cluster
                .iter()
                .map(|(id, address)| (id.0, address.clone()))
                .collect(),
            peer_address: config.advertise_peer.clone().unwrap_or_else(|| address.clone()),
        })
    }
}

/// The identity of the directory, made if it has none; refused if it is another's.
pub(super) fn own_identity(
    config: &NodeConfig,
    wanted: &Wanted,
    data: &DataDir,
) -> Result<Identity, StartError> {
    let dir = config.data_dir.display();
    let Some(found) = data.identity()? else {
        let lanes = config.settings.lanes;
        let made = Identity::new(&config.cluster_name, wanted.cluster_id.clone(), wanted.id, lanes);
        let made = made.map_err(|error| data.error("no random bytes for its identity", error))?;
        data.save(&made)?;
        tracing::info!(%dir, cluster = config.cluster_name, scheduler = wanted.id, "data directory made");
        return Ok(made);
    };
    let joins = config.join.is_some();
    let wanted_cluster = match &found.origin {
        Some(origin) => identity::restored_cluster_id(&config.cluster_name, &config.initial_cluster, origin),
        None => wanted.cluster_id.clone(),
    };
    if found.cluster_name != config.cluster_name || (!joins && found.cluster_id != wanted_cluster) {
        return Err(StartError::Identity(format!(
            "data directory {dir} belongs to cluster {} ({:?}), not to cluster {} ({:?}) that is configured; use the \
             directory of this cluster, or the name and initial cluster that the directory was made with",
            found.cluster_id, found.cluster_name, wanted_cluster, config.cluster_name
        )));
    }
    if wanted.id != 0 && found.id != wanted.id {
        return Err(StartError::Identity(format!(
            "data directory {dir} belongs to scheduler {}, not to scheduler {} that is configured; every scheduler has a \
             directory of its own",
            found.id, wanted.id
        )));
    }
    Ok(found)
}
