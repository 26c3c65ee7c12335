//! `whiskraft cluster restore`: the data directory of a scheduler of a new cluster, made from a backup.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use whiskraft_raft::{Restore, RestoreError, Restored, restore};

use super::backup::{damaged, text, to_json};
use crate::arguments::whole;
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::role::scheduler::start_exit;

/// Shown below the help of this command.
pub(super) const HELP: &str = "\
Examples:
  On each host of the new cluster, each with its own number; the rest is the same everywhere:
  whiskraft cluster restore monday.backup --id 1 --initial-cluster 1=a:7400,2=b:7400,3=c:7400 --data-dir /var/lib/whiskraft
  Then start each with the same --id, --initial-cluster, --cluster-name and --data-dir:
  whiskraft scheduler --id 1 --initial-cluster 1=a:7400,2=b:7400,3=c:7400 --data-dir /var/lib/whiskraft

The new cluster may have another size, other addresses and another name. It is another cluster: its identity differs from
the old one's even under the same name and addresses, so schedulers and invokers of the old cluster have no part in it, and
its revisions go on far beyond the old one's. Stop the old cluster all the same: both would run the same activations.

Durable activations that had not ended when the backup was taken are run, also those that have ended since; what came
later is not known. No container of the old cluster counts; idle invokers at the same addresses join by themselves, others
are started anew.

Restoring the same file once more for the same addresses? Give all of them another --token, so that nobody who knew the
first attempt takes the second one for it.";

/// Arguments of `whiskraft cluster restore`; all but the file and the token are also settings of section `[node]`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Number of this scheduler in --initial-cluster
    #[arg(long, value_name = "N", value_parser = whole::<u64, 1, { u64::MAX }>)]
    id: Option<u64>,
    /// Peer addresses of all schedulers of the new cluster, the same for each of them
    #[arg(long, value_name = "ID=HOST:PORT,…")]
    initial_cluster: Option<String>,
    /// Directory to make; it must be empty if it is there [default: whiskraft-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name of the new cluster [default: whiskraft]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Any text, the same for all schedulers of the new cluster; tells this restore from others of the same file
    #[arg(long, value_name = "TEXT", default_value = "")]
    token: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    /// The settings that these arguments override.
    pub(super) fn overrides(&self) -> Overrides {
        let mut flags = Overrides::default();
        flags.set("node.id", self.id);
        flags.set("node.initial-cluster", self.initial_cluster.as_ref());
        flags.set("node.data-dir", self.data_dir.as_ref());
        flags.set("node.cluster-name", self.cluster_name.as_ref());
        flags
    }
}

/// Carries the command out.
///
/// # Errors
/// If the backup is damaged, or the directory is in use.
pub(super) fn run(args: &RestoreArgs, config: &Config) -> Result<(), Failure> {
    let node = &config.node;
    let id = node.id.filter(|_| !node.initial_cluster.is_empty());
    let id = id.ok_or_else(|| {
        Failure::new(Exit::Usage, "the new cluster is not described")
            .advise("give --id and --initial-cluster, as for a scheduler of a new cluster")
    })?;
    let wanted = Restore {
        file: args.file.clone(),
        data_dir: node.data_dir.clone(),
        id,
        initial_cluster: node.initial_cluster.clone(),
        cluster_name: node.cluster_name.clone(),
        token: args.token.clone(),
    };
    let restored = restore(&wanted).map_err(|error| match error {
        RestoreError::Backup(error) => damaged(&args.file, error),
        RestoreError::Target(error) => Failure::new(start_exit(&error), "nothing restored").caused_by(error),
    })?;
    show(args, &wanted, &restored);
    Ok(())
}

fn show(args: &RestoreArgs, wanted: &Restore, restored: &Restored) {
    if args.json {
        output::json(&json!({
            "cluster": restored.cluster_id,
            "cluster_name": wanted.cluster_name,
            "scheduler": wanted.id.0,
            "data_dir": wanted.data_dir.display().to_string(),
            "revision": restored.revision.0,
            "backup": to_json(&args.file, &restored.backup),
        }));
        return;
    }
    let members: Vec<String> = wanted
        .initial_cluster
        .iter()
        .map(|(id, address)| format!("{id}={address}"))
        .collect();
    output::line(text(&args.file, &restored.backup));
    output::line(format_args!(
        "restored into {} for scheduler {} of cluster {} ({:?}), which goes on behind revision {}",
        wanted.data_dir.display(),
        wanted.id,
        restored.cluster_id,
        wanted.cluster_name,
        restored.revision
    ));
    output::line(format_args!(
        "restore it for every other scheduler of the new cluster in the same way, then start this one with:\n  \
         whiskraft scheduler --id {} --initial-cluster {} --cluster-name {} --data-dir {}",
        wanted.id,
        members.join(","),
        wanted.cluster_name,
        wanted.data_dir.display()
    ));
}
