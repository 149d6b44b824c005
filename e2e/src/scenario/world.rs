//! What a scenario needs of a cluster beside its API.

use anyhow::{Result, bail};
use jiff::Timestamp;
use kube::Client;

use super::step::{Behaviour, Switch};

/// A cluster on which scenarios run. Everything that has an object goes through [`World::client`]; the rest is here.
#[allow(async_fn_in_trait)] // no scenario is sent to another thread
pub trait World {
    /// What it is called in messages.
    fn title(&self) -> &'static str;

    /// A client of a user who may do everything in the scenario's namespace.
    fn client(&self) -> Client;

    /// Whether time is real, so that a scenario's `pace` applies and patience is called for.
    fn real_time(&self) -> bool;

    /// The time that the cluster and the controller go by.
    fn now(&self) -> Timestamp;

    /// The address of Prometheus.
    fn prometheus(&self) -> String;

    /// Changes how all pods of an image tag behave, those that run included.
    ///
    /// # Errors
    /// The world cannot.
    async fn behave(&mut self, tag: &str, behaviour: Behaviour) -> Result<()>;

    /// Sends requests to a host through the gateway, so many a second, until the end. Begins once the gateway leads to pods.
    ///
    /// # Errors
    /// The world cannot.
    async fn send(&mut self, rate: u32, host: &str) -> Result<()>;

    /// What became of requests that no pod has answered; none if every one was answered.
    async fn lost(&mut self) -> Option<String>;

    /// Lets the gateway refuse an HTTPRoute that names a listener which does not exist, or accept it again. A real gateway
    /// does by itself.
    ///
    /// # Errors
    /// The world cannot.
    async fn accept_route(&mut self, route: &str, accept: bool) -> Result<()>;

    /// Stops or starts Prometheus.
    ///
    /// # Errors
    /// The world cannot.
    async fn switch_prometheus(&mut self, to: Switch) -> Result<()>;

    /// Kills the controller, as SIGKILL does, or starts it.
    ///
    /// # Errors
    /// The world cannot.
    async fn switch_controller(&mut self, to: Switch) -> Result<()>;

    /// Takes the right to update and patch objects of a kind (as `analysisruns.argoproj.io`) away, or gives it back.
    ///
    /// # Errors
    /// The world cannot.
    async fn switch_writes(&mut self, kind: &str, _to: Switch) -> Result<()> {
        bail!("nobody can be kept from writing {kind} here")
    }

    /// Kills the controller and starts the other one in its place.
    ///
    /// # Errors
    /// There is no other.
    async fn exchange_controller(&mut self) -> Result<()> {
        bail!("there is no other controller here")
    }
}
