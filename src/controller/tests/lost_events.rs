//! Watches that lose events, and leaders that see them differently.

use super::*;

fn reads(cluster: &Cluster) -> usize {
    cluster.trace(|call| call.verb == "get").len()
}

/// Users' wishes, pods, our own writes: whatever a release waits for, no watch shows it.
#[tokio::test(start_paused = true)]
async fn a_release_of_which_no_watch_shows_anything_goes_on() {
    let cluster = Cluster::new();
    let running = cluster.run(rollout::decide);
    sleep(Duration::from_secs(1)).await;
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy");
    *cluster.calls.event.lock().unwrap() = Some(Box::new(|_, _| WatchFault::Drop));
    let image = json!([{"name": "web", "image": "web:2"}]);
    let patch = Patch::Merge(json!({"spec": {"template": {"spec": {"containers": image}}}}));
    cluster.server.manager("test").patch(ROLLOUTS, "default", "web", &patch).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.status("web")["observedGeneration"], "2", "{:#?}", cluster.writes());
    sleep(Duration::from_secs(540)).await;
    let status = cluster.status("web");
    assert_eq!((&status["phase"], &status["stableRS"]), (&json!("Healthy"), &status["currentPodHash"]), "{status:#}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_rests_is_hardly_ever_read() {
    let cluster = Cluster::new();
    let running = cluster.run(rollout::decide);
    sleep(Duration::from_secs(1)).await;
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(7200)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy");
    let before = reads(&cluster);
    sleep(Duration::from_secs(24 * 3600)).await;
    let daily = reads(&cluster) - before;
    assert!((20..=30).contains(&daily), "{daily} reads a day");
    running.stop().await;
}

fn says_one(world: &World) -> Plan<RolloutStatus> {
    plan(world, Vec::new(), "one".to_owned())
}

fn says_another(world: &World) -> Plan<RolloutStatus> {
    plan(world, Vec::new(), "another".to_owned())
}

/// Each leader's words are news to the other.
#[tokio::test(start_paused = true)]
async fn two_leaders_do_not_answer_each_other_for_ever() {
    let cluster = Cluster::new();
    let both = [cluster.run(says_one), cluster.run(says_another)];
    sleep(Duration::from_secs(1)).await;
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(60)).await;
    let writes = cluster.writes().len();
    assert!((3..=15).contains(&writes), "{writes} writes in a minute");
    for running in both {
        running.stop().await;
    }
}
