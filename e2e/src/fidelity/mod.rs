//! Whether the sandbox answers as a real API server does, request by request.
//!
//! ```text
//! fidelity/NAME.script ──► real API server ──► answers ──► text ──► fidelity/NAME.answers   (committed)
//!                     └──► sandbox ──────────► answers ──► text ──► the same
//! a seed ──► a random script ──► both, and the two texts are compared
//! ```
//!
//! A script is a title, why it matters, and requests that are sent one after the other in a namespace of their own:
//!
//! ```text
//! # A merge patch removes with null
//! So do all clients that unset something.
//!
//! POST configmaps
//!     metadata: {name: a, labels: {x: "1"}}
//! keep uid = metadata.uid
//! MERGE configmaps/a?fieldManager=helm
//!     metadata: {uid: $uid, labels: {x: null}}
//! GET configmaps until items.0.metadata.name=a
//! ```
//!
//! | word | means |
//! |---|---|
//! | `GET`, `POST`, `PUT`, `DELETE` | the method |
//! | `MERGE`, `JSON`, `STRATEGIC`, `APPLY` | a PATCH of that type |
//! | `WATCH` | a watch, until its event about the object `last` |
//! | `until 404`, `until a.b=c`, `until a.b`, joined by ` and ` | the request is sent again until its answer is so; only the last answer counts |
//! | `until settled` | … until the answer has not changed for a second: controllers have done what they do |
//! | `unseen` | the answer is not compared: the request prepares the next |
//! | `with HEADER: VALUE` | a header |
//! | indented lines | the body, in YAML; after the word `raw` as it is |
//! | `keep NAME = PART` | from here on `$NAME` is this part of the answer; `$ns` is the namespace |
//!
//! What a path may be is said in [`script::resolve`], what of the answers is compared in [`compare`]. Where the sandbox
//! answers otherwise, the script is listed with the reason in docs/architecture.md; what is listed must go on to differ.

pub mod compare;
pub mod random;
pub mod run;
pub mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use tidegate::clock::Clock;
use tidegate::sandbox::Cluster;
use tidegate::sandbox::workloads::Behaviour;

pub use script::Script;

/// When the sandbox's time begins.
const EPOCH: &str = "2026-01-05T08:00:00Z";
/// Begins the table of what the sandbox does otherwise, in docs/architecture.md.
const KNOWN: &str = "| script | what the sandbox does otherwise, and why |";

/// A file of scripts and the file of what a real server answered to them.
#[derive(Debug)]
pub struct Suite {
    /// The subject: the files' name.
    pub name: String,
    pub scripts: Vec<Script>,
    /// By title; those that are not recorded yet are missing.
    pub recorded: BTreeMap<String, String>,
}

/// The folder of the scripts.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fidelity")
}

/// All scripts, by subject.
///
/// # Errors
/// A file cannot be read, or is not made of scripts, or two scripts have one title.
pub fn all() -> Result<Vec<Suite>> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "script"));
    files.sort();
    let suites = files.iter().map(|file| Suite::read(file)).collect::<Result<Vec<_>>>()?;
    let mut titles = BTreeSet::new();
    for script in suites.iter().flat_map(|suite| &suite.scripts) {
        ensure!(titles.insert(&script.title), "two scripts are called \"{}\"", script.title);
    }
    Ok(suites)
}

/// The titles of the scripts that the sandbox is known to answer otherwise, with the reasons: from the manual's table.
///
/// # Errors
/// The manual cannot be read, or has no such table.
pub fn known() -> Result<BTreeMap<String, String>> {
    let file = folder().join("../../docs/architecture.md");
    let page = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let (_, table) = page.split_once(KNOWN).with_context(|| format!("no table \"{KNOWN}\" in {}", file.display()))?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| {
        let (title, reason) = row.trim_matches(['|', ' ']).split_once(" | ").context("a row of two cells")?;
        Ok((title.to_owned(), reason.to_owned()))
    });
    cells.collect()
}

impl Suite {
    fn read(file: &Path) -> Result<Self> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let recorded = std::fs::read_to_string(file.with_extension("answers")).unwrap_or_default();
        let recorded = recorded.split_inclusive('\n').fold(Vec::<String>::new(), |mut texts, line| {
            match texts.last_mut().filter(|_| !line.starts_with("# ")) {
                Some(text) => text.push_str(line),
                None => texts.push(line.to_owned()),
            }
            texts
        });
        let title = |text: &String| text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
        let trimmed = |text: String| (title(&text), format!("{}\n", text.trim_end()));
        Ok(Self { name, scripts: script::read(file)?, recorded: recorded.into_iter().map(trimmed).collect() })
    }

    /// Writes what was recorded, in the order of the scripts.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self) -> Result<()> {
        let texts: Vec<&str> =
            self.scripts.iter().filter_map(|script| self.recorded.get(&script.title)).map(String::as_str).collect();
        let file = folder().join(&self.name).with_extension("answers");
        std::fs::write(&file, texts.join("\n")).with_context(|| format!("writing {}", file.display()))
    }
}

/// What the sandbox answers to a script, in virtual time.
///
/// # Errors
/// It never answers what the script waits for.
pub fn on_sandbox(script: &Script) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .context("starting tokio")?;
    runtime.block_on(async {
        let clock = Clock::starting_at(EPOCH.parse().context("a constant")?);
        let cluster = Cluster::builder().clock(clock).start();
        // As the kubelet stand-in of the real world does.
        let usual = cluster.default_behaviour();
        let ready_after = Duration::from_millis(200);
        cluster.set_default_behaviour(Behaviour {
            start_after: Duration::ZERO,
            drain: Duration::ZERO,
            ready_after,
            ..usual
        });
        let text = on(&cluster.client("default"), "fidelity-000", script).await;
        cluster.stop().await;
        text
    })
}

/// What a server answers to a script.
///
/// # Errors
/// As [`run::run`].
pub async fn on(client: &Client, namespace: &str, script: &Script) -> Result<String> {
    let answers = run::run(client, namespace, script).await?;
    Ok(compare::text(script, namespace, &answers))
}
