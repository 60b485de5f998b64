//! Makes Rust of the protocol's definition. protox reads it, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["streams.proto", "gossip.proto", "serverfeatures.proto"];
    for file in files.into_iter().chain(["shared.proto"]) {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    tonic_build::configure()
        .build_client(false)
        .extern_path(".event_store.client.Empty", "()")
        .compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
