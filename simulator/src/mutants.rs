//! Whether the simulator finds bugs: each of `simulator/mutants/*.patch` is a bug, and some promise must be seen to break.
//!
//! A patch begins with what it is about:
//!
//! ```text
//! Bug: what is wrong
//! Promise: S2
//! Bases: superseded, dynamic
//! Tiers: crashes, stale, random
//! ```
//!
//! It is applied to a copy of the tree under `target/mutants`, the simulator is built there (without optimisation of what
//! is ours, and each time only what the patch has changed), and runs these tiers on these base scenarios, in an order as if by chance, until a promise breaks that holds
//! without the patch. `random` comes last, and says that single faults are not expected to find it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum as _;

use crate::base::Base;
use crate::exhaustive::Tier;

/// A life is over within a second or two. What makes none end for so long goes in circles.
const HANGS: Duration = Duration::from_secs(90);
/// Seconds for the tiers of one mutant, beyond which what is left is left out.
const BUDGET: u64 = 240;
/// Random lives for those that single faults may miss, and how long things go wrong in each.
const RANDOM_LIVES: u64 = 400;
const RANDOM_MINUTES: u64 = 20;
/// Broken promises of one mutant after which it is over.
const FAILURES: u64 = 10;

/// A seeded bug.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub name: String,
    pub bug: String,
    /// The promise that is expected to break. Others may do so sooner.
    pub promise: String,
    pub bases: Vec<&'static Base>,
    pub tiers: Vec<Tier>,
    pub random: bool,
    patch: PathBuf,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This promise broke, by this script.
    Killed {
        promise: String,
        script: String,
    },
    /// Nothing ends any more.
    Hangs,
    Survived,
}

/// All of them, by name.
///
/// # Errors
/// A patch cannot be read, or its head does not say what it must.
pub fn all() -> Result<Vec<Mutant>> {
    let folder = root().join("simulator/mutants");
    let mut mutants = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            mutants.push(Mutant::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutants)
}

/// Applies, builds and tries those whose name has one of the words (all, without words), prints what became of each, and
/// says whether none survived.
///
/// # Errors
/// A patch that does not apply or does not build is no bug, and nothing that follows would mean anything.
pub fn check(words: &[String], threads: usize) -> Result<bool> {
    let wanted = |mutant: &Mutant| words.is_empty() || words.iter().any(|word| mutant.name.contains(word.as_str()));
    let mutants: Vec<Mutant> = all()?.into_iter().filter(wanted).collect();
    ensure!(!mutants.is_empty(), "no mutant is called {}", words.join(" or "));
    let tree = Tree::copy()?;
    tree.build("the tree as it is")?;
    fs::copy(tree.simulator(), tree.unbroken()).context("keeping the simulator of the tree as it is")?;
    println!("{:<44} {:<4} {:<8} {:>5} {:>5}  by", "mutant", "of", "killed", "build", "run");
    let (mut killed, mut at_random) = (0, 0);
    let mut errors = Vec::new();
    for mutant in &mutants {
        let began = now();
        let built = tree.apply(mutant).and_then(|()| tree.build(&mutant.name));
        let build = began.elapsed();
        let began = now();
        let tried = built.and_then(|()| tree.try_tiers(mutant, threads));
        tree.restore(mutant)?;
        let (fate, random) = match tried {
            Ok(tried) => tried,
            Err(error) => {
                println!("{:<44} {:<4} ERROR {error:#}", mutant.name, mutant.promise);
                errors.push(&mutant.name);
                continue;
            }
        };
        if fate != Fate::Survived {
            killed += 1;
            at_random += usize::from(random);
        }
        let (build, run) = (build.as_secs(), began.elapsed().as_secs());
        println!("{:<44} {:<4} {fate:<8} {build:>4}s {run:>4}s  {}", mutant.name, mutant.promise, by(&fate));
    }
    let total = mutants.len() - errors.len();
    println!("{killed} of {total} killed, {} of them by single faults", killed - at_random);
    ensure!(errors.is_empty(), "{} do not apply, build or run", errors.len());
    Ok(killed == total)
}

/// The repository.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

#[allow(clippy::disallowed_methods)] // how long it takes is measured, and part of no life
fn now() -> Instant {
    Instant::now()
}

fn by(fate: &Fate) -> &str {
    match fate {
        Fate::Killed { script, .. } => script,
        Fate::Hangs => "nothing ends any more",
        Fate::Survived => "",
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed { promise, .. } => promise,
            Self::Hangs => "hangs",
            Self::Survived => "SURVIVED",
        })
    }
}

impl Mutant {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let head: BTreeMap<&str, &str> = text
            .lines()
            .take_while(|line| !line.starts_with("diff "))
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key, value.trim()))
            .collect();
        let field = |key: &str| head.get(key).copied().with_context(|| format!("its head has no {key}"));
        let listed = |key: &str| Ok::<_, anyhow::Error>(field(key)?.split(',').map(str::trim));
        let base = |name: &str| Base::named(name).with_context(|| format!("no base scenario is called {name}"));
        let tier = |name: &str| Tier::from_str(name, true).map_err(|_| anyhow::anyhow!("no tier is called {name}"));
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            bug: field("Bug")?.to_owned(),
            promise: field("Promise")?.to_owned(),
            bases: listed("Bases")?.map(base).collect::<Result<_>>()?,
            tiers: listed("Tiers")?.filter(|name| *name != "random").map(tier).collect::<Result<_>>()?,
            random: listed("Tiers")?.any(|name| name == "random"),
            patch: path.to_owned(),
        })
    }

    /// The files that it changes.
    fn files(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.patch)?;
        Ok(text.lines().filter_map(|line| line.strip_prefix("+++ b/")).map(str::to_owned).collect())
    }

    /// The arguments of the simulator for each of the runs that are to find it, the random one last.
    fn runs(&self, threads: usize) -> Vec<Vec<String>> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        // What breaks a promise in the tree as it is says nothing: the first is not always the one.
        let how = format!("--failures {FAILURES} --threads {threads}");
        let mut runs = Vec::new();
        if !self.tiers.is_empty() {
            let mut single = words(&format!("exhaustive --mixed --budget {BUDGET} {how}"));
            for tier in &self.tiers {
                single.extend(["--tier".to_owned(), tier.name()]);
            }
            for base in &self.bases {
                single.extend(["--base".to_owned(), base.name.to_owned()]);
            }
            runs.push(single);
        }
        if self.random {
            runs.push(words(&format!("random --lives {RANDOM_LIVES} --minutes {RANDOM_MINUTES} {how}")));
        }
        runs
    }
}

/// A copy of the tree that may be broken.
struct Tree {
    path: PathBuf,
    build: PathBuf,
}

impl Tree {
    /// Brings the copy up to date with the tree, uncommitted changes included. What is as it was stays untouched, so that
    /// cargo builds nothing anew.
    fn copy() -> Result<Self> {
        let folder = root().join("target/mutants");
        let tree = Self { path: folder.join("tree"), build: folder.join("build") };
        let mut list = Command::new("git");
        list.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]).current_dir(root());
        let listed = output(list, "listing the tree")?;
        let files: BTreeSet<&str> = listed.split('\0').filter(|file| root().join(file).is_file()).collect();
        for file in &files {
            tree.bring(file)?;
        }
        tree.remove_others(&tree.path, &files)?;
        Ok(tree)
    }

    fn bring(&self, file: &str) -> Result<()> {
        let (from, to) = (root().join(file), self.path.join(file));
        let content = fs::read(&from).with_context(|| format!("reading {file}"))?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, content).with_context(|| format!("writing {}", to.display()))
    }

    fn remove_others(&self, folder: &Path, files: &BTreeSet<&str>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if path.strip_prefix(&self.path).ok().and_then(Path::to_str).is_none_or(|file| !files.contains(file))
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn apply(&self, mutant: &Mutant) -> Result<()> {
        let mut apply = Command::new("git");
        // The copy is no repository, and within another one paths would be those of that one.
        let above = self.path.parent().unwrap_or(&self.path);
        apply.arg("apply").arg(&mutant.patch).current_dir(&self.path).env("GIT_CEILING_DIRECTORIES", above);
        output(apply, "applying it").map(drop)
    }

    fn restore(&self, mutant: &Mutant) -> Result<()> {
        mutant.files()?.iter().try_for_each(|file| self.bring(file))
    }

    fn build(&self, what: &str) -> Result<()> {
        let mut build = Command::new("cargo");
        build.args(["build", "--quiet", "--package", "tidegate-simulator", "--bin", "simulate"]);
        build.current_dir(&self.path).env("CARGO_TARGET_DIR", &self.build);
        build.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "false");
        output(build, &format!("building {what}")).map(drop)
    }

    /// The simulator with the mutant.
    fn simulator(&self) -> PathBuf {
        self.build.join("debug/simulate")
    }

    /// The simulator without any.
    fn unbroken(&self) -> PathBuf {
        self.build.join("debug/unbroken")
    }

    /// Whether a script breaks no promise in the tree as it is.
    fn is_kept_without(&self, script: &str) -> bool {
        let mut run = Command::new(self.unbroken());
        run.args(["run", "--script", script]).stdout(Stdio::null()).stderr(Stdio::null());
        run.status().is_ok_and(|status| status.success())
    }

    /// Whether it was found, and whether only by random lives.
    fn try_tiers(&self, mutant: &Mutant, threads: usize) -> Result<(Fate, bool)> {
        for arguments in mutant.runs(threads) {
            let fate = self.try_it(&arguments)?;
            if fate != Fate::Survived {
                return Ok((fate, arguments[0] == "random"));
            }
        }
        Ok((Fate::Survived, false))
    }

    fn try_it(&self, arguments: &[String]) -> Result<Fate> {
        let mut simulate = Command::new(self.simulator());
        simulate.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = simulate.spawn().context("starting the simulator")?;
        let fate = watch(&mut child, |script| self.is_kept_without(script));
        // It may be making the script shorter, which nobody waits for; or it has ended already.
        let _ = child.kill();
        child.wait().context("waiting for the simulator")?;
        fate
    }
}

/// Reads what a simulator says until it is known what became of the mutant.
fn watch(child: &mut Child, counts: impl Fn(&str) -> bool) -> Result<Fate> {
    let (sender, lines) = channel();
    let listen = |stream: Option<Box<dyn Read + Send>>, sender: Sender<String>| {
        std::thread::spawn(move || {
            for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines()).map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })
    };
    listen(child.stdout.take().map(|it| Box::new(it) as _), sender.clone());
    listen(child.stderr.take().map(|it| Box::new(it) as _), sender);
    if let Some(fate) = hear(&lines, counts) {
        return Ok(fate);
    }
    let status = child.wait().context("waiting for the simulator")?;
    match status.code() {
        Some(0 | 1) => Ok(Fate::Survived),
        // A life without any fault has ended so: all others are caught.
        Some(101) => Ok(killed("panic", "any")),
        _ => bail!("the simulator ended with {status} and did not say why"),
    }
}

/// None when it has ended and said nothing of a broken promise that counts.
fn hear(lines: &Receiver<String>, counts: impl Fn(&str) -> bool) -> Option<Fate> {
    let mut last = now();
    let mut lives = String::new();
    let mut broken: Option<String> = None;
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => {
                let told = line.split_once(" of ").map(|(lives, _)| lives.to_owned()).unwrap_or_default();
                if told != lives {
                    (lives, last) = (told, now());
                }
                // Without any fault: the rest of the line tells of the violation.
                if let Some((before, violation)) = line.split_once(" breaks a promise without any fault: ") {
                    let base = before.rsplit(' ').next().unwrap_or_default();
                    return Some(killed(violation, &format!("{base}#1")));
                }
                if let (Some(violation), Some((_, script))) = (&broken, line.split_once("simulate run --script ")) {
                    let script = script.trim_matches('\'');
                    if counts(script) {
                        return Some(killed(violation, script));
                    }
                    (broken, last) = (None, now());
                }
                if is_violation(&line) {
                    broken = Some(line);
                }
            }
            Err(RecvTimeoutError::Timeout) if last.elapsed() > HANGS => return Some(Fate::Hangs),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn killed(violation: &str, script: &str) -> Fate {
    let promise = violation.split(' ').next().unwrap_or_default().to_owned();
    Fate::Killed { promise, script: script.to_owned() }
}

/// `S2 at 12.345 s: …`
fn is_violation(line: &str) -> bool {
    let mut words = line.split(' ');
    let promise = words.next().unwrap_or_default();
    promise.len() == 2 && promise.starts_with(['S', 'L']) && words.next() == Some("at")
}

/// What a command prints; an error with what it says when it fails.
fn output(mut command: Command, what: &str) -> Result<String> {
    let output = command.output().with_context(|| what.to_owned())?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISES: [&str; 11] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "L1", "L2", "L3"];

    #[test]
    fn every_mutant_says_what_it_is_and_applies_to_the_tree() {
        let mutants = all().unwrap();
        assert!(mutants.len() >= 40, "{}", mutants.len());
        for mutant in &mutants {
            assert!(PROMISES.contains(&mutant.promise.as_str()) || mutant.promise == "L4", "{}", mutant.name);
            assert!(!mutant.bases.is_empty(), "{}", mutant.name);
            assert!(mutant.random || !mutant.tiers.is_empty(), "{}", mutant.name);
            let mut apply = Command::new("git");
            apply.args(["apply", "--check"]).arg(&mutant.patch).current_dir(root());
            output(apply, &format!("{} does not apply to the tree any more", mutant.name)).unwrap();
        }
    }

    #[test]
    fn what_a_simulator_says_is_understood() {
        let heard = |lines: &[&str]| {
            let (sender, receiver) = channel();
            lines.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
            drop(sender);
            hear(&receiver, |script| script != "basic#1 | call 5: answer 404")
        };
        assert_eq!(heard(&["12 of 30 lives, 3 a second", "             gone      first"]), None);
        assert_eq!(
            heard(&["S2 at 3.100 s: web is scaled", "  simulate run --script 'basic#1 | write 3: crash before'"]),
            Some(killed("S2", "basic#1 | write 3: crash before"))
        );
        assert_eq!(
            heard(&["S2 at 3.100 s: web is scaled", "  simulate run --script 'basic#1 | call 5: answer 404'"]),
            None,
            "it breaks without the mutant, too"
        );
        assert_eq!(
            heard(&["Error: gateway breaks a promise without any fault: L1 at 4.000 s: late"]),
            Some(killed("L1", "gateway#1"))
        );
    }
}
