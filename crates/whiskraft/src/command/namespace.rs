//! `whiskraft namespace put`: limits of an invocation namespace.

use clap::{Args, Subcommand};
use whiskraft_types::{NamespaceLimits, NamespaceName};

use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft namespace put guest --containers 50   # at most 50 containers at any instant, in the whole cluster";

/// Arguments of `whiskraft namespace`.
#[derive(Debug, Args)]
pub(crate) struct NamespaceArgs {
    #[command(subcommand)]
    command: NamespaceCommand,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum NamespaceCommand {
    /// Create a namespace or change its limits
    #[command(after_help = EXAMPLES)]
    Put {
        /// Its name
        name: NamespaceName,
        /// Most containers of all its actions together, starting ones included
        #[arg(long, value_name = "N")]
        containers: u32,
    },
}

/// Carries the command out.
///
/// # Errors
/// If the cluster cannot be reached or refuses.
pub(crate) async fn run(args: NamespaceArgs, config: &Config) -> Result<(), Failure> {
    let NamespaceCommand::Put { name, containers } = args.command;
    let client = connect(config).await?;
    client
        .put_namespace(&name, &NamespaceLimits { containers })
        .await
        .map_err(call_failure)?;
    output::line(format_args!("namespace {name}: at most {containers} containers"));
    Ok(())
}
