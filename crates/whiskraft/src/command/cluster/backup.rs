//! `whiskraft cluster backup` and `verify`: a file that holds the cluster, and what is in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use humantime_serde::re::humantime::format_rfc3339_seconds;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use whiskraft_client::{BackupPieces, CallError};
use whiskraft_raft::{Backup, BackupError};

use super::super::{call_failure, connect};
use super::Common;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;

/// Shown below the help of `backup`.
pub(super) const HELP: &str = "\
Examples:
  whiskraft cluster backup /backup/monday.backup
  whiskraft cluster backup monday.backup -e 10.0.0.1:7401,10.0.0.2:7401 --json

Any scheduler gives it while the cluster works. In the file are actions, code, documents, limits of namespaces, and the
journal: durable activations that have not ended, records of those that have. Everything that was acknowledged before the
command began is in it. Not in it: who was connected, containers, and activations that are not durable.

The file is checked before the command ends, and takes its name only if it is whole.";

/// Arguments of `whiskraft cluster backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// File to write; it must not be there
    file: PathBuf,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Arguments of `whiskraft cluster verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The backup
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Takes a backup.
///
/// # Errors
/// If no scheduler gives one, or the file cannot be written.
pub(super) async fn run(args: &BackupArgs, config: &Config) -> Result<(), Failure> {
    let (file, part) = (&args.file, part_of(&args.file));
    if file.exists() {
        return Err(
            Failure::new(Exit::Usage, format!("{} is there already", file.display()))
                .advise("choose another name; a backup never replaces a file"),
        );
    }
    let operator = connect(config).await?.operator();
    let pieces = operator.backup().await.map_err(call_failure)?;
    let taken = match receive(pieces, &part).await {
        Ok(()) => check(&part).and_then(|backup| {
            adopt(&part, file).map_err(|error| written(file, error))?;
            Ok(backup)
        }),
        Err(failure) => Err(failure),
    };
    if taken.is_err() {
        drop(fs::remove_file(&part));
    }
    let backup = taken?;
    show(file, &backup, args.common.json);
    if !args.common.json {
        output::line(format_args!(
            "check it again with: whiskraft cluster verify {}",
            file.display()
        ));
    }
    Ok(())
}

/// Checks a backup.
///
/// # Errors
/// If it is damaged or cannot be read.
pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    show(&args.file, &check(&args.file)?, args.json);
    Ok(())
}

/// What a file that is not whole yet is called.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

async fn receive(mut pieces: BackupPieces, part: &Path) -> Result<(), Failure> {
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut file = File::create(part).map_err(|error| written(part, error))?;
    let interrupted = |error: CallError| {
        let failure = Failure::new(Exit::Unreachable, "the backup broke off").caused_by(error);
        failure.advise("run it again; nothing of it is kept")
    };
    while let Some(piece) = pieces.next().await.map_err(interrupted)? {
        file.write_all(&piece).map_err(|error| written(part, error))?;
        bar.set_message(format!("{} received", HumanBytes(pieces.len())));
    }
    file.sync_all().map_err(|error| written(part, error))?;
    bar.finish_and_clear();
    Ok(())
}

/// Gives a whole file its name, durably.
fn adopt(part: &Path, file: &Path) -> io::Result<()> {
    // Unlike a rename it does not replace a file that came there meanwhile.
    fs::hard_link(part, file)?;
    fs::remove_file(part)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

fn check(file: &Path) -> Result<Backup, Failure> {
    whiskraft_raft::verify(file).map_err(|error| damaged(file, error))
}

/// The failure of a file that cannot be used.
pub(super) fn damaged(file: &Path, error: BackupError) -> Failure {
    let exit = match error {
        BackupError::Damaged { .. } => Exit::Failed,
        BackupError::Read { .. } => Exit::Usage,
    };
    Failure::new(exit, format!("{} is no usable backup", file.display())).caused_by(error)
}

fn written(file: &Path, error: io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot write {}", file.display())).caused_by(error)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid")
}

fn show(file: &Path, backup: &Backup, json: bool) {
    if json {
        output::json(&to_json(file, backup));
    } else {
        output::line(text(file, backup));
    }
}

fn time(backup: &Backup) -> String {
    // Clocks far beyond every calendar are not worth an error.
    let taken = UNIX_EPOCH.checked_add(Duration::from_millis(backup.taken.0));
    format_rfc3339_seconds(taken.unwrap_or(UNIX_EPOCH)).to_string()
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A backup in some lines.
pub(super) fn text(file: &Path, backup: &Backup) -> String {
    format!(
        "{}: whole, {}\n\
         cluster {} ({:?}) at revision {}, taken {} by release {}\n\
         {} actions, {} documents, {} blobs, {} namespaces with limits, {} queues\n\
         journal of {} lanes: {} activations not ended, {} records\n\
         sha-256 {}",
        file.display(),
        HumanBytes(backup.bytes),
        backup.cluster_id,
        backup.cluster_name,
        backup.revision,
        time(backup),
        backup.version,
        backup.actions,
        backup.documents,
        backup.blobs,
        backup.namespaces,
        backup.queues,
        backup.lanes.len(),
        backup.open,
        backup.records,
        hex(&backup.digest)
    )
}

/// A backup as JSON.
pub(super) fn to_json(file: &Path, backup: &Backup) -> Value {
    json!({
        "file": file.display().to_string(),
        "bytes": backup.bytes,
        "sha256": hex(&backup.digest),
        "cluster": backup.cluster_id,
        "cluster_name": backup.cluster_name,
        "version": backup.version,
        "taken": time(backup),
        "revision": backup.revision.0,
        "lanes": backup.lanes.iter().map(|revision| revision.0).collect::<Vec<_>>(),
        "actions": backup.actions,
        "documents": backup.documents,
        "blobs": backup.blobs,
        "namespaces": backup.namespaces,
        "queues": backup.queues,
        "activations_open": backup.open,
        "records": backup.records,
    })
}
