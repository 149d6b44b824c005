//! One error budget for several metrics: however they depend on each other.

/// Nats of evidence at which one of `metrics` that share `alpha` raises the alarm: `ln(metrics / alpha)`.
pub fn bar(alpha: f64, metrics: usize) -> f64 {
    (metrics.max(1) as f64 / alpha).ln()
}

/// Which metrics are bad, when one is known to be: their places, at a share of at most `alpha` of wrong ones among them on
/// average (the e-value form of the Benjamini–Hochberg procedure). Evidence is in nats.
pub fn bad(ln_e: &[f64], alpha: f64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..ln_e.len()).collect();
    places.sort_by(|a, b| ln_e[*b].total_cmp(&ln_e[*a]));
    let all = ln_e.len() as f64;
    let count = (1..=places.len()).rev().find(|k| ln_e[places[k - 1]] >= (all / (*k as f64 * alpha)).ln());
    places.truncate(count.unwrap_or(0));
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_share_one_budget() {
        let ln_e = [500f64, 120.0, 30.0, 2.0, 0.5].map(f64::ln);
        assert!((bar(0.05, 5).exp() - 100.0).abs() < 1e-9);
        assert_eq!(ln_e.iter().filter(|ln_e| **ln_e >= bar(0.05, 5)).count(), 2);
        assert_eq!(bad(&ln_e, 0.05), [0, 1]);
        assert_eq!(bad(&[30f64, 500.0, 120.0, 2.0, 34.0].map(f64::ln), 0.05), [0, 1, 2, 4]);
        assert_eq!(bad(&[], 0.05), Vec::<usize>::new());
    }
}
