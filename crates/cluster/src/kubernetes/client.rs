//! How to reach the API server.

use kube::{
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};
use tower::{BoxError, util::MapErrLayer};

pub use kube::Client;

const CONNECT: Duration = Duration::from_secs(5);

/// Why the API server cannot be reached at all, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {reason}; name another by --kubeconfig FILE, or another of its contexts by --context NAME", path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    #[error(
        "the kubeconfig: {0}; name another of its contexts by --context NAME, or another file by --kubeconfig FILE"
    )]
    NoContext(String),
    #[error("this is no pod of a cluster: {0}; outside of one name the cluster by --kubeconfig")]
    NoPod(String),
    #[error("no cluster is configured: {0}; name one by --kubeconfig FILE or $KUBECONFIG")]
    NoCluster(String),
    /// Credentials, certificates or a proxy that the file or the environment names are no use.
    #[error(
        "the cluster's configuration is no use: {0}; `kubectl config view` shows what it says, $HTTPS_PROXY and $NO_PROXY count, and \
         --kubeconfig FILE or --context NAME names another"
    )]
    Unusable(String),
    #[error(
        "the API server {url} does not answer: {reason}; `kubectl cluster-info` asks it as well, and --kubeconfig FILE or --context NAME \
         names another"
    )]
    Away { url: String, reason: String },
    /// It takes connections, and says nothing on them.
    #[error(
        "the API server has not answered within {0:?}; `kubectl cluster-info` asks it as well, and --kubeconfig FILE or --context NAME \
         names another"
    )]
    Silent(Duration),
    #[error(
        "API server: {0}; what this account may is said by `kubectl auth can-i --list`, and an administrator may all of it"
    )]
    Forbidden(String),
    #[error(
        "API server: {0}; it does not know who asks: the kubeconfig's credentials have ended, or are another cluster's; \
         --kubeconfig FILE or --context NAME names others"
    )]
    Unknown(String),
    #[error("API server: {0}")]
    Request(String),
    /// Such an object, or such a kind, does not exist.
    #[error("API server: not found")]
    Missing,
}

/// A client of the API server of `kubeconfig`, or of the cluster that this process is a pod of. Nothing is asked yet.
///
/// # Errors
/// The file, or what is mounted into a pod, cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    match kubeconfig {
        None => client(kube::Config::incluster().map_err(|e| Error::NoPod(e.to_string()))?),
        Some(_) => connect_as_user(kubeconfig, None).await,
    }
}

/// A client as people have it: of `kubeconfig`, else of the files of `$KUBECONFIG`, else of the usual file; the file's present
/// context, unless one is named.
///
/// # Errors
/// No file, or nothing in it, says how to reach a cluster.
pub async fn connect_as_user(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, Error> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let failed = |e: KubeconfigError| match kubeconfig {
        None => Error::NoCluster(e.to_string()),
        Some(path) => Error::Kubeconfig { path: path.to_owned(), reason: unread(&e) },
    };
    let file = match kubeconfig {
        None => usual()?,
        Some(path) => Kubeconfig::read_from(path).map_err(failed)?,
    };
    if let Some(wanted) = context
        && !file.contexts.iter().any(|known| known.name == wanted)
    {
        let known: Vec<String> = file.contexts.into_iter().map(|known| known.name).collect();
        let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let reason = format!("there is no context {wanted}, it has {has}");
        return Err(match kubeconfig {
            None => Error::NoContext(reason),
            Some(path) => Error::Kubeconfig { path: path.to_owned(), reason },
        });
    }
    client(kube::Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?)
}

/// Of the files that `$KUBECONFIG` lists those that are there, as kubectl reads it: if none is, the first is what is missing. Where it
/// lists none, the usual file.
fn usual() -> Result<Kubeconfig, Error> {
    let failed = |e: KubeconfigError| Error::NoCluster(e.to_string());
    let read = |path: &Path| {
        Kubeconfig::read_from(path).map_err(|e| match e {
            KubeconfigError::Parse(_) => Error::Kubeconfig { path: path.to_owned(), reason: unread(&e) },
            other => failed(other),
        })
    };
    let listed = env::var_os("KUBECONFIG").unwrap_or_default();
    let files: Vec<PathBuf> = env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    let Some(first) = files.first() else {
        let home = env::home_dir().map(|home| home.join(".kube/config")).filter(|file| file.exists());
        return home.map_or_else(|| Kubeconfig::read().map_err(failed), |file| read(&file));
    };
    let mut there = files.iter().filter(|file| file.exists()).peekable();
    if there.peek().is_none() {
        return read(first);
    }
    there.try_fold(Kubeconfig::default(), |all, file| all.merge(read(file)?).map_err(failed))
}

/// Why a kubeconfig cannot be read. What stands in it is not repeated: it holds keys and tokens.
fn unread(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => {
            let line = error.location().map_or(1, |location| location.line());
            format!("line {line}: {}", expected(error))
        }
        other => other.to_string(),
    }
}

fn expected(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => expected(error),
        Error::Unexpected { expected, .. } => format!("expected {expected}"),
        Error::SerdeInvalidType { expected, .. }
        | Error::SerdeInvalidValue { expected, .. }
        | Error::SerdeInvalidLength { expected, .. } => format!("expected {expected}"),
        Error::SerdeUnknownVariant { expected, .. } => format!("expected one of {}", expected.join(", ")),
        Error::SerdeMissingField { field, .. } => format!("missing field `{field}`"),
        Error::DuplicateMappingKey { .. } => "a key stands twice".to_owned(),
        _ => "expected YAML, and what stands here cannot be read as such".to_owned(),
    }
}

/// The context that [`connect_as_user`] takes where nothing is named; `None` where no kubeconfig names one.
pub fn present_context() -> Option<String> {
    usual().ok()?.current_context.filter(|context| !context.is_empty())
}

fn client(mut config: kube::Config) -> Result<Client, Error> {
    config.connect_timeout = Some(CONNECT);
    // Who asks tries again in its own way, and counts it.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    let url = url.trim_end_matches('/').to_owned();
    let builder = ClientBuilder::try_from(config).map_err(|e| Error::Unusable(reason(&e)))?;
    Ok(builder.with_layer(&MapErrLayer::new(move |error: BoxError| away(&url, error))).build())
}

/// Nobody has answered at an address.
#[derive(Debug, thiserror::Error)]
#[error("{url} does not answer: {reason}")]
struct Away {
    url: String,
    reason: String,
}

/// Says who has not answered, which the client's own error does not.
fn away(url: &str, error: BoxError) -> BoxError {
    // What it says of credentials, or of the request.
    if error.is::<kube::Error>() {
        return error;
    }
    Box::new(Away { url: url.to_owned(), reason: chain(&*error) })
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        let said = reason(&error);
        match error {
            kube::Error::Service(error) => match error.downcast::<Away>() {
                Ok(away) => Self::Away { url: away.url, reason: away.reason },
                // Of credentials that are made anew once they have ended.
                Err(error) if error.is::<kube::Error>() => Self::Unusable(said),
                Err(_) => Self::Request(said),
            },
            kube::Error::Auth(_) => Self::Unusable(said),
            kube::Error::Api(status) if status.code == 401 => Self::Unknown(said),
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(said),
            _ => Self::Request(said),
        }
    }
}

/// An error of the client in a few words; its own say most of it twice.
pub(crate) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        kube::Error::Service(error) => chain(&**error),
        other => chain(other),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
