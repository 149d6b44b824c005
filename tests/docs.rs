//! The README and the manual: every manifest in them is accepted and runs, every command in them exists, and the tutorial
//! is done from its first line to its last.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes the list of commands and flags anew.

mod manual;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use manual::{Block, Page, console, pages, root, words};
use regex::Regex;
use serde_json::Value;
use tidegate::cli::{self, lint, manifest};
use tidegate::clock::Clock;
use tidegate::controller::{self, settings::Settings};
use tidegate::providers::http::Network;
use tidegate::providers::{JobTarget, Providers};
use tidegate::sandbox::Cluster;
use tidegate::sandbox::prometheus::{Prometheus, RecordedSeries};

#[test]
fn manifests_pass_lint() {
    let mut checked = 0;
    for page in pages() {
        // The blocks of a page belong together: a Rollout finds its templates.
        let report = lint::check(&objects(&page));
        assert!(report.errors.is_empty(), "{}: {:#?}", page.path, report.errors);
        checked += report.checked;
    }
    assert!(checked >= 7, "only {checked} objects of our kinds are in the manual");
}

/// Every page is a cluster of its own: its objects are applied as they stand and its Rollouts become Healthy. Those that
/// move traffic then make a release, by the weights of their steps or by blue-green. (Prometheus of other pages is not there.)
#[tokio::test(start_paused = true)]
async fn manifests_run() {
    for page in pages() {
        // What is planned lacks what a plan makes up.
        let objects = objects(&page);
        if objects.is_empty() || page.blocks.iter().any(Block::is_planned) {
            continue;
        }
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let cluster = Cluster::builder().clock(clock.clone()).start();
        for object in &objects {
            let applied = cluster.apply(&object.value.to_string());
            applied.unwrap_or_else(|error| panic!("{}: {} {}: {error}", page.path, object.kind(), object.name()));
        }
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let client = cluster.client("default");
        let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
        let providers = Providers::new(Arc::new(Network::new()), jobs, clock.clone(), None);
        let running = controller::run(client, providers, clock, Settings::default(), async {
            let _ = stopped.await;
        });
        let wait = async {
            for object in objects.iter().filter(|object| object.kind() == "Rollout") {
                healthy(&cluster, &page, object.name()).await;
                let strategy = &object.value["spec"]["strategy"];
                // There is no Prometheus here, and without an answer nothing is promoted.
                let analyses = [&strategy["blueGreen"]["prePromotionAnalysis"], &strategy["canary"]["analysis"]];
                let judged = analyses.into_iter().any(|analysis| !analysis.is_null());
                let routed = !strategy["canary"]["trafficRouting"].is_null() || strategy["blueGreen"].is_object();
                if routed && !judged {
                    released(&cluster, &page, object).await;
                }
            }
            let _ = stop.send(());
        };
        let (ended, ()) = tokio::join!(running, wait);
        ended.unwrap();
    }
}

async fn healthy(cluster: &Cluster, page: &Page, name: &str) {
    let mut status = Value::Null;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        status = cluster.user().get("rollouts.argoproj.io", "default", name).expect("it was applied")["status"].clone();
        if status["phase"] == "Healthy" {
            return;
        }
    }
    panic!("{}: Rollout {name} is not Healthy after a minute: {} {}", page.path, status["phase"], status["message"]);
}

async fn released(cluster: &Cluster, page: &Page, object: &manifest::Object) {
    let steps = object.value["spec"]["strategy"]["canary"]["steps"].as_array();
    let steps: BTreeSet<i64> = steps.into_iter().flatten().filter_map(|step| step["setWeight"].as_i64()).collect();
    let newer = object.value.to_string().replace(":v1", ":v2");
    cluster.apply(&newer).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..3600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rollout = cluster.user().get("rollouts.argoproj.io", "default", object.name()).unwrap();
        let status = &rollout["status"];
        let weights = &status["canary"]["weights"];
        if weights["verified"] != false {
            seen.extend(weights["canary"]["weight"].as_i64());
        }
        let revision = &rollout["metadata"]["annotations"]["rollout.argoproj.io/revision"];
        if revision == "2" && status["phase"] == "Healthy" {
            assert!(steps.is_subset(&seen), "{}: the canary had the weights {seen:?}", page.path);
            return;
        }
    }
    panic!("{}: the release of {} does not end", page.path, object.name());
}

#[test]
fn helm_values_are_values_of_the_chart() {
    let chart = read("charts/tidegate/values.yaml");
    let chart = &manifest::parse("values.yaml", &chart).unwrap()[0].value;
    for block in pages().iter().flat_map(|page| &page.blocks).filter(|block| block.is_values()) {
        let values = manifest::parse(&block.place, &block.text).unwrap();
        contained(&values[0].value, chart, &block.place);
    }
}

#[test]
fn manifests_of_other_systems_can_be_read() {
    for block in pages().iter().flat_map(|page| &page.blocks).filter(|block| block.is_foreign()) {
        assert_eq!(manifest::parse(&block.place, &block.text).unwrap().len(), 1, "{}", block.place);
    }
}

fn contained(value: &Value, chart: &Value, at: &str) {
    let (Value::Object(fields), Value::Object(known)) = (value, chart) else { return };
    // An empty map of the chart takes any keys.
    for (key, value) in fields.iter().filter(|_| !known.is_empty()) {
        let known = known.get(key).unwrap_or_else(|| panic!("{at}.{key} is no value of the chart"));
        contained(value, known, &format!("{at}.{key}"));
    }
}

#[test]
fn commands_exist() {
    let make = Regex::new(r"(?m)^([a-z-]+):").unwrap();
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = make.captures_iter(&makefile).map(|found| found.get(1).unwrap().as_str()).collect();
    let mut checked = 0;
    for page in pages() {
        for (place, command) in page.commands() {
            let words = words(&command);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["kubectl", "tidegate", ..] => parses(&place, &words[1..]),
                ["tidegate" | "target/release/tidegate", ..] => parses(&place, &words),
                ["make", target, ..] => assert!(targets.contains(target), "{place}: make has no target {target}"),
                _ => continue,
            }
            checked += 1;
        }
    }
    // What a container of ours is told to do.
    for object in pages().iter().flat_map(objects).filter(|object| object.kind() == "Job") {
        let container = &object.value["spec"]["template"]["spec"]["containers"][0];
        if container["image"].as_str().is_some_and(|image| image.contains("/tidegate:")) {
            let args: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            parses(&object.source.to_string(), &[&["tidegate"][..], &args].concat());
        }
    }
    assert!(checked >= 20, "only {checked} commands were found in the manual");
}

fn parses(place: &str, words: &[&str]) {
    let words = ["tidegate"].iter().chain(&words[1..]);
    if let Err(error) = cli::command().try_get_matches_from(words) {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        assert!([DisplayHelp, DisplayVersion].contains(&error.kind()), "{place}: {error}");
    }
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    for page in pages() {
        let folder = root().join(&page.path).parent().unwrap().to_owned();
        for found in link.captures_iter(&page.text) {
            assert!(folder.join(&found[1]).exists(), "{}: {} does not exist", page.path, &found[1]);
        }
    }
}

#[test]
fn all_pages_are_in_the_index() {
    let index = read("docs/README.md");
    for page in pages().iter().filter_map(|page| page.path.strip_prefix("docs/")).filter(|page| *page != "README.md") {
        assert!(index.contains(&format!("]({page})")), "docs/README.md does not lead to {page}");
    }
}

#[test]
fn all_commands_and_flags_are_listed() {
    let generated = manual::flags(cli::command());
    let path = root().join("docs/reference-flags.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, generated, "run UPDATE_DOCS=1 cargo test --test docs");
}

/// Pictures in the manual are those that the tests of the tree draw.
#[test]
fn pictures_are_as_they_are_drawn() {
    let mut count = 0;
    for block in pages().iter().flat_map(|page| &page.blocks) {
        let Some(name) = block.info.strip_prefix("text picture ") else { continue };
        let drawn = read(&format!("src/cli/tree/pictures/{name}.txt"));
        assert!(block.text == drawn, "{}: the picture {name} is now:\n{drawn}", block.place);
        count += 1;
    }
    assert!(count > 0, "there is no picture in the manual");
}

/// Helm renders the chart with the very arguments that the page on installing gives.
#[test]
fn the_chart_renders_as_installed() {
    let Some(helm) = helm() else {
        eprintln!("NOT RUN: helm is not on this machine");
        return;
    };
    let page = pages().into_iter().find(|page| page.path == "docs/install.md").unwrap();
    let folder = Folder::new("helm");
    page.save(&folder.0);
    let mut rendered = 0;
    for (place, command) in page.commands() {
        let mut words = words(&command);
        if words[0] != "helm" || !["install", "upgrade"].contains(&words[1].as_str()) {
            continue;
        }
        words.retain(|word| !["--install", "--create-namespace", "--wait"].contains(&word.as_str()));
        for word in &mut words {
            if word.ends_with(".yaml") {
                *word = folder.0.join(&*word).display().to_string();
            }
        }
        let output = Command::new(&helm).arg("template").args(&words[2..]).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
        rendered += 1;
    }
    assert!(rendered > 0, "docs/install.md does not say how to install");
}

fn helm() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let tools = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    [PathBuf::from("helm"), tools.join("tidegate/tools/helm/helm")]
        .into_iter()
        .find(|helm| Command::new(helm).arg("version").output().is_ok_and(|output| output.status.success()))
}

/// The tutorial, with the commands and the outputs that stand in it.
#[test]
fn getting_started_goes_as_it_says() {
    if !Command::new("kubectl").args(["version", "--client"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN: kubectl is not on this machine");
        return;
    }
    let page = pages().into_iter().find(|page| page.path == "docs/getting-started.md").unwrap();
    let folder = Folder::new("getting-started");
    page.save(&folder.0);
    let sandbox = Sandbox::start(&folder.0);
    let mut run = 0;
    for block in page.blocks.iter().filter(|block| block.info == "console") {
        for (command, expected) in console(&block.text) {
            let output = sandbox.shell(&command);
            agrees(&block.place, &command, &expected, &output);
            run += 1;
        }
    }
    assert!(run >= 15, "only {run} commands were found in the tutorial");
}

/// Plans are the same each time: each stands in the manual as it is printed. `UPDATE_DOCS=1` writes them anew.
#[test]
fn plans_are_as_they_are_shown() {
    let shown = sessions_are_as_they_are_printed("docs/plan.md", "plan", &[]);
    assert!(shown >= 3, "only {shown} plans are shown");
}

/// So are backtests, over the history of a service that the page tells of.
#[tokio::test(flavor = "multi_thread")]
async fn backtests_are_as_they_are_shown() {
    let serving = Prometheus::recorded(a_day_of_requests()).serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        sessions_are_as_they_are_printed("docs/backtest.md", "backtest", &[("http://localhost:9090", &serving.url())])
    });
    let shown = shown.await.unwrap();
    assert!(shown >= 4, "only {shown} backtests are shown");
}

/// A service's requests, scraped every 15 s for 26 hours, by a fixed sequence of dice. At night there are few; from ten to half past
/// ten half of them fail.
fn a_day_of_requests() -> Vec<RecordedSeries> {
    let start: i64 = "2025-03-02T22:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let mut dice = 1_u64;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut counts = [0.0_f64; 2];
    let mut samples = [Vec::new(), Vec::new()];
    for number in 0..26 * 240 {
        let hour = (22.0 + f64::from(number) / 240.0) % 24.0;
        let is_night = (2.0..5.0).contains(&hour);
        let broken = number > 240 && (10.0..10.5).contains(&hour);
        for _ in 0..if is_night { 6 } else { 60 } {
            let failed = roll() < if broken { 0.5 } else { 0.01 };
            counts[usize::from(failed)] += 1.0;
        }
        for (samples, count) in samples.iter_mut().zip(counts) {
            samples.push((start + i64::from(number) * 15_000, count));
        }
    }
    let series = samples.into_iter().zip(["200", "500"]).map(|(samples, code)| {
        let labels = [("__name__", "http_requests_total"), ("service", "web"), ("code", code)];
        RecordedSeries { labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), samples }
    });
    series.collect()
}

/// Runs the sessions of a page in a folder with its files. `addresses` are those that the page names, and those that are there.
fn sessions_are_as_they_are_printed(path: &str, name: &str, addresses: &[(&str, &str)]) -> usize {
    let page = pages().into_iter().find(|page| page.path == path).unwrap();
    let folder = Folder::new(name);
    page.save(&folder.0);
    let path = std::env::var("PATH").unwrap_or_default();
    let binaries = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = format!("{}:{path}", binaries.display());
    let mut text = page.text.clone();
    let mut shown = 0;
    for block in page.blocks.iter().filter(|block| block.info == "console") {
        let mut now = String::new();
        for command in block.text.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let there = addresses.iter().fold(command.to_owned(), |text, (named, real)| text.replace(named, real));
            let mut shell = Command::new("sh");
            shell.args(["-c", &there]).current_dir(&folder.0).env("PATH", &path);
            let output = shell.output().unwrap();
            let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let printed = addresses.iter().fold(printed, |text, (named, real)| text.replace(real, named));
            now.push_str(&format!("$ {command}\n{printed}"));
            shown += 1;
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            text = text.replace(&block.text, &now);
        } else {
            assert!(block.text == now, "{}: it says now:\n{now}", block.place);
        }
    }
    if text != page.text {
        std::fs::write(root().join(&page.path), text).unwrap();
    }
    shown
}

/// The lines of the page come in this order in the output. What is different each time is left out: ages, the names of
/// pods, which states of progress were caught; `…` stands for any lines.
fn agrees(place: &str, command: &str, expected: &[String], output: &str) {
    let mut lines = output.lines().map(essence);
    for wanted in expected.iter().filter(|line| *line != "…" && !line.starts_with("Progressing - ")) {
        let wanted = essence(wanted);
        assert!(
            lines.any(|line| line == wanted),
            "{place}: `{command}` does not say (or not in this place) {wanted:?}, but:\n{output}"
        );
    }
}

fn essence(line: &str) -> String {
    let age = Regex::new(r"\b\d+(ms|s|m)\b").unwrap();
    let spaces = Regex::new(r"\s+").unwrap();
    spaces.replace_all(&age.replace_all(line, "AGE"), " ").trim().to_owned()
}

/// `tidegate sandbox` in a folder, at a port of its own.
struct Sandbox<'a> {
    folder: &'a Path,
    child: Child,
}

impl<'a> Sandbox<'a> {
    fn start(folder: &'a Path) -> Self {
        let binary = env!("CARGO_BIN_EXE_tidegate");
        let mut command = Command::new(binary);
        command.args(["sandbox", "--listen", "127.0.0.1:0"]).current_dir(folder).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let sandbox = Self { folder, child };
        for _ in 0..200 {
            if folder.join("sandbox.kubeconfig").exists() {
                return sandbox;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the sandbox does not start");
    }

    fn shell(&self, command: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let binaries = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(self.folder).env("HOME", self.folder);
        shell.env("KUBECONFIG", "sandbox.kubeconfig").env("PATH", format!("{}:{path}", binaries.display()));
        let output = shell.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-docs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The Kubernetes objects of a page.
fn objects(page: &Page) -> Vec<manifest::Object> {
    let blocks = page.blocks.iter().filter(|block| block.is_yaml() && !block.is_values() && !block.is_foreign());
    let mut objects = Vec::new();
    for block in blocks {
        objects.extend(manifest::parse(&block.place, &block.text).unwrap());
    }
    let mut names = BTreeMap::new();
    for object in &objects {
        assert!(!object.kind().is_empty(), "{}: an object without a kind", object.source);
        if let Some(other) = names.insert((object.kind().to_owned(), object.name().to_owned()), &object.source) {
            panic!("{} is in {other} already", object.source);
        }
    }
    objects
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
