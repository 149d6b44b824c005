//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::info;

use super::{Shell, queue};

/// Serves health and readiness.
pub async fn health(shell: Arc<Shell>, address: SocketAddr) -> std::io::Result<()> {
    let alive = shell.clone();
    let router = Router::new()
        .route(
            "/healthz",
            get(|| async move {
                let deaf = alive.health.deaf();
                verdict("nothing heard for too long of", &deaf)
            }),
        )
        .route(
            "/readyz",
            get(|| async move {
                let missing = shell.unlisted();
                verdict("not listed yet:", &missing)
            }),
        );
    serve(router, address, "health").await
}

/// Serves metrics.
pub async fn metrics(shell: Arc<Shell>, address: SocketAddr) -> std::io::Result<()> {
    let router = Router::new().route(
        "/metrics",
        get(|| async move {
            let queues = [
                (queue::ROLLOUTS, &shell.rollouts),
                (queue::ANALYSIS_RUNS, &shell.runs),
                (queue::EXPERIMENTS, &shell.experiments),
            ];
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shell.telemetry.text(&shell.index, &queues))
        }),
    );
    serve(router, address, "metrics").await
}

/// All is well when there is no such kind.
fn verdict(problem: &str, kinds: &[&str]) -> (StatusCode, String) {
    if kinds.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{problem} {}", kinds.join(", ")))
    }
}

async fn serve(router: Router, address: SocketAddr, what: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        std::io::Error::new(error.kind(), format!("cannot listen on {address} for {what}: {error}"))
    })?;
    info!(%address, "serving {what}");
    axum::serve(listener, router).await
}
