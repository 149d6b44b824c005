//! The smallest script that still breaks the promise.

use crate::life::live;
use crate::script::Script;

/// Leaves out faults as long as the same promise is still broken (delta debugging).
pub fn minimise(script: &Script, promise: &str) -> Script {
    let breaks = |script: &Script| {
        live(script, false).is_ok_and(|outcome| outcome.violations.iter().any(|it| it.promise == promise))
    };
    shrink(script.clone(), breaks)
}

fn shrink(mut script: Script, breaks: impl Fn(&Script) -> bool) -> Script {
    let mut size = script.faults.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < script.faults.len() {
            let mut less = script.clone();
            less.faults.drain(from..(from + size).min(script.faults.len()));
            if breaks(&less) {
                script = less;
                shorter = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !shorter {
            break;
        }
        size = if size > 1 { size.div_ceil(2) } else { 1 };
    }
    let short = Script { horizon: 0, ..script.clone() };
    if script.horizon > 0 && breaks(&short) { short } else { script }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_goes() {
        let script: Script =
            "basic#1 | 1s: user abort | 2s: user undo | 3s: user retry | 4s: user pause | 5s: edit route"
                .parse()
                .unwrap();
        let breaks = |script: &Script| {
            let text = script.to_string();
            text.contains("abort") && text.contains("pause")
        };
        assert_eq!(shrink(script, breaks).to_string(), "basic#1 | 1s: user abort | 4s: user pause");
    }
}
