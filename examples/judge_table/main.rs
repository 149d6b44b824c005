//! Holds the judge against what it promises: how often it blames a healthy canary, and how soon it finds a bad one.
//!
//! ```sh
//! make bench-judge
//! ```
//!
//! Prints the tables of `docs/judging.md` and, with `--plots DIR`, writes its plots. Fails when a healthy row has more than 1.3%
//! false alarms, or when a bad canary is found more than a minute later or sooner than it was when the judge was designed.
//! `--runs N` (20,000) and `--seed N` (1) are for whoever is curious; the same seed gives the same tables.

mod judges;
// The reference of the judge's own tests. Only some of it is needed here.
#[allow(dead_code)]
#[path = "../../src/analysis/judge/oracle.rs"]
mod oracle;
mod plot;
mod traffic;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use tidegate::analysis::judge::dispersion::Dispersion;

use judges::{Alarms, JUDGE, MINUTES, NAMES};
use plot::Series;
use traffic::Minute;

/// The promise is 1%; with 20,000 runs this is more than four standard errors above it.
const LARGEST_FALSE: f64 = 0.013;
const STABLE_PODS: u64 = 19;
const WEIGHTS: [f64; 3] = [0.01, 0.05, 0.20];

/// The minute in which half of all bad canaries were found by the reference, by base rate, weight and change; where clearly more
/// than half were.
const REFERENCE: [(f64, f64, f64, u8); 15] = [
    (0.001, 0.01, 5.0, 26),
    (0.001, 0.05, 2.0, 53),
    (0.001, 0.05, 5.0, 7),
    (0.001, 0.20, 2.0, 19),
    (0.001, 0.20, 5.0, 3),
    (0.01, 0.01, 2.0, 28),
    (0.01, 0.01, 5.0, 3),
    (0.01, 0.05, 1.5, 21),
    (0.01, 0.05, 2.0, 7),
    (0.01, 0.05, 5.0, 1),
    (0.01, 0.20, 1.5, 7),
    (0.01, 0.20, 2.0, 2),
    (0.01, 0.20, 5.0, 1),
    // Beyond the horizon.
    (0.001, 0.01, 2.0, 61),
    (0.01, 0.01, 1.5, 61),
];

struct Options {
    runs: usize,
    seed: u64,
    plots: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: judge_table [--runs N] [--seed N] [--plots DIR]");
        return ExitCode::from(2);
    };
    let mut problems = Vec::new();
    let rows = table(&options, &mut problems);
    stress(&options, &mut problems);
    bursts(&options, &mut problems);
    pods(&options);
    if let Some(folder) = &options.plots
        && let Err(error) = plots(folder, &rows)
    {
        problems.push(format!("{}: {error}", folder.display()));
    }
    for problem in &problems {
        eprintln!("FAILED: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Row {
    base: f64,
    weight: f64,
    times: f64,
    found: Found,
}

/// What the judges made of all runs of a row.
struct Found(Vec<Alarms>);

impl Found {
    fn share(&self, judge: usize) -> f64 {
        self.by(judge, MINUTES as u8)
    }

    /// The share that was found until a minute.
    fn by(&self, judge: usize, minute: u8) -> f64 {
        let found = self.0.iter().filter(|alarms| alarms[judge].is_some_and(|at| at <= minute));
        found.count() as f64 / self.0.len() as f64
    }

    /// The minute by which a share of all runs was found; one after the last when it never was.
    fn quantile(&self, judge: usize, share: f64) -> u8 {
        (1..=MINUTES as u8).find(|minute| self.by(judge, *minute) >= share).unwrap_or(MINUTES as u8 + 1)
    }

    fn cell(&self, judge: usize) -> String {
        let share = self.share(judge);
        if share < 0.5 || NAMES[judge] == "end" {
            return format!("{:.1}%", share * 100.0);
        }
        format!("{:.1}% ({}/{})", share * 100.0, minute(self.quantile(judge, 0.5)), minute(self.quantile(judge, 0.9)))
    }
}

fn minute(minute: u8) -> String {
    if usize::from(minute) > MINUTES { format!(">{MINUTES}") } else { minute.to_string() }
}

fn table(options: &Options, problems: &mut Vec<String>) -> Vec<Row> {
    println!("| errors | weight | canary | {} |", NAMES.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(NAMES.len()));
    let mut rows = Vec::new();
    for base in [0.001, 0.01] {
        for weight in WEIGHTS {
            for times in [1.0, 1.5, 2.0, 5.0] {
                let runs = if times == 1.0 { options.runs } else { options.runs.div_ceil(5) };
                let name = format!("{}% errors, weight {}%, {times}x", base * 100.0, weight * 100.0);
                let minutes = [Minute::new(weight, base, times); MINUTES];
                let found = Found(simulate(&name, options.seed, runs, |rng| {
                    judges::all(minutes.iter().map(|minute| minute.draw(rng, 1.0)))
                }));
                let cells: Vec<String> = (0..NAMES.len()).map(|judge| found.cell(judge)).collect();
                println!("| {}% | {}% | {times}x | {} |", base * 100.0, weight * 100.0, cells.join(" | "));
                if times == 1.0 && found.share(JUDGE) > LARGEST_FALSE {
                    problems.push(format!("{name}: {:.2}% false alarms", found.share(JUDGE) * 100.0));
                }
                let reference = REFERENCE.iter().find(|row| (row.0, row.1, row.2) == (base, weight, times));
                if let Some((.., expected)) = reference
                    && found.quantile(JUDGE, 0.5).abs_diff(*expected) > 1
                {
                    let median = found.quantile(JUDGE, 0.5);
                    problems.push(format!("{name}: found after {median} min, not {expected}"));
                }
                rows.push(Row { base, weight, times, found });
            }
        }
    }
    println!();
    rows
}

/// Healthy canaries in bad times.
fn stress(options: &Options, problems: &mut Vec<String>) {
    let outage = |minute: usize| Minute::new(0.05, if (20..25).contains(&minute) { 0.1 } else { 0.001 }, 1.0);
    let ramp = |minute: usize| Minute::new([0.01, 0.05, 0.20, 0.50][minute / 15], 0.01, 1.0);
    let simpson = |minute: usize| {
        let done = minute as f64 / (MINUTES - 1) as f64;
        Minute::new(0.05 + 0.45 * done, 0.001 + 0.019 * done, 1.0)
    };
    let rows: [(&str, &dyn Fn(usize) -> Minute); 3] = [
        ("both have 10% errors for 5 minutes", &outage),
        ("the weight goes 1, 5, 20, 50%", &ramp),
        ("the weight goes from 5 to 50% while errors go from 0.1 to 2%", &simpson),
    ];
    println!("| healthy, while | {} |\n|---|{}", NAMES[..6].join(" | "), "---|".repeat(6));
    for (name, minute_at) in rows {
        let minutes: Vec<Minute> = (0..MINUTES).map(minute_at).collect();
        let found = Found(simulate(name, options.seed, options.runs, |rng| {
            judges::all(minutes.iter().map(|minute| minute.draw(rng, 1.0)))
        }));
        let cells: Vec<String> = (0..6).map(|judge| format!("{:.2}%", found.share(judge) * 100.0)).collect();
        println!("| {name} | {} |", cells.join(" | "));
        if found.share(JUDGE) > LARGEST_FALSE {
            problems.push(format!("{name}: {:.2}% false alarms", found.share(JUDGE) * 100.0));
        }
    }
    println!();
}

/// Failures that come in bursts, with a dispersion that is measured on stable's pods in the hour before.
fn bursts(options: &Options, problems: &mut Vec<String>) {
    let runs = options.runs.div_ceil(10);
    let weight = 0.05;
    println!(
        "| errors | burst | median dispersion | 1x, not corrected | 1x, known | 1x | 2x | 5x | 1x after an outage | 5x after an outage |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for base in [0.001, 0.01] {
        for burst in [1.0, 2.0, 5.0] {
            let name = format!("{}% errors in bursts of {burst}", base * 100.0);
            let cell = |times: f64, dispersion: &(dyn Fn(&mut Rng) -> Dispersion + Sync)| {
                let minutes = [Minute::new(weight, base, times); MINUTES];
                let what = format!("{name}, {times}x");
                simulate(&what, options.seed, runs, |rng| {
                    let dispersion = dispersion(rng);
                    let alarm = judges::only(minutes.iter().map(|minute| minute.draw(rng, burst)), 1.0, dispersion);
                    (alarm, dispersion.factor())
                })
            };
            let measured = |rng: &mut Rng| look_back(rng, base, burst, false);
            let after_outage = |rng: &mut Rng| look_back(rng, base, burst, true);
            let raw = cell(1.0, &|_| Dispersion::Given(1.0));
            let known = cell(1.0, &|_| Dispersion::Given(2.0 * burst - 1.0));
            let healthy = cell(1.0, &measured);
            let mut factors: Vec<f64> = healthy.iter().map(|(_, factor)| *factor).collect();
            factors.sort_by(f64::total_cmp);
            let healthy_after = cell(1.0, &after_outage);
            for (what, cell) in [("", &healthy), (" after an outage", &healthy_after)] {
                if share(cell) > LARGEST_FALSE {
                    problems.push(format!("{name}{what}: {:.2}% false alarms", share(cell) * 100.0));
                }
            }
            println!(
                "| {}% | {burst} | {:.2} | {:.1}% | {:.1}% | {:.1}% | {} | {} | {:.1}% | {} |",
                base * 100.0,
                factors[factors.len() / 2],
                share(&raw) * 100.0,
                share(&known) * 100.0,
                share(&healthy) * 100.0,
                shown(&cell(2.0, &measured)),
                shown(&cell(5.0, &measured)),
                share(&healthy_after) * 100.0,
                shown(&cell(5.0, &after_outage)),
            );
        }
    }
    println!();
}

/// Healthy canaries of few pods, where pods differ for good.
fn pods(options: &Options) {
    let runs = options.runs.div_ceil(5);
    let margins = [1.0, 1.25, 1.5, 2.0];
    println!("| canary pods | spread of pods | margin 0 | 25% | 50% | 100% |\n|---|---|---|---|---|---|");
    for canary_pods in [1, 4] {
        for spread in [0.1, 0.2, 0.4] {
            let cells = margins.map(|ratio| {
                let name = format!("{canary_pods} canary pods, spread {spread}, margin {ratio}");
                let alarms = simulate(&name, options.seed, runs, |rng| {
                    let mut rate =
                        |pods: u64| 0.01 * (0..pods).map(|_| traffic::factor(rng, spread)).sum::<f64>() / pods as f64;
                    let (canary_rate, stable_rate) = (rate(canary_pods), rate(STABLE_PODS));
                    let minute = Minute { weight: 0.05, canary_rate, stable_rate };
                    judges::only((0..MINUTES).map(|_| minute.draw(rng, 1.0)), ratio, Dispersion::Given(1.0))
                });
                format!("{:.1}%", alarms.iter().flatten().count() as f64 / runs as f64 * 100.0)
            });
            println!("| {canary_pods} | {}% | {} |", spread * 100.0, cells.join(" | "));
        }
    }
    println!();
}

/// The dispersion as an hour of 19 stable pods shows it, with or without an outage of all of them in it.
fn look_back(rng: &mut Rng, base: f64, burst: f64, outage: bool) -> Dispersion {
    let requests = (traffic::REQUESTS as f64 * 0.95) as u64 / STABLE_PODS;
    let minutes: Vec<Vec<_>> = (0..MINUTES)
        .map(|minute| {
            let rate = if outage && (20..25).contains(&minute) { 0.1 } else { base };
            (0..STABLE_PODS).map(|_| traffic::arm(rng, requests, rate, burst)).collect()
        })
        .collect();
    Dispersion::between_pods(&minutes)
}

fn share(runs: &[(Option<u8>, f64)]) -> f64 {
    runs.iter().filter(|(alarm, _)| alarm.is_some()).count() as f64 / runs.len() as f64
}

fn shown(runs: &[(Option<u8>, f64)]) -> String {
    let mut alarms = Alarms::default();
    let found = Found(
        runs.iter()
            .map(|(alarm, _)| {
                alarms[JUDGE] = *alarm;
                alarms
            })
            .collect(),
    );
    found.cell(JUDGE)
}

/// The runs of a row, on all processors. Each has a generator of its own, so that their number does not matter.
fn simulate<T: Send>(name: &str, seed: u64, runs: usize, run: impl Fn(&mut Rng) -> T + Sync) -> Vec<T> {
    let seed = name.bytes().fold(seed, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done = AtomicUsize::new(0);
    let (run, done) = (&run, &done);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|first| {
                let step = (runs / 20).max(1);
                scope.spawn(move || {
                    (first..runs)
                        .step_by(threads)
                        .map(|index| {
                            let mut rng =
                                Rng::with_seed(seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                            if done.is_multiple_of(step) {
                                eprint!("\r\x1b[K{name}: {done} of {runs}");
                            }
                            run(&mut rng)
                        })
                        .collect::<Vec<T>>()
                })
            })
            .collect();
        let parts = threads.into_iter().flat_map(|thread| thread.join().expect("a run does not panic"));
        let results = parts.collect();
        eprint!("\r\x1b[K");
        results
    })
}

fn plots(folder: &std::path::Path, rows: &[Row]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let found = |judge: usize, weight: f64| {
        let row = rows.iter().find(|row| (row.base, row.weight, row.times) == (0.001, weight, 5.0));
        row.map_or(Vec::new(), |row| {
            (1..=MINUTES as u8).map(|minute| row.found.by(judge, minute)).collect::<Vec<f64>>()
        })
    };
    let line = |weight: &f64| Series {
        name: format!("judge, weight {}%", weight * 100.0),
        values: found(JUDGE, *weight),
        dashed: false,
    };
    let mut lines: Vec<Series> = WEIGHTS.iter().rev().map(line).collect();
    // Three lines on top of each other at the bottom of the plot could not be told apart.
    let best = |values: Vec<f64>, other: Vec<f64>| values.into_iter().zip(other).map(|(a, b)| a.max(b)).collect();
    let values = WEIGHTS.map(|weight| found(0, weight)).into_iter().reduce(best).unwrap_or_default();
    lines.push(Series { name: "success ≥ 95%, at its best".to_owned(), values, dashed: true });
    let title = "Found: canaries with 0.5% errors beside a stable with 0.1%";
    std::fs::write(folder.join("found.svg"), plot::lines(title, "minutes", &lines))?;

    let healthy: Vec<&Row> = rows.iter().filter(|row| row.times == 1.0).collect();
    let groups: Vec<String> =
        healthy.iter().map(|row| format!("{}% / {}%", row.base * 100.0, row.weight * 100.0)).collect();
    let bars: Vec<Series> = [(JUDGE, "judge"), (0, "success ≥ 95%"), (2, "Fisher, each minute")]
        .into_iter()
        .map(|(judge, name)| Series {
            name: name.to_owned(),
            values: healthy.iter().map(|row| row.found.share(judge)).collect(),
            dashed: false,
        })
        .collect();
    let title = "Blamed within an hour though healthy, % of all canaries";
    let x_label = "errors of both versions / the canary's weight";
    std::fs::write(folder.join("blamed.svg"), plot::bars(title, x_label, &groups, &bars, 0.2, 0.01))
}

fn options() -> Option<Options> {
    let mut options = Options { runs: 20_000, seed: 1, plots: None };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.as_str() {
            "--runs" => options.runs = value.parse().ok().filter(|runs| *runs > 0)?,
            "--seed" => options.seed = value.parse().ok()?,
            "--plots" => options.plots = Some(value.into()),
            _ => return None,
        }
    }
    Some(options)
}
