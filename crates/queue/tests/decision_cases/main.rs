//! Every case of the decision file, data-driven. `DECISION_CASES=path` takes another file of the same format.
//!
//! A case that pins a known flaw of the original is asserted against what we do instead, and says so in a line. An
//! unknown kind, a missing field or an expectation that nobody checks is a failure.

mod decision;
mod field;
mod flaw;
mod kinds;

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::field::{Fields, Verdict};

/// What a case is checked by: the whole case in, and how to take a known flaw.
type Check = fn(&Fields<'_>, Option<&str>) -> Result<Verdict, String>;

#[test]
fn all_cases_pass() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decision_cases.json");
    let path = std::env::var("DECISION_CASES").unwrap_or_else(|_| beside.to_owned());
    // Cargo runs tests in the crate; a relative path may be meant from the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(&path)
        .or_else(|_| std::fs::read_to_string(workspace.join(&path)))
        .unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let tally = Tally::of(&text);
    tally.report(&path);
    assert!(
        tally.failures.is_empty(),
        "{} cases failed:\n{}",
        tally.failures.len(),
        tally.failures.join("\n")
    );
    assert!(tally.total > 0, "{path} holds no case");
}

#[test]
fn all_cases_of_our_own_pass() {
    let tally = Tally::of(include_str!("own_cases.json"));
    tally.report("own_cases.json");
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n"));
}

#[test]
fn what_nobody_can_check_fails() {
    let text = r#"{"decision_cases": [{"id": "A", "in": {}, "expect": {}}], "derived_decision_cases": [],
        "queue_cases": [
            {"id": "B", "kind": "nonsense", "in": {}, "expect": {}},
            {"id": "C", "kind": "average", "in": {"buffer_size": 1, "samples": []}, "expect": {"average": null, "x": 1}},
            {"id": "D", "kind": "average", "in": {"buffer_size": 1}, "expect": {"average": null}},
            {"id": "E", "kind": "average", "in": {"buffer_size": 1, "samples": [2]}, "expect": {"average": 3}}]}"#;
    let tally = Tally::of(text);
    assert_eq!(
        (tally.total, tally.passed, tally.failures.len()),
        (5, 0, 5),
        "{:?}",
        tally.failures
    );
    assert_eq!(Tally::of("{}").failures.len(), 3);
}

#[derive(Default)]
struct Tally {
    total: usize,
    passed: usize,
    /// A line per case that pins a known flaw, or that we answer in other words.
    answered: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    fn of(text: &str) -> Self {
        let file: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}"));
        let mut tally = Self::default();
        tally.run(&file, "decision_cases", decision::check);
        tally.run(&file, "derived_decision_cases", decision::check);
        tally.run(&file, "queue_cases", kinds::check);
        tally
    }

    /// Past the test harness, which shows printed text of failed tests only.
    fn report(&self, path: &str) {
        let mut stdout = std::io::stdout().lock();
        let counts = (self.passed, self.total, self.answered.len());
        let mut say = |line: &str| writeln!(stdout, "{line}").expect("standard output takes a line");
        self.answered.iter().for_each(|line| say(line));
        say(&format!(
            "{path}: {} of {} cases passed, {} of them answer a flaw",
            counts.0, counts.1, counts.2
        ));
    }

    fn run(&mut self, file: &Value, section: &str, check: Check) {
        let Some(cases) = file.get(section).and_then(Value::as_array) else {
            self.failures.push(format!("the file has no list {section:?}"));
            return;
        };
        for case in cases {
            self.total += 1;
            let fields = Fields::new(case);
            let id = fields.text("id").unwrap_or("?").to_owned();
            let flaw = fields.text("legacy_flaw").ok();
            match check(&fields, flaw) {
                Ok(verdict) => {
                    self.passed += 1;
                    self.answered.extend(answer(&id, flaw, verdict));
                }
                Err(failure) => self.failures.push(format!("{id}: {failure}")),
            }
        }
    }
}

fn answer(id: &str, flaw: Option<&str>, verdict: Verdict) -> Option<String> {
    let subject = flaw.map_or_else(|| id.to_owned(), |flaw| format!("{id}: legacy flaw {flaw}"));
    match verdict {
        Verdict::AsOriginal => flaw.map(|_| format!("{subject}: we do the same here")),
        Verdict::Instead {
            original,
            ours,
            because,
        } => Some(format!(
            "{subject}: original says {original}, we {ours} because {because}"
        )),
    }
}
