//! How traffic behaves, end to end: one list of stages for a cluster and for the embedded mesh.
//!
//! ```text
//! client, guest ─► web (two pods), next, other (the pod of next), outside (of no mesh)
//! stage: what was before ─► objects, step by step, each in force ─► taken away ─► what was before
//! ```
//! The client loads `web` and `next` all the while, over HTTP/1 and HTTP/2: of its requests none may fail in a way that the stage's objects do not ask for.
//! How long each change took is printed, and is no reason to fail.

mod app;
mod ask;
mod holds;
mod objects;
mod stages;

pub use app::{ASKED, CLIENTS, NAMESPACE, clients};

use anyhow::{Result, ensure};
use ask::Answer;
use serde_json::Value;
use stages::Stage;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Until what was taken away is seen to be gone, before something else is.
const BETWEEN: Duration = Duration::from_millis(500);
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is so while no object says otherwise.
const UNTOUCHED: &[(&str, &str)] = &[
    ("GET web/a?b=c", "200 web: GET /a?b=c"),
    ("GET next/a?b=c as:guest", "200 next: GET /a?b=c"),
    ("GET other/", "200 next: GET /"),
    ("GET outside/", "200 outside: GET /"),
];
/// Answers to the load that a stage waits for in the end.
const MORE: u64 = 40;

/// A mesh that the stages are run in. What [`clients`] gives is there already.
pub trait Mesh {
    /// The program of the demo, as a container of this mesh names it.
    fn demo(&self) -> &str;
    /// Puts objects into force under a name: anew, or in place of what was put under it before.
    ///
    /// # Errors
    /// They are not taken.
    fn put(&self, name: &str, objects: &str) -> Result<()>;
    /// Takes away what was put under a name.
    ///
    /// # Errors
    /// There is nothing of this name.
    fn take(&self, name: &str) -> Result<()>;
    /// The status of an object of the app's namespace, `KIND.GROUP/NAME`; null while it has none.
    ///
    /// # Errors
    /// It cannot be looked up.
    fn status(&self, object: &str) -> Result<Value>;
    /// What the command line prints of this mesh.
    ///
    /// # Errors
    /// It fails.
    fn weft(&self, words: &[&str]) -> Result<String>;
    /// Where the client of this account is told what to ask.
    fn client(&self, account: &str) -> SocketAddr;
    /// A server of the demo's `echo` that is not in the mesh and calls itself `outside`.
    fn outside(&self) -> SocketAddr;
}

/// Goes through the list.
///
/// # Panics
/// Traffic does not behave as it should. The message begins with the stage.
pub fn run(mesh: &dyn Mesh) {
    run_stages(mesh, &stages::all());
}

/// Goes through the list, and through what takes longer than a cluster has time for.
///
/// # Panics
/// As [`run`].
pub fn run_at_length(mesh: &dyn Mesh) {
    run_stages(mesh, &stages::all().into_iter().chain(stages::longer()).collect::<Vec<_>>());
}

fn run_stages(mesh: &dyn Mesh, stages: &[Stage]) {
    let run = Run { mesh, stage: "the app", servers: app::servers().into_iter().collect() };
    for (name, objects) in &run.servers {
        run.put(name, objects);
    }
    run.until("it is there", &rows(UNTOUCHED), None, None);
    run.until_load_goes_on();
    let start = Instant::now();
    for stage in stages {
        Run { stage: stage.name, ..run.clone() }.goes_through(stage);
    }
    say(&format!("{} stages in {:.0} s", stages.len(), start.elapsed().as_secs_f64()));
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "traffic: {line}");
}

/// What is asked, and what comes of it.
type Row = (&'static str, String);

fn rows(rows: &[(&'static str, &str)]) -> Vec<Row> {
    rows.iter().map(|(ask, told)| (*ask, (*told).to_owned())).collect()
}

#[derive(Clone)]
struct Run<'m> {
    mesh: &'m dyn Mesh,
    stage: &'static str,
    servers: BTreeMap<&'static str, String>,
}

impl Run<'_> {
    fn goes_through(&self, stage: &Stage) {
        let all: Vec<&'static str> = stage.steps.iter().flat_map(|step| step.shows).map(|(ask, _)| *ask).collect();
        let before: Vec<Row> =
            all.iter().copied().zip(self.asked(&all).into_iter().map(|answer| answer.told)).collect();
        let load = self.load();
        let mut times = vec![];
        // What each question is answered with at the moment.
        let mut now: BTreeMap<&str, String> = before.iter().cloned().collect();
        for step in &stage.steps {
            let wanted = rows(step.shows);
            let held = step.shows.iter().map(|(ask, _)| now[ask].clone()).collect::<Vec<_>>();
            self.put(step.put, &step.objects);
            let took = self.until(step.put, &wanted, is_one(&step.objects).then_some(&held), step.holds);
            times.push(format!("{} in force after {} ms", step.put, took.as_millis()));
            now.extend(wanted);
            // What nothing shows is there before what relies on it: two files of one moment are told of in any order.
            if step.shows.is_empty() && step.holds.is_none() {
                self.have_good_statuses(&step.objects);
            }
        }
        for step in &stage.steps {
            self.have_good_statuses(&step.objects);
        }
        if let Some(then) = stage.then {
            then(self);
        }
        let took = self.is_taken_away(stage, &before);
        times.push(format!("taken away after {} ms", took.as_millis()));
        self.until_load_goes_on();
        let load = self.grown(&load);
        say(&format!("{}: {}; load: {load:?}", self.stage, times.join(", ")));
        for outcome in load.keys().filter(|outcome| *outcome != "200") {
            assert!(
                stage.asks_for.contains(&outcome.as_str()),
                "{}: nobody asks for {outcome} in {load:?}",
                self.stage
            );
        }
    }

    /// The last first, for the first may be for what the others leave; each is seen to go before the next does.
    fn is_taken_away(&self, stage: &Stage, before: &[Row]) -> Duration {
        let mut taken = BTreeSet::new();
        for name in stage.steps.iter().rev().map(|step| step.put).filter(|name| taken.insert(*name)) {
            match self.servers.get(name) {
                Some(objects) => self.put(name, objects),
                None => self.ok(self.mesh.take(name), name),
            }
            // Files that go in one moment are told of in any order.
            std::thread::sleep(BETWEEN);
        }
        let start = Instant::now();
        let before: Vec<Row> = before.iter().cloned().chain(rows(UNTOUCHED)).collect();
        let mut after = self.until("what was before", &before, None, None);
        for holds in stage.steps.iter().filter_map(|step| step.holds) {
            after = start.elapsed();
            while holds(self).is_ok() {
                assert!(start.elapsed() < PATIENCE, "{}: taken away, and it still holds", self.stage);
                after = start.elapsed();
            }
        }
        after
    }

    /// Until everything is answered so, and after which time it was asked as it then was. With `held`, what was answered before may come meanwhile, and nothing else.
    fn until(&self, what: &str, wanted: &[Row], held: Option<&Vec<String>>, holds: Option<Holds>) -> Duration {
        let asks: Vec<&str> = wanted.iter().map(|(ask, _)| *ask).collect();
        let start = Instant::now();
        loop {
            let after = start.elapsed();
            let answers = self.asked(&asks);
            let mut missing = None;
            for (at, (answer, (ask, told))) in answers.iter().zip(wanted).enumerate() {
                if answer.told != *told {
                    let other = held.and_then(|held| held.get(at)).filter(|held| **held != answer.told);
                    assert!(
                        other.is_none(),
                        "{}: {what}: {ask}: neither {other:?} nor {told:?}: {answer:?}",
                        self.stage
                    );
                    missing = Some(format!("{ask}: not {told:?}: {answer:?}"));
                }
            }
            if missing.is_none() {
                missing = holds.and_then(|holds| holds(self).err());
            }
            let Some(missing) = missing else { return after };
            assert!(start.elapsed() < PATIENCE, "{}: {what}: {missing}", self.stage);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What comes of each of these, asked once.
    fn asked(&self, asks: &[&str]) -> Vec<Answer> {
        if asks.is_empty() {
            return vec![];
        }
        self.all(asks).into_iter().flatten().collect()
    }

    /// All that comes of each of these.
    fn all(&self, asks: &[&str]) -> Vec<Vec<Answer>> {
        self.ok(ask::asked(self.mesh, asks), "asking")
    }

    fn load(&self) -> BTreeMap<String, u64> {
        self.ok(ask::load(self.mesh), "the load").into_iter().collect()
    }

    /// What the load has had since then.
    fn grown(&self, since: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let before = |outcome: &str| since.get(outcome).copied().unwrap_or_default();
        let now = self.load().into_iter();
        now.map(|(outcome, count)| (outcome.clone(), count.saturating_sub(before(&outcome))))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Until the load is answered well again and again.
    fn until_load_goes_on(&self) {
        let (start, before) = (Instant::now(), self.load());
        while self.grown(&before).get("200").is_none_or(|good| *good < MORE) {
            assert!(start.elapsed() < PATIENCE, "{}: the load stands: {:?}", self.stage, self.load());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts objects into force, once what they leave open is written there.
    fn put(&self, name: &str, objects: &str) {
        let (outside, demo) = (self.mesh.outside(), self.mesh.demo());
        let objects = objects.replace("OUTSIDE_IP", &outside.ip().to_string()).replace("DEMO", demo);
        let objects = objects.replace("OUTSIDE_PORT", &outside.port().to_string());
        self.ok(self.mesh.put(name, &objects), name);
    }

    /// Each object of a kind that has a status says that it is in force.
    fn have_good_statuses(&self, objects: &str) {
        for object in objects.split("---\n").filter_map(with_status) {
            let start = Instant::now();
            while let Err(why) = self.mesh.status(&object).and_then(|status| is_good(&status)) {
                assert!(start.elapsed() < PATIENCE, "{}: the status of {object}: {why:#}", self.stage);
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn ok<T>(&self, done: Result<T>, what: &str) -> T {
        done.unwrap_or_else(|error| panic!("{}: {what}: {error:#}", self.stage))
    }

    /// What was found, which has to be there.
    fn found<T>(&self, found: Result<T, String>) -> T {
        found.unwrap_or_else(|why| panic!("{}: {why}", self.stage))
    }
}

/// Whether something that rows cannot say is so; the error says what is missing.
type Holds = fn(&Run<'_>) -> Result<(), String>;

/// Whether it is one object, which takes effect as a whole.
fn is_one(objects: &str) -> bool {
    objects.lines().filter(|line| line.starts_with("kind: ")).count() == 1
}

/// `KIND.GROUP/NAME` of an object as the stages write them, if its kind has a status of ours.
fn with_status(object: &str) -> Option<String> {
    let value = |field: &str| object.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
    let has_one = |kind: &&str| kind.ends_with("Route") || ["HTTPLocalRateLimitPolicy", "EgressNetwork"].contains(kind);
    let kind = value("kind: ").filter(has_one)?;
    let group = value("apiVersion: ")?.split_once('/')?.0;
    let name = object.split_once("name: ")?.1.split([',', '\n', ' ']).next()?;
    Some(format!("{}.{group}/{name}", kind.to_ascii_lowercase()))
}

fn is_good(status: &Value) -> Result<()> {
    let of_parents = status["parents"].as_array().into_iter().flatten().map(|parent| &parent["conditions"]);
    let conditions: Vec<&Value> =
        of_parents.chain([&status["conditions"]]).filter_map(Value::as_array).flatten().collect();
    ensure!(conditions.iter().any(|condition| condition["type"] == "Accepted"), "nobody has accepted it: {status}");
    let is_dated = |condition: &&&Value| {
        condition["lastTransitionTime"].is_string() && condition["observedGeneration"].as_i64() >= Some(1)
    };
    ensure!(conditions.iter().all(|condition| is_dated(&condition)), "it is of no time or generation: {status}");
    let bad = conditions.iter().find(|condition| condition["status"] != "True");
    bad.map_or(Ok(()), |bad| Err(anyhow::anyhow!("{bad}")))
}

#[cfg(test)]
mod tests {
    use super::{stages::Step, *};

    #[test]
    fn what_the_stages_write_is_read() {
        for stage in stages::all().into_iter().chain(stages::longer()) {
            for Step { objects, shows, .. } in stage.steps {
                let kinds = ["Route\n", "kind: HTTPLocalRateLimitPolicy\n", "kind: EgressNetwork\n"];
                let statuses: usize = kinds.iter().map(|kind| objects.matches(kind).count()).sum();
                let found = objects.split("---\n").filter_map(with_status).count();
                assert_eq!(found, statuses, "{}: {objects}", stage.name);
                for (ask, told) in shows {
                    ask::Ask::read(ask);
                    assert!(told.starts_with(|c: char| c.is_ascii_digit()), "{}: {told}", stage.name);
                }
            }
        }
        let route =
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: web, namespace: traffic }\n";
        assert_eq!(with_status(route).as_deref(), Some("httproute.gateway.networking.k8s.io/web"));
        assert!(is_one(route) && !is_one(&format!("{route}---\n{route}")));
    }
}
