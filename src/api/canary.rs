//! The canary strategy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::blue_green::AntiAffinity;
use super::common::{Metadata, is_false};
use super::field_error::FieldPath;
use super::int_or_percent::IntOrString;
use super::steps::{CanaryStep, RolloutAnalysis};
use super::traffic_routing::TrafficRouting;

/// Moves traffic, or pods, to the new version in steps.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStrategy {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub canary_service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_service: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<CanaryStep>,
    pub traffic_routing: Option<Box<TrafficRouting>>,
    /// Pods that may be missing during an update without traffic routing: number, or percentage rounded down.
    pub max_unavailable: Option<IntOrString>,
    /// Pods beyond `replicas` during an update without traffic routing: number, or percentage rounded up.
    pub max_surge: Option<IntOrString>,
    pub analysis: Option<Box<BackgroundAnalysis>>,
    pub anti_affinity: Option<AntiAffinity>,
    pub canary_metadata: Option<Metadata>,
    pub stable_metadata: Option<Metadata>,
    pub scale_down_delay_seconds: Option<i32>,
    pub scale_down_delay_revision_limit: Option<i32>,
    pub abort_scale_down_delay_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub dynamic_stable_scale: bool,
    pub ping_pong: Option<PingPong>,
    pub min_pods_per_replica_set: Option<i32>,
    pub replica_progress_threshold: Option<ReplicaProgressThreshold>,
}

/// The analysis that runs beside the steps.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackgroundAnalysis {
    #[serde(flatten)]
    pub analysis: RolloutAnalysis,
    /// Index of the step at which it starts.
    pub starting_step: Option<i32>,
}

/// Two Services that swap roles at each promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PingPong {
    #[serde(default)]
    pub ping_service: String,
    #[serde(default)]
    pub pong_service: String,
}

/// How many available pods are enough.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaProgressThreshold {
    /// `Percent` or `Pods`.
    #[serde(rename = "type")]
    pub type_: String,
    pub value: i32,
}

/// An analysis, and what waits for it.
#[derive(Clone, Copy, Debug)]
pub enum Placed<'a> {
    Step(&'a RolloutAnalysis),
    Background(&'a RolloutAnalysis),
    /// Before or after a blue-green promotion.
    Promotion(&'a RolloutAnalysis),
}

impl CanaryStrategy {
    /// The Service of the stable version, also where a manifest nests it under the nginx router. Empty when there is none.
    pub fn stable_service(&self) -> &str {
        self.service(&self.stable_service, |nginx| &nginx.stable_service)
    }

    /// The Service of the canary, also where a manifest nests it under the nginx router. Empty when there is none.
    pub fn canary_service(&self) -> &str {
        self.service(&self.canary_service, |nginx| &nginx.canary_service)
    }

    /// What counts as all of the traffic: 100 unless the routing says otherwise.
    pub fn max_weight(&self) -> i32 {
        self.traffic_routing.as_ref().and_then(|routing| routing.max_traffic_weight).unwrap_or(100)
    }

    /// Every analysis of the strategy with its path: those of the steps, which must end for the step to end, and then the
    /// one in the background.
    pub fn analyses(&self) -> impl Iterator<Item = (FieldPath, Placed<'_>)> {
        let at = FieldPath::new("spec.strategy.canary");
        let background = self.analysis.iter().map({
            let path = at.child("analysis");
            move |background| (path.clone(), Placed::Background(&background.analysis))
        });
        let steps = self.steps.iter().enumerate().filter_map(move |(index, step)| {
            let path = at.child("steps").index(index).child("analysis");
            Some((path, Placed::Step(step.analysis.as_ref()?)))
        });
        steps.chain(background)
    }

    /// Every analysis of an experiment step with its path, as if a step asked for it without an experiment. It may go on for
    /// ever: the experiment's end is its own.
    pub fn experiment_analyses(&self) -> Vec<(FieldPath, RolloutAnalysis)> {
        let at = FieldPath::new("spec.strategy.canary.steps");
        let experiments = self.steps.iter().enumerate().filter_map(|(index, step)| {
            Some((at.index(index).child("experiment").child("analyses"), step.experiment.as_ref()?))
        });
        let analyses = experiments.flat_map(|(path, experiment)| {
            let analyses = experiment.analyses.iter().enumerate();
            analyses.map(move |(index, analysis)| {
                let (templates, args) = (vec![analysis.template()], analysis.args.clone());
                (path.index(index), RolloutAnalysis { templates, args, ..RolloutAnalysis::default() })
            })
        });
        analyses.collect()
    }

    fn service<'a>(
        &'a self,
        own: &'a str,
        nested: impl Fn(&'a super::traffic_routing::Nginx) -> &'a String,
    ) -> &'a str {
        if !own.is_empty() {
            return own;
        }
        let nginx = self.traffic_routing.as_ref().and_then(|routing| routing.nginx.as_ref());
        nginx.map_or("", |nginx| nested(nginx))
    }
}
