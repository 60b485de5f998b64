//! The `prodgy` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Expressions need room to call themselves: for most of them, a thread has it already.
const STACK_BYTES: usize = 8 * 1024 * 1024;

fn main() -> ExitCode {
    // Started by a server for one file: nothing of a server is wanted. (It is no command of people's.)
    if std::env::args_os().nth(1).is_some_and(|command| command == embeddings::WORKER) {
        return embeddings::work();
    }
    // Two providers of TLS are in the graph; one must be chosen before the first connection.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.thread_stack_size(STACK_BYTES).enable_all().build() {
        Ok(runtime) => runtime.block_on(api::cli::run()),
        Err(error) => {
            eprintln!("prodgy: the run time cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
