//! Where reports of `whiskraft bench` go.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;

/// Files, and progress.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Write the report as JSON to this file; - is standard output, instead of the tables
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write the report with plots to this file, which needs no other
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
}

impl OutputArgs {
    /// Makes the files: what cannot be written is better known before a measurement than after.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        let files = [&self.json, &self.html].into_iter().flatten();
        files
            .filter(|file| !is_stdout(file))
            .try_for_each(|file| write(file, ""))
    }

    /// Shows a report: as it is, as text, and as a page if one is wanted.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn show(
        &self,
        report: &impl Serialize,
        text: impl FnOnce() -> String,
        page: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        show(self.json.as_deref(), report, text)?;
        self.html.as_ref().map_or(Ok(()), |file| write(file, &page()))
    }
}

/// Shows a report as text, or as JSON if that is to go to standard output.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn show(
    json: Option<&Path>,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let value = || serde_json::to_value(report).expect("the report is plain data");
    match json {
        Some(file) if is_stdout(file) => output::json(&value()),
        file => {
            output::line(text());
            if let Some(file) = file {
                write(file, &format!("{}\n", output::json_text(&value())))?;
            }
        }
    }
    Ok(())
}

pub(super) fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot write {}", file.display())).caused_by(error)
    })
}
