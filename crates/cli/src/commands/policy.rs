//! `weft policy can` and `weft policy test`: what policies would say, from manifests, from the mesh that runs here, or from a cluster.

use super::meant::{self, Folder, Meant};
use crate::{
    args::{Can, Policy, PolicyCommand, Test, TestOutput, TextOutput, ToMesh},
    given, print,
};
use anyhow::{Context, anyhow, bail};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use weft_cluster::{
    Index,
    can::{self, Asked, Cases, Checked, Client, Request, Target, Told, Verdict},
    index::{DefaultPolicyName, Settings},
    install::{CONFIG, told},
    manifest::{self, Problem},
    object::DEFAULT_NAMESPACE,
};
use weft_control::kubernetes::watched;

/// The status of a question that cannot be answered; 1 is "denied", as of `kubectl auth can-i`.
pub(crate) const UNKNOWN: u8 = 2;

pub(crate) async fn run(folder: &Folder, args: Policy) -> ExitCode {
    let done = match args.command {
        PolicyCommand::Can(can) => ask(folder, &can).await,
        PolicyCommand::Test(test) => check(folder, &test).await,
    };
    done.unwrap_or_else(|error| {
        print::error(&format!("weft: {error:#}"));
        UNKNOWN.into()
    })
}

/// Who is asked, and where names without a namespace are.
pub(super) struct Source {
    pub(super) index: Index,
    pub(super) namespace: String,
}

async fn ask(folder: &Folder, args: &Can) -> anyhow::Result<ExitCode> {
    let Source { index, namespace } = match args.files.as_slice() {
        [] => of_mesh(folder, &args.of).await?,
        files => of_files(files, args.namespace.as_deref(), args.default_inbound_policy.map(DefaultPolicyName))?,
    };
    let namespace = args.namespace.as_deref().unwrap_or(&namespace);
    let mut request = Request::new(&args.method, &args.path)?.with_host(args.host.as_deref())?;
    for header in &args.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| anyhow!("--header {header:?}: it has the form NAME:VALUE"))?;
        request = request.with_header(name, value)?;
    }
    let client = Client::parse(&args.client, namespace)?;
    let target = Target::parse(&args.target, namespace)?;
    let told = can::ask(&index, &Asked { client: &client, target: &target, request: &request, address: args.address })?;
    print::line(&match args.output {
        TextOutput::Table => told.to_string(),
        TextOutput::Json => serde_json::to_string_pretty(&told)?,
    });
    Ok(status(&told))
}

fn status(told: &Told) -> ExitCode {
    match told.verdict {
        Verdict::Allowed => ExitCode::SUCCESS,
        Verdict::Denied => ExitCode::FAILURE,
        Verdict::Unknown => UNKNOWN.into(),
    }
}

pub(super) async fn of_mesh(folder: &Folder, of: &ToMesh) -> anyhow::Result<Source> {
    match meant::mesh(folder, of).await? {
        Meant::Local(client) => {
            let (settings, objects) = client.held().await?;
            Ok(Source { index: can::of_objects(objects, settings), namespace: DEFAULT_NAMESPACE.to_owned() })
        }
        Meant::Cluster => {
            let cluster = super::cluster(&of.to).await?;
            let control = &of.to.linkerd_namespace;
            let values = told(&cluster, control).await?;
            let values = values
                .with_context(|| format!("there is no mesh: the namespace {control} has no ConfigMap {CONFIG}"))?;
            let objects = cluster.everything(&watched()).await?;
            let index = can::of_objects(objects, can::settings_of(&values, control));
            Ok(Source { index, namespace: cluster.own_namespace().to_owned() })
        }
    }
}

/// What is wrong with one of them may be what decides; `namespace` is of those that name none.
pub(super) fn of_files(
    files: &[PathBuf],
    namespace: Option<&str>,
    default_policy: Option<DefaultPolicyName>,
) -> anyhow::Result<Source> {
    let read = given::read(files)?;
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    let loaded = manifest::load_to_ask(namespace, &read.texts, &read.paths);
    if !loaded.problems.is_empty() {
        print::manifests(&loaded.problems, &[]);
        bail!("the manifests are not what a mesh would take: nothing can be told of them");
    }
    let default = Settings::default();
    let settings = Settings { default_policy: default_policy.unwrap_or(default.default_policy), ..default };
    let objects = loaded.objects.into_iter().map(|located| located.object);
    Ok(Source { index: can::of_manifests(objects, settings), namespace: namespace.to_owned() })
}

/// A file of cases with what came of each.
struct Suite {
    file: PathBuf,
    checked: Vec<Checked>,
}

async fn check(folder: &Folder, args: &Test) -> anyhow::Result<ExitCode> {
    let mut suites = vec![];
    // A mesh is asked once, and by whom it is needed.
    let mut mesh: Option<Source> = None;
    for (file, text) in texts(&args.cases)? {
        let checked = match read(&file, &text, args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)) {
            Err(broken) => broken,
            Ok(cases) => match checked(folder, args, &cases, &text, &mut mesh).await {
                Ok(checked) => checked,
                Err(error) => vec![Checked::broken(1, format!("{error:#}"))],
            },
        };
        suites.push(Suite { file, checked });
    }
    report(args, &suites)?;
    Ok(match of_all(&suites) {
        (_, _, unknown) if unknown > 0 => UNKNOWN.into(),
        (_, failed, _) if failed > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// # Errors
/// What stands for the cases of a broken file: each mistake.
fn read(file: &Path, text: &str, namespace: &str) -> Result<Cases, Vec<Checked>> {
    Cases::read(file, text, namespace).map_err(|problems| {
        print::manifests(&problems, &[]);
        let broken = |Problem { line, field, message, remedy, .. }: Problem| {
            let at = if field.is_empty() { field } else { format!("{field}: ") };
            Checked::broken(line, format!("{at}{message}; {remedy}"))
        };
        problems.into_iter().map(broken).collect()
    })
}

/// # Errors
/// There is nobody to ask.
async fn checked(
    folder: &Folder,
    args: &Test,
    cases: &Cases,
    text: &str,
    mesh: &mut Option<Source>,
) -> anyhow::Result<Vec<Checked>> {
    let ask = |source: &Source, cases: &Cases| cases.cases.iter().map(|case| can::check(&source.index, case)).collect();
    let manifests = if args.manifests.is_empty() { &cases.manifests } else { &args.manifests };
    if !manifests.is_empty() {
        return Ok(ask(&of_files(manifests, Some(&cases.namespace), cases.default_policy)?, cases));
    }
    let source = match mesh.take() {
        Some(source) => source,
        None => of_mesh(folder, &args.of).await?,
    };
    let source = mesh.insert(source);
    // Its namespace is known only now.
    if args.namespace.is_none() && source.namespace != DEFAULT_NAMESPACE {
        return Ok(read(&cases.file, text, &source.namespace).map_or_else(|broken| broken, |cases| ask(source, &cases)));
    }
    Ok(ask(source, cases))
}

/// How many cases there are, how many are not as expected, and how many cannot be told.
fn of_all(suites: &[Suite]) -> (usize, usize, usize) {
    let all = || suites.iter().flat_map(|suite| &suite.checked);
    let count = |unknown: bool| all().filter(|c| c.failure.as_ref().is_some_and(|f| f.unknown == unknown)).count();
    (all().count(), count(false), count(true))
}

fn report(args: &Test, suites: &[Suite]) -> anyhow::Result<()> {
    let junit = || can::junit(suites.iter().map(|suite| (suite.file.as_path(), suite.checked.as_slice())));
    if let Some(file) = &args.junit {
        std::fs::write(file, junit()).with_context(|| format!("writing {}", file.display()))?;
    }
    let (all, failed, unknown) = of_all(suites);
    match args.output {
        TestOutput::Junit => print::text(&junit())?,
        TestOutput::Json => {
            let suites: Vec<_> = suites.iter().map(|s| json!({ "file": s.file, "cases": s.checked })).collect();
            let told = json!({ "cases": all, "failed": failed, "unknown": unknown, "suites": suites });
            print::line(&serde_json::to_string_pretty(&told)?);
        }
        TestOutput::Table => {
            for Suite { file, checked } in suites {
                for Checked { name, line, failure } in checked {
                    let Some(failure) = failure else { continue };
                    let what = if failure.unknown { "unknown" } else { "failed" };
                    print::line(&format!("{}:{line}: {what}: {name}\n  {}", file.display(), failure.why));
                }
            }
            print::line(&format!(
                "{all} cases: {} as expected, {failed} failed, {unknown} unknown",
                all - failed - unknown
            ));
        }
    }
    Ok(())
}

/// Each file of cases with what it says.
fn texts(files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut texts = vec![];
    for file in files {
        let read = given::read(std::slice::from_ref(file))?;
        texts.extend(read.texts.into_iter().map(|text| (text.name, text.text)));
        for path in &read.paths {
            if path.is_dir() {
                bail!("{} is a folder; name files of cases", path.display());
            }
            let found = manifest::texts(Path::new(path)).map_err(|problem| anyhow!("{problem}"))?;
            texts.extend(found.into_iter().map(|text| (text.name, text.text)));
        }
    }
    Ok(texts)
}
