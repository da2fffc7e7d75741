//! Commands and flags of Linkerd's that weft does not have, and what there is instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

const NO_CNI: &str = "weft has no CNI plugin yet, and linkerd-init makes the redirection";
const NO_MULTICLUSTER: &str = "weft does not link clusters yet";
const NO_JAEGER: &str =
    "weft installs no collector; proxies send traces to the one that the value proxy.tracing.collector names";
const NO_SMI: &str = "weft does not carry out TrafficSplits, which routes of the Gateway API have replaced";
const NO_FAILOVER: &str = "weft has no failover controller yet";

const NO_TAP: &str =
    "weft makes no profile of requests that pass: it makes one of --open-api FILE, --proto FILE or --template";

const REFUSED: [(&str, &str); 10] = [
    ("install-cni", NO_CNI),
    ("--linkerd-cni-enabled", NO_CNI),
    ("multicluster", NO_MULTICLUSTER),
    ("mc", NO_MULTICLUSTER),
    ("jaeger", NO_JAEGER),
    ("smi", NO_SMI),
    ("failover", NO_FAILOVER),
    ("--tap", NO_TAP),
    ("--tap-duration", NO_TAP),
    ("--tap-route-limit", NO_TAP),
];

/// What to say of a word that is Linkerd's, which would otherwise be taken for a slip.
pub(crate) fn told(error: &clap::Error) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else { return None };
    REFUSED.iter().find(|(known, _)| known == word).map(|(word, instead)| format!("{word}: {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    #[test]
    fn linkerds_words_are_refused_by_name() {
        let told = |words: &[&str]| {
            let error = Args::try_parse_from(["weft"].iter().chain(words)).err().unwrap();
            told(&error)
        };
        for (word, instead) in REFUSED {
            let words = if word.starts_with("--") { vec!["install", word] } else { vec![word] };
            assert_eq!(told(&words), Some(format!("{word}: {instead}")));
        }
        assert_eq!(told(&["install", "--linkerd-cni-enabled=true"]), Some(format!("--linkerd-cni-enabled: {NO_CNI}")));
        assert_eq!(told(&["instal"]), None);
        assert_eq!(told(&["up", "--nonsense"]), None);
    }
}
