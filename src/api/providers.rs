//! The settings of the metric providers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::common::{Metadata, Raw, is_false, job_spec, open_object, open_value};

/// Who is asked: exactly one of the fields.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricProvider {
    pub prometheus: Option<Prometheus>,
    pub kayenta: Option<Kayenta>,
    pub web: Option<Web>,
    pub datadog: Option<Datadog>,
    pub wavefront: Option<Wavefront>,
    pub new_relic: Option<NewRelic>,
    pub job: Option<JobMetric>,
    pub cloud_watch: Option<CloudWatch>,
    pub graphite: Option<Graphite>,
    pub influxdb: Option<Influxdb>,
    pub skywalking: Option<SkyWalking>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "open_object")]
    pub plugin: BTreeMap<String, Raw>,
}

/// Prometheus and what speaks its HTTP API.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// URL of the server; the environment's `ARGO_ROLLOUTS_PROMETHEUS_ADDRESS` when absent.
    pub address: Option<String>,
    pub query: Option<String>,
    #[serde(default)]
    pub authentication: Authentication,
    /// Seconds; 30 when absent.
    pub timeout: Option<i64>,
    /// Do not verify the server's certificate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    pub range_query: Option<RangeQuery>,
}

/// The range of a Prometheus range query.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RangeQuery {
    /// Time expression such as `now() - duration("1h")`.
    pub start: Option<String>,
    /// Time expression such as `now()`.
    pub end: Option<String>,
    /// Go duration.
    pub step: Option<String>,
}

/// How to authenticate to an HTTP API.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    pub sigv4: Option<Sigv4>,
    pub oauth2: Option<OAuth2>,
    pub basic_auth: Option<BasicAuth>,
}

/// AWS Signature Version 4.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sigv4 {
    pub region: Option<String>,
    pub profile: Option<String>,
    pub role_arn: Option<String>,
}

/// OAuth 2 client credentials.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2 {
    pub token_url: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// HTTP basic authentication.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BasicAuth {
    pub username: Option<String>,
    pub password: Option<String>,
}

/// A header of an HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// Any HTTP API that answers JSON or text.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Web {
    /// `GET` (default), `POST` or `PUT`.
    pub method: Option<String>,
    #[serde(default)]
    pub url: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    pub body: Option<String>,
    /// Seconds; 10 when absent.
    pub timeout_seconds: Option<i64>,
    /// JSONPath of Kubernetes' dialect; the whole body when absent.
    pub json_path: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure: bool,
    #[serde(default)]
    #[schemars(schema_with = "open_value")]
    pub json_body: Option<Raw>,
    #[serde(default)]
    pub authentication: Authentication,
}

/// A Kubernetes Job: its success is the metric's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobMetric {
    #[serde(default)]
    pub metadata: Metadata,
    /// A `batch/v1` JobSpec, kept as the user wrote it.
    #[serde(default)]
    #[schemars(schema_with = "job_spec")]
    pub spec: Raw,
}

/// Spinnaker's Kayenta.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Kayenta {
    pub address: String,
    pub application: String,
    pub canary_config_name: String,
    pub metrics_account_name: String,
    pub configuration_account_name: String,
    pub storage_account_name: String,
    pub threshold: KayentaThreshold,
    pub scopes: Vec<KayentaScope>,
    #[serde(skip_serializing_if = "is_false")]
    pub lookback: bool,
}

/// Scores from which a canary passes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KayentaThreshold {
    pub pass: i64,
    pub marginal: i64,
}

/// What is compared with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KayentaScope {
    pub name: String,
    pub control_scope: KayentaScopeDetail,
    pub experiment_scope: KayentaScopeDetail,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KayentaScopeDetail {
    pub scope: String,
    pub region: String,
    pub step: i64,
    pub start: String,
    pub end: String,
}

/// Datadog.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Datadog {
    /// Go duration; `5m` when absent.
    pub interval: Option<String>,
    pub query: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<String, String>,
    pub formula: Option<String>,
    /// `v1` (default) or `v2`.
    pub api_version: Option<String>,
    pub aggregator: Option<String>,
    #[serde(default)]
    pub secret_ref: DatadogSecretRef,
    pub request_timeout: Option<String>,
}

/// The Secret with Datadog's keys.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DatadogSecretRef {
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub namespaced: bool,
}

/// New Relic.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NewRelic {
    pub profile: Option<String>,
    #[serde(default)]
    pub query: String,
    /// Seconds; 5 when absent.
    pub timeout: Option<i64>,
}

/// Wavefront.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wavefront {
    pub address: Option<String>,
    pub query: Option<String>,
}

/// Amazon CloudWatch.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatch {
    pub interval: Option<String>,
    #[serde(default)]
    pub metric_data_queries: Vec<CloudWatchQuery>,
}

/// A query of CloudWatch's GetMetricData.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatchQuery {
    pub id: Option<String>,
    pub expression: Option<String>,
    pub label: Option<String>,
    pub metric_stat: Option<CloudWatchMetricStat>,
    pub period: Option<super::int_or_percent::IntOrString>,
    pub return_data: Option<bool>,
}

/// A statistic of a CloudWatch metric.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudWatchMetricStat {
    #[serde(default)]
    pub metric: CloudWatchMetric,
    pub period: Option<super::int_or_percent::IntOrString>,
    pub stat: Option<String>,
    pub unit: Option<String>,
}

/// A CloudWatch metric.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatchMetric {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dimensions: Vec<CloudWatchDimension>,
    pub metric_name: Option<String>,
    pub namespace: Option<String>,
}

/// A dimension of a CloudWatch metric.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudWatchDimension {
    pub name: Option<String>,
    pub value: Option<String>,
}

/// Graphite.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Graphite {
    pub address: Option<String>,
    pub query: Option<String>,
}

/// InfluxDB 2.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Influxdb {
    pub profile: Option<String>,
    pub query: Option<String>,
}

/// Apache SkyWalking.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SkyWalking {
    pub address: Option<String>,
    pub query: Option<String>,
    pub interval: Option<String>,
}
