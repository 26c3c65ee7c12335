//! The command line: global options and one variant per command.
//!
//! Arguments of a command live beside the command's code; here is what they share.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::command::{
    action, activation, bench, cluster, drain, explain, invoke, letters, log, namespace, queue, queues,
    runtime, schedule, status,
};
use crate::config::{LogFormat, Overrides, Sources, default_file};
use crate::exit::EXIT_CODES_HELP;
use crate::role::{dev, invoker, scheduler};

/// Shown below `whiskraft --help`.
const TOP_HELP: &str = "\
Try it on one machine:
  whiskraft dev                                  # in one terminal
  whiskraft invoke examples/hello.py -p name=Ada # in another
  whiskraft status
  whiskraft queues                               # what waits, and why

Three schedulers and one invoker:
  whiskraft scheduler --id 1 --initial-cluster 1=a:7400,2=b:7400,3=c:7400 --data-dir /var/lib/whiskraft
  whiskraft invoker --id 1 --schedulers a:7401,b:7401,c:7401

Every setting can be given in a TOML file (--config), as WHISKRAFT_SECTION_KEY in the environment, and with
--set section.key=value; a later source of these wins, and flags win over all.";

/// Serverless activations, scheduled by a Raft cluster and pulled by containers.
#[derive(Debug, Parser)]
#[command(name = "whiskraft", version, after_help = TOP_HELP, after_long_help = format!("{TOP_HELP}\n\n{EXIT_CODES_HELP}"))]
#[command(propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Configuration file (TOML) [default: /etc/whiskraft.toml if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "WHISKRAFT_CONFIG")]
    config: Option<PathBuf>,
    /// Overrides one setting, for example --set raft.heartbeat=100ms; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What to log: a level or a filter such as info,whiskraft_raft=debug [default: info for servers, warn for the rest]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Form of log lines [default: human]
    #[arg(long, global = true, value_enum, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// Process that started this one, and that this one must not outlive
    #[arg(long, global = true, hide = true, value_name = "PID")]
    pub(crate) die_with: Option<u32>,
    /// Process that started this scheduler, supervises it, and that it must not outlive
    #[arg(long, global = true, hide = true, value_name = "PID")]
    pub(crate) supervised: Option<u32>,
}

impl GlobalArgs {
    /// Whether the configuration file gives what is in it to the first reader only.
    pub(crate) fn is_config_read_once(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;

        self.config.as_ref().is_some_and(|file| {
            let kind = std::fs::metadata(file).map(|data| data.file_type());
            let is_pipe = kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket());
            // Standard input is another one in the process that is started.
            is_pipe || file == Path::new("/dev/stdin")
        })
    }

    /// All sources of settings, with the flags of the command on top.
    pub(crate) fn sources(&self, mut flags: Overrides) -> Sources {
        flags.set("log", self.log.as_ref());
        flags.set("log-format", self.log_format);
        // Variables that are not text cannot name a setting.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Sources {
            file: self.config.clone().or_else(default_file),
            environment: environment.collect(),
            set: self.set.clone(),
            flags,
        }
    }
}

/// Options of the commands that talk to a cluster.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Client addresses of one or more schedulers, with commas [default: 127.0.0.1:7401]
    #[arg(
        long,
        short = 'e',
        global = true,
        value_name = "HOST:PORT",
        env = "WHISKRAFT_ENDPOINTS",
        help_heading = "Cluster"
    )]
    endpoints: Option<String>,
    /// Namespace of the caller, also of names without a slash [default: guest]
    #[arg(
        long,
        short = 'n',
        global = true,
        value_name = "NAME",
        env = "WHISKRAFT_NAMESPACE",
        help_heading = "Cluster"
    )]
    namespace: Option<String>,
}

impl ClientArgs {
    /// Whether a namespace was given, as an option or in the environment, and is not just the default.
    pub(crate) const fn names_namespace(&self) -> bool {
        self.namespace.is_some()
    }

    /// The settings that these options override.
    pub(crate) fn overrides(&self) -> Overrides {
        let mut flags = Overrides::default();
        flags.set("endpoints", self.endpoints.as_ref());
        flags.set("namespace", self.namespace.as_ref());
        flags
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a scheduler: a member of the Raft cluster that leads queues
    #[command(after_help = scheduler::EXAMPLES)]
    Scheduler(scheduler::SchedulerArgs),
    /// Run an invoker: a worker host whose containers pull activations
    #[command(after_help = invoker::EXAMPLES)]
    Invoker(invoker::InvokerArgs),
    /// Run one scheduler and one invoker in this process, to try things out
    #[command(after_help = dev::EXAMPLES)]
    Dev(dev::DevArgs),
    /// Store, show, list and delete actions
    #[command(after_help = action::EXAMPLES, subcommand_required = true)]
    Action(action::ActionArgs),
    /// Run an action by name, or a source file at once
    #[command(after_help = invoke::EXAMPLES)]
    Invoke(invoke::InvokeArgs),
    /// Show the record of an activation, or the state it is in, or end it
    #[command(after_help = activation::EXAMPLES, subcommand_required = true)]
    Activation(activation::ActivationArgs),
    /// Show, run again or put away activations whose last run failed under a retry policy
    #[command(after_help = letters::EXAMPLES, subcommand_required = true)]
    DeadLetters(letters::LettersArgs),
    /// Run actions by the clock: store, show, pause and delete schedules
    #[command(after_help = schedule::EXAMPLES, subcommand_required = true)]
    Schedule(schedule::ScheduleArgs),
    /// Show nodes, queues, invokers and containers of a cluster
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Show queues, longest waiting first, and why they wait
    #[command(after_help = queues::EXAMPLES)]
    Queues(queues::QueuesArgs),
    /// Move a queue to another scheduler, with everything in it
    #[command(after_help = queue::EXAMPLES, subcommand_required = true)]
    Queue(queue::QueueArgs),
    /// Say where an activation is, why it waits and what would help
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Have a scheduler give its queues away, before it is stopped
    #[command(after_help = drain::EXAMPLES)]
    Drain(drain::DrainArgs),
    /// Change who takes part in the cluster and who leads it
    #[command(after_help = cluster::EXAMPLES, subcommand_required = true)]
    Cluster(cluster::ClusterArgs),
    /// Show and change limits of namespaces
    #[command(after_help = namespace::EXAMPLES)]
    Namespace(namespace::NamespaceArgs),
    /// Replay the log of a scheduler that is stopped, to look at it or to check it
    #[command(after_help = log::EXAMPLES)]
    Log(log::LogArgs),
    /// Measure a cluster, or one that it starts itself: rates, latencies, what processes use
    #[command(after_help = bench::EXAMPLES, subcommand_required = true)]
    Bench(bench::BenchArgs),
    /// Serve /init and /run for one container (started by the invoker)
    #[command(hide = true)]
    Runtime(runtime::RuntimeArgs),
}

impl Command {
    /// Whether the command stays and serves; such a process logs what it does by default.
    pub(crate) const fn is_server(&self) -> bool {
        matches!(self, Self::Scheduler(_) | Self::Invoker(_) | Self::Dev(_))
    }

    /// The settings that flags of this command override.
    pub(crate) fn overrides(&self) -> Overrides {
        match self {
            Self::Scheduler(args) => args.overrides(),
            Self::Invoker(args) => args.overrides(),
            Self::Dev(args) => args.overrides(),
            Self::Action(args) => args.client.overrides(),
            Self::Activation(args) => args.client.overrides(),
            Self::DeadLetters(args) => args.client.overrides(),
            Self::Invoke(args) => args.client.overrides(),
            Self::Schedule(args) => args.client.overrides(),
            Self::Status(args) => args.client.overrides(),
            Self::Queues(args) => args.client.overrides(),
            Self::Queue(args) => args.client.overrides(),
            Self::Explain(args) => args.client.overrides(),
            Self::Drain(args) => args.client.overrides(),
            Self::Cluster(args) => args.overrides(),
            Self::Namespace(args) => args.client.overrides(),
            Self::Bench(args) => args.overrides(),
            Self::Log(_) | Self::Runtime(_) => Overrides::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_has_examples() {
        for command in Cli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("  whiskraft "), "{}", command.get_name());
        }
    }

    #[test]
    fn misspelt_flag_gets_a_suggestion() {
        let error = Cli::try_parse_from(["whiskraft", "scheduler", "--data-dri", "x"]).unwrap_err();
        assert!(error.to_string().contains("'--data-dir'"), "{error}");
    }
}
