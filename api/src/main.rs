//! The `prodgy` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Two providers of TLS are in the graph; one must be chosen before the first connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(api::cli::run()),
        Err(error) => {
            eprintln!("prodgy: the run time cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
