//! `whiskraft dead-letters`: activations whose last run failed under a retry policy.

use clap::{Args, Subcommand};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};
use whiskraft_client::{Client, DeadLetter, PageCursor, Progress, Redriven};
use whiskraft_types::{ActionName, ActivationId, NamespaceName};

use super::activation::found_json;
use super::{call_failure, connect};
use crate::arguments::whole;
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::source;
use crate::units::show_moment;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft dead-letters list                             # of namespace guest, oldest first
  whiskraft dead-letters list -n shop --action bill --all --json | jq -r '.[].activationId'
  whiskraft dead-letters show 0123456789abcdef0123456789abcdef   # record, logs and runs of one
  whiskraft dead-letters redrive 0123456789abcdef0123456789abcdef
  whiskraft dead-letters redrive --all --action bill      # every one of shop/bill, once it is mended
  whiskraft dead-letters purge --all

An activation becomes a dead letter when its last run has failed under `action put --retry-attempts`. Its arguments are
kept until it is run again or purged, or its record expires. To redrive is to run it as a new activation, which names
the old one as its cause; done twice it starts nothing the second time.";

/// Letters asked for at once; the largest page there is.
const PAGE_LEN: u32 = 1000;

/// Arguments of `whiskraft dead-letters`.
#[derive(Debug, Args)]
pub(crate) struct LettersArgs {
    #[command(subcommand)]
    command: LettersCommand,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum LettersCommand {
    /// List the dead letters of the namespace, oldest first
    #[command(after_help = EXAMPLES)]
    List {
        /// Only those of this action: a name, or /namespace/[package/]name
        #[arg(long, value_name = "NAME")]
        action: Option<String>,
        /// Most letters shown
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole::<u32, 1, 1000>)]
        limit: u32,
        /// Show all of them
        #[arg(long, conflicts_with = "limit")]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the record of a dead letter, with its runs and logs, as JSON
    #[command(after_help = EXAMPLES)]
    Show {
        /// Its id: 32 hex digits
        id: ActivationId,
    },
    /// Run dead letters again, each as a new activation, and take them off the list
    #[command(after_help = EXAMPLES)]
    Redrive(Chosen),
    /// Take dead letters off the list; their records stay readable until they expire
    #[command(after_help = EXAMPLES)]
    Purge(Chosen),
}

/// Which letters.
#[derive(Debug, Args)]
struct Chosen {
    /// Ids: 32 hex digits each
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<ActivationId>,
    /// All of the namespace
    #[arg(long)]
    all: bool,
    /// With --all: only those of this action
    #[arg(long, value_name = "NAME", requires = "all")]
    action: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
/// If the cluster cannot be reached, a name or id is wrong, or a letter cannot be run again.
pub(crate) async fn run(args: LettersArgs, config: &Config) -> Result<(), Failure> {
    match args.command {
        LettersCommand::List {
            action,
            limit,
            all,
            json,
        } => {
            let action = named(action.as_deref(), config)?;
            let client = connect(config).await?;
            let letters = Letters::new(&client, config, action);
            list(letters, (!all).then_some(limit), json).await
        }
        LettersCommand::Show { id } => show(&connect(config).await?, &config.namespace, id).await,
        LettersCommand::Redrive(chosen) => redrive(chosen, config).await,
        LettersCommand::Purge(chosen) => purge(chosen, config).await,
    }
}

fn named(action: Option<&str>, config: &Config) -> Result<Option<ActionName>, Failure> {
    action
        .map(|name| source::action_name(name, &config.namespace))
        .transpose()
}

/// The letters of a namespace, page by page.
struct Letters<'a> {
    client: &'a Client,
    namespace: &'a NamespaceName,
    action: Option<ActionName>,
    /// `None`: there are no more.
    place: Option<Place>,
}

enum Place {
    Start,
    After(PageCursor),
}

impl<'a> Letters<'a> {
    const fn new(client: &'a Client, config: &'a Config, action: Option<ActionName>) -> Self {
        Self {
            client,
            namespace: &config.namespace,
            action,
            place: Some(Place::Start),
        }
    }

    /// The next page of up to `limit`; `None` after the last one.
    async fn next(&mut self, limit: u32) -> Result<Option<Vec<DeadLetter>>, Failure> {
        let after = match &self.place {
            None => return Ok(None),
            Some(Place::Start) => None,
            Some(Place::After(cursor)) => Some(cursor),
        };
        let page = self
            .client
            .dead_letters(self.namespace, self.action.as_ref(), after, limit);
        let page = page.await.map_err(call_failure)?;
        self.place = page.next.map(Place::After);
        Ok(Some(page.letters))
    }
}

async fn list(mut letters: Letters<'_>, limit: Option<u32>, json: bool) -> Result<(), Failure> {
    let mut found = Vec::new();
    let wanted = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    while found.len() < wanted
        && let Some(page) = letters.next(limit.unwrap_or(PAGE_LEN)).await?
    {
        found.extend(page);
    }
    let more = found.len() > wanted || letters.place.is_some();
    found.truncate(wanted);
    if json {
        output::json(&Value::Array(found.iter().map(to_json).collect()));
    } else {
        output::line(table(&found));
        if more {
            output::line("there are more: see all of them with --all");
        }
    }
    Ok(())
}

fn to_json(letter: &DeadLetter) -> Value {
    json!({
        "activationId": letter.id.to_string(),
        "namespace": letter.key.namespace.to_string(),
        "action": letter.key.action.to_string(),
        "runs": letter.runs,
        "ended": letter.ended.map(show_moment),
        "status": letter.status.text(),
        "error": letter.error,
        "payload_bytes": letter.payload_len.as_bytes(),
    })
}

fn table(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ACTIVATION",
        "ACTION",
        "RUNS",
        "ENDED",
        "STATUS",
        "ARGUMENTS",
        "ERROR",
    ]);
    table.add_rows(letters.iter().map(|letter| {
        vec![
            Cell::new(letter.id),
            Cell::new(&letter.key.action),
            right(letter.runs.to_string()),
            Cell::new(letter.ended.map_or_else(|| "-".to_owned(), show_moment)),
            Cell::new(letter.status.text()),
            right(letter.payload_len.to_string()),
            Cell::new(&letter.error),
        ]
    }));
    table.trim_fmt()
}

async fn show(client: &Client, namespace: &NamespaceName, id: ActivationId) -> Result<(), Failure> {
    let found = client
        .find_activation(namespace, id)
        .await
        .map_err(call_failure)?;
    match found {
        Some(found) if found.dead_letter => {
            output::json(&found_json(id, &found));
            Ok(())
        }
        Some(found) if !matches!(found.progress, Progress::Gone) => {
            let text = format!(
                "activation {id} is no dead letter: it is {}",
                found.progress.name()
            );
            Err(Failure::new(Exit::Failed, text)
                .advise(format!("see it with `whiskraft activation get {id}`")))
        }
        _ => {
            let text = format!("namespace {namespace} has no dead letter {id}");
            Err(Failure::new(Exit::Failed, text)
                .advise("see what there is with `whiskraft dead-letters list`"))
        }
    }
}

/// The ids that are meant, all of them known before the first is touched: one that runs again may fail again at once.
async fn ids(client: &Client, config: &Config, chosen: &Chosen) -> Result<Vec<ActivationId>, Failure> {
    if !chosen.all {
        return Ok(chosen.ids.clone());
    }
    let mut letters = Letters::new(client, config, named(chosen.action.as_deref(), config)?);
    let mut ids = Vec::new();
    while let Some(page) = letters.next(PAGE_LEN).await? {
        ids.extend(page.iter().map(|letter| letter.id));
    }
    Ok(ids)
}

async fn redrive(chosen: Chosen, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    let ids = ids(&client, config, &chosen).await?;
    let redriven = client
        .redrive(&config.namespace, &ids)
        .await
        .map_err(call_failure)?;
    let failed = redriven
        .iter()
        .filter(|redriven| redriven.outcome.is_err())
        .count();
    tell(&redriven, failed, chosen.json);
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(
            Exit::Failed,
            format!("{failed} of {} were not run again", redriven.len()),
        )),
    }
}

fn tell(redriven: &[Redriven], failed: usize, json: bool) {
    if json {
        let all = redriven.iter().map(|redriven| {
            json!({
                "activationId": redriven.id.to_string(),
                "newActivationId": redriven.outcome.as_ref().ok().map(ToString::to_string),
                "error": redriven.outcome.as_ref().err(),
            })
        });
        return output::json(&Value::Array(all.collect()));
    }
    for redriven in redriven {
        match &redriven.outcome {
            Ok(new) => output::line(format_args!("{} runs again as {new}", redriven.id)),
            Err(error) => output::line(format_args!("{} was not run again: {error}", redriven.id)),
        }
    }
    output::line(format_args!("{} run again", redriven.len() - failed));
}

async fn purge(chosen: Chosen, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    let ids = ids(&client, config, &chosen).await?;
    let purged = client
        .purge(&config.namespace, &ids)
        .await
        .map_err(call_failure)?;
    if chosen.json {
        output::json(&json!({ "purged": purged }));
    } else {
        output::line(format_args!("{purged} taken off the list"));
    }
    Ok(())
}
