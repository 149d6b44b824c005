//! What is wrong with an Experiment's spec.

use std::collections::BTreeSet;

use super::super::experiment::{Experiment, ExperimentSpec, ExperimentTemplate};
use super::super::field_error::{FieldError, FieldPath};
use super::{not_negative, selector_syntax};

/// Templates and analyses that one Experiment may have. Each costs a few writes in one decision, so this bounds for how
/// long one Experiment can keep the others waiting.
const MOST: usize = 64;

/// All that is wrong with an Experiment, in the order of the fields. Whether a pod template can run is judged by the API
/// server when its ReplicaSet is created.
pub fn experiment(experiment: &Experiment) -> Vec<FieldError> {
    let at = FieldPath::new("spec");
    let spec = &experiment.spec;
    let mut errors = Vec::new();
    let path = at.child("templates");
    if spec.templates.is_empty() {
        errors.push(FieldError::required(&path, "at least one template"));
    }
    few(spec.templates.len(), &path, &mut errors);
    let mut names = BTreeSet::new();
    for (index, one) in spec.templates.iter().enumerate() {
        let path = path.index(index);
        template(spec, one, &path, &mut errors);
        name(&one.name, &mut names, &path, &mut errors);
    }
    duration(spec.duration.as_deref(), &at.child("duration"), &mut errors);
    not_negative(spec.progress_deadline_seconds, &at.child("progressDeadlineSeconds"), &mut errors);
    not_negative(spec.scale_down_delay_seconds, &at.child("scaleDownDelaySeconds"), &mut errors);
    let path = at.child("analyses");
    few(spec.analyses.len(), &path, &mut errors);
    let mut names = BTreeSet::new();
    for (index, one) in spec.analyses.iter().enumerate() {
        let path = path.index(index);
        name(&one.name, &mut names, &path, &mut errors);
        if one.template_name.is_empty() {
            errors.push(FieldError::required(path.child("templateName"), "the name of an AnalysisTemplate"));
        }
    }
    errors
}

fn template(spec: &ExperimentSpec, template: &ExperimentTemplate, at: &FieldPath, errors: &mut Vec<FieldError>) {
    match &template.selector {
        None => errors.push(FieldError::required(at.child("selector"), "the labels of the pods")),
        Some(selector) => selector_syntax(selector, &at.child("selector"), errors),
    }
    let deadline = spec.progress_deadline_seconds();
    if template.min_ready_seconds > deadline {
        let detail = format!("cannot be greater than progressDeadlineSeconds ({deadline})");
        errors.push(FieldError::invalid(at.child("minReadySeconds"), template.min_ready_seconds, detail));
    }
}

/// A name that must be there and that no other one may have.
pub(super) fn name<'a>(name: &'a str, names: &mut BTreeSet<&'a str>, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(at.child("name"), "a name of its own"));
    } else if !names.insert(name) {
        errors.push(FieldError::duplicate(at.child("name"), name));
    }
}

/// A Go duration that is not negative.
pub(super) fn duration(text: Option<&str>, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return };
    let parsed: Result<super::super::duration::GoDuration, _> = text.parse();
    match parsed {
        Ok(duration) if !duration.is_negative() => {}
        Ok(_) => errors.push(FieldError::invalid(at, text, "must not be negative")),
        Err(_) => errors.push(FieldError::invalid(at, text, "must be a duration with units such as 30s, 5m or 1h30m")),
    }
}

fn few(count: usize, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if count > MOST {
        errors.push(FieldError::too_many(at, count, MOST));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_rule_names_its_field() {
        let template = |name: &str| json!({"name": name, "selector": {"matchLabels": {"app": "web"}}, "template": {}});
        let none: [&str; 0] = [];
        let cases: [(Value, &[&str]); 9] = [
            (json!({"templates": [template("a"), template("b")], "duration": "1h30m"}), &none),
            (json!({}), &["spec.templates"]),
            (json!({"templates": [template("a"), template("a")]}), &["spec.templates[1].name"]),
            (json!({"templates": [template("")]}), &["spec.templates[0].name"]),
            (json!({"templates": [{"name": "a"}]}), &["spec.templates[0].selector"]),
            (json!({"templates": [{"name": "a", "selector": {}}]}), &["spec.templates[0].selector"]),
            (
                json!({"progressDeadlineSeconds": 5, "templates": [
                    {"name": "a", "minReadySeconds": 6, "selector": {"matchLabels": {"app": "web"}}},
                ]}),
                &["spec.templates[0].minReadySeconds"],
            ),
            (
                json!({"templates": [template("a")], "duration": "soon", "scaleDownDelaySeconds": -1}),
                &["spec.duration", "spec.scaleDownDelaySeconds"],
            ),
            (
                json!({"templates": [template("a")], "analyses": [{"name": "x", "templateName": "t"}, {"name": "x"}]}),
                &["spec.analyses[1].name", "spec.analyses[1].templateName"],
            ),
        ];
        for (spec, paths) in cases {
            let object: Experiment = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap();
            let found: Vec<String> = experiment(&object).into_iter().map(|error| error.path).collect();
            assert_eq!(found, paths, "{:?}", object.spec);
        }
        let crowd: Vec<Value> = (0..65).map(|number| template(&number.to_string())).collect();
        let object: Experiment =
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"templates": crowd}})).unwrap();
        assert_eq!(experiment(&object).len(), 1);
    }
}
