//! The sandbox answers what a real API server was recorded to answer, but for what is known to differ.

use tidegate_e2e::fidelity;
use tidegate_e2e::scenario::trace::difference;

#[test]
fn the_sandbox_answers_as_the_real_server_did() {
    let mut known = fidelity::known().unwrap();
    let mut wrong = Vec::new();
    for suite in fidelity::all().unwrap() {
        for script in &suite.scripts {
            let recorded = suite.recorded.get(&script.title).map_or("", String::as_str);
            assert!(!recorded.is_empty(), "{} is not recorded: run tidegate-e2e fidelity --record", script.title);
            let found = fidelity::on_sandbox(script).unwrap_or_else(|error| format!("{error:#}\n"));
            match (known.remove(&script.title), found == recorded) {
                (None, false) => wrong.push(format!(
                    "{}: {} (- real server, + sandbox)\n{}",
                    suite.name,
                    script.title,
                    difference(recorded, &found)
                )),
                (Some(_), true) => {
                    wrong.push(format!("\"{}\" differs no longer, as docs/architecture.md says", script.title))
                }
                _ => {}
            }
        }
    }
    wrong.extend(
        known.keys().map(|title| format!("docs/architecture.md lists \"{title}\", of which there is no script")),
    );
    assert!(wrong.is_empty(), "{} scripts:\n{}", wrong.len(), wrong.join("\n"));
}
