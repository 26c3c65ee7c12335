//! Shares, limits and the format of lines.

use super::*;

const AT: Duration = Duration::new(1_466_788_637, 434_927_563);
const LIMIT: u64 = 10_000;

fn shares(limit: u64) -> LogShares {
    let mut shares = LogShares::new();
    shares.begin(limit);
    shares
}

/// Texts of the lines without the time.
fn texts(share: &Share) -> Vec<&str> {
    share.lines.iter().map(|line| &line[TIME_WIDTH + 1..]).collect()
}

fn sentinel() -> String {
    format!("{}\n", String::from_utf8(SENTINEL.to_vec()).unwrap())
}

fn end_both(shares: &mut LogShares) {
    shares.push(Stream::Stdout, sentinel().as_bytes(), AT);
    shares.push(Stream::Stderr, sentinel().as_bytes(), AT);
}

#[test]
fn a_line_has_time_stream_and_text() {
    assert_eq!(
        format_line(AT, Stream::Stdout, "hello"),
        "2016-06-24T17:17:17.434927563Z stdout: hello"
    );
}

#[test]
fn dates() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00"),
        (951_782_400, "2000-02-29T00:00:00"),
        (1_709_251_199, "2024-02-29T23:59:59"),
        (1_709_251_200, "2024-03-01T00:00:00"),
        (4_107_542_400, "2100-03-01T00:00:00"),
        (1_767_225_599, "2025-12-31T23:59:59"),
    ] {
        assert!(
            rfc3339(Duration::from_secs(seconds)).starts_with(expected),
            "{seconds}"
        );
    }
}

#[test]
fn lines_of_both_streams_in_order_of_arrival() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stdout, b"one\ntw", AT);
    shares.push(Stream::Stderr, b"err\n", AT);
    shares.push(Stream::Stdout, b"o\r\n\n", AT);
    end_both(&mut shares);
    let share = shares.take(ShareEnd::Sentinels, AT);
    assert_eq!(
        texts(&share),
        ["stdout: one", "stderr: err", "stdout: two", "stdout: "]
    );
    assert_eq!(share.outcome, LogOutcome::Complete);
}

#[test]
fn text_before_a_sentinel_on_its_line_is_a_line() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stdout, b"no end", AT);
    end_both(&mut shares);
    assert_eq!(texts(&shares.take(ShareEnd::Sentinels, AT)), ["stdout: no end"]);
}

#[test]
fn a_forged_sentinel_is_not_shown_and_hides_nothing() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stdout, format!("a\n{}b\n", sentinel()).as_bytes(), AT);
    end_both(&mut shares);
    assert_eq!(
        texts(&shares.take(ShareEnd::Sentinels, AT)),
        ["stdout: a", "stdout: b"]
    );
}

#[test]
fn a_share_has_nothing_of_the_one_before() {
    let mut shares = shares(LIMIT);
    end_both(&mut shares);
    shares.take(ShareEnd::Sentinels, AT);
    shares.push(Stream::Stdout, b"between\nhalf", AT);
    shares.begin(LIMIT);
    shares.push(Stream::Stdout, b"own\n", AT);
    end_both(&mut shares);
    assert_eq!(texts(&shares.take(ShareEnd::Sentinels, AT)), ["stdout: own"]);
}

#[test]
fn the_limit_cuts_at_a_line_and_says_so_and_sentinels_still_count() {
    let line = "x".repeat(60);
    let mut shares = shares(250);
    for _ in 0..5 {
        shares.push(Stream::Stdout, format!("{line}\n").as_bytes(), AT);
    }
    end_both(&mut shares);
    let share = shares.take(ShareEnd::Sentinels, AT);
    let notice = "stderr: Logs were truncated because the total bytes size exceeds the limit of 250 bytes.";
    assert_eq!(
        texts(&share),
        [&format!("stdout: {line}"), &format!("stdout: {line}"), notice]
    );
    assert_eq!(share.outcome, LogOutcome::Truncated);
}

#[test]
fn nothing_small_slips_in_after_the_cut() {
    let mut shares = shares(100);
    shares.push(Stream::Stdout, "y".repeat(200).as_bytes(), AT);
    shares.push(Stream::Stdout, b"\nz\n", AT);
    end_both(&mut shares);
    let share = shares.take(ShareEnd::Sentinels, AT);
    assert_eq!((share.lines.len(), share.outcome), (1, LogOutcome::Truncated));
}

#[test]
fn a_line_without_end_is_not_held_beyond_the_limit() {
    let mut shares = shares(1000);
    for _ in 0..1000 {
        shares.push(Stream::Stdout, &[b'x'; 1000], AT);
        assert!(shares.stdout.bytes.len() <= 2000 + SENTINEL.len());
    }
    shares.push(Stream::Stdout, sentinel().as_bytes(), AT);
    shares.push(Stream::Stderr, sentinel().as_bytes(), AT);
    let share = shares.take(ShareEnd::Sentinels, AT);
    assert_eq!((share.lines.len(), share.outcome), (1, LogOutcome::Truncated));
}

#[test]
fn empty_lines_count_too() {
    let mut shares = shares(1000);
    shares.push(Stream::Stdout, &[b'\n'; 100_000], AT);
    assert!(shares.lines.len() < 30, "{}", shares.lines.len());
}

#[test]
fn missing_sentinels_are_told() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stdout, format!("a\n{}", sentinel()).as_bytes(), AT);
    let share = shares.take(ShareEnd::Sentinels, AT);
    assert_eq!(texts(&share), ["stdout: a", &format!("stderr: {NOTICE_FAILED}")]);
    assert_eq!(share.outcome, LogOutcome::Incomplete);
}

#[test]
fn developer_errors_need_no_sentinel_and_get_their_notice() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stderr, b"trace", AT);
    let share = shares.take(ShareEnd::DeveloperError, AT);
    assert_eq!(
        texts(&share),
        ["stderr: trace", &format!("stderr: {NOTICE_DEVELOPER}")]
    );
    assert_eq!(share.outcome, LogOutcome::Complete);
}

#[test]
fn limit_zero_keeps_nothing_at_all() {
    let mut shares = shares(0);
    shares.push(Stream::Stdout, b"a\n", AT);
    shares.note("n", AT);
    let share = shares.take(ShareEnd::DeveloperError, AT);
    assert_eq!(
        share,
        Share {
            lines: Vec::new(),
            outcome: LogOutcome::Complete
        }
    );
}

#[test]
fn what_is_not_utf8_is_replaced() {
    let mut shares = shares(LIMIT);
    shares.push(Stream::Stdout, b"a\xffb\n", AT);
    end_both(&mut shares);
    assert_eq!(
        texts(&shares.take(ShareEnd::Sentinels, AT)),
        ["stdout: a\u{fffd}b"]
    );
}
