//! The same scenario in less time: durations divided by the scenario's `pace`, on the real cluster only.
//!
//! A user's rollout pauses for minutes. In virtual time that costs nothing; on the real cluster the durations that the user
//! wrote are divided, all by the same number, and nothing else is changed: not the controller, not the delays of Kubernetes
//! or of the gateway. So a pace must leave pauses that are long beside those. Nothing becomes shorter than a second, and
//! what a duration has become is written back in messages, so that the traces agree.

use std::time::Duration;

use serde_json::Value;

use super::words;

/// Fields that hold a duration as text.
const TEXTS: &[&str] = &["duration", "interval", "initialDelay", "horizon"];
/// Fields that hold a number of seconds.
const SECONDS: &[&str] =
    &["scaleDownDelaySeconds", "abortScaleDownDelaySeconds", "progressDeadlineSeconds", "autoPromotionSeconds"];

/// Divides the durations in an object. Answers each text that was changed, as it is now and as it was.
pub fn shorten(object: &mut Value, pace: u32) -> Vec<(String, String)> {
    let mut changed = Vec::new();
    if pace > 1 {
        walk(object, pace, &mut changed);
    }
    changed
}

/// Divides a duration.
pub fn shorter(duration: Duration, pace: u32) -> Duration {
    // Whole seconds, because that is what Kubernetes' timestamps can tell.
    let seconds = duration.as_secs().div_ceil(u64::from(pace.max(1)));
    if pace <= 1 { duration } else { Duration::from_secs(seconds.max(1)) }
}

fn walk(value: &mut Value, pace: u32, changed: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, pace, changed)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if TEXTS.contains(&name.as_str())
                    && let Some(duration) = field.as_str().and_then(|text| words::duration(text).ok())
                {
                    let text = format!("{}s", shorter(duration, pace).as_secs());
                    changed.push((text.clone(), field.as_str().unwrap_or_default().to_owned()));
                    *field = Value::String(text);
                } else if SECONDS.contains(&name.as_str())
                    && let Some(seconds) = field.as_u64().filter(|seconds| *seconds > 0)
                {
                    *field = shorter(Duration::from_secs(seconds), pace).as_secs().into();
                } else {
                    walk(field, pace, changed);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_become_shorter_and_other_numbers_stay() {
        let mut object = json!({"replicas": 120, "scaleDownDelaySeconds": 120, "steps": [{"pause": {"duration": "10m"}}, {"pause": {}}]});
        let changed = shorten(&mut object, 60);
        let expected = json!({"replicas": 120, "scaleDownDelaySeconds": 2, "steps": [{"pause": {"duration": "10s"}}, {"pause": {}}]});
        assert_eq!(object, expected);
        assert_eq!(changed, [("10s".to_owned(), "10m".to_owned())]);
        assert_eq!(shorter(Duration::from_secs(3), 60), Duration::from_secs(1));
    }
}
