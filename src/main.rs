//! The `tidegate` binary: the controller, the sandbox and the commands of users.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS implementation for everything; it fails only if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(tidegate::cli::run()),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
