//! The kinds of objects that Tidegate reads and writes, and references to them.

use std::fmt;

/// A kind of object, as the API server serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
}

impl Resource {
    const fn new(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { group, version, kind, plural }
    }

    /// `group/version`, or `version` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

pub const ROLLOUT: Resource = Resource::new("argoproj.io", "v1alpha1", "Rollout", "rollouts");
pub const EXPERIMENT: Resource = Resource::new("argoproj.io", "v1alpha1", "Experiment", "experiments");
pub const ANALYSIS_RUN: Resource = Resource::new("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns");
pub const ANALYSIS_TEMPLATE: Resource =
    Resource::new("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates");
pub const CLUSTER_ANALYSIS_TEMPLATE: Resource =
    Resource::new("argoproj.io", "v1alpha1", "ClusterAnalysisTemplate", "clusteranalysistemplates");
pub const REPLICA_SET: Resource = Resource::new("apps", "v1", "ReplicaSet", "replicasets");
/// The ReplicaSets that a `workloadRef` may name: all of them. They are known apart from [`REPLICA_SET`], of which only
/// those with a hash label are watched.
pub const WORKLOAD_REPLICA_SET: Resource = Resource::new("apps", "v1", "ReplicaSet (workload)", "replicasets");
pub const DEPLOYMENT: Resource = Resource::new("apps", "v1", "Deployment", "deployments");
pub const POD_TEMPLATE: Resource = Resource::new("", "v1", "PodTemplate", "podtemplates");
pub const SERVICE: Resource = Resource::new("", "v1", "Service", "services");
pub const POD: Resource = Resource::new("", "v1", "Pod", "pods");
pub const SECRET: Resource = Resource::new("", "v1", "Secret", "secrets");
pub const JOB: Resource = Resource::new("batch", "v1", "Job", "jobs");
pub const INGRESS: Resource = Resource::new("networking.k8s.io", "v1", "Ingress", "ingresses");
pub const HTTP_ROUTE: Resource = Resource::new("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
pub const GRPC_ROUTE: Resource = Resource::new("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes");
pub const TCP_ROUTE: Resource = Resource::new("gateway.networking.k8s.io", "v1alpha2", "TCPRoute", "tcproutes");
pub const TLS_ROUTE: Resource = Resource::new("gateway.networking.k8s.io", "v1alpha2", "TLSRoute", "tlsroutes");

/// One object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub resource: Resource,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl ObjectRef {
    pub fn new(resource: Resource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }
}

/// `HTTPRoute shop/web`, as messages name an object.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource.kind)?;
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}
