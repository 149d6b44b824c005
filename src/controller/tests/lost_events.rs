//! Watches that lose events, and leaders that see them differently.

use std::sync::atomic::AtomicUsize;

use crate::sandbox::DeleteOptions;

use super::*;

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

/// Loses the next so many events of a kind, once it is told to.
fn losing(cluster: &Cluster, resource: &'static str) -> Arc<AtomicUsize> {
    let left = Arc::new(AtomicUsize::new(0));
    let lose = left.clone();
    *cluster.calls.event.lock().unwrap() = Some(Box::new(move |call, _| {
        let lost = call.resource == resource
            && lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if lost { WatchFault::Drop } else { WatchFault::Pass }
    }));
    left
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_no_watch_shows_is_heard_however_long_it_was_quiet() {
    let cluster = Cluster::new();
    let lose = losing(&cluster, ROLLOUTS);
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    for _ in 0..3 {
        sleep(Duration::from_secs(1000)).await;
        let aborts = cluster.status("web")["abort"] != true;
        let wish = Patch::Merge(json!({"status": {"abort": aborts}}));
        lose.store(1, Ordering::Relaxed);
        cluster.server.manager("user").patch_status(ROLLOUTS, "default", "web", &wish).unwrap();
        sleep(Duration::from_secs(50)).await;
        assert_eq!(cluster.status("web")["message"], format!("2 available, abort: {aborts}"));
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_is_found_that_no_watch_has_shown_and_a_deletion_too() {
    let cluster = Cluster::new();
    let lose = losing(&cluster, ROLLOUTS);
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("other"));
    sleep(Duration::from_secs(10)).await;
    lose.store(1, Ordering::Relaxed);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(50)).await;
    assert_eq!(cluster.status("web")["message"], "2 available, abort: false");

    lose.store(1, Ordering::Relaxed);
    cluster.server.manager("user").delete(ROLLOUTS, "default", "web", &DeleteOptions::default()).unwrap();
    sleep(Duration::from_secs(50)).await;
    assert!(cluster.reasons().contains(&"RolloutDeleted".to_owned()), "{:?}", cluster.reasons());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_rest_it_costs_a_request_or_two_a_minute_however_many_there_are() {
    let cluster = Cluster::new();
    let running = cluster.run(one_replica_set);
    for number in 0..50 {
        cluster.create(ROLLOUTS, canary(&format!("web-{number}")));
    }
    sleep(Duration::from_secs(3600)).await;
    let requests = || cluster.trace(|call| call.verb != "watch");
    let before = requests().len();
    sleep(Duration::from_secs(3600)).await;
    let asked = requests().split_off(before);
    assert!((90..140).contains(&asked.len()), "{asked:#?}");
    assert!(asked.iter().all(|call| call.contains(" list ")), "{asked:#?}");
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
