//! Watches: order, selectors, bookmarks, expiry, and kube's watcher on top; faults.

use std::sync::Mutex;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher;

use super::*;

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

fn set_label(access: &Scoped, name: &str, label: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"l": label}}}));
    access.patch("configmaps", "default", name, &patch).unwrap();
}

fn shown(event: &WatchEvent<ConfigMap>) -> String {
    let named = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
    match event {
        WatchEvent::Added(map) => format!("added {}", named(map)),
        WatchEvent::Modified(map) => format!("modified {}", named(map)),
        WatchEvent::Deleted(map) => format!("deleted {}", named(map)),
        WatchEvent::Bookmark(_) => "bookmark".into(),
        WatchEvent::Error(status) => format!("error {} {}", status.code, status.reason),
    }
}

#[tokio::test(start_paused = true)]
async fn a_selector_makes_objects_come_and_go() {
    let server = server();
    let access = server.manager("test");
    access.create("configmaps", "default", map("a", "x")).unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let watch = maps.watch(&WatchParams::default().labels("l=x").timeout(100), "0").await.unwrap();
    access.create("configmaps", "default", map("b", "y")).unwrap();
    set_label(&access, "b", "x");
    set_label(&access, "a", "z");
    access.delete("configmaps", "default", "b", &DeleteOptions::default()).unwrap();
    let events: Vec<String> = watch.map_ok(|event| shown(&event)).try_collect().await.unwrap();
    assert_eq!(events, ["added a", "added b", "deleted a", "deleted b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let server = server();
    let access = server.manager("test");
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    access.create("configmaps", "default", map("a", "x")).unwrap();
    server.forget_history();
    let watch = maps.watch(&WatchParams::default(), &version).await.unwrap();
    let events: Vec<String> = watch.map_ok(|event| shown(&event)).try_collect().await.unwrap();
    assert_eq!(events, ["error 410 Expired"]);
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks() {
    let server = server();
    let access = server.manager("test");
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let mut watch = maps.watch(&WatchParams::default().timeout(290), "0").await.unwrap().boxed();
    access.create("secrets", "default", json!({"metadata": {"name": "s"}})).unwrap();
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = watch.next().await else { panic!("no bookmark") };
    assert_eq!(bookmark.metadata.resource_version, server.revision().to_string());
}

#[tokio::test(start_paused = true)]
async fn kube_watchers_relist_after_410() {
    for strategy in [watcher::InitialListStrategy::ListWatch, watcher::InitialListStrategy::StreamingList] {
        let server = server();
        let access = server.manager("test");
        access.create("configmaps", "default", map("a", "x")).unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
        let config = watcher::Config { initial_list_strategy: strategy.clone(), ..watcher::Config::default() };
        let mut events = watcher(maps, config).boxed();
        let mut next = async || loop {
            match events.next().await.unwrap() {
                Ok(watcher::Event::Apply(map)) => return format!("apply {}", map.metadata.name.unwrap()),
                Ok(watcher::Event::Delete(map)) => return format!("delete {}", map.metadata.name.unwrap()),
                Ok(watcher::Event::InitApply(map)) => return format!("init {}", map.metadata.name.unwrap()),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(_) => return "error".into(),
            }
        };
        assert_eq!(next().await, "init a");
        access.create("configmaps", "default", map("b", "x")).unwrap();
        assert_eq!(next().await, "apply b", "{strategy:?}");
        // The history goes while the watch is behind: the watcher must begin anew, and miss nothing.
        access.delete("configmaps", "default", "a", &DeleteOptions::default()).unwrap();
        access.create("configmaps", "default", map("c", "x")).unwrap();
        server.forget_history();
        assert_eq!(next().await, "error", "{strategy:?}");
        assert_eq!([next().await, next().await], ["init b", "init c"], "{strategy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribers_hear_every_change_in_order() {
    let access = harbour();
    let mut changes = access.server().subscribe();
    access.create(BOATS, "default", boat("a")).unwrap();
    access.edit_status(BOATS, "default", "a", |boat| boat["status"] = json!({"phase": "ok"})).unwrap();
    access.delete(BOATS, "default", "a", &DeleteOptions::default()).unwrap();
    let heard: Vec<(Op, bool)> =
        std::iter::from_fn(|| changes.try_next()).map(|change| (change.op, change.previous.is_some())).collect();
    assert_eq!(heard, [(Op::Added, false), (Op::Modified, true), (Op::Deleted, true)]);
}

/// Faults, one for each request in turn.
struct Script(Mutex<Vec<(&'static str, Fault)>>, bool);

impl Script {
    fn next(&self, verb: &str) -> Fault {
        let mut script = self.0.lock().unwrap();
        let at = script.iter().position(|(of, _)| *of == verb);
        at.map(|at| script.remove(at).1).unwrap_or_default()
    }
}

impl Faults for Script {
    fn before(&self, call: &Call) -> Fault {
        if self.1 { self.next(call.verb) } else { Fault::None }
    }

    fn after(&self, call: &Call) -> Fault {
        if self.1 { Fault::None } else { self.next(call.verb) }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_before_change_nothing_and_faults_after_lose_the_answer() {
    for (before, exists) in [(true, false), (false, true)] {
        let server = server();
        let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
        server.set_faults(Arc::new(Script(Mutex::new(vec![("create", Fault::Break)]), before)));
        let object = serde_json::from_value(map("a", "x")).unwrap();
        assert!(maps.create(&Default::default(), &object).await.is_err());
        assert_eq!(maps.get_opt("a").await.unwrap().is_some(), exists);
    }
    let server = server();
    server.set_faults(Arc::new(Script(Mutex::new(vec![("get", Fault::Delay(Duration::from_secs(9)))]), true)));
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let started = tokio::time::Instant::now();
    maps.get_opt("a").await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(9));
}
