//! Label selectors.

use std::collections::BTreeMap;

use serde_json::Value;

use super::common::LabelSelector;

/// Whether labels satisfy a selector. An empty selector matches everything, as in Kubernetes.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    matches_with(selector, |key| labels.get(key).map(String::as_str))
}

/// The same for labels in raw JSON; `null` counts as no labels.
pub fn matches_json(selector: &LabelSelector, labels: &Value) -> bool {
    matches_with(selector, |key| labels[key].as_str())
}

fn matches_with<'a>(selector: &LabelSelector, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            let contains = |value: &str| values.iter().any(|one| one == value);
            match (requirement.operator.as_str(), label(&requirement.key)) {
                ("In", Some(value)) => contains(value),
                ("NotIn", Some(value)) => !contains(value),
                ("Exists", present) => present.is_some(),
                ("NotIn" | "DoesNotExist", None) => true,
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels = serde_json::json!({"app": "web", "tier": "front"});
        for (selector, expected) in [
            ("{}", true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"web","tier":"back"}}"#, false),
            (r#"{"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"zone","operator":"DoesNotExist"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"zone","operator":"Exists"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"app","operator":"Near"}]}"#, false),
        ] {
            let parsed: LabelSelector = serde_json::from_str(selector).unwrap();
            assert_eq!(matches_json(&parsed, &labels), expected, "{selector}");
            let typed: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap();
            assert_eq!(matches(&parsed, &typed), expected, "{selector}");
        }
    }
}
