//! What an invocation on the command line promises: whether it is durable, when it may begin, which request it is.

use std::time::SystemTime;

use clap::Args;
use whiskraft_client::{Client, Durability, InvokeOptions, idempotent_id};
use whiskraft_types::{ActionName, ActivationId, NamespaceName};

use crate::clock;
use crate::units::parse_moment;

/// Arguments about acceptance.
#[derive(Debug, Args)]
#[command(next_help_heading = "Acceptance")]
pub(super) struct PromiseArgs {
    /// Accept it only on the disks of a majority of the schedulers: it outlives them, this command and its own record's
    /// caller, for `whiskraft activation get` [default with --no-wait]
    #[arg(long)]
    durable: bool,
    /// With --no-wait: accept it in the memory of one scheduler only, which is faster and forgets it when that one dies
    #[arg(long, requires = "no_wait", conflicts_with_all = ["durable", "not_before", "idempotency_key"])]
    memory: bool,
    /// With --no-wait: do not begin before; a time in UTC such as 2026-12-24T18:00:00Z, or from now on, such as +30m
    #[arg(long, requires = "no_wait", value_name = "TIME|+DURATION", value_parser = parse_not_before)]
    not_before: Option<SystemTime>,
    /// Name of this request, up to 256 bytes: sent again with the same arguments it joins what is there and starts
    /// nothing, with others it is refused; for as long as the record is kept. Implies --durable
    #[arg(long, value_name = "KEY", conflicts_with = "repeat")]
    idempotency_key: Option<String>,
}

fn parse_not_before(text: &str) -> Result<SystemTime, String> {
    parse_moment(text, clock::wall())
}

impl PromiseArgs {
    pub(super) const fn durability(&self) -> Durability {
        match (self.durable, self.memory) {
            (true, _) => Durability::Quorum,
            (false, true) => Durability::Memory,
            (false, false) => Durability::Default,
        }
    }

    /// The id that the invocation will have, known beforehand so that it can be asked for while it waits.
    pub(super) fn id(&self, namespace: &NamespaceName, action: &ActionName) -> ActivationId {
        match &self.idempotency_key {
            Some(key) => idempotent_id(namespace, action, key),
            None => Client::draw_id(),
        }
    }

    /// The options with what was asked for.
    pub(super) fn apply(&self, id: ActivationId, options: InvokeOptions) -> InvokeOptions {
        InvokeOptions {
            // A key decides the id by itself.
            id: self.idempotency_key.is_none().then_some(id),
            durability: self.durability(),
            not_before: self.not_before,
            idempotency_key: self.idempotency_key.clone(),
            ..options
        }
    }
}
