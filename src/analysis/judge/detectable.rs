//! What a judge could have seen: the smallest change that so much traffic shows.

use super::counts::Arm;
use super::harm::{GRID, Margin};

/// Nats above the bar at which the evidence stands for most changes of that size, and not for every second one only.
const RESERVE: f64 = 2.5;
/// A change that is larger is none that a canary is needed for.
const LARGEST: f64 = 1000.0;

/// The smallest ratio of the failure rates that is found with this traffic, `None` when not even a 1000-fold one is.
///
/// It is the ratio at which the evidence of [`super::harm`] grows to `bar` (nats) and a reserve on average.
pub fn ratio(canary: Arm, stable: Arm, margin: Margin, dispersion: f64, bar: f64) -> Option<f64> {
    let (n_c, n_s) = (canary.requests() as f64, stable.requests() as f64);
    let base = stable.rate()?;
    if n_c == 0.0 || base == 0.0 {
        return None;
    }
    let needed = (bar + RESERVE) * dispersion;
    let found = |ratio: f64| grown(n_c, n_s, base, ratio, margin) >= needed;
    // More than all requests cannot fail.
    let largest = LARGEST.min(1.0 / base);
    if !found(largest) {
        return None;
    }
    let (mut low, mut high) = (margin.ratio().min(largest), largest);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if found(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// What the evidence grows by, on average, with the best of all bets.
fn grown(n_c: f64, n_s: f64, base: f64, ratio: f64, margin: Margin) -> f64 {
    let odds = margin.ratio() * n_c / n_s;
    let (x_c, x_s) = (n_c * base * ratio, n_s * base);
    let growth = |g: f64| {
        let ln_b = -((g - 1.0) * (odds / (1.0 + odds))).ln_1p();
        let ln_a = g.ln() + ln_b;
        x_c * ln_a + x_s * ln_b - n_c * ln_a.exp_m1() * margin.absolute()
    };
    // Between the grid's bets: their mixture comes close to the best one.
    let best = (x_c - n_c * margin.absolute()) / (n_c * base * margin.ratio());
    let best = if best > 1.0 { growth(best.min(GRID[GRID.len() - 1])) } else { 0.0 };
    GRID.iter().map(|g| growth(*g)).fold(best, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_traffic_shows_smaller_changes() {
        let margin = Margin::new(1.0, 0.0).unwrap();
        let bar = 100f64.ln();
        let seen = |per_minute: u64, base: f64, minutes: u64| {
            let canary = Arm::new(0, per_minute * minutes).unwrap();
            let stable = (6000 - per_minute) * minutes;
            let stable = Arm::new((stable as f64 * base) as u64, stable).unwrap();
            ratio(canary, stable, margin, 1.0, bar).unwrap()
        };
        // The growth of the evidence is the divergence of the two splits of failures, times their number.
        let (theta, null) = (3.6 * 0.01 / (3.6 * 0.01 + 0.99), 0.01f64);
        let divergence = theta * (theta / null).ln() + (1.0 - theta) * ((1.0 - theta) / (1.0 - null)).ln();
        let failures = 0.001 * (3600.0 * 3.6 + 356_400.0);
        assert!((divergence * failures - (bar + 2.5)).abs() < 0.15, "{}", divergence * failures);
        assert!((seen(60, 0.001, 60) - 3.6).abs() < 0.1, "{}", seen(60, 0.001, 60));
        assert!(seen(300, 0.001, 60) < seen(60, 0.001, 60));
        assert!(seen(300, 0.01, 60) < seen(300, 0.001, 60));
        assert!(seen(300, 0.01, 60) < seen(300, 0.01, 10));
    }

    #[test]
    fn nothing_can_be_seen_without_traffic_or_without_failures_to_compare_with() {
        let margin = Margin::new(1.0, 0.0).unwrap();
        let arm = |failures, requests| Arm::new(failures, requests).unwrap();
        for (canary, stable) in [
            (arm(0, 0), arm(10, 1000)),
            (arm(0, 1000), arm(0, 1000)),
            (arm(0, 1000), arm(0, 0)),
            (arm(0, 1), arm(1, 100_000)),
            (arm(0, 100), arm(100, 100)),
        ] {
            assert_eq!(ratio(canary, stable, margin, 1.0, 4.6), None, "{canary:?} {stable:?}");
        }
    }
}
