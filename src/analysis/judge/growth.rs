//! How much counters grew in a stretch of time, from their samples: exactly, where `increase()` extrapolates, and with what
//! `increase()` never sees, the first failure of a pod.

/// The samples of one series, as seconds and value, oldest first.
pub type Series = Vec<(f64, f64)>;

/// The growth of all series together by samples after `from` and up to `to`.
///
/// The samples should reach back some minutes before `from`. A series without any that old is a new one, such as
/// the errors of a pod that had none before: it grew from 0. A value below the one before it is that of a counter that was
/// reset in between, and grew from 0, too. Whatever is no number yields one that [`super::counts::Arm::parse`] refuses.
pub fn between(series: &[Series], from: f64, to: f64) -> f64 {
    series.iter().map(|samples| grown(samples, from, to)).sum()
}

fn grown(samples: &Series, from: f64, to: f64) -> f64 {
    let mut before = 0.0;
    let mut growth = 0.0;
    for (at, value) in samples {
        if *at > to {
            break;
        }
        if *at > from {
            growth += if *value < before { *value } else { value - before };
        }
        before = *value;
    }
    growth
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(values: &[f64]) -> Series {
        values.iter().enumerate().map(|(index, value)| (15.0 * index as f64, *value)).collect()
    }

    #[test]
    fn growth_survives_resets_and_counts_what_is_new() {
        for (samples, from, to, growth) in [
            (vec![series(&[10.0, 12.0, 15.0, 15.0, 20.0])], 15.0, 60.0, 8.0),
            // A restarted pod counts from 0.
            (vec![series(&[10.0, 12.0, 3.0, 4.0])], 15.0, 60.0, 4.0),
            // Two pods, of which one goes.
            (vec![series(&[10.0, 12.0, 14.0]), series(&[5.0, 6.0])], 0.0, 60.0, 5.0),
            // A series that begins within the stretch is new.
            (vec![series(&[0.0, 0.0]), vec![(30.0, 1.0), (45.0, 2.0)]], 15.0, 60.0, 2.0),
            // What comes later counts later.
            (vec![series(&[1.0, 2.0, 4.0, 8.0])], 0.0, 30.0, 3.0),
            (vec![], 0.0, 60.0, 0.0),
            (vec![series(&[5.0])], 0.0, 60.0, 0.0),
        ] {
            assert_eq!(between(&samples, from, to), growth, "{samples:?} from {from} to {to}");
        }
        assert!(between(&[series(&[1.0, f64::NAN, 2.0])], 0.0, 60.0).is_nan());
    }

    proptest! {
        /// However a stretch is cut, its parts grow as much as the whole: nothing is counted twice or lost between looks.
        #[test]
        fn parts_add_up(values in prop::collection::vec(0..1000u32, 1..20), cut in -10.0..320.0f64) {
            let samples = [series(&values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>())];
            let whole = between(&samples, -1.0, 330.0);
            let parts = between(&samples, -1.0, cut.max(-1.0)) + between(&samples, cut.max(-1.0), 330.0);
            prop_assert_eq!(whole, parts);
            prop_assert!(whole >= 0.0);
        }
    }
}
