//! `whiskraft namespace`: limits of invocation namespaces.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use whiskraft_client::Client;
use whiskraft_types::{NamespaceLimits, NamespaceName};

use super::{call_failure, connect};
use crate::arguments::{MOST, whole};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft namespace set guest --containers 50           # at most 50 at any instant, in the whole cluster
  whiskraft namespace set guest --over-provision 150      # actions without a container may use half as many on top
  whiskraft namespace set guest --invocations-per-minute 6000   # 100 a second; 1000 at one moment (--help says more)
  whiskraft namespace set guest --invocations-per-minute none --weight 200
  whiskraft namespace get guest
  whiskraft namespace list --json";

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
    /// Create a namespace or change its limits; what is not given stays as it is
    #[command(after_help = EXAMPLES, visible_alias = "put")]
    Set {
        /// Its name
        name: NamespaceName,
        #[command(flatten)]
        change: Change,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the limits of a namespace, or the defaults if none were set for it
    #[command(after_help = EXAMPLES)]
    Get {
        /// Its name
        name: NamespaceName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every namespace whose limits were set
    #[command(after_help = EXAMPLES)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The limits to change.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Most containers of all its actions together, starting ones included; 0 runs nothing
    #[arg(long, value_name = "N", value_parser = whole::<u32, 0, MOST>)]
    containers: Option<u32>,
    /// Containers in per cent of that limit up to which an action that has none may still get one; 100 allows no excess
    #[arg(long, value_name = "PERCENT", value_parser = whole::<u32, 100, 1000>)]
    over_provision: Option<u32>,
    /// Most activations accepted per minute in the whole cluster, or none for no limit
    ///
    /// The burst is a sixth of it, rounded up: as many may come at one moment, after ten quiet seconds (a minute for a
    /// limit of 1). From then on they are accepted one by one at the rate, so that a minute that begins with a burst
    /// accepts a sixth more. A limit given to a namespace that had none begins with its whole burst; one that is changed
    /// keeps the part of the burst that is used. A refusal says when the next one is accepted.
    #[arg(long, value_name = "N|none", value_parser = parse_rate)]
    invocations_per_minute: Option<Rate>,
    /// Share of the memory when there is too little for all, relative to the weights of the others; default 100
    #[arg(long, value_name = "N", value_parser = whole::<u32, 1, 10_000>)]
    weight: Option<u32>,
}

/// Invocations per minute as they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<u32>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "none" => Ok(Rate(None)),
        number => whole::<u32, 1, MOST>(number)
            .map(|rate| Rate(Some(rate)))
            .map_err(|wanted| format!("{wanted}, or none for no limit")),
    }
}

impl Change {
    fn apply(&self, mut limits: NamespaceLimits) -> NamespaceLimits {
        limits.containers = self.containers.unwrap_or(limits.containers);
        limits.over_provision_percent = self.over_provision.unwrap_or(limits.over_provision_percent);
        limits.weight = self.weight.unwrap_or(limits.weight);
        if let Some(Rate(rate)) = self.invocations_per_minute {
            limits.invocations_per_minute = rate;
        }
        limits
    }
}

/// Carries the command out.
///
/// # Errors
/// If the cluster cannot be reached or refuses.
pub(crate) async fn run(args: NamespaceArgs, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    match args.command {
        NamespaceCommand::Set { name, change, json } => {
            let limits = set(&client, &name, &change).await?;
            show(&name, &Limits::Own(limits), json);
            Ok(())
        }
        NamespaceCommand::Get { name, json } => get(&client, &name, json).await,
        NamespaceCommand::List { json } => list(&client, json).await,
    }
}

/// Reads, changes, writes. Two who do this at the same time overwrite each other; the later one wins.
async fn set(client: &Client, name: &NamespaceName, change: &Change) -> Result<NamespaceLimits, Failure> {
    let known = client.namespace(name).await.map_err(call_failure)?;
    let limits = change.apply(known.unwrap_or_default());
    client.put_namespace(name, &limits).await.map_err(call_failure)?;
    Ok(limits)
}

async fn get(client: &Client, name: &NamespaceName, json: bool) -> Result<(), Failure> {
    let limits = client.namespace(name).await.map_err(call_failure)?;
    show(name, &limits.map_or_else(Limits::default, Limits::Own), json);
    Ok(())
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let namespaces = client.namespaces().await.map_err(call_failure)?;
    if json {
        let all: Vec<_> = namespaces
            .iter()
            .map(|(name, limits)| to_json(name, limits, false))
            .collect();
        output::json(&Value::Array(all));
    } else {
        for (name, limits) in &namespaces {
            output::line(sentence(name, limits));
        }
    }
    Ok(())
}

/// Limits that count for a namespace.
#[derive(Debug)]
enum Limits {
    Own(NamespaceLimits),
    /// Nobody has set any for it.
    Default(NamespaceLimits),
}

impl Default for Limits {
    fn default() -> Self {
        Self::Default(NamespaceLimits::default())
    }
}

fn show(name: &NamespaceName, limits: &Limits, json: bool) {
    match limits {
        Limits::Own(limits) if json => output::json(&to_json(name, limits, false)),
        Limits::Default(limits) if json => output::json(&to_json(name, limits, true)),
        Limits::Own(limits) => output::line(sentence(name, limits)),
        Limits::Default(limits) => {
            output::line(sentence(name, limits));
            output::line(format_args!(
                "these are the defaults, none were set for it; set some with: whiskraft namespace set {name} --containers N"
            ));
        }
    }
}

fn sentence(name: &NamespaceName, limits: &NamespaceLimits) -> String {
    let percent = limits.over_provision_percent;
    let excess = match limits.containers_over() {
        over if over > limits.containers => format!("{percent} % (up to {over} for actions that have none)"),
        _ => format!("{percent} % (none on top)"),
    };
    let rate = match limits.invocations_per_minute {
        Some(rate) => format!("at most {rate} invocations per minute"),
        None => "any number of invocations".to_owned(),
    };
    format!(
        "namespace {name}: at most {} containers, over-provision {excess}, {rate}, weight {}",
        limits.containers, limits.weight
    )
}

fn to_json(name: &NamespaceName, limits: &NamespaceLimits, are_defaults: bool) -> Value {
    json!({
        "name": name.as_str(),
        "containers": limits.containers,
        "over_provision_percent": limits.over_provision_percent,
        "invocations_per_minute": limits.invocations_per_minute,
        "weight": limits.weight,
        "defaults": are_defaults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> NamespaceLimits {
        NamespaceLimits {
            containers: 10,
            over_provision_percent: 150,
            invocations_per_minute: Some(600),
            weight: 7,
        }
    }

    #[test]
    fn only_what_is_given_changes() {
        assert_eq!(Change::default().apply(limits()), limits());
        let change = Change {
            containers: Some(3),
            invocations_per_minute: Some(Rate(None)),
            ..Change::default()
        };
        let expected = NamespaceLimits {
            containers: 3,
            invocations_per_minute: None,
            ..limits()
        };
        assert_eq!(change.apply(limits()), expected);
        assert_eq!(parse_rate("none"), Ok(Rate(None)));
        for text in ["lots", "0"] {
            let refused = parse_rate(text).unwrap_err();
            assert_eq!(refused, "must be a whole number, 1 or more, or none for no limit");
        }
    }

    #[test]
    fn limits_read_as_a_sentence() {
        let name = "guest".parse().unwrap();
        assert_eq!(
            sentence(&name, &limits()),
            "namespace guest: at most 10 containers, over-provision 150 % (up to 15 for actions that have none), at most 600 invocations per minute, weight 7"
        );
        assert_eq!(
            sentence(&name, &NamespaceLimits::default()),
            "namespace guest: at most 30 containers, over-provision 100 % (none on top), any number of invocations, weight 100"
        );
    }
}
