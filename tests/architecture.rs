//! The rules of the house that a compiler does not check: what a pure room may touch, and which rooms it may use.

use std::path::{Path, PathBuf};

/// Rooms from the bottom up: each may use those before it, and `plan` and `clock` as its row says.
const ROOMS: [(&str, &[&str]); 9] = [
    ("api", &[]),
    ("traffic", &["api", "plan"]),
    ("analysis", &["api", "plan"]),
    ("rollout", &["api", "plan", "traffic", "analysis"]),
    ("experiment", &["api", "plan", "analysis"]),
    ("providers", &["api", "plan", "analysis", "clock"]),
    ("sandbox", &["api", "plan", "traffic", "clock"]),
    ("controller", &["api", "plan", "clock", "traffic", "analysis", "rollout", "experiment", "providers"]),
    (
        "cli",
        &["api", "plan", "clock", "traffic", "analysis", "rollout", "experiment", "providers", "controller", "sandbox"],
    ),
];

/// Rooms that decide: data in, data out.
const PURE: [&str; 5] = ["api", "traffic", "analysis", "rollout", "experiment"];

/// What would make a decision depend on anything but the World.
const IMPURE: [&str; 11] = [
    "tokio::",
    "kube::Client",
    "kube::Api",
    "Timestamp::now",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "fastrand",
    "std::env::var",
    "static mut",
];

#[test]
fn rooms_use_only_those_below_them() {
    for (room, allowed) in ROOMS {
        for (path, line, text) in lines(room) {
            for used in text.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let is_room = ["plan", "clock"].contains(&used.as_str()) || ROOMS.iter().any(|(name, _)| *name == used);
                assert!(
                    !is_room || used == room || allowed.contains(&used.as_str()),
                    "{}:{line}: {room} may not use {used}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn pure_rooms_do_no_io_and_know_no_time_but_the_worlds() {
    for room in PURE {
        for (path, line, text) in lines(room) {
            for impure in IMPURE {
                assert!(!text.contains(impure), "{}:{line}: {impure} in a pure room", path.display());
            }
        }
    }
}

/// The lines of a room's files without comments and without tests, which may read files and spawn what they need.
fn lines(room: &str) -> Vec<(PathBuf, usize, String)> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut files);
    assert!(!files.is_empty(), "{room} has no files");
    let mut lines = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file can be read");
        let mut test_only = false;
        for (index, line) in text.lines().enumerate() {
            if test_only && line.starts_with("mod ") && line.ends_with('{') {
                break;
            }
            test_only = line == "#[cfg(test)]";
            if !line.trim_start().starts_with("//") {
                lines.push((path.clone(), index + 1, line.to_owned()));
            }
        }
    }
    lines
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a room is a folder") {
        let path = entry.expect("a folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !["tests", "testdata"].contains(&name) {
            collect(&path, files);
        } else if name.ends_with(".rs") && !["tests.rs", "oracle.rs"].contains(&name) {
            files.push(path);
        }
    }
}
