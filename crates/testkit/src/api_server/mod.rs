//! An API server over a map: list with pages, watch with versions and bookmarks, 410, writes with conflicts, token reviews.
//!
//! ```text
//! test ── put, delete, compact, cut, fail ──► World (objects, history) ◄── HTTP ── client
//! ```
//! It has the verbs that the control plane uses, in plaintext on loopback, and checks no schema.

mod serve;
mod world;

use anyhow::Result;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};

use world::World;
pub use world::{Failure, GATEWAY_HTTP_ROUTE, Id, Request};

/// How long [`FakeApi::asked`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// The fake. Dropping it ends it.
pub struct FakeApi {
    addr: SocketAddr,
    world: Arc<World>,
    task: JoinHandle<()>,
}

impl FakeApi {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let world = Arc::new(World::default());
        let task = tokio::spawn(serve::serve(listener, world.clone()));
        Ok(Self { addr, world, task })
    }

    /// What a client is configured by.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.addr)}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        })
        .to_string()
    }

    /// Creates or replaces an object, which says itself what it is.
    ///
    /// # Panics
    /// It does not, or its kind is not served.
    #[expect(clippy::expect_used, reason = "a test whose object is none fails here, where it says so")]
    pub fn put(&self, object: Value) {
        let id = Id::of(&object).expect("an object of a kind that is served, with a name");
        self.world.put(id, object);
    }

    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.world.delete(&Id::new(kind, namespace, name));
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.world.get(&Id::new(kind, namespace, name))
    }

    /// Everything of a kind.
    pub fn all(&self, kind: &str) -> Vec<Value> {
        self.world.all(kind)
    }

    /// Forgets every change up to now: who has not seen them is told 410.
    pub fn compact(&self) {
        self.world.compact();
    }

    /// Breaks all watches off, in the middle of what they say.
    pub fn cut(&self) {
        self.world.cut();
    }

    /// Nothing is told on watches any more, until `false`.
    pub fn hold(&self, held: bool) {
        self.world.hold(held);
    }

    /// Sends a bookmark on all watches.
    pub fn bookmark(&self) {
        self.world.bookmark();
    }

    /// Every request fails like this until `None`.
    pub fn fail(&self, failure: Option<Failure>) {
        self.world.fail(failure);
    }

    /// In which versions a kind of the mesh's own is served; in none it is not defined. All watches break off.
    pub fn define(&self, kind: &str, versions: &[&str]) {
        self.world.define(kind, versions);
    }

    /// The version that it says it is.
    pub fn release(&self, release: &str) {
        self.world.release(release);
    }

    /// A token, the user whose it is, and the audiences that it is for.
    pub fn token(&self, token: &str, user: &str, audiences: &[&str]) {
        self.world.token(token, user, audiences);
    }

    /// Reviews of tokens that nobody has are not answered, until `false`.
    pub fn hold_reviews(&self, held: bool) {
        self.world.hold_reviews(held);
    }

    /// Requests whose path has this in it are not answered, until `None`.
    pub fn hold_requests(&self, part: Option<&str>) {
        self.world.hold_requests(part);
    }

    /// Nobody may create objects of these, and reviews of access say so of whatever is asked.
    pub fn forbid(&self, plural: &str) {
        self.world.forbid(plural);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.world.requests()
    }

    /// Waits until a request was made that `is` what the test waits for.
    ///
    /// # Errors
    /// None came.
    pub async fn asked(&self, is: impl Fn(&Request) -> bool) -> Result<()> {
        let mut changes = self.world.changes();
        let seen = async {
            while !self.world.requests().iter().any(&is) {
                changes.changed().await?;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, seen).await?
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}
