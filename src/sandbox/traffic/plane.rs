//! The data plane: what gateways and kube-proxies have taken up, which may be older than what the objects say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::gateway::{Conduct, Route};
use super::{Outcome, Target, Via, ingress, matching, mesh};
use crate::sandbox::workloads::endpoints::{SERVICE_NAME, SLICES};
use crate::sandbox::workloads::{Name, Workloads};
use crate::sandbox::{ApiServer, Change, Op, Scoped};

pub(super) const HTTP_ROUTES: &str = "httproutes.gateway.networking.k8s.io";
pub(super) const GRPC_ROUTES: &str = "grpcroutes.gateway.networking.k8s.io";
pub(super) const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
pub(super) const CLASSES: &str = "gatewayclasses.gateway.networking.k8s.io";
const INGRESSES: &str = "ingresses.networking.k8s.io";
const VIRTUAL_SERVICES: &str = "virtualservices.networking.istio.io";
const DESTINATION_RULES: &str = "destinationrules.networking.istio.io";

/// The resources that this model follows.
pub(in crate::sandbox) const FOLLOWED: [&str; 9] =
    [CLASSES, GATEWAYS, "services", SLICES, HTTP_ROUTES, GRPC_ROUTES, INGRESSES, VIRTUAL_SERVICES, DESTINATION_RULES];

/// Where a part of the requests goes: to the pods of a Service, all of them or only those of one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub service: Name,
    /// The pod template hash that a subset asks of the pods.
    pub hash: Option<String>,
}

/// A part of the requests.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) service: Name,
    /// The pod template hash that the pods must have, if they must have one.
    pub(super) hash: Option<String>,
    pub(super) port: u16,
    pub(super) weight: f64,
    pub(super) via: Via,
}

impl Share {
    /// What tells this share from the others of a target.
    pub(super) fn key(&self) -> String {
        let canary = matches!(self.via, Via::Nginx { canary: true, .. });
        format!("{}:{}:{}:{canary}", self.service, self.hash.as_deref().unwrap_or_default(), self.port)
    }
}

/// A part of the requests is copied: these answers nobody sees.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    /// 0..=1
    pub(super) part: f64,
    pub(super) share: Share,
}

pub(super) struct Plane {
    pub(super) controller: Scoped,
    pub(super) propagation: Duration,
    pub(super) conduct: Conduct,
    pub(super) conducts: BTreeMap<Name, Conduct>,
    /// The routes as they are in the API.
    pub(super) seen: BTreeMap<Route, Arc<Value>>,
    pub(super) gateways: BTreeSet<Name>,
    /// The Services that there are in the API.
    pub(super) known: BTreeSet<Name>,
    /// When to report on a route, and the generation taken up by then; none when it is the one reported before.
    pub(super) reports: BTreeSet<(Instant, Route, Option<i64>)>,
    /// What is on its way to the data plane.
    coming: BTreeMap<(Instant, u64), Update>,
    number: u64,
    taken: Taken,
}

/// What the data plane has taken up.
#[derive(Default)]
struct Taken {
    routes: BTreeMap<Route, Arc<Value>>,
    ingresses: BTreeMap<Name, Arc<Value>>,
    virtual_services: BTreeMap<Name, Arc<Value>>,
    destination_rules: BTreeMap<Name, Arc<Value>>,
    services: BTreeSet<Name>,
    /// The Service of each EndpointSlice, and its ready pods.
    slices: BTreeMap<Name, (Name, Vec<Name>)>,
    /// The ready pods of each Service.
    ready: BTreeMap<Name, Vec<Name>>,
}

/// A change on its way to the data plane.
struct Update {
    resource: Arc<str>,
    name: Name,
    /// `None` when the object is gone.
    object: Option<Arc<Value>>,
}

impl Plane {
    pub(super) fn new(server: &ApiServer, propagation: Duration) -> Self {
        Self {
            controller: server.manager("gateway-controller"),
            propagation,
            conduct: Conduct::Follows,
            conducts: BTreeMap::new(),
            seen: BTreeMap::new(),
            gateways: BTreeSet::new(),
            known: BTreeSet::new(),
            reports: BTreeSet::new(),
            coming: BTreeMap::new(),
            number: 0,
            taken: Taken::default(),
        }
    }

    pub(super) fn observe(&mut self, change: &Change, now: Instant) {
        let name = Name::of(&change.object);
        let object = (change.op != Op::Deleted).then(|| change.object.clone());
        match &*change.resource {
            CLASSES | GATEWAYS => self.observe_gateway(&change.resource, name, object, now),
            HTTP_ROUTES => self.observe_route(HTTP_ROUTES, name, object, now),
            GRPC_ROUTES => self.observe_route(GRPC_ROUTES, name, object, now),
            "services" => {
                let changed = if object.is_some() { self.known.insert(name.clone()) } else { self.known.remove(&name) };
                if changed {
                    self.send("services".into(), name, object, self.propagation, now);
                    self.report_all(now);
                }
            }
            SLICES | INGRESSES | VIRTUAL_SERVICES | DESTINATION_RULES => {
                self.send(change.resource.clone(), name, object, self.propagation, now)
            }
            _ => {}
        }
    }

    /// Lets the data plane take up an object after a delay. What it has not taken up by then is older: nobody goes back to it.
    pub(super) fn send(
        &mut self,
        resource: Arc<str>,
        name: Name,
        object: Option<Arc<Value>>,
        delay: Duration,
        now: Instant,
    ) {
        self.number += 1;
        let due = now + delay;
        self.coming.retain(|(at, _), older| *at <= due || older.resource != resource || older.name != name);
        self.coming.insert((due, self.number), Update { resource, name, object });
    }

    /// Does the next thing that is due; `false` when nothing is.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        if self.coming.first_key_value().is_some_and(|((at, _), _)| *at <= now)
            && let Some((_, update)) = self.coming.pop_first()
        {
            self.taken.take_up(update);
            return true;
        }
        if self.reports.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, route, generation)) = self.reports.pop_first()
        {
            self.report(&route, generation);
            return true;
        }
        false
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let coming = self.coming.first_key_value().map(|((at, _), _)| *at);
        let report = self.reports.first().map(|(at, ..)| *at);
        [coming, report].into_iter().flatten().min()
    }

    /// Where requests go and where copies of them do, or what becomes of them at once. Every weight is positive, and there is
    /// at least one.
    pub(super) fn resolve(&self, target: &Target) -> Result<(Vec<Share>, Vec<Mirror>), Outcome> {
        let (shares, mirrors) = match target {
            Target::Service(service) => {
                let via = Via::ClusterIp;
                (vec![Share { service: service.clone(), hash: None, port: 80, weight: 1.0, via }], Vec::new())
            }
            Target::Route(name) => {
                let routes = [HTTP_ROUTES, GRPC_ROUTES].map(|resource| Route { resource, name: name.clone() });
                let mut found = routes.iter().filter_map(|route| self.taken.routes.get(route));
                let route = found.find(|route| self.is_attached(name, route)).ok_or(Outcome::NoRoute)?;
                let rule = route["spec"]["rules"].get(0).ok_or(Outcome::NoRoute)?;
                (matching::backends(rule, name), matching::mirrors(rule, name))
            }
            Target::Host { host, path, headers } => {
                let routes = self.taken.routes.iter().filter(|(route, _)| route.resource == HTTP_ROUTES);
                let attached = routes
                    .filter(|(route, object)| self.is_attached(&route.name, object))
                    .map(|(route, object)| (&route.name, &**object));
                let taken = &self.taken;
                let by_mesh = || mesh::backends(&taken.virtual_services, &taken.destination_rules, host, path, headers);
                let by_ingress = || Some((ingress::backends(&taken.ingresses, host, path, headers)?, Vec::new()));
                let by_gateway = matching::best_rule(attached, host, path, headers)
                    .map(|(route, rule)| (matching::backends(rule, route), matching::mirrors(rule, route)));
                by_gateway.or_else(by_mesh).or_else(by_ingress).ok_or(Outcome::NoRoute)?
            }
        };
        let shares: Vec<Share> = shares.into_iter().filter(|share| share.weight > 0.0).collect();
        if shares.is_empty() { Err(Outcome::NoBackend) } else { Ok((shares, mirrors)) }
    }

    /// The pods that requests of a share go to; never none.
    pub(super) fn endpoints(&self, share: &Share, workloads: &Workloads, since: Instant) -> Result<Vec<Name>, Outcome> {
        if !self.taken.services.contains(&share.service) {
            return Err(Outcome::NoBackend);
        }
        let pods = self.taken.ready.get(&share.service).map_or(&[][..], Vec::as_slice);
        let of_subset = |pod: &&Name| {
            let serving = workloads.serving(pod, since);
            share.hash.as_ref().is_none_or(|hash| serving.is_none_or(|serving| serving.hash == *hash))
        };
        let pods: Vec<Name> = pods.iter().filter(of_subset).cloned().collect();
        if pods.is_empty() { Err(Outcome::NoEndpoints) } else { Ok(pods) }
    }
}

impl Taken {
    fn take_up(&mut self, update: Update) {
        let Update { resource, name, object } = update;
        fn put<K: Ord>(all: &mut BTreeMap<K, Arc<Value>>, key: K, object: Option<Arc<Value>>) {
            match object {
                Some(object) => drop(all.insert(key, object)),
                None => drop(all.remove(&key)),
            }
        }
        match &*resource {
            HTTP_ROUTES => put(&mut self.routes, Route { resource: HTTP_ROUTES, name }, object),
            GRPC_ROUTES => put(&mut self.routes, Route { resource: GRPC_ROUTES, name }, object),
            INGRESSES => put(&mut self.ingresses, name, object),
            VIRTUAL_SERVICES => put(&mut self.virtual_services, name, object),
            DESTINATION_RULES => put(&mut self.destination_rules, name, object),
            SLICES => self.take_up_slice(name, object.as_deref()),
            _ if object.is_some() => drop(self.services.insert(name)),
            _ => drop(self.services.remove(&name)),
        }
    }

    fn take_up_slice(&mut self, name: Name, slice: Option<&Value>) {
        let before = self.slices.remove(&name).map(|(service, _)| service);
        let after = slice.and_then(|slice| {
            let service = slice["metadata"]["labels"][SERVICE_NAME].as_str()?;
            let endpoints = slice["endpoints"].as_array()?.iter();
            let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
            let pods = ready.filter_map(|it| Some(Name::new(&name.namespace, it["targetRef"]["name"].as_str()?)));
            Some((Name::new(&name.namespace, service), pods.collect()))
        });
        let services: BTreeSet<Name> = before.into_iter().chain(after.iter().map(|(it, _)| it.clone())).collect();
        self.slices.extend(after.map(|after| (name, after)));
        for service in services {
            let of_service = self.slices.values().filter(|(of, _)| *of == service);
            let pods: BTreeSet<Name> = of_service.flat_map(|(_, pods)| pods.iter().cloned()).collect();
            self.ready.insert(service, pods.into_iter().collect());
        }
    }
}
