//! Compiles `proto/` with protox, so that nobody has to install protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = [
        "controller",
        "invoker",
        "documents",
        "watch",
        "operator",
        "handoff",
        "peer",
        "journal",
        "neighbour",
        "schedule",
    ];
    let own = own.map(|name| format!("whiskraft/v1/{name}.proto"));
    let files = own.into_iter().chain(["activation/activation.proto".to_owned()]);
    println!("cargo:rerun-if-changed=../../proto");
    let descriptors = protox::compile(files, ["../../proto"])?;
    tonic_prost_build::configure()
        .bytes(".whiskraft")
        .compile_fds(descriptors)?;
    Ok(())
}
