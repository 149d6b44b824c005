//! Whose counters tell canary and stable apart, and how they are called.

use super::{Judged, Queries};
use crate::analysis::judge::counts::Side;
use crate::api::duration::GoDuration;

/// Counters that are known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By Service: of Ingresses, IngressRoutes and Gateway API routes.
    Traefik,
    /// By the label `canary` of ingress-nginx 1.1 and later.
    Nginx,
    /// By pod, as the receiving proxy saw it.
    Istio,
    /// By cluster `NAMESPACE_SERVICE_…` or `NAMESPACE/SERVICE/…`.
    Envoy,
    /// By pod.
    Linkerd,
    /// By pod: `http_requests_total` and `http_request_duration_seconds`.
    Red,
}

/// The names of a source's counters.
struct Names {
    total: &'static str,
    errors: &'static str,
    /// The matcher that makes errors of `errors`.
    failed: &'static str,
    /// The histogram of durations, and how many of its units a second has.
    durations: &'static str,
    units: f64,
}

impl Source {
    pub const ALL: [Self; 6] = [Self::Traefik, Self::Nginx, Self::Istio, Self::Envoy, Self::Linkerd, Self::Red];

    /// The word that chooses it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traefik => "traefik",
            Self::Nginx => "nginx",
            Self::Istio => "istio",
            Self::Envoy => "envoy",
            Self::Linkerd => "linkerd",
            Self::Red => "red",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }

    /// Whether its counters tell pods apart, so that the dispersion can be measured. Versions are found by ReplicaSet then,
    /// and by Service otherwise.
    pub fn by_pod(self) -> bool {
        matches!(self, Self::Istio | Self::Linkerd | Self::Red)
    }

    /// The counters of a version: of errors, or of what was not slower than an edge.
    ///
    /// `name` is the version's Service, or its ReplicaSet where pods are told apart.
    pub fn queries(self, namespace: &str, side: Side, name: &str, slower_than: Option<GoDuration>) -> Queries {
        let matchers = self.matchers(namespace, side, name);
        let Names { total, errors, failed, durations, units } = self.names();
        match slower_than {
            None => Queries {
                total: format!("{total}{{{matchers}}}"),
                judged: Judged::Errors(format!("{errors}{{{matchers},{failed}}}")),
            },
            Some(edge) => Queries {
                total: format!("{durations}_count{{{matchers}}}"),
                judged: Judged::Good(format!("{durations}_bucket{{{matchers},{}}}", at_edge(edge, units))),
            },
        }
    }

    fn names(self) -> Names {
        let (total, errors, failed, durations, units) = match self {
            Self::Traefik => {
                let requests = "traefik_service_requests_total";
                (requests, requests, r#"code=~"5..""#, "traefik_service_request_duration_seconds", 1.0)
            }
            Self::Nginx => {
                let requests = "nginx_ingress_controller_requests";
                (requests, requests, r#"status=~"5..""#, "nginx_ingress_controller_request_duration_seconds", 1.0)
            }
            Self::Istio => {
                let requests = "istio_requests_total";
                (requests, requests, r#"response_code=~"5..""#, "istio_request_duration_milliseconds", 1e3)
            }
            Self::Envoy => (
                "envoy_cluster_upstream_rq_total",
                "envoy_cluster_upstream_rq",
                r#"envoy_response_code=~"5..""#,
                "envoy_cluster_upstream_rq_time",
                1e3,
            ),
            Self::Linkerd => {
                ("response_total", "response_total", r#"classification="failure""#, "response_latency_ms", 1e3)
            }
            Self::Red => {
                ("http_requests_total", "http_requests_total", r#"code=~"5..""#, "http_request_duration_seconds", 1.0)
            }
        };
        Names { total, errors, failed, durations, units }
    }

    fn matchers(self, namespace: &str, side: Side, name: &str) -> String {
        match self {
            // A port, by name or number; the Gateway API's provider puts the protocol before it.
            Self::Traefik => format!(r#"service=~"{namespace}-{name}-(http-)?[a-z0-9]+@kubernetes.*""#),
            // The canary's requests carry the labels of the main Ingress.
            Self::Nginx => match side {
                Side::Canary => format!(r#"canary=~"{namespace}-{name}-[a-z0-9]+""#),
                Side::Stable => format!(r#"namespace="{namespace}",service="{name}",canary="""#),
            },
            Self::Istio => format!(
                r#"reporter="destination",destination_workload_namespace="{namespace}",pod=~"{name}-[a-z0-9]+""#
            ),
            Self::Envoy => format!(r#"envoy_cluster_name=~"{namespace}[_/]{name}[_/].+""#),
            Self::Linkerd => format!(r#"direction="inbound",namespace="{namespace}",pod=~"{name}-[a-z0-9]+""#),
            Self::Red => format!(r#"namespace="{namespace}",pod=~"{name}-[a-z0-9]+""#),
        }
    }
}

/// The bucket with an edge, however its label is written: Prometheus 3 has `1.0` where others have `1`.
fn at_edge(edge: GoDuration, units: f64) -> String {
    let text = (edge.as_secs_f64() * units).to_string();
    if text.contains('.') { format!(r#"le="{text}""#) } else { format!(r#"le=~"{text}(\\.0)?""#) }
}
