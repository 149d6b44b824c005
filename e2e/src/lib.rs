//! The end-to-end harness: a real control plane, a real gateway and a real Prometheus on one machine, without containers.
//!
//! ```text
//! namespace   a user, network and process namespace of its own: 10.64.0.0/16 is local, and everything dies with it
//!   └─ environment   all of the following, started and stopped together
//!        ├─ cluster      etcd, kube-apiserver, kube-controller-manager; users, kubeconfigs, the audit log
//!        ├─ kubelet      binds pods, reports them running and ready, runs the commands of Job pods
//!        │    └─ pod     the HTTP server of a pod, on the pod's own address
//!        ├─ gateway      Traefik as a Gateway API gateway
//!        └─ prometheus   Debian's Prometheus, which scrapes the gateway
//! controller  `tidegate controller` as a child process that can be killed and started again
//! scenario    stories that run here and on the sandbox, and leave the same trace
//! fidelity    requests that are answered here as by the sandbox
//! load        a steady load of requests, and what became of each
//! shop        an application whose releases the demo and the disruptions watch
//! disruption  releases in which the controller is killed, or what they need is taken away
//! clients     releases that are driven and waited for with kubectl
//! aborts      aborts while something that a release needs is broken
//! foretold    what `tidegate plan` says of a release beside what comes of it
//! slow_gateway  releases behind a gateway that follows late
//! storm       many releases while everything around them is killed, paused and restarted, judged by a record of etcd
//! ```
//!
//! What it runs is installed by `e2e/tools/install`; see [`tools`].

pub mod aborts;
pub mod apply;
pub mod audit;
pub mod chart;
pub mod clients;
pub mod cluster;
pub mod commands;
pub mod controller;
pub mod disruption;
pub mod environment;
pub mod fidelity;
pub mod foretold;
pub mod gateway;
pub mod http;
pub mod job;
pub mod kubelet;
pub mod load;
pub mod namespace;
pub mod plugin;
pub mod pod;
pub mod process;
pub mod prometheus;
pub mod refusing;
pub mod scenario;
pub mod shop;
pub mod slow_gateway;
pub mod storm;
pub mod suite;
pub mod tally;
pub mod tools;
pub mod wait;
