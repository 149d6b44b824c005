//! The `tidegate` binary: the controller, the sandbox and the commands of users.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS implementation for everything; it fails only if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread: almost all there is to do is to wait for answers, and tasks that hand on to each other do it here without
    // waking another core. What takes long to compute goes to the threads for blocking calls.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(tidegate::cli::run()),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
