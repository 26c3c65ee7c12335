//! What loading accepts, in which order, and how it says no.

use std::time::Duration;

use super::*;

fn load_file(text: &str) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    load(Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    })
}

fn refusal(text: &str) -> String {
    load_file(text).unwrap_err().to_string()
}

#[test]
fn defaults_agree_with_each_other() {
    assert_eq!(load(Sources::default()).unwrap().endpoints, ["127.0.0.1:7401"]);
}

#[test]
fn later_sources_win() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "namespace = 'file'\n[node]\nzone = 'file'\ncluster-name = 'file'\ndata-dir = 'file'";
    std::fs::write(file.path(), text).unwrap();
    let variable = |name: &str| (format!("WHISKRAFT_{name}"), "variable".to_owned());
    let mut flags = Overrides::default();
    flags.set("node.data-dir", Some("flag"));
    let config = load(Sources {
        file: Some(file.path().to_owned()),
        environment: vec![
            variable("NODE_ZONE"),
            variable("NODE_CLUSTER_NAME"),
            variable("NODE_DATA_DIR"),
            variable("SERVICE_HOST"),
        ],
        set: vec!["node.cluster-name=set".to_owned(), "node.data-dir=set".to_owned()],
        flags,
    })
    .unwrap();
    let found = (
        config.namespace.as_str(),
        &*config.node.zone,
        &*config.node.cluster_name,
    );
    assert_eq!(found, ("file", "variable", "set"));
    assert_eq!(config.node.data_dir, PathBuf::from("flag"));
}

#[test]
fn values_are_written_the_way_people_write_them() {
    let config = load_file(
        "endpoints = ['a:7401', 'b:7401']\n\
         [raft]\nheartbeat = '40ms'\n\
         [scheduler.submit]\npayload-len-max = '2MiB'\n\
         [node]\ninitial-cluster = ['1=a:7400', '2=b:7400']",
    )
    .unwrap();
    assert_eq!(config.raft.heartbeat, Duration::from_millis(40));
    assert_eq!(
        config.scheduler.submit.payload_len_max,
        whiskraft_types::ByteSize::mib(2)
    );
    assert_eq!(
        (config.endpoints.len(), config.node.initial_cluster.len()),
        (2, 2)
    );
    let environment = vec![("WHISKRAFT_ENDPOINTS".to_owned(), "a:1,b:2,c:3".to_owned())];
    assert_eq!(
        load(Sources {
            environment,
            ..Sources::default()
        })
        .unwrap()
        .endpoints
        .len(),
        3
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let text = refusal("[raft]\nheartbeet = '50ms'");
    assert!(
        text.contains("\"raft.heartbeet\"") && text.contains("mean \"raft.heartbeat\"?"),
        "{text}"
    );
    let text = refusal("data-dir = '/tmp'");
    assert!(text.contains("mean \"node.data-dir\"?"), "{text}");
    let text = refusal("[shceduler.queue]\ntick = '1ms'");
    assert!(
        text.contains("\"shceduler\"") && text.contains("mean \"scheduler\"?"),
        "{text}"
    );
    let set = vec!["node.zome=x".to_owned()];
    let text = load(Sources {
        set,
        ..Sources::default()
    })
    .unwrap_err()
    .to_string();
    assert!(
        text.contains("--set") && text.contains("mean \"node.zone\"?"),
        "{text}"
    );
}

#[test]
fn wrong_values_name_key_and_source() {
    let text = refusal("[raft]\nheartbeat = 'soon'");
    assert!(
        text.contains("\"raft.heartbeat\"") && text.contains(".tmp"),
        "{text}"
    );
    let environment = vec![("WHISKRAFT_NODE_ID".to_owned(), "one".to_owned())];
    let text = load(Sources {
        environment,
        ..Sources::default()
    })
    .unwrap_err()
    .to_string();
    assert!(
        text.contains("\"node.id\"") && text.contains("WHISKRAFT_NODE_ID"),
        "{text}"
    );
    assert!(refusal("[raft").contains("not valid TOML"));
    assert!(refusal("namespace = '-x'").contains("illegal characters"));
    assert!(refusal("[node]\ninitial-cluster = '1=a'").contains("HOST:PORT"));
}

#[test]
fn contradicting_settings_are_refused() {
    let text = refusal("[raft]\nheartbeat = '200ms'");
    assert!(text.contains("election-min") && text.contains("200ms"), "{text}");
    let text = refusal("[scheduler.session]\nkeepalive = '1500ms'");
    assert!(text.contains("keepalive"), "{text}");
    let text = refusal("[scheduler.session]\nttl = '600ms'\nkeepalive = '100ms'");
    assert!(
        text.contains("scheduler.session.ttl") && text.contains("raft.election-max"),
        "{text}"
    );
    assert!(refusal("endpoints = ['a']").contains("endpoints"));
}

#[test]
fn missing_file_is_an_error() {
    let file = Some(PathBuf::from("/does/not/exist.toml"));
    let error = load(Sources {
        file,
        ..Sources::default()
    })
    .unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
}
