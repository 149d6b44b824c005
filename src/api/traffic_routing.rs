//! `strategy.canary.trafficRouting`: which router moves the traffic, and its objects.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::common::{LabelSelector, Raw, is_false, open_object};

/// The routers of a Rollout. Several can be set: each gets the same weight, in the order of [`crate::traffic`].
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRouting {
    pub istio: Option<Istio>,
    pub nginx: Option<Nginx>,
    pub alb: Option<Alb>,
    pub smi: Option<Smi>,
    pub ambassador: Option<Ambassador>,
    pub app_mesh: Option<AppMesh>,
    pub traefik: Option<Traefik>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_routes: Vec<ManagedRoute>,
    pub apisix: Option<Apisix>,
    /// Settings of router plugins by the plugin's name. `argoproj-labs/gatewayAPI` is built in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "open_object")]
    pub plugins: BTreeMap<String, Raw>,
    /// What counts as all of the traffic; 100 when absent.
    pub max_traffic_weight: Option<i32>,
    /// Gateway API routes, in the shape of the `argoproj-labs/gatewayAPI` plugin's settings. A field of Tidegate's own.
    #[serde(rename = "gatewayAPI")]
    pub gateway_api: Option<GatewayApi>,
}

/// The key under which Argo Rollouts finds its plugin for the Gateway API; here it is built in.
pub const GATEWAY_API_PLUGIN: &str = "argoproj-labs/gatewayAPI";

impl TrafficRouting {
    /// The settings of the Gateway API, wherever they stand; none when there are none or they cannot be read, which the
    /// router says itself.
    pub fn gateway_api_settings(&self) -> Option<GatewayApi> {
        let raw = self.plugins.get(GATEWAY_API_PLUGIN);
        self.gateway_api.clone().or_else(|| serde_json::from_value(raw?.clone()).ok())
    }

    /// Whether Gateway API routes are named, at either place.
    pub fn uses_gateway_api(&self) -> bool {
        self.gateway_api.is_some() || self.plugins.contains_key(GATEWAY_API_PLUGIN)
    }
}

/// Routes of the Kubernetes Gateway API.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayApi {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub http_route: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub grpc_route: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tcp_route: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls_route: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_routes: Vec<GatewayApiRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_routes: Vec<GatewayApiRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_routes: Vec<GatewayApiRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_routes: Vec<GatewayApiRoute>,
    pub http_route_selector: Option<LabelSelector>,
    pub grpc_route_selector: Option<LabelSelector>,
    pub tcp_route_selector: Option<LabelSelector>,
    pub tls_route_selector: Option<LabelSelector>,
    /// Namespace of the routes; the Rollout's own when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_in_progress_label: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub in_progress_label_key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub in_progress_label_value: String,
}

/// One route of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayApiRoute {
    pub name: String,
    /// Whether header-route steps add rules to this route.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_header_routes: bool,
}

/// A route that header and mirror steps may make; the order is the precedence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManagedRoute {
    pub name: String,
}

/// ingress-nginx.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nginx {
    /// `nginx.ingress.kubernetes.io` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub annotation_prefix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_ingress: String,
    /// Annotations of the canary Ingress; the prefix is added where it is missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_ingress_annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stable_ingresses: Vec<String>,
    /// Annotations of the canary Ingress, as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub canary_ingress_annotations: BTreeMap<String, String>,
    /// Belongs at `strategy.canary.stableService`; understood here because published examples have it here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_service: String,
    /// Belongs at `strategy.canary.canaryService`; understood here because published examples have it here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub canary_service: String,
}

/// Istio.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Istio {
    pub virtual_service: Option<IstioVirtualService>,
    pub destination_rule: Option<IstioDestinationRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_services: Vec<IstioVirtualService>,
}

/// A VirtualService and the routes in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IstioVirtualService {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_routes: Vec<IstioTlsRoute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_routes: Vec<IstioTcpRoute>,
}

/// A TLS route, found by its port and SNI hosts.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IstioTlsRoute {
    pub port: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sni_hosts: Vec<String>,
}

/// A TCP route, found by its port.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IstioTcpRoute {
    pub port: Option<i64>,
}

/// A DestinationRule and its subsets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IstioDestinationRule {
    pub name: String,
    #[serde(default)]
    pub canary_subset_name: String,
    #[serde(default)]
    pub stable_subset_name: String,
    /// Subsets whose destinations and weights are the user's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_subset_names: Vec<String>,
}

/// The AWS load balancer controller.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alb {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ingress: String,
    #[serde(default)]
    pub service_port: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub annotation_prefix: String,
    pub stickiness_config: Option<AlbStickiness>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingresses: Vec<String>,
}

/// Stickiness of target groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlbStickiness {
    #[serde(default)]
    pub enabled: bool,
    /// 1..=604800 (a week).
    #[serde(default)]
    pub duration_seconds: i64,
}

/// Service Mesh Interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Smi {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traffic_split_name: String,
}

/// Emissary-ingress (Ambassador).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ambassador {
    #[serde(default)]
    pub mappings: Vec<String>,
}

/// AWS App Mesh.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppMesh {
    pub virtual_service: Option<AppMeshVirtualService>,
    pub virtual_node_group: Option<AppMeshVirtualNodeGroup>,
}

/// A VirtualService of App Mesh and the routes behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppMeshVirtualService {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
}

/// The two VirtualNodes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppMeshVirtualNodeGroup {
    pub canary_virtual_node_ref: Option<AppMeshVirtualNodeRef>,
    pub stable_virtual_node_ref: Option<AppMeshVirtualNodeRef>,
}

/// A VirtualNode by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppMeshVirtualNodeRef {
    pub name: String,
}

/// Traefik's own TraefikService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traefik {
    #[serde(default)]
    pub weighted_traefik_service_name: String,
}

/// Apache APISIX.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Apisix {
    pub route: Option<ApisixRoute>,
}

/// An ApisixRoute and the rules in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApisixRoute {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}
