//! Whole updates, told as text: the diff of a committed file is the change of behaviour.

macro_rules! expect {
    ($sim:expr, $name:literal) => {
        $sim.expect($name, include_str!(concat!($name, ".txt")))
    };
}

mod analysis;
mod blue_green;
mod evidence;
mod failures;
mod going_back;
mod lives;
mod sim;
mod sizes;
mod updates;

use serde_json::{Value, json};
use sim::Sim;

fn basic_steps() -> Value {
    json!({"steps": [{"setWeight": 20}, {"pause": {"duration": "10s"}}, {"setWeight": 50}, {"pause": {"duration": "10s"}}]})
}

fn step_analysis() -> Value {
    json!({"steps": [{"setWeight": 20}, {"analysis": {"templates": [{"templateName": "errors"}]}}, {"setWeight": 60}, {"pause": {}}]})
}

/// A running v1 with nothing written so far.
fn running(mut sim: Sim) -> Sim {
    sim.run(20);
    assert_eq!(sim.status().phase, "Healthy", "{}", sim.tail());
    sim.forget();
    sim
}
