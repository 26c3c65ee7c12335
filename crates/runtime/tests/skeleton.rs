//! Conformance of shell scripts and executables (the skeleton column), with real ones.

mod support;

use std::io::{Read, Write};

use base64::Engine;
use serde_json::json;
use support::{Proxy, SENTINEL, binary, error_of, sentinels, wait_gone, zip};

const BAD_CODE: &str = "The action failed to generate or locate a binary. See logs for details.";
const NO_DICTIONARY: &str = "The action did not return a dictionary or array.";

fn sh() -> Proxy {
    Proxy::start("sh")
}

#[test]
fn rt_01_the_last_line_is_the_result_and_the_rest_is_log() {
    let proxy = sh();
    let answer = proxy.init_code("echo one; echo two >&2; echo three; echo \"{\\\"got\\\": $1}\"\n");
    assert_eq!((answer.status, answer.body), (200, json!("OK")));
    let answer = proxy.run(json!({"x": 1}));
    assert_eq!((answer.status, answer.body), (200, json!({"got": {"x": 1}})));
    assert_eq!(proxy.stdout(), format!("one\nthree\n{SENTINEL}\n"));
    assert_eq!(proxy.stderr(), format!("two\n{SENTINEL}\n"));
}

#[test]
fn rt_02_03_and_20_without_code() {
    let proxy = sh();
    for body in ["{}", r#"{"value":{}}"#, "nonsense"] {
        let answer = proxy.post("/init", body.as_bytes()).unwrap();
        assert_eq!((answer.status, error_of(&answer)), (502, BAD_CODE), "{body}");
    }
    assert_eq!(proxy.run(json!({})).status, 502);
    assert_eq!(proxy.init_code("cat").status, 200, "a good init after bad ones");
}

#[test]
fn rt_04_second_init() {
    let proxy = sh().loaded("cat");
    let answer = proxy.init_code("echo {}");
    let text = "Cannot initialize the action more than once.";
    assert_eq!((answer.status, error_of(&answer)), (403, text));
    assert!(proxy.stderr().contains(text));
}

#[test]
fn rt_08_10_14_and_16_standard_input_comes_back() {
    let proxy = sh().loaded("cat");
    for value in [
        json!({"text": "a \"q\" \\ ☃ ä 😀"}),
        json!([1, {"b": null}]),
        json!({"big": "0123456789abcdef".repeat(1 << 16)}),
    ] {
        let answer = proxy.run(value.clone());
        assert_eq!((answer.status, answer.body), (200, value));
    }
}

#[test]
fn rt_11_12_13_and_29_environment() {
    let proxy = sh();
    let code = "printf '[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]' \"$A\" \"${E-unset}\" \"$__OW_ACTIVATION_ID\" \"$__OW_API_HOST\" \"$SECRET_OF_THE_HOST\"";
    assert_eq!(
        proxy
            .init(json!({"code": code, "env": {"A": "x y", "E": ""}}))
            .status,
        200
    );
    for id in ["1", "2"] {
        let answer = proxy.run_with(json!({"activation_id": id}));
        assert_eq!(answer.body, json!(["x y", "", id, "https://api.example", ""]));
    }
}

#[test]
fn rt_15_last_line_that_is_no_dictionary() {
    for code in [
        "echo 3",
        "echo text",
        "true",
        "echo '{\"a\":'",
        "echo '{}'; echo done",
        "exit 3",
    ] {
        let proxy = sh().loaded(code);
        let answer = proxy.run(json!({}));
        assert_eq!((answer.status, error_of(&answer)), (502, NO_DICTIONARY), "{code}");
        assert_eq!((sentinels(&proxy.stdout()), sentinels(&proxy.stderr())), (1, 1));
    }
    let proxy = sh().loaded("echo text");
    proxy.run(json!({}));
    assert_eq!(
        proxy.stdout(),
        format!("text\n{SENTINEL}\n"),
        "the line goes to the log"
    );
}

#[test]
fn rt_17_and_18_errors_and_exit_codes() {
    let proxy = sh().loaded("echo '{\"error\": 1}'; exit 7");
    let answer = proxy.run(json!({}));
    assert_eq!((answer.status, answer.body), (200, json!({"error": 1})));
}

#[test]
fn rt_19_the_next_activation_has_a_new_process() {
    let proxy = sh().loaded("case $1 in *die*) kill -9 $$;; esac; echo \"{\\\"pid\\\": $$}\"");
    let first = proxy.run(json!({})).body;
    assert_eq!(proxy.run(json!({"die": 1})).status, 502);
    let last = proxy.run(json!({})).body;
    assert!(first["pid"].is_number() && last["pid"].is_number() && first != last);
}

#[test]
fn arguments_that_are_no_dictionary() {
    let proxy = sh().loaded("cat");
    for value in [json!("text"), json!(3), json!(null)] {
        let answer = proxy.run(value);
        let text = "The action did not receive a dictionary or array as an argument.";
        assert_eq!((answer.status, error_of(&answer)), (404, text));
    }
    assert_eq!(proxy.run_with(json!({})).body, json!({}));
}

#[test]
fn a_process_left_in_the_background_does_not_hold_the_answer_and_ends_with_the_owner() {
    let mut proxy = sh().loaded("sleep 1000 & echo \"{\\\"pid\\\": $!}\"");
    let pid = proxy.run(json!({})).body["pid"].to_string();
    proxy.lifeline = None;
    proxy.wait();
    wait_gone(&pid);
}

#[test]
fn rt_28_zip_with_exec_and_a_helper() {
    let proxy = sh();
    let files = [
        ("exec", "#!/bin/sh\n. ./helper\necho \"{\\\"v\\\": $V}\"\n"),
        ("helper", "V=8\n"),
    ];
    assert_eq!(proxy.init(binary(&zip(&files))).status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({})).body, json!({"v": 8}));
    let proxy = sh();
    assert_eq!(proxy.init(binary(&zip(&[("other", "x")]))).status, 502);
    assert!(proxy.stderr().contains("no file exec"));
}

#[test]
fn native_runs_an_elf_file_and_refuses_text() {
    let proxy = Proxy::start("native");
    let elf = std::fs::read("/bin/echo").unwrap();
    let code = base64::engine::general_purpose::STANDARD.encode(elf);
    assert_eq!(proxy.init(binary(&code)).status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({"x": [1]})).body, json!({"x": [1]}));
    let proxy = Proxy::start("native");
    let answer = proxy.init_code("echo {}");
    assert_eq!((answer.status, error_of(&answer)), (502, BAD_CODE));
    assert!(
        proxy.stderr().contains("neither an ELF executable"),
        "{}",
        proxy.stderr()
    );
    assert_eq!(proxy.init_code("#!/bin/sh\necho '{}'").status, 200);
}

#[test]
fn unknown_path() {
    assert_eq!(sh().post("/other", b"").unwrap().status, 404);
}

#[test]
fn serves_over_tcp_and_ends_when_asked_to() {
    // A port that was free a moment ago; the proxy says which one it cannot have.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut proxy = Proxy::start_with("sh", &["--listen", &format!("tcp:127.0.0.1:{port}")], &[]);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"POST /other HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 404");
        let mut rest = Vec::new();
        while !rest.ends_with(b"found.\"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rest.extend(byte.map(|byte| byte.to_ascii_lowercase()));
        }
    }
    let pid = rustix::process::Pid::from_raw(proxy.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(proxy.wait().code(), Some(0));
}
