//! Textbook tests with one look at the end, to hold the judge against. The product does not use them.

use std::f64::consts::PI;

/// ln Γ for positive numbers, to 15 digits: Stirling's series, reached by the recurrence.
pub fn ln_gamma(z: f64) -> f64 {
    let mut product = 1.0;
    let mut shifted = z;
    while shifted < 16.0 {
        product *= shifted;
        shifted += 1.0;
    }
    (shifted - 0.5) * shifted.ln() - shifted + 0.5 * (2.0 * PI).ln() + stirling(shifted) - f64::ln(product)
}

fn stirling(z: f64) -> f64 {
    const SERIES: [f64; 7] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0, 1.0 / 156.0];
    let inverse = 1.0 / (z * z);
    SERIES.iter().rev().fold(0.0, |sum, term| sum * inverse + term) / z
}

pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// `x^a (1 − x)^b / B(a, b)`, without the cancellation of large logarithms: the saddle-point form of the binomial distribution.
fn beta_prefix(a: f64, b: f64, x: f64) -> f64 {
    // ln Γ(z + 1) less its leading terms.
    let rest = |z: f64| {
        if z < 16.0 { ln_gamma(z + 1.0) - (z + 0.5) * z.ln() + z - 0.5 * (2.0 * PI).ln() } else { stirling(z) }
    };
    let deviance = |k: f64, mean: f64| {
        let d = (k - mean) / mean;
        if d.abs() < 0.1 {
            // k ln(k/mean) + mean − k = mean ((1 + d) ln(1 + d) − d)
            let (mut sum, mut power) = (0.0, d);
            for n in 2..40 {
                power *= -d;
                sum -= power / f64::from(n * (n - 1));
            }
            mean * sum
        } else {
            k * (k / mean).ln() + mean - k
        }
    };
    let n = a + b;
    let ln = rest(n) - rest(a) - rest(b) - deviance(a, n * x) - deviance(b, n * (1.0 - x));
    (a * b / (2.0 * PI * n)).sqrt() * ln.exp()
}

/// The regularised incomplete beta function I_x(a, b).
pub fn beta_inc(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || b <= 0.0 {
        return if b <= 0.0 && x >= 1.0 { 1.0 } else { 0.0 };
    }
    if x >= 1.0 || a <= 0.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_inc(b, a, 1.0 - x);
    }
    // The continued fraction, by Lentz's method.
    const TINY: f64 = 1e-300;
    let (mut c, mut d) = (1.0, 1.0 - (a + b) * x / (a + 1.0));
    d = 1.0 / if d.abs() < TINY { TINY } else { d };
    let mut h = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        for term in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 + term * d;
            d = 1.0 / if d.abs() < TINY { TINY } else { d };
            c = 1.0 + term / c;
            c = if c.abs() < TINY { TINY } else { c };
            h *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    beta_prefix(a, b, x) * h / a
}

/// The x at which I_x(a, b) is p.
pub fn beta_inv(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if beta_inc(a, b, middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The exact conditional test of "the rate ratio is at most r0": the p-value.
pub fn rates(x_c: f64, n_c: f64, x_s: f64, n_s: f64, r0: f64) -> f64 {
    beta_inc(x_c, x_s + 1.0, r0 * n_c / (r0 * n_c + n_s))
}

/// The same less half of the probability of what was seen.
pub fn rates_mid(x_c: f64, n_c: f64, x_s: f64, n_s: f64, r0: f64) -> f64 {
    let p = rates(x_c, n_c, x_s, n_s, r0);
    p - 0.5 * (p - rates(x_c + 1.0, n_c, x_s - 1.0, n_s, r0))
}

/// One-sided bounds for the rate ratio.
pub fn rate_ratio(x_c: f64, n_c: f64, x_s: f64, n_s: f64, alpha: f64) -> (f64, f64) {
    let ratio = |theta: f64| theta / (1.0 - theta) * n_s / n_c;
    let low = if x_c == 0.0 { 0.0 } else { ratio(beta_inv(alpha, x_c, x_s + 1.0)) };
    let high = if x_s == 0.0 { f64::INFINITY } else { ratio(beta_inv(1.0 - alpha, x_c + 1.0, x_s)) };
    (low, high)
}

/// Clopper and Pearson's one-sided bounds for a share.
pub fn share(x: f64, n: f64, alpha: f64) -> (f64, f64) {
    let low = if x == 0.0 { 0.0 } else { beta_inv(alpha, x, n - x + 1.0) };
    let high = if x == n { 1.0 } else { beta_inv(1.0 - alpha, x + 1.0, n - x) };
    (low, high)
}

/// Wilson's bounds for a share.
pub fn wilson(x: f64, n: f64, z: f64) -> (f64, f64) {
    let (p, z2) = (x / n, z * z);
    let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let centre = p + z2 / (2.0 * n);
    ((centre - half) / (1.0 + z2 / n), (centre + half) / (1.0 + z2 / n))
}

/// Newcombe's bounds for a difference of shares.
pub fn newcombe(x_c: f64, n_c: f64, x_s: f64, n_s: f64, z: f64) -> (f64, f64) {
    let (p_c, p_s) = (x_c / n_c, x_s / n_s);
    let ((l_c, u_c), (l_s, u_s)) = (wilson(x_c, n_c, z), wilson(x_s, n_s, z));
    let d = p_c - p_s;
    (d - (p_c - l_c).hypot(u_s - p_s), d + (u_c - p_c).hypot(p_s - l_s))
}

/// Fisher's one-sided exact test: the chance of so many or more failures of the canary among all.
pub fn fisher(x_c: u64, n_c: u64, x_s: u64, n_s: u64) -> f64 {
    let (x, n, failed, all) = (x_c as f64, n_c as f64, (x_c + x_s) as f64, (n_c + n_s) as f64);
    let choose = |n: f64, k: f64| ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let mut term = (choose(failed, x) + choose(all - failed, n - x) - choose(all, n)).exp();
    let (mut sum, mut k) = (0.0, x);
    while k <= n.min(failed) && term > sum * 1e-17 {
        sum += term;
        term *= (failed - k) * (n - k) / ((k + 1.0) * (all - failed - n + k + 1.0));
        k += 1.0;
    }
    sum.min(1.0)
}

/// The two-sided sequential test of Lindon and Malek: nats of evidence against a canary's share `theta` of the failures.
pub fn lindon_malek(x_c: f64, x_s: f64, theta: f64, a: f64, b: f64) -> f64 {
    ln_beta(a + x_c, b + x_s) - ln_beta(a, b) - x_c * theta.ln() - x_s * (1.0 - theta).ln()
}
