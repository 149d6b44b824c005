//! The HTTP server of one pod, on the pod's own address, as tasks of this process.
//!
//! It answers 200 with the pod's version in the header `x-version` and its name in `x-pod`, errs and slows down as the pod
//! says. A pod says it by environment variables of a container, or by annotations, which win and may be changed while
//! the pod runs:
//!
//! | variable | annotation | means |
//! |---|---|---|
//! | `VERSION` | `e2e.tidegate.dev/version` | the version in the header; if absent, the tag of the first image |
//! | `ERROR_RATE` | `e2e.tidegate.dev/error-rate` | the share of requests that are answered with 500, 0 to 1 |
//! | `LATENCY_MS` | `e2e.tidegate.dev/latency-ms` | how long each answer takes |
//! | `READY_AFTER_MS` | `e2e.tidegate.dev/ready-after-ms` | from running to ready, or `never` |
//! | | `e2e.tidegate.dev/ready` | `false` makes the pod unready |

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The header that names the version which answered.
pub const VERSION_HEADER: &str = "x-version";

/// How long requests that are being answered may take when the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// What a pod says about how it behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// What the version header says.
    pub version: String,
    /// The share of requests that fail, 0 to 1.
    pub error_rate: f64,
    /// How long each answer takes.
    pub latency: Duration,
    /// From running to ready.
    pub ready_after: ReadyAfter,
    /// Whether the pod may be ready at all.
    pub ready: bool,
}

/// When a running pod becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyAfter {
    /// The kubelet's own delay holds.
    Default,
    Delay(Duration),
    Never,
}

/// How all pods of an image behave, those that run included. What is `None` is as each pod says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageBehaviour {
    /// The share of requests that fail, 0 to 1.
    pub error_rate: Option<f64>,
    /// From running to ready.
    pub ready_after: Option<ReadyAfter>,
}

impl Behaviour {
    /// With what is told of the pod's image.
    pub fn of_image(self, image: ImageBehaviour) -> Self {
        Self {
            error_rate: image.error_rate.unwrap_or(self.error_rate),
            ready_after: image.ready_after.unwrap_or(self.ready_after),
            ..self
        }
    }

    /// Reads what the pod says. What cannot be parsed is as if it were absent.
    pub fn of(pod: &Pod) -> Self {
        let number = |variable, annotation| setting(pod, variable, annotation)?.parse::<f64>().ok();
        let milliseconds = |text: &str| text.parse().ok().map(Duration::from_millis);
        Self {
            version: setting(pod, "VERSION", "version").or_else(|| image_tag(pod)).unwrap_or("unknown").to_owned(),
            error_rate: number("ERROR_RATE", "error-rate").unwrap_or(0.0),
            latency: setting(pod, "LATENCY_MS", "latency-ms").and_then(milliseconds).unwrap_or_default(),
            ready_after: match setting(pod, "READY_AFTER_MS", "ready-after-ms") {
                Some("never") => ReadyAfter::Never,
                Some(text) => milliseconds(text).map_or(ReadyAfter::Default, ReadyAfter::Delay),
                None => ReadyAfter::Default,
            },
            ready: annotation(pod, "ready") != Some("false"),
        }
    }
}

fn setting<'a>(pod: &'a Pod, variable: &str, name: &str) -> Option<&'a str> {
    annotation(pod, name).or_else(|| {
        let containers = pod.spec.as_ref()?.containers.iter();
        let mut variables = containers.flat_map(|container| container.env.iter().flatten());
        variables.find(|env| env.name == variable)?.value.as_deref()
    })
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(&format!("e2e.tidegate.dev/{name}")).map(String::as_str)
}

/// The tag of the pod's first image.
pub fn image_tag(pod: &Pod) -> Option<&str> {
    let image = pod.spec.as_ref()?.containers.first()?.image.as_deref()?;
    // A colon before the last slash belongs to the registry's port.
    let (_, tag) = image.rsplit('/').next()?.split_once(':')?;
    Some(tag)
}

/// A running server. Dropping it closes every connection at once.
#[derive(Debug)]
pub struct PodServer {
    behaviour: watch::Sender<Behaviour>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl PodServer {
    /// Listens on every one of the `ports` of `address`.
    ///
    /// # Errors
    /// A port is in use, for example by a program that listens on all addresses.
    pub async fn start(name: &str, address: Ipv4Addr, ports: &[u16], behaviour: Behaviour) -> Result<Self> {
        let (behaviour, read_behaviour) = watch::channel(behaviour);
        let (stop, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        for port in ports {
            let listener = TcpListener::bind((address, *port))
                .await
                .with_context(|| format!("pod {name}: listening on {address}:{port}"))?;
            let answers = Answers::new(name, address, read_behaviour.clone());
            listeners.spawn(serve(listener, Arc::new(answers), stopped.clone()));
        }
        Ok(Self { behaviour, stop, listeners })
    }

    /// Changes how the requests that come from now on are answered.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// Accepts no more connections and ends those that are open after the answers that are due.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Such as too many open files; the client sees what a client of an overloaded server sees.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
            _ = stop.changed() => break,
        };
        let _ = stream.set_nodelay(true);
        let answers = answers.clone();
        let service = service_fn(move |_request| {
            let answers = answers.clone();
            async move { Ok::<_, Infallible>(answers.answer().await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(graceful.watch(connection));
    }
    drop(listener);
    let _ = timeout(FINISH, graceful.shutdown()).await;
}

struct Answers {
    pod: String,
    behaviour: watch::Receiver<Behaviour>,
    random: Mutex<fastrand::Rng>,
}

impl Answers {
    fn new(pod: &str, address: Ipv4Addr, behaviour: watch::Receiver<Behaviour>) -> Self {
        let mut seed = DefaultHasher::new();
        (pod, address).hash(&mut seed);
        let random = Mutex::new(fastrand::Rng::with_seed(seed.finish()));
        Self { pod: pod.to_owned(), behaviour, random }
    }

    async fn answer(&self) -> Response<Full<Bytes>> {
        let behaviour = self.behaviour.borrow().clone();
        if !behaviour.latency.is_zero() {
            tokio::time::sleep(behaviour.latency).await;
        }
        let fails = self.random.lock().unwrap_or_else(PoisonError::into_inner).f64() < behaviour.error_rate;
        let status = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        let body = format!("{} {}\n", behaviour.version, self.pod);
        Response::builder()
            .status(status)
            .header(VERSION_HEADER, &behaviour.version)
            .header("x-pod", &self.pod)
            .body(Full::new(Bytes::from(body)))
            // A version that cannot stand in a header is the only cause.
            .unwrap_or_else(|_| Response::new(Full::new(Bytes::from_static(b"the version is not fit for a header\n"))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_win_over_variables() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"annotations": {
                "e2e.tidegate.dev/error-rate": "0.25",
                "e2e.tidegate.dev/ready-after-ms": "never",
            }},
            "spec": {"containers": [{
                "name": "web",
                "image": "registry:5000/web:blue",
                "env": [{"name": "ERROR_RATE", "value": "0.5"}, {"name": "LATENCY_MS", "value": "30"}],
            }]},
        }))
        .unwrap();
        let expected = Behaviour {
            version: "blue".to_owned(),
            error_rate: 0.25,
            latency: Duration::from_millis(30),
            ready_after: ReadyAfter::Never,
            ready: true,
        };
        assert_eq!(Behaviour::of(&pod), expected);
    }
}
