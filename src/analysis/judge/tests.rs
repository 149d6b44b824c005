use proptest::prelude::*;

use super::counts::{Arm, Interval, Side, Unusable};
use super::dispersion::Dispersion;
use super::harm::{Bets, Harm, Margin, Restarts};
use super::oracle;
use super::safe::Safe;
use super::words::Words;
use super::{LADDER, Settings, State, StateError, Verdict};

/// One metric at 99% for half an hour.
pub(super) fn settings() -> Settings {
    Settings {
        margin: Margin::new(1.1, 0.0).unwrap(),
        safe: Margin::new(1.5, 0.001).unwrap(),
        alpha: 0.01,
        beta: 0.05,
        metrics: 1,
        horizon: 1860.0,
        warm_up: 60.0,
        weight: None,
        early: false,
    }
}

fn interval(x_c: u64, n_c: u64, x_s: u64, n_s: u64) -> Interval {
    Interval::new(Arm::new(x_c, n_c).unwrap(), Arm::new(x_s, n_s).unwrap())
}

fn margin(ratio: f64, absolute: f64) -> Margin {
    Margin::new(ratio, absolute).unwrap()
}

/// Equal to `digits` after the point.
fn same(found: f64, expected: f64, digits: i32, what: &str) {
    assert!((found - expected).abs() <= 0.5001 * 10f64.powi(-digits), "{what}: {found} is not {expected}");
}

#[test]
fn harm_has_the_evidence_of_the_reference() {
    for ((x_c, n_c, x_s, n_s), (ratio, absolute), ln_e) in [
        ((9, 300, 57, 5700), (1.0, 0.0), 2.3226916867),
        ((9, 300, 57, 5700), (1.25, 0.0), 1.2795163202),
        ((9, 300, 57, 5700), (1.25, 0.0005), 1.1239060150),
        ((0, 300, 57, 5700), (1.0, 0.0), -2.3745708894),
        ((1, 300, 5, 5700), (1.0, 0.0), 0.0696956786),
        ((5, 1200, 5, 4800), (1.0, 0.0), 1.3565704238),
        ((3, 60, 1, 5940), (1.0, 0.0), 9.1373613942),
    ] {
        let mut bets = Bets::default();
        bets.add(&interval(x_c, n_c, x_s, n_s), margin(ratio, absolute), 1.0);
        same(bets.ln_e(), ln_e, 9, &format!("{x_c}/{n_c} {x_s}/{n_s} at {ratio}, {absolute}"));
    }
    let mut bets = Bets::default();
    bets.add(&interval(9, 300, 57, 5700), margin(1.0, 0.0), 1.0);
    let stakes = [1.188406, 2.279152, 3.018174, 3.597039, 2.451718, -3.799929, -28.531033, -76.257289];
    for (found, expected) in bets.stakes().iter().zip(stakes) {
        same(*found, expected, 6, "a stake");
    }
}

#[test]
fn evidence_adds_up_over_intervals_and_ramps() {
    let steady = [(2, 300, 5, 5700), (3, 300, 6, 5700), (4, 300, 4, 5700)];
    let ramp = [(2, 300, 5, 5700), (9, 1200, 6, 4800), (20, 3000, 4, 3000)];
    for (intervals, expected) in
        [(steady, [1.22041867, 4.17806028, 9.96282842]), (ramp, [1.22041867, 6.26254432, 11.79245807])]
    {
        let mut bets = Bets::default();
        let mut harm = Harm::default();
        for ((x_c, n_c, x_s, n_s), ln_e) in intervals.into_iter().zip(expected) {
            let interval = interval(x_c, n_c, x_s, n_s);
            bets.add(&interval, margin(1.0, 0.0), 1.0);
            harm.add(0.0, &interval, margin(1.0, 0.0), 1.0, Restarts::NONE);
            same(bets.ln_e(), ln_e, 8, "after an interval");
            assert_eq!(harm.ln_e(Restarts::NONE), bets.ln_e());
        }
    }
}

#[test]
fn safety_has_the_evidence_of_the_reference() {
    for ((x_c, n_c, x_s, n_s), ln_e) in [
        ((0, 4606, 0, 90_000), 3.3252555501),
        ((0, 300, 6, 5700), 0.4270842533),
        ((3, 3000, 57, 57_000), 1.0289948198),
        ((9, 300, 57, 5700), -1.8506275898),
    ] {
        let mut safe = Safe::default();
        safe.add(&interval(x_c, n_c, x_s, n_s), margin(1.5, 0.001), 1.0);
        same(safe.ln_e(), ln_e, 9, &format!("{x_c}/{n_c} {x_s}/{n_s}"));
    }
    // ln(6 / 5%) / 0.1%, where nothing fails.
    let reached = |requests| {
        let mut safe = Safe::default();
        safe.add(&interval(0, requests, 0, 90_000), margin(1.5, 0.001), 1.0);
        safe.ln_e() >= 20f64.ln()
    };
    assert!(reached(4788), "the bet on no failures alone is enough");
}

/// The proof in numbers: over all that can happen in an interval, the expected stake is at most 1 for both versions at the
/// edge of the null hypothesis.
#[test]
fn no_bet_is_expected_to_win_at_the_edge_of_its_null_hypothesis() {
    let (mut largest_harm, mut largest_safe) = (0f64, 0f64);
    for (n_c, n_s) in [(30, 70), (5, 95), (60, 40)] {
        for p_s in [0.001, 0.01, 0.05, 0.2, 0.5, 0.7] {
            for (ratio, absolute) in [(1.0, 0.0), (1.25, 0.01), (2.0, 0.0)] {
                let p_c = ratio * p_s + absolute;
                if p_c > 1.0 {
                    continue;
                }
                let (canary, stable) = (binomial(n_c, p_c), binomial(n_s, p_s));
                let (mut harm, mut safe) = (0.0, 0.0);
                for (x_c, canary) in canary.iter().enumerate() {
                    for (x_s, stable) in stable.iter().enumerate() {
                        let seen = interval(x_c as u64, n_c, x_s as u64, n_s);
                        let mut bets = (Bets::default(), Safe::default());
                        bets.0.add(&seen, margin(ratio, absolute), 1.0);
                        bets.1.add(&seen, margin(ratio, absolute), 1.0);
                        harm += canary * stable * bets.0.ln_e().exp();
                        safe += canary * stable * bets.1.ln_e().exp();
                    }
                }
                largest_harm = largest_harm.max(harm);
                largest_safe = largest_safe.max(safe);
            }
        }
    }
    assert!((0.9999..1.0 + 1e-12).contains(&largest_harm), "{largest_harm}");
    assert!((0.999..1.0 + 1e-12).contains(&largest_safe), "{largest_safe}");
}

/// The chance of each number of failures.
fn binomial(n: u64, p: f64) -> Vec<f64> {
    let n = n as f64;
    (0..=n as u64)
        .map(|x| {
            let x = x as f64;
            let ways = oracle::ln_gamma(n + 1.0) - oracle::ln_gamma(x + 1.0) - oracle::ln_gamma(n - x + 1.0);
            (ways + x * p.ln() + if p < 1.0 || x < n { (n - x) * (1.0 - p).ln() } else { 0.0 }).exp()
        })
        .collect()
}

#[test]
fn one_look_tests_have_the_values_of_the_reference() {
    let (x_c, n_c, x_s, n_s) = (9.0, 300.0, 57.0, 5700.0);
    let (z95, z98) = (1.959963984540054, 2.3263478740408408);
    let at95 = oracle::rate_ratio(x_c, n_c, x_s, n_s, 0.05);
    let at99 = oracle::rate_ratio(x_c, n_c, x_s, n_s, 0.01);
    let cp = (oracle::share(9.0, 300.0, 0.025), oracle::share(9.0, 300.0, 0.01).0);
    let (wilson, wilson98) = (oracle::wilson(9.0, 300.0, z95), oracle::wilson(9.0, 300.0, z98));
    let (published, difference) =
        (oracle::newcombe(56.0, 70.0, 48.0, 80.0, z95), oracle::newcombe(x_c, n_c, x_s, n_s, z98));
    let guaranteed = oracle::share(9.0, 300.0, 0.005).0 - oracle::share(57.0, 5700.0, 0.005).1;
    for (what, found, expected, digits) in [
        ("p at 1", oracle::rates(x_c, n_c, x_s, n_s, 1.0), 0.0054579854540560, 15),
        ("p at 1.5", oracle::rates(x_c, n_c, x_s, n_s, 1.5), 0.0505309709303574, 15),
        ("mid-p", oracle::rates_mid(x_c, n_c, x_s, n_s, 1.0), 0.0035156997765731, 15),
        ("lower 95%", at95.0, 1.4967265923, 10),
        ("upper 95%", at95.1, 5.5444921417, 9),
        ("lower 99%", at99.0, 1.1071858922, 10),
        ("upper 99%", at99.1, 6.8099904300, 9),
        ("published rates", oracle::rates(41.0, 28_010.0, 15.0, 19_017.0, 1.0), 0.0238301233772829, 15),
        ("Fisher", oracle::fisher(9, 300, 57, 5700), 0.0051838723724496, 13),
        ("Fisher, small", oracle::fisher(7, 10, 2, 10), 0.0348892592594637, 9),
        ("Clopper-Pearson lower", cp.0.0, 0.0138078196, 10),
        ("Clopper-Pearson upper", cp.0.1, 0.0561835482, 10),
        ("Clopper-Pearson 99%", cp.1, 0.0117801845, 10),
        ("rule of 4.6", oracle::share(0.0, 4605.0, 0.01).1, 0.000999537, 9),
        ("rule of 4.6, exactly", oracle::share(0.0, 4605.0, 0.01).1, 1.0 - 0.01f64.powf(1.0 / 4605.0), 14),
        ("Wilson lower", wilson.0, 0.0158618538, 10),
        ("Wilson upper", wilson.1, 0.0560225391, 10),
        ("Wilson 98% lower", wilson98.0, 0.0141413364, 8),
        ("Wilson 98% upper", wilson98.1, 0.0625154502, 7),
        ("Newcombe, published, lower", published.0, 0.05243, 5),
        ("Newcombe, published, upper", published.1, 0.33387, 5),
        ("Newcombe lower", difference.0, 0.0037457335, 10),
        ("Newcombe upper", difference.1, 0.0526220177, 10),
        ("guaranteed difference", guaranteed, -0.0033906568, 10),
        ("Lindon-Malek", oracle::lindon_malek(9.0, 57.0, 0.05, 0.5, 9.5), 1.6598887718, 10),
        ("Lindon-Malek, uniform", oracle::lindon_malek(7.0, 3.0, 0.5, 1.0, 1.0), -0.2539152100, 10),
    ] {
        same(found, expected, digits, what);
    }
}

/// Against values that were computed with forty digits, as far as a float holds them.
#[test]
fn the_oracle_is_exact() {
    for (z, expected) in [
        (0.1, 2.252712651734206),
        (0.5, 0.5723649429247001),
        (1.5, -0.12078223763524522),
        (3.7, 1.4280723266653879),
        (15.99, 27.87186447594001),
        (16.0, 27.89927138384089),
        (100.25, 360.28455963776423),
    ] {
        let found = oracle::ln_gamma(z);
        assert!((found - expected).abs() < 1e-12 * f64::max(1.0, expected), "ln gamma of {z}: {found}");
    }
    for (a, b, x, expected) in [
        (0.5, 0.5, 0.3, 0.36901011956554536),
        (9.0, 58.0, 0.05, 0.005457985454055925),
        (1.0, 4605.0, 0.001, 0.9900213157512431),
        (2000.0, 3000.0, 0.39, 0.07415054971129806),
    ] {
        let found = oracle::beta_inc(a, b, x);
        assert!((found - expected).abs() < 1e-12, "I_{x}({a}, {b}): {found}");
        assert!((oracle::beta_inv(expected, a, b) - x).abs() < 1e-12);
    }
}

/// A quantile of a histogram lies between edges of which one is surely below and one surely above it.
#[test]
fn quantiles_of_a_histogram_have_bounds() {
    let counts = [600.0, 850.0, 960.0, 990.0, 998.0, 1000.0];
    let lower = [0.56312, 0.82184, 0.94315, 0.97996, 0.99162, 0.99541];
    let upper = [0.63608, 0.87533, 0.97306, 0.99586, 0.99985, 1.0];
    for ((count, lower), upper) in counts.into_iter().zip(lower).zip(upper) {
        let (low, high) = oracle::share(count, 1000.0, 0.01);
        same(low, lower, 5, "lower");
        same(high, upper, 5, "upper");
    }
}

#[test]
fn a_canary_that_turns_bad_late_is_found_sooner_by_restarts() {
    let settings = Settings { horizon: 3660.0, margin: margin(1.0, 0.0), ..settings() };
    let minute = |minute: u64| if minute < 30 { interval(3, 300, 57, 5700) } else { interval(15, 300, 57, 5700) };
    let mut state = State::new(Dispersion::Given(1.0));
    let mut without = Bets::default();
    let mut found_without = None;
    for at in 0..60 {
        let from = settings.warm_up + 60.0 * at as f64;
        state.observe(&settings, from, from + 60.0, Ok(minute(at)));
        without.add(&minute(at), settings.margin, 1.0);
        if without.ln_e() >= settings.bar() && found_without.is_none() {
            found_without = Some(at);
        }
    }
    let decision = state.decision().unwrap();
    assert_eq!(decision.verdict, Verdict::Harm);
    let found = ((decision.after - settings.warm_up) / 60.0) as u64;
    assert!(found < found_without.unwrap() + 1, "{found} {found_without:?}");
}

#[test]
fn outages_of_both_are_nobodys_fault() {
    let settings = settings();
    let mut state = State::new(Dispersion::Given(1.0));
    for tick in 0..180u64 {
        let from = settings.warm_up + 10.0 * tick as f64;
        let seen = if (60..120).contains(&tick) { interval(25, 50, 475, 950) } else { interval(0, 50, 1, 950) };
        state.observe(&settings, from, from + 10.0, Ok(seen));
    }
    assert_eq!(state.decision(), None);
}

#[test]
fn warm_up_overlaps_and_what_comes_after_the_horizon_are_left_out() {
    let settings = settings();
    let bad = Ok(interval(100, 100, 0, 100));
    let mut state = State::new(Dispersion::Assumed);
    for (from, to) in [(0.0, 30.0), (30.0, 60.0), (1860.0, 1870.0), (1000.0, 1010.0), (1880.0, f64::NAN)] {
        state.observe(&settings, from, to, bad);
    }
    assert_eq!(state.totals(), (Arm::default(), Arm::default()));
    assert_eq!((state.unusable, state.problem), (2, Some(Unusable::Overlap)));
    let mut state = State::new(Dispersion::Assumed);
    state.observe(&settings, 60.0, 70.0, bad);
    assert_eq!(state.decision().unwrap().verdict, Verdict::Harm);
}

#[test]
fn metrics_share_the_errors_of_an_analysis() {
    let seen = Ok(interval(9, 300, 5, 5700));
    let decided = |metrics| {
        let settings = Settings { metrics, margin: margin(1.0, 0.0), ..settings() };
        let mut state = State::new(Dispersion::Given(1.0));
        state.observe(&settings, 60.0, 70.0, seen);
        state.decision().map(|decision| decision.verdict)
    };
    assert_eq!(decided(1), Some(Verdict::Harm));
    assert_eq!(decided(1_000_000), None);
}

#[test]
fn safety_is_said_at_the_horizon_or_as_soon_as_one_likes() {
    let good = interval(0, 300, 6, 5700);
    let run = |early, ticks: u64| {
        let settings = Settings { early, ..settings() };
        let mut state = State::new(Dispersion::Given(1.0));
        for tick in 0..ticks {
            let from = settings.warm_up + 30.0 * tick as f64;
            state.observe(&settings, from, from + 30.0, Ok(good));
        }
        let before = state.decision();
        state.conclude(&settings);
        (before.map(|decision| decision.verdict), state.decision().map(|decision| decision.verdict))
    };
    assert_eq!(run(true, 60), (Some(Verdict::Safe), Some(Verdict::Safe)));
    assert_eq!(run(false, 60), (None, Some(Verdict::Safe)));
    assert_eq!(run(false, 2), (None, None));
}

#[test]
fn a_state_that_is_not_ours_is_refused() {
    let state = State::new(Dispersion::Assumed);
    let whole = serde_json::to_value(&state).unwrap();
    assert_eq!(State::read(&whole), Ok(state));
    let with = |field: &str, value: serde_json::Value| {
        let mut json = whole.clone();
        json[field] = value;
        State::read(&json)
    };
    assert_eq!(with("version", 2.into()), Err(StateError::Version { found: 2 }));
    for (field, value) in [
        ("ladder", serde_json::json!([])),
        ("ladder", serde_json::json!(vec!["0 0 0 0 0 0 0"; LADDER.len()])),
        ("harm", serde_json::json!({"w": "0 0 0 0 0 0 0 0", "r": vec!["0 0 0 0 0 0 0 0"; 25]})),
        ("ladder", serde_json::json!(vec!["0 0 0 0 0 0 0 -"; LADDER.len()])),
        ("safe", serde_json::json!("0 0 0 0 0 inf")),
        ("until", serde_json::json!(null)),
        ("canary", serde_json::json!("many")),
    ] {
        assert!(matches!(with(field, value.clone()), Err(StateError::Unreadable(_))), "{field}: {value}");
    }
    for json in [serde_json::json!(null), serde_json::json!("x"), serde_json::json!([1])] {
        assert!(State::read(&json).is_err());
    }
}

prop_compose! {
    /// What a provider may answer, in good and in bad faith.
    fn number()(kind in 0..10u8, count in 0..5000u32, wild in any::<f64>()) -> f64 {
        match kind {
            0..=6 => f64::from(count),
            7 => f64::from(count) + 0.3,
            _ => wild,
        }
    }
}

prop_compose! {
    fn any_settings()(
        ratio in 1.0..5.0f64,
        absolute in 0.0..0.1f64,
        alpha in 0.0001..0.5f64,
        metrics in 0..5usize,
        horizon in prop_oneof![0.0..100_000.0f64, Just(f64::MAX)],
        weight in prop_oneof![Just(None), any::<f64>().prop_map(Some)],
        early in any::<bool>(),
    ) -> Settings {
        let margin = margin(ratio, absolute);
        Settings { margin, alpha, metrics, horizon, weight, early, ..settings() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is answered, the judge goes on: without a panic, with a state that survives a restart and stays small, and
    /// with something to say.
    #[test]
    fn nothing_that_is_answered_breaks_the_judge(
        settings in any_settings(),
        dispersion in prop_oneof![Just(Dispersion::Assumed), any::<f64>().prop_map(Dispersion::Given)],
        answers in prop::collection::vec((number(), number(), number(), number(), prop_oneof![Just(30.0), any::<f64>()]), 1..60),
    ) {
        let mut state = State::new(dispersion);
        let mut at = settings.warm_up;
        for (x_c, n_c, x_s, n_s, step) in answers {
            let seen = Arm::parse(Side::Canary, x_c, n_c)
                .and_then(|canary| Ok(Interval::new(canary, Arm::parse_good(Side::Stable, x_s, n_s)?)));
            state.observe(&settings, at, at + step, seen);
            at = if (at + step).is_finite() { (at + step).max(at) } else { at };
            let json = serde_json::to_value(&state).unwrap();
            prop_assert!(json.to_string().len() < 10_000, "{} bytes", json.to_string().len());
            let read = State::read(&json).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!((read.evidence(&settings).0 - state.evidence(&settings).0).abs() < 1e-6);
            state = read;
        }
        state.conclude(&settings);
        prop_assert!(!Words::default().sentence(&state, &settings).is_empty());
    }

    /// Swapping good for bad news never lowers the evidence.
    #[test]
    fn more_failures_of_the_canary_are_more_evidence(n_c in 1..5000u64, n_s in 1..50_000u64, x in 0..100u64, more in 1..10u64, x_s in 0..1000u64) {
        prop_assume!(x + more <= n_c && x_s <= n_s);
        let evidence = |x_c| {
            let mut bets = (Bets::default(), Safe::default());
            let seen = interval(x_c, n_c, x_s, n_s);
            bets.0.add(&seen, margin(1.1, 0.001), 1.0);
            bets.1.add(&seen, margin(1.5, 0.001), 1.0);
            (bets.0.ln_e(), bets.1.ln_e())
        };
        let (few, many) = (evidence(x), evidence(x + more));
        prop_assert!(many.0 > few.0 && many.1 < few.1);
    }

    /// The alarm agrees with the exact test with one look: it asks for more, and not for much more.
    #[test]
    fn the_alarm_is_never_weaker_than_the_exact_test(n_c in 100..3000u64, n_s in 3000..60_000u64, x_c in 0..60u64, x_s in 0..300u64) {
        let mut bets = Bets::default();
        bets.add(&interval(x_c, n_c, x_s, n_s), margin(1.0, 0.0), 1.0);
        let p = oracle::rates(x_c as f64, n_c as f64, x_s as f64, n_s as f64, 1.0);
        if bets.ln_e() >= 100f64.ln() {
            prop_assert!(p < 0.01, "p = {p}");
        }
        if p < 1e-8 {
            prop_assert!(bets.ln_e() >= 100f64.ln(), "ln E = {}", bets.ln_e());
        }
    }
}
