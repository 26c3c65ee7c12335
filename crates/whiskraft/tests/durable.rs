//! The commands for durable activations and schedules as a user meets them, against scripted schedulers: text, JSON, exit
//! codes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
mod support;

use fake::{Fake, Mode, Seen, World, cluster, key, queue_event, record};
use serde_json::{Value, json};
use support::{run, says};
use whiskraft_proto::v1;
use whiskraft_proto::v1::cancel_activation_response::Outcome;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_proto::v1::rejection::Kind;

const ID: &str = "03030303030303030303030303030303";
const BYTES: [u8; 16] = [3; 16];

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn one() -> (World, Vec<Fake>) {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 7));
    (world, fakes)
}

fn finds(fake: &Fake, state: State) {
    let found = v1::FindActivationResponse {
        state: state.into(),
        record: (state == State::Done).then(|| record(&BYTES)),
        key: (state != State::Gone).then(|| (&key()).into()),
        durable: true,
        runs: 2,
        accepted_ms: 1000,
        ..Default::default()
    };
    fake.with(|script| script.find = found);
}

fn refused(reason: Kind) -> v1::Rejection {
    v1::Rejection { kind: Some(reason) }
}

#[tokio::test]
async fn what_is_not_waited_for_is_durable_unless_memory_is_asked_for() {
    let (_world, fakes) = one().await;
    fakes[0].with(|state| state.mode = Mode::Echo);
    let key_args = ["invoke", "lib/hello", "--no-wait", "--idempotency-key", "order-7"];
    let (first, _) = run(&fakes, &key_args, 0).await;
    let delayed = [
        "invoke",
        "lib/hello",
        "--no-wait",
        "--not-before",
        "2100-01-01T00:00:00Z",
    ];
    run(&fakes, &delayed, 0).await;
    run(&fakes, &["invoke", "lib/hello", "--no-wait", "--memory"], 0).await;
    run(&fakes, &["invoke", "lib/hello", "--durable"], 0).await;
    run(
        &fakes,
        &["invoke", "lib/hello", "--durable", "--repeat", "1", "-q"],
        0,
    )
    .await;
    run(&fakes, &["invoke", "lib/hello"], 0).await;
    let sent = fakes[0].submissions_now();
    let terms: Vec<_> = sent
        .iter()
        .map(|sent| (sent.durability(), sent.not_before_ms, sent.blocking))
        .collect();
    let (quorum, memory) = (v1::Durability::Quorum, v1::Durability::Memory);
    assert_eq!(
        terms,
        [
            (quorum, 0, false),
            (quorum, 4_102_444_800_000, false),
            (memory, 0, false),
            (quorum, 0, true),
            (quorum, 0, true),
            (memory, 0, true),
        ]
    );
    let id: String = sent[0].id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first, id);
}

#[tokio::test]
async fn promises_that_contradict_each_other_are_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["--memory"], "--no-wait"),
        (&["--no-wait", "--memory", "--durable"], "--durable"),
        (&["--not-before", "+1h"], "--no-wait"),
        (&["--no-wait", "--not-before", "tomorrow"], "2026-12-24T18:00:00Z"),
        (&["--idempotency-key", "a", "--repeat", "2"], "--repeat"),
        (&["--no-wait", "--memory", "--idempotency-key", "a"], "--memory"),
    ];
    for (args, part) in cases {
        let args = [&["invoke", "lib/hello"], args].concat();
        let (_, error) = run(&[], &args, 2).await;
        says(&error, &[part]);
    }
}

#[tokio::test]
async fn a_key_with_other_arguments_and_a_full_disk_say_what_to_do() {
    for (refusal, code, parts) in [
        (
            Kind::Conflict(v1::Conflict {}),
            1,
            ["order-7", "use another key", "whiskraft activation get"],
        ),
        (
            Kind::StorageFull(v1::StorageFull {
                reason: "scheduler 1 has 2 % of its disk left".to_owned(),
            }),
            1,
            ["was not accepted", "2 % of its disk", "try again"],
        ),
    ] {
        let (_world, fakes) = one().await;
        let fake = fakes[0].clone();
        let refusing = tokio::spawn(async move {
            let sent = fake.submissions(1).await;
            fake.reject(&sent[0].id, refusal).await;
        });
        let args = ["invoke", "lib/hello", "--no-wait", "--idempotency-key", "order-7"];
        let (_, error) = run(&fakes, &args, code).await;
        refusing.await.unwrap();
        says(&error, &parts);
    }
}

#[tokio::test]
async fn an_activation_is_shown_in_every_state_and_gone_has_its_own_code() {
    let (_world, fakes) = one().await;
    let get = ["activation", "get", ID];
    finds(&fakes[0], State::Delayed);
    let (text, _) = run(&fakes, &get, 0).await;
    let json = parsed(&text);
    assert_eq!((&json["state"], &json["runs"]), (&json!("delayed"), &json!(2)));
    assert_eq!(json["accepted"], "1970-01-01T00:00:01.000Z");
    let (_, error) = run(&fakes, &["activation", "get", ID, "--wait", "10ms"], 1).await;
    says(&error, &["has not ended within 10ms", "it is delayed"]);
    finds(&fakes[0], State::Done);
    for args in [&get[..], &["activation", "get", ID, "--wait", "1m"]] {
        let (text, _) = run(&fakes, args, 0).await;
        let json = parsed(&text);
        assert_eq!(
            (&json["state"], &json["run"], &json["cancelled"], &json["durable"]),
            (&json!("done"), &json!(1), &json!(false), &json!(true))
        );
    }
    finds(&fakes[0], State::Gone);
    let (_, error) = run(&fakes, &get, 5).await;
    says(&error, &["is gone", "its record has expired"]);
    finds(&fakes[0], State::Unknown);
    let (_, error) = run(&fakes, &get, 1).await;
    says(&error, &["no scheduler knows activation"]);
}

#[tokio::test]
async fn one_that_a_silent_scheduler_may_know_is_not_called_unknown() {
    let (_world, fakes) = cluster(2).await;
    fakes[1].die().await;
    let (_, error) = run(&fakes, &["activation", "get", ID], 4).await;
    says(
        &error,
        &["no scheduler that answered knows activation", "scheduler 2"],
    );
}

#[tokio::test]
async fn cancelling_says_how_far_it_was() {
    let (_world, fakes) = one().await;
    let answers = |outcome: Outcome| {
        fakes[0].with(|state| {
            state.asked.cancel = vec![v1::CancelActivationResponse {
                outcome: outcome.into(),
                rejection: None,
            }];
        });
    };
    let cancel = ["activation", "cancel", ID];
    answers(Outcome::BeforeStart);
    says(&run(&fakes, &cancel, 0).await.0, &["cancelled and never begins"]);
    answers(Outcome::Stopping);
    let (text, _) = run(&fakes, &["activation", "cancel", ID, "--json"], 0).await;
    assert_eq!(parsed(&text)["outcome"], "stopping");
    answers(Outcome::Unknown);
    says(&run(&fakes, &cancel, 1).await.1, &["no scheduler knows"]);
    // Too late is a no; a second time is not.
    answers(Outcome::Ended);
    finds(&fakes[0], State::Done);
    says(
        &run(&fakes, &cancel, 1).await.1,
        &["had ended before with success"],
    );
    fakes[0].with(|state| state.find.record.as_mut().unwrap().cancelled = true);
    says(&run(&fakes, &cancel, 0).await.0, &["was cancelled before"]);
}

fn letter(n: u8) -> v1::DeadLetter {
    v1::DeadLetter {
        id: vec![n; 16].into(),
        key: Some((&key()).into()),
        runs: 4,
        ended_ms: 5000,
        status: v1::Status::DeveloperError.into(),
        error: "no such table".to_owned(),
        payload_len: 2048,
    }
}

/// Three letters on two pages.
fn letters(fake: &Fake) {
    let page = |letters, next: &'static [u8]| v1::ListDeadLettersResponse {
        letters,
        next: next.into(),
        rejection: None,
    };
    fake.with(|state| {
        state.asked.list = vec![page(vec![letter(1), letter(2)], b"2"), page(vec![letter(3)], b"")];
    });
}

#[tokio::test]
async fn dead_letters_are_a_table_and_json() {
    let (_world, fakes) = one().await;
    letters(&fakes[0]);
    let (text, _) = run(&fakes, &["dead-letters", "list", "--limit", "2"], 0).await;
    let row = "02020202020202020202020202020202 lib/hello 4 1970-01-01T00:00:05.000Z action developer error 2 KiB no such table";
    says(&text, &[row, "there are more: see all of them with --all"]);
    letters(&fakes[0]);
    let (text, _) = run(&fakes, &["dead-letters", "list", "--all", "--json"], 0).await;
    let json = parsed(&text);
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(
        (&json[2]["runs"], &json[2]["payload_bytes"]),
        (&json!(4), &json!(2048))
    );
    fakes[0].with(|state| state.asked.list = Vec::new());
    let (text, _) = run(&fakes, &["dead-letters", "list"], 0).await;
    assert_eq!(text, "no dead letters");
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_its_record() {
    let (_world, fakes) = one().await;
    let show = ["dead-letters", "show", ID];
    finds(&fakes[0], State::Done);
    says(&run(&fakes, &show, 1).await.1, &["is no dead letter: it is done"]);
    fakes[0].with(|state| state.find.dead_letter = true);
    let (text, _) = run(&fakes, &show, 0).await;
    assert_eq!(parsed(&text)["deadLetter"], true);
    finds(&fakes[0], State::Unknown);
    says(
        &run(&fakes, &show, 1).await.1,
        &["has no dead letter", "dead-letters list"],
    );
}

#[tokio::test]
async fn all_letters_of_every_page_are_run_again_or_purged() {
    let (_world, fakes) = one().await;
    letters(&fakes[0]);
    let redriven = |n: u8, new_id: &'static [u8], error: &str| v1::Redriven {
        id: vec![n; 16].into(),
        new_id: new_id.into(),
        error: error.to_owned(),
    };
    let answer = |redriven| v1::RedriveDeadLettersResponse {
        redriven,
        rejection: None,
    };
    fakes[0].with(|state| {
        state.asked.redrive = vec![answer(vec![
            redriven(1, &[8; 16], ""),
            redriven(2, &[9; 16], ""),
            redriven(3, b"", "its arguments are gone"),
        ])];
    });
    let (text, error) = run(&fakes, &["dead-letters", "redrive", "--all"], 1).await;
    says(
        &text,
        &[
            "01010101010101010101010101010101 runs again as 08080808080808080808080808080808",
            "03030303030303030303030303030303 was not run again: its arguments are gone",
            "2 run again",
        ],
    );
    says(&error, &["1 of 3 were not run again"]);

    letters(&fakes[0]);
    let purged = |purged| v1::PurgeDeadLettersResponse {
        purged,
        rejection: None,
    };
    fakes[0].with(|state| state.asked.purge = vec![purged(3)]);
    let (text, _) = run(&fakes, &["dead-letters", "purge", "--all"], 0).await;
    assert_eq!(text, "3 taken off the list");
    fakes[0].with(|state| state.asked.purge = vec![purged(1)]);
    let (text, _) = run(&fakes, &["dead-letters", "purge", ID, "--json"], 0).await;
    assert_eq!(parsed(&text)["purged"], 1);
    let ids: Vec<_> = fakes[0].with(|state| {
        let ids = |seen: &Seen| match seen {
            Seen::Redrive(request) => Some(request.ids.len()),
            Seen::Purge(request) => Some(request.ids.len()),
            _ => None,
        };
        state.seen.iter().filter_map(ids).collect()
    });
    assert_eq!(ids, [3, 3, 1]);
    let (_, error) = run(&fakes, &["dead-letters", "purge"], 2).await;
    says(&error, &["<IDS>"]);
    run(&fakes, &["dead-letters", "purge", ID, "--all"], 2).await;
}

#[tokio::test]
async fn a_refusal_of_the_cluster_is_told() {
    let (_world, fakes) = one().await;
    fakes[0].with(|state| {
        state.asked.purge = vec![v1::PurgeDeadLettersResponse {
            purged: 0,
            rejection: Some(refused(Kind::Invalid(v1::Invalid {
                reason: "the namespace does not exist".to_owned(),
            }))),
        }];
    });
    let (_, error) = run(&fakes, &["dead-letters", "purge", ID], 1).await;
    says(&error, &["the namespace does not exist"]);
}

#[tokio::test]
async fn a_schedule_is_stored_shown_paused_and_deleted() {
    let (_world, fakes) = one().await;
    let put = [
        "schedule",
        "put",
        "report",
        "--action",
        "report",
        "--cron",
        "0 6 * * 1-5",
        "-p",
        "lang=en",
        "--missed",
        "run-once",
    ];
    let (text, _) = run(&fakes, &put, 0).await;
    says(
        &text,
        &[
            "report runs guest/report at 0 6 * * 1-5",
            "next at 20",
            "T06:00:00.000Z",
        ],
    );
    let state = v1::ScheduleState {
        slot_ms: 120_000,
        fired: 3,
        last_id: BYTES.to_vec().into(),
        ..Default::default()
    };
    let body = (1, whiskraft_proto::Message::encode_to_vec(&state));
    fakes[0].with(|script| {
        script
            .store
            .documents
            .insert("schedule-state:guest/report".to_owned(), body)
    });
    let (text, _) = run(&fakes, &["schedule", "get", "report"], 0).await;
    let json = parsed(&text);
    assert_eq!(
        (&json["arguments"], &json["missed"], &json["fired"]),
        (&json!({"lang": "en"}), &json!("run-once"), &json!(3))
    );
    assert_eq!(
        (&json["last_activation"], &json["from"]),
        (&json!(ID), &json!("1970-01-01T00:01:17.000Z"))
    );
    assert_eq!(json["next"].as_array().unwrap().len(), 3);
    let (text, _) = run(&fakes, &["schedule", "pause", "report"], 0).await;
    says(&text, &["report is paused"]);
    let (text, _) = run(&fakes, &["schedule", "list"], 0).await;
    says(&text, &["report guest/report 0 6 * * 1-5 run-once paused 3 0 -"]);
    let (text, _) = run(&fakes, &["schedule", "resume", "report"], 0).await;
    says(&text, &["report goes on"]);
    run(&fakes, &["schedule", "delete", "report"], 0).await;
    let (_, error) = run(&fakes, &["schedule", "get", "report"], 1).await;
    says(&error, &["does not exist", "whiskraft schedule list"]);
    let (text, _) = run(&fakes, &["schedule", "list", "--json"], 0).await;
    assert_eq!(parsed(&text), json!([]));
}

#[tokio::test]
async fn a_schedule_that_cannot_be_is_refused_before_the_cluster_is_asked() {
    for (cron, part) in [("often", "*/5 * * * *"), ("0 0 31 4 *", "no time")] {
        let (_, error) = run(&[], &["schedule", "put", "x", "--action", "a", "--cron", cron], 2).await;
        says(&error, &[part]);
    }
    let (_world, fakes) = one().await;
    fakes[0].with(|state| state.store.refusal = Some("the action must be of this namespace".to_owned()));
    let put = ["schedule", "put", "x", "--action", "a", "--cron", "@hourly"];
    let (_, error) = run(&fakes, &put, 2).await;
    says(&error, &["the action must be of this namespace"]);
}
