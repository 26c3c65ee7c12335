//! The rules of classification, one row each.

use super::*;

const LIMIT: Duration = Duration::from_secs(2);
const QUICK: Duration = Duration::from_millis(3);

fn response(code: u16, body: &str) -> Answer {
    Answer::Response {
        code,
        body: Bytes::copy_from_slice(body.as_bytes()),
        truncated: None,
    }
}

fn truncated(code: u16) -> Answer {
    let truncated = Some(Truncated {
        length: 2000,
        limit: 10,
    });
    Answer::Response {
        code,
        body: Bytes::from_static(b"{\"a\":\"xxxx"),
        truncated,
    }
}

fn ended(verdict: Verdict) -> (u8, String) {
    match verdict {
        Verdict::Ended { status, result, .. } => (status.code(), String::from_utf8(result.to_vec()).unwrap()),
        other => panic!("expected an end, got {other:?}"),
    }
}

fn run(answer: Answer) -> (u8, String) {
    ended(run_verdict(answer, QUICK, LIMIT))
}

fn init(answer: &Answer) -> (u8, String) {
    ended(init_verdict(answer, QUICK, LIMIT))
}

fn error(status: u8, text: &str) -> (u8, String) {
    (status, serde_json::json!({ "error": text }).to_string())
}

#[test]
fn run_results_by_body() {
    let valid = "The action did not produce a valid JSON or JSON Array response";
    let cases = [
        (200, r#"{"a": 1}"#, (0, r#"{"a": 1}"#.to_owned())),
        (200, "[1,2]", (0, "[1,2]".to_owned())),
        (
            200,
            r#"{"error":{"x":1},"b":2}"#,
            (1, r#"{"error":{"x":1}}"#.to_owned()),
        ),
        (200, r#"{"error":null}"#, (1, r#"{"error":null}"#.to_owned())),
        (502, r#"{"error":"no"}"#, (2, r#"{"error":"no"}"#.to_owned())),
        (502, r#"{"a":1}"#, error(2, &format!("{valid}: {{\"a\":1}}"))),
        (200, "null", error(2, &format!("{valid}: null"))),
        (200, "3", error(2, &format!("{valid}: 3"))),
        (200, r#"{"a":1"#, error(2, &format!("{valid}: {{\"a\":1"))),
        (200, "", error(2, &format!("{valid}."))),
        (404, "", error(2, &format!("{valid}."))),
    ];
    for (code, body, expected) in cases {
        assert_eq!(run(response(code, body)), expected, "{code} {body}");
    }
}

#[test]
fn result_that_is_not_utf8_is_no_result() {
    let body = Bytes::from_static(b"{\"a\":\"\xff\"}");
    let (status, text) = run(Answer::Response {
        code: 200,
        body,
        truncated: None,
    });
    assert_eq!(status, 2);
    assert!(text.contains("did not produce a valid JSON"), "{text}");
}

#[test]
fn a_good_answer_after_the_limit_is_too_late() {
    let (status, text) = ended(run_verdict(response(200, "{}"), LIMIT, LIMIT));
    assert_eq!(
        (status, text),
        error(2, "The action exceeded its time limits of 2000 milliseconds.")
    );
}

#[test]
fn too_long_a_result_is_an_application_error_and_quotes_what_was_kept() {
    let text = "The action produced a response that exceeded the allowed length: 2000 > 10 bytes. \
                The truncated response was: {\"a\":\"xxxx";
    assert_eq!(run(truncated(200)), error(1, text));
    assert_eq!(init(&truncated(200)), error(2, text));
}

#[test]
fn run_without_answer() {
    assert_eq!(run(Answer::MemoryExhausted), error(2, MEMORY_EXHAUSTED));
    assert_eq!(run(Answer::Nothing), error(2, RUN_ABNORMAL));
}

#[test]
fn code_503_gives_back_even_when_late() {
    assert_eq!(run_verdict(response(503, ""), LIMIT, LIMIT), Verdict::GiveBack);
    assert_eq!(init_verdict(&response(503, ""), LIMIT, LIMIT), Verdict::GiveBack);
}

#[test]
fn good_init_counts_even_when_late_and_its_body_is_ignored() {
    assert_eq!(
        init_verdict(&response(200, "whatever"), LIMIT, LIMIT),
        Verdict::Initialised
    );
}

#[test]
fn failed_inits() {
    let failed = "The action failed during initialization";
    let cases = [
        (
            response(502, r#"{"error":"bad"}"#),
            (2, r#"{"error":"bad"}"#.to_owned()),
        ),
        (response(502, "oops"), error(2, &format!("{failed}: oops"))),
        (response(502, ""), error(2, &format!("{failed}."))),
        (Answer::MemoryExhausted, error(2, MEMORY_EXHAUSTED)),
        (Answer::Nothing, error(2, INIT_ABNORMAL)),
    ];
    for (answer, expected) in cases {
        assert_eq!(init(&answer), expected, "{answer:?}");
    }
    let late = ended(init_verdict(&Answer::Nothing, LIMIT, LIMIT));
    let text = "The action exceeded its time limits of 2000 milliseconds during initialization.";
    assert_eq!(late, error(2, text));
}

#[test]
fn size_counts_utf16_units() {
    let Verdict::Ended { size, .. } = run_verdict(response(200, r#"{"a":"é😀"}"#), QUICK, LIMIT) else {
        panic!("not ended");
    };
    assert_eq!(size, Some(11));
    assert_eq!(size_of(b""), None);
}
