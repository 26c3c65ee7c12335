//! Conformance of node (the Node.js column), with a real interpreter; says so where there is none.

mod support;

use serde_json::json;
use support::{Proxy, SENTINEL, binary, error_of, has_node, sentinels, zip};

const ECHO: &str = "function main(args) { return args; }";

fn node() -> Proxy {
    Proxy::start("nodejs:20")
}

#[test]
fn rt_01_06_08_10_and_16_results() {
    if !has_node() {
        return;
    }
    let proxy = node();
    let answer = proxy.init_code(ECHO);
    assert_eq!((answer.status, answer.body), (200, json!({"OK": true})));
    for value in [
        json!({"snow": "☃ ä 😀"}),
        json!({"nested": {"a": [1, {"b": null}]}}),
        json!([1, 2]),
        json!({}),
    ] {
        let answer = proxy.run(value.clone());
        assert_eq!((answer.status, answer.body), (200, value));
    }
    let proxy = node();
    let code = "const f = require('fs'); exports.niam = async () => ({ by: typeof f.readFile });";
    assert_eq!(proxy.init(json!({"main": "niam", "code": code})).status, 200);
    assert_eq!(proxy.run(json!({})).body, json!({"by": "function"}));
}

#[test]
fn rt_02_03_and_07_bad_inits_and_their_state() {
    if !has_node() {
        return;
    }
    for value in [
        json!({}),
        json!({"main": "main"}),
        json!({"code": ECHO}),
        json!({"code": ECHO, "main": 3}),
    ] {
        let proxy = node();
        let answer = proxy.init(value);
        assert_eq!(
            (answer.status, error_of(&answer)),
            (403, "Missing main/no code to execute.")
        );
        let answer = proxy.init_code(ECHO);
        assert_eq!(
            (answer.status, error_of(&answer)),
            (403, "System not ready, status is stopped.")
        );
    }
    let proxy = node();
    let answer = proxy.init(json!({"main": "absent", "code": ECHO}));
    assert_eq!(answer.status, 502);
    assert!(error_of(&answer).starts_with("Initialization has failed due to: "));
    assert!(error_of(&answer).contains("Action entrypoint 'absent' is not a function."));
    assert_eq!(
        node().post("/init", b"nonsense").map(|answer| answer.status),
        Some(500)
    );
}

#[test]
fn rt_04_and_20_order_of_calls() {
    if !has_node() {
        return;
    }
    let proxy = node();
    let answer = proxy.run(json!({}));
    assert_eq!(
        (answer.status, error_of(&answer)),
        (403, "System not initialized.")
    );
    let proxy = proxy.loaded(ECHO);
    let answer = proxy.init_code(ECHO);
    let text = "Cannot initialize the action more than once.";
    assert_eq!((answer.status, error_of(&answer)), (403, text));
    assert!(proxy.stderr().contains(text));
}

#[test]
fn rt_05_syntax_error() {
    if !has_node() {
        return;
    }
    let proxy = node();
    let answer = proxy.init_code("function main( {");
    assert_eq!(answer.status, 502);
    assert!(error_of(&answer).contains("SyntaxError"), "{answer:?}");
    assert!(proxy.stderr().contains("SyntaxError"));
    assert_eq!((sentinels(&proxy.stdout()), sentinels(&proxy.stderr())), (1, 1));
}

#[test]
fn rt_09_and_21_sentinels() {
    if !has_node() {
        return;
    }
    let proxy = node()
        .loaded("function main(a) { console.error('e' + a.n); process.stdout.write('o' + a.n); return {}; }");
    proxy.run(json!({"n": 1}));
    proxy.run(json!({"n": 2}));
    assert_eq!(proxy.stdout(), format!("o1{SENTINEL}\no2{SENTINEL}\n"));
    assert_eq!(proxy.stderr(), format!("e1\n{SENTINEL}\ne2\n{SENTINEL}\n"));
}

#[test]
fn rt_11_12_13_and_29_environment() {
    if !has_node() {
        return;
    }
    let proxy = node();
    let code = "const at = process.env.E; function main() { return { at, ...process.env }; }";
    let env = json!({"E": "", "F": "f"});
    assert_eq!(
        proxy
            .init(json!({"main": "main", "code": code, "env": env}))
            .status,
        200
    );
    for id in ["1", "2"] {
        let body = proxy.run_with(json!({"value": {}, "activation_id": id})).body;
        assert_eq!(
            body,
            json!({
                "at": "", "E": "", "F": "f", "PATH": "/usr/local/bin:/usr/bin:/bin",
                "__OW_ACTIVATION_ID": id, "__OW_API_HOST": "https://api.example",
            })
        );
    }
}

#[test]
fn rt_14_a_mebibyte_round_trips() {
    if !has_node() {
        return;
    }
    let value = json!({"big": "0123456789abcdef".repeat(1 << 16)});
    assert_eq!(node().loaded(ECHO).run(value.clone()).body, value);
}

#[test]
fn rt_15_and_17_results_that_are_none() {
    if !has_node() {
        return;
    }
    for result in ["3", "'text'", "true"] {
        let answer = node()
            .loaded(&format!("function main() {{ return {result}; }}"))
            .run(json!({}));
        assert_eq!(
            (answer.status, error_of(&answer)),
            (502, "The action did not return a dictionary.")
        );
    }
    let proxy = node().loaded("function main(a) { return a.error ? a : undefined; }");
    let answer = proxy.run(json!({}));
    assert_eq!((answer.status, answer.body), (200, json!({})));
    let answer = proxy.run(json!({"error": {"a": 1}}));
    assert_eq!((answer.status, answer.body), (200, json!({"error": {"a": 1}})));
}

#[test]
fn arguments_must_be_dictionaries() {
    if !has_node() {
        return;
    }
    let proxy = node().loaded(ECHO);
    let answer = proxy.run(json!("text"));
    let text = "Internal system error: the argument must be a dictionary but has type 'string'.";
    assert_eq!((answer.status, error_of(&answer)), (403, text));
    assert_eq!(proxy.run_with(json!({})).body, json!({}));
}

#[test]
fn rt_18_a_throw_stops_the_runtime_and_a_rejection_does_not() {
    if !has_node() {
        return;
    }
    let code = "function main(a) { if (a.sync) throw new Error('boom'); \
                return Promise.reject(a.reason === undefined ? undefined : a.reason === 1 ? new TypeError('late') : a.reason); }";
    let proxy = node().loaded(code);
    assert_eq!(proxy.run(json!({})).body, json!({"error": {}}));
    assert_eq!(
        proxy.run(json!({"reason": "text"})).body,
        json!({"error": "text"})
    );
    let answer = proxy.run(json!({"reason": 1}));
    assert_eq!(
        (answer.status, &answer.body["error"]["message"]),
        (200, &json!("late"))
    );
    let answer = proxy.run(json!({"sync": true}));
    assert_eq!(
        (answer.status, error_of(&answer)),
        (502, "An error has occurred: Error: boom")
    );
    let answer = proxy.run(json!({}));
    assert_eq!(
        (answer.status, error_of(&answer)),
        (403, "System not ready, status is stopped.")
    );
}

#[test]
fn rt_19_the_end_of_the_process_cuts_the_connection_and_ends_the_proxy() {
    if !has_node() {
        return;
    }
    let mut proxy = node().loaded("function main() { process.exit(0); }");
    assert!(proxy.post("/run", br#"{"value":{}}"#).is_none());
    assert_eq!(proxy.wait().code(), Some(3));
}

#[test]
fn rt_27_overlapping_runs_are_refused_unless_allowed() {
    if !has_node() {
        return;
    }
    let code = "let first; function main() { if (!first) return new Promise((done) => { first = done; }); \
                first({ by: 'second' }); return { by: 'self' }; }";
    let proxy = Proxy::start_with("nodejs:20", &[], &[("__OW_ALLOW_CONCURRENT", "true")]).loaded(code);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| proxy.run(json!({})));
        let second = scope.spawn(|| proxy.run(json!({})));
        let mut by =
            [first.join().unwrap().body, second.join().unwrap().body].map(|body| body["by"].to_string());
        by.sort();
        assert_eq!(by, ["\"second\"", "\"self\""]);
    });
    let proxy =
        node().loaded("function main(a) { return new Promise((done) => setTimeout(() => done(a), 300)); }");
    std::thread::scope(|scope| {
        let runs = [
            scope.spawn(|| proxy.run(json!({}))),
            scope.spawn(|| proxy.run(json!({}))),
        ];
        let mut statuses = runs.map(|run| run.join().unwrap().status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 403]);
    });
}

#[test]
fn rt_28_packages() {
    if !has_node() {
        return;
    }
    let proxy = node();
    let files = [
        ("package.json", r#"{"main":"start.js"}"#),
        (
            "start.js",
            "const { twice } = require('./lib/t'); exports.main = (a) => ({ n: twice(a.n) });",
        ),
        ("lib/t.js", "exports.twice = (n) => 2 * n;"),
    ];
    assert_eq!(proxy.init(binary(&zip(&files))).status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({"n": 4})).body, json!({"n": 8}));

    let proxy = node();
    let code = zip(&[("other.js", "exports.handler = () => ({ by: 'other' });")]);
    let init = json!({"main": "other.handler", "binary": true, "code": code});
    assert_eq!(proxy.init(init).status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({})).body, json!({"by": "other"}));

    let proxy = node();
    let modules = [
        ("package.json", r#"{"type":"module"}"#),
        ("index.js", "export function main() { return { esm: true }; }"),
    ];
    assert_eq!(
        proxy.init(binary(&zip(&modules))).status,
        200,
        "{}",
        proxy.stderr()
    );
    assert_eq!(proxy.run(json!({})).body, json!({"esm": true}));
}

#[test]
fn an_absent_interpreter_is_named_at_init() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    for (kind, program) in [("nodejs:20", "node"), ("python:3", "python3")] {
        let answer = Proxy::start_with(kind, &[], &[("PATH", path)]).init_code("x");
        assert_eq!(answer.status, 502);
        assert!(
            error_of(&answer).contains(&format!("program {program} was not found in {path}")),
            "{answer:?}"
        );
    }
}
