//! How pods behave: told by their annotations, else by a table of images, else by the cluster's default.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use crate::api::duration::GoDuration;

const PREFIX: &str = "sandbox.tidegate.io/";

/// How a pod behaves.
///
/// Single fields can be overridden by annotations of the pod, `sandbox.tidegate.io/` before the field's name with
/// hyphens: durations as in Go (`2s`), `never-ready` and `image-pull-error` as `"true"`, `error-rate` as `"0.05"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// From the pod's creation until its containers run.
    pub start_after: Duration,
    /// From the pod's creation until it is ready and answers requests; at least `start_after`.
    pub ready_after: Duration,
    /// The pod runs but neither becomes ready nor answers.
    pub never_ready: bool,
    /// From becoming ready until the container exits and is started again.
    pub crash_after: Option<Duration>,
    /// The image cannot be pulled.
    pub image_pull_error: bool,
    /// The share of requests that the pod answers with 500, 0..=1.
    pub error_rate: f64,
    /// The mean time of an answer. Half of the answers take less than 0.85 of it, one in a hundred more than 2.8 of it.
    pub latency: Duration,
    /// How long the pod answers requests after its deletion, at most its grace period.
    pub drain: Duration,
    /// How long the container of a Job's pod runs.
    pub run_for: Duration,
    /// What the container of a Job's pod exits with.
    pub exit_code: i32,
}

/// The default behaviour, and that of images.
#[derive(Clone, Debug, Default)]
pub struct Behaviours {
    /// Of pods whose image is not in the table.
    pub default: Behaviour,
    /// By a whole image name (`registry/web:v2`) or by a tag alone (`v2`); the whole name goes first.
    pub images: BTreeMap<String, Behaviour>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start_after: Duration::from_millis(300),
            ready_after: Duration::from_secs(1),
            never_ready: false,
            crash_after: None,
            image_pull_error: false,
            error_rate: 0.0,
            latency: Duration::from_millis(10),
            drain: Duration::from_secs(2),
            run_for: Duration::from_secs(1),
            exit_code: 0,
        }
    }
}

impl Behaviours {
    /// How a pod behaves.
    pub(super) fn of(&self, pod: &Value) -> Behaviour {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
        let told = self.images.get(image).or_else(|| self.images.get(tag?));
        told.unwrap_or(&self.default).overridden(&pod["metadata"]["annotations"])
    }
}

impl Behaviour {
    /// From the start of the container until it is ready.
    pub(super) fn warm_up(&self) -> Duration {
        self.ready_after.saturating_sub(self.start_after)
    }

    fn overridden(&self, annotations: &Value) -> Self {
        let mut own = self.clone();
        for (key, value) in annotations.as_object().into_iter().flatten() {
            if let (Some(field), Some(text)) = (key.strip_prefix(PREFIX), value.as_str())
                && !own.set(field, text)
            {
                tracing::warn!(annotation = %key, value = %text, "a behaviour that the sandbox does not understand");
            }
        }
        if own.ready_after < own.start_after {
            own.start_after = own.ready_after;
        }
        own
    }

    /// Whether the field exists and the text is a value of it.
    fn set(&mut self, field: &str, text: &str) -> bool {
        fn to<T>(field: &mut T, value: Option<T>) -> bool {
            value.map(|value| *field = value).is_some()
        }
        match field {
            "start-after" => to(&mut self.start_after, duration(text)),
            "ready-after" => to(&mut self.ready_after, duration(text)),
            "never-ready" => to(&mut self.never_ready, text.parse().ok()),
            "crash-after" => to(&mut self.crash_after, duration(text).map(Some)),
            "image-pull-error" => to(&mut self.image_pull_error, text.parse().ok()),
            "error-rate" => to(&mut self.error_rate, text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate))),
            "latency" => to(&mut self.latency, duration(text)),
            "drain" => to(&mut self.drain, duration(text)),
            "run-for" => to(&mut self.run_for, duration(text)),
            "exit-code" => to(&mut self.exit_code, text.parse().ok()),
            _ => false,
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let duration = SignedDuration::from(text.parse::<GoDuration>().ok()?);
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_go_before_images_and_images_before_the_default() {
        let slow = Behaviour { latency: Duration::from_millis(80), ..Behaviour::default() };
        let bad = Behaviour { error_rate: 0.1, ..Behaviour::default() };
        let images = [("v2".to_owned(), slow.clone()), ("shop/web:v2".to_owned(), bad.clone())].into();
        let behaviours = Behaviours { default: Behaviour::default(), images };
        let pod = |image: &str, annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"image": image}]}});
        for (pod, expected) in [
            (pod("web:v1", Value::Null), Behaviour::default()),
            (pod("web:v2", Value::Null), slow),
            (pod("shop/web:v2", Value::Null), bad.clone()),
            (pod("localhost:5000/web", json!({"other": "x"})), Behaviour::default()),
            (
                pod(
                    "shop/web:v2",
                    json!({"sandbox.tidegate.io/ready-after": "5s", "sandbox.tidegate.io/error-rate": "7"}),
                ),
                Behaviour { ready_after: Duration::from_secs(5), ..bad },
            ),
        ] {
            assert_eq!(behaviours.of(&pod), expected, "{pod}");
        }
    }
}
