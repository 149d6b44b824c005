//! What a result means by a metric's conditions.
//!
//! No outcome is never a success by accident: a metric without conditions only asks whether there is an answer, and one
//! with a success condition succeeds only when that is true. What follows for the values that are no ordinary number is
//! what Go says, so that a metric means the same as under Argo Rollouts:
//!
//! - NaN compares as false with everything. So `result < 0.05` with NaN is false, and the measurement is Failed when
//!   this is the only condition; as a *failure* condition, `result >= 0.05` with NaN is false, too, and the measurement
//!   is Successful. A failure condition alone should therefore be `isNaN(result) || result >= 0.05`.
//! - An empty answer of Prometheus is an empty list, for which `result[0]` is an error. The measurement is an Error and
//!   not a verdict, and says that no data came back. Conditions that can deal with it (`len(result) == 0 || …`) do.

use jiff::Timestamp;

use super::expr::{self, Value};
use crate::api::analysis::{AnalysisPhase, Metric};

/// The phase of a measurement with this result.
///
/// # Errors
/// A condition cannot be evaluated: in Go's words, with the condition and, if `no_data`, that the provider had none.
pub fn judge(metric: &Metric, result: &Value, no_data: bool, now: Timestamp) -> Result<AnalysisPhase, String> {
    let holds = |name: &str, condition: &Option<String>| {
        let Some(condition) = condition.as_deref().filter(|condition| !condition.is_empty()) else { return Ok(None) };
        expr::evaluate(condition, result, now).map(Some).map_err(|error| {
            let why = if no_data { "the provider returned no data: " } else { "" };
            format!("{why}{} in {name} `{condition}`", error.message)
        })
    };
    let success = holds("successCondition", &metric.success_condition)?;
    let failure = holds("failureCondition", &metric.failure_condition)?;
    Ok(match (success, failure) {
        (None, None) => AnalysisPhase::Successful,
        (_, Some(true)) | (Some(false), None) => AnalysisPhase::Failed,
        (Some(true), _) | (None, Some(false)) => AnalysisPhase::Successful,
        (Some(false), Some(false)) => AnalysisPhase::Inconclusive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use AnalysisPhase::{Failed, Inconclusive, Successful};

    fn judged(success: &str, failure: &str, result: impl Into<Value>) -> Result<AnalysisPhase, String> {
        let condition = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let metric = Metric {
            success_condition: condition(success),
            failure_condition: condition(failure),
            ..Metric::default()
        };
        let result = result.into();
        judge(&metric, &result, false, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn conditions_decide_as_in_argo() {
        for (success, failure, result, phase) in [
            ("", "", 1.0, Successful),
            ("result < 5", "", 1.0, Successful),
            ("result < 5", "", 9.0, Failed),
            ("", "result > 5", 9.0, Failed),
            ("", "result > 5", 1.0, Successful),
            ("result < 5", "result > 8", 1.0, Successful),
            ("result < 5", "result > 8", 6.0, Inconclusive),
            ("result < 5", "result > 8", 9.0, Failed),
            ("result < 5", "result < 6", 1.0, Failed),
        ] {
            assert_eq!(judged(success, failure, result), Ok(phase), "{success} / {failure} with {result}");
        }
    }

    #[test]
    fn numbers_that_are_none_compare_as_in_go() {
        for (success, failure, result, phase) in [
            ("result < 0.05", "", f64::NAN, Failed),
            ("result >= 0.95", "", f64::NAN, Failed),
            ("", "result >= 0.05", f64::NAN, Successful),
            ("", "isNaN(result) || result >= 0.05", f64::NAN, Failed),
            ("result < 0.05", "result >= 0.05", f64::NAN, Inconclusive),
            ("!isNaN(result) && result < 1", "isInf(result)", f64::INFINITY, Failed),
            ("result < 0.05", "", f64::NEG_INFINITY, Successful),
        ] {
            assert_eq!(judged(success, failure, result), Ok(phase), "{success} / {failure} with {result}");
        }
    }

    #[test]
    fn no_data_is_an_error_that_says_so() {
        let metric = Metric { success_condition: Some("result[0] < 0.05".into()), ..Metric::default() };
        let nothing = Value::floats([]);
        let error = judge(&metric, &nothing, true, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.starts_with("the provider returned no data: "), "{error}");
        assert!(error.ends_with("in successCondition `result[0] < 0.05`"), "{error}");
        let prepared = Metric { success_condition: Some("len(result) == 0 || result[0] < 1".into()), ..metric };
        assert_eq!(judge(&prepared, &nothing, true, Timestamp::UNIX_EPOCH), Ok(Successful));
    }

    #[test]
    fn what_is_no_condition_is_an_error() {
        for condition in ["result +", "result", "result == 'a'", "unknown > 1", "asFloat('x') > 1"] {
            assert!(judged(condition, "", 1.0).is_err(), "{condition}");
            assert!(judged("", condition, 1.0).is_err(), "{condition}");
        }
    }
}
