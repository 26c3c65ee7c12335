//! `whiskraft cluster`: who takes part in the cluster's consensus and who leads it; backup and restore.

mod backup;
mod change;
mod look;
mod restore;

use std::time::Duration;

use clap::{Args, Subcommand};
use whiskraft_types::{MemberOrder, SchedulerId};

use self::change::Change;
use crate::arguments::whole;
use crate::cli::ClientArgs;
use crate::config::{Config, Overrides};
use crate::exit::Failure;
use crate::units::parse_duration;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft cluster status                     # who votes, who leads, who lags
  whiskraft cluster promote 5120               # a learner votes, once it has caught up
  whiskraft cluster replace 3 --with 5120      # 3 is dead: 5120 votes first, then 3 goes for good
  whiskraft cluster remove 2                   # also the leader: it hands over first
  whiskraft cluster transfer-leader 1
  whiskraft cluster backup monday.backup       # everything in one file, while the cluster works
  whiskraft cluster verify monday.backup       # is it whole, and what is in it

A scheduler adds itself: start it with `whiskraft scheduler --join ANY-MEMBER:7400 --advertise-peer OWN-HOST:7400`, and with
--learner if it shall not vote yet. It is given a number that was never used before.

Every order is answered within 10 s, changes nothing when it is repeated, and is passed on to the Raft leader by whichever
scheduler is asked. One change is made at a time. A change after which the voters that answer were no majority is refused.";

/// Below the help of the orders that take a vote away.
const FORCE_HELP: &str = "\
A cluster decides as long as more than half of its voters answer each other. So an order that leaves too few of them is
refused: start the others first, or add voters. --force is for when you know better, for example because the others are
about to be started; if they stay away, nothing is decided any more, and no order can change that.";

/// Arguments of `whiskraft cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

impl ClusterArgs {
    /// The settings that these arguments override.
    pub(crate) fn overrides(&self) -> Overrides {
        match &self.command {
            ClusterCommand::Status(args) => args.client.overrides(),
            ClusterCommand::Promote(args) => args.common.client.overrides(),
            ClusterCommand::Demote(args) | ClusterCommand::Remove(args) => args.common.client.overrides(),
            ClusterCommand::Replace(args) => args.common.client.overrides(),
            ClusterCommand::TransferLeader(args) => args.common.client.overrides(),
            ClusterCommand::Backup(args) => args.common.client.overrides(),
            ClusterCommand::Verify(_) => Overrides::default(),
            ClusterCommand::Restore(args) => args.overrides(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show who votes, who leads, and how far each is behind
    Status(StatusArgs),
    /// Let a learner vote; waits until it has caught up
    Promote(PromoteArgs),
    /// Take the vote of a scheduler away; it goes on following, and leading queues
    #[command(after_help = FORCE_HELP)]
    Demote(VoterArgs),
    /// Remove a scheduler for good, dead or alive; its queues move, and its number is never used again
    #[command(after_help = FORCE_HELP)]
    Remove(VoterArgs),
    /// Replace a dead scheduler by one that has joined: that one votes first, then the dead one is removed
    Replace(ReplaceArgs),
    /// Have another scheduler lead the log: a given one, or the one that has most of it
    TransferLeader(TransferArgs),
    /// Write everything the cluster agrees on into a file, while it works
    #[command(after_help = backup::HELP)]
    Backup(backup::BackupArgs),
    /// Check every byte of a backup and show what is in it
    Verify(backup::VerifyArgs),
    /// Prepare the data directory of a scheduler of a new cluster from a backup
    #[command(after_help = restore::HELP)]
    Restore(restore::RestoreArgs),
}

/// What every order has.
#[derive(Debug, Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// How long a scheduler may take to catch up.
#[derive(Debug, Clone, Copy, Args)]
struct Patience {
    /// How long to wait until it has caught up
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
}

#[derive(Debug, Args)]
struct PromoteArgs {
    /// Number of the learner, as `whiskraft cluster status` shows it
    #[arg(value_parser = number)]
    scheduler: u64,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct VoterArgs {
    /// Number of the scheduler, as `whiskraft cluster status` shows it
    #[arg(value_parser = number)]
    scheduler: u64,
    /// Also if the voters that are left and answer are no majority
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct ReplaceArgs {
    /// Number of the dead scheduler
    #[arg(value_name = "DEAD", value_parser = number)]
    dead: u64,
    /// Number of the one that takes its place
    #[arg(long, value_name = "NEW", value_parser = number)]
    with: u64,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct TransferArgs {
    /// Number of the scheduler that shall lead [default: the voter that has most of the log]
    #[arg(value_parser = number)]
    scheduler: Option<u64>,
    #[command(flatten)]
    common: Common,
}

fn number(text: &str) -> Result<u64, String> {
    whole::<u64, 1, { u64::MAX }>(text)
}

/// Carries the command out.
///
/// # Errors
/// If the cluster cannot be reached or refuses.
pub(crate) async fn run(args: ClusterArgs, config: &Config) -> Result<(), Failure> {
    let id = SchedulerId;
    let change = |common: &Common| Change::new(config, common.json);
    match args.command {
        ClusterCommand::Status(args) => look::run(config, args.json).await,
        ClusterCommand::Promote(args) => {
            let change = change(&args.common).await?;
            change.promote(id(args.scheduler), args.patience.wait).await?;
            change.say_voter(id(args.scheduler));
            Ok(())
        }
        ClusterCommand::Demote(args) => {
            let (id, force) = (id(args.scheduler), args.force);
            change(&args.common)
                .await?
                .order(MemberOrder::Demote { id, force })
                .await
        }
        ClusterCommand::Remove(args) => {
            let (id, force) = (id(args.scheduler), args.force);
            change(&args.common)
                .await?
                .order(MemberOrder::Remove { id, force })
                .await
        }
        ClusterCommand::Replace(args) => {
            let change = change(&args.common).await?;
            change
                .replace(id(args.dead), id(args.with), args.patience.wait)
                .await
        }
        ClusterCommand::TransferLeader(args) => {
            let order = MemberOrder::TransferLeader(args.scheduler.map(id));
            change(&args.common).await?.order(order).await
        }
        ClusterCommand::Backup(args) => backup::run(&args, config).await,
        ClusterCommand::Verify(args) => tokio::task::block_in_place(|| backup::verify(&args)),
        ClusterCommand::Restore(args) => tokio::task::block_in_place(|| restore::run(&args, config)),
    }
}
