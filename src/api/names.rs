//! The labels, annotations and fixed names that other tools read and write. They are part of the API: a takeover from
//! or a return to Argo Rollouts depends on every one of them.

/// The API group of all five kinds.
pub const GROUP: &str = "argoproj.io";
/// The API version of all five kinds.
pub const VERSION: &str = "v1alpha1";
/// `GROUP/VERSION`.
pub const API_VERSION: &str = "argoproj.io/v1alpha1";

/// Label of ReplicaSets, pods and AnalysisRuns, and selector key of Services: the hash of the pod template.
pub const POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
/// Label that assigns an object to the controller instance of that id.
pub const INSTANCE_ID: &str = "argo-rollouts.argoproj.io/controller-instance-id";
/// Annotation of Services and DestinationRules: the Rollout that edits them.
pub const MANAGED_BY: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";

/// Annotation of Rollouts and ReplicaSets: the revision, a decimal number.
pub const REVISION: &str = "rollout.argoproj.io/revision";
/// Annotation of ReplicaSets: comma-separated earlier revisions of a ReplicaSet that came back.
pub const REVISION_HISTORY: &str = "rollout.argoproj.io/revision-history";
/// Annotation of ReplicaSets: `spec.replicas` of the Rollout at the last scaling.
pub const DESIRED_REPLICAS: &str = "rollout.argoproj.io/desired-replicas";
/// Annotation of ReplicaSets: JSON of the pod metadata that was injected.
pub const EPHEMERAL_METADATA: &str = "rollout.argoproj.io/ephemeral-metadata";
/// Annotation of ReplicaSets, of Tidegate's own: the injected metadata has changed and the pods have not been seen to have it
/// yet; JSON of what they may still have from before.
pub const PODS_METADATA: &str = "tidegate.io/pods-metadata";
/// Annotation of Rollouts, of Tidegate's own: JSON of the routes that may have a weight for the canary, so that they get it back
/// also when the strategy names them no more.
pub const ROUTES: &str = "tidegate.io/routes";
/// Annotation of Rollouts, of Tidegate's own: the Deployment whose pods this Rollout is taking over, until it has none.
pub const TAKES_OVER: &str = "tidegate.io/takes-over";
/// Annotation of ReplicaSets, of Tidegate's own: the record of the release that had ended when this version began, as in
/// `status.lastRelease`.
pub const RELEASE_BEFORE: &str = "tidegate.io/release-before";
/// Annotation of Rollouts: the observed generation of the workload that `workloadRef` names.
pub const WORKLOAD_GENERATION: &str = "rollout.argoproj.io/workload-generation";
/// Annotation of ReplicaSets: RFC 3339 instant (UTC) after which it is scaled to zero.
pub const SCALE_DOWN_DEADLINE: &str = "scale-down-deadline";
/// Annotation that `kubectl apply` leaves; never copied to ReplicaSets.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotation of the notification engine; never copied to ReplicaSets.
pub const NOTIFIED: &str = "notified.notifications.argoproj.io";

/// Label of AnalysisRuns: `Step`, `Background`, `PrePromotion` or `PostPromotion`.
pub const ROLLOUT_TYPE: &str = "rollout-type";
/// Label of step AnalysisRuns: the index of the step.
pub const STEP_INDEX: &str = "step-index";
/// Annotation of an Experiment's ReplicaSets: the Experiment.
pub const EXPERIMENT_NAME: &str = "experiment.argoproj.io/name";
/// Annotation of an Experiment's ReplicaSets: the template in it.
pub const EXPERIMENT_TEMPLATE_NAME: &str = "experiment.argoproj.io/template-name";

/// Label of the Jobs that measure a metric, and of their pods: the uid of the AnalysisRun.
pub const RUN_UID: &str = "analysisrun.argoproj.io/uid";
/// Annotation of the Jobs that measure a metric: the AnalysisRun.
pub const RUN_NAME: &str = "analysisrun.argoproj.io/name";
/// Annotation of the Jobs that measure a metric: the namespace of the AnalysisRun.
pub const RUN_NAMESPACE: &str = "analysisrun.argoproj.io/namespace";
/// Annotation of the Jobs that measure a metric: the metric.
pub const METRIC_NAME: &str = "analysisrun.argoproj.io/metric-name";

/// The `reportingComponent`/`source.component` of all events.
pub const EVENT_SOURCE: &str = "rollouts-controller";
/// The field manager of our writes.
pub const FIELD_MANAGER: &str = "rollouts-controller";
