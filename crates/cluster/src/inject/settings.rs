//! What holds for one pod: the values of the installation under the annotations of its Namespace and its own.

use super::{
    Annotations,
    table::{
        self, ADDITIONAL_ENV, Annotation, CLOSE_WAIT_TIMEOUT, Mistake, NATIVE_SIDECAR, PROXY_PORTS, TABLE,
        TRACE_ATTRIBUTE_PREFIX, WAIT_BEFORE_EXIT, is_known,
    },
};
use crate::{
    annotation::{self, Owner},
    values::{Amounts, Quantity, Resources, Text, Values},
};
use std::collections::BTreeMap;
use weft_model::names::annotation::INJECT;

/// The values, and what there is no value for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) values: Values,
    pub(crate) debug: bool,
    /// Resource attributes of traces.
    pub(crate) trace_attributes: BTreeMap<String, String>,
}

/// Something about an annotation that its owner should know. The pod is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub message: String,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field, such as `metadata.annotations[config.linkerd.io/proxy-uid]`, and whose it is if it is another object's.
    pub field: String,
    pub message: String,
}

/// The annotations of a Namespace, and its name.
#[derive(Clone, Copy)]
pub(super) struct Namespace<'a> {
    pub(super) name: &'a str,
    pub(super) annotations: &'a Annotations,
}

/// On what an annotation stands.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    /// The object itself.
    Own,
    Namespace(&'a str),
}

/// Reads the annotations of a pod over those of its namespace, if it is known.
pub(super) fn overlay(
    values: &Values,
    own: &Annotations,
    namespace: Option<Namespace<'_>>,
    warnings: &mut Vec<Warning>,
) -> Result<Settings, Vec<Refusal>> {
    let mut settings = Settings { values: values.clone(), ..Settings::default() };
    let mut refusals = vec![];
    let inherited = |key| Some((On::Namespace(namespace?.name), namespace?.annotations.get(key)?));
    for row in TABLE {
        // The variables of both count, name by name.
        let both = row.key == ADDITIONAL_ENV;
        let inherited = inherited(row.key).filter(|_| row.inherited && (both || !own.contains_key(row.key)));
        for (on, value) in inherited.into_iter().chain(own.get(row.key).map(|value| (On::Own, value))) {
            if let Err(message) = (row.set)(value.trim(), &mut settings) {
                match row.mistake {
                    Mistake::Refused => refusals.push(refusal(row.key, on, value, &message)),
                    Mistake::Default => warnings.push(warning(row, on, value, &message)),
                }
            }
        }
    }
    for (key, value) in own {
        if let Some(name) = key.strip_prefix(TRACE_ATTRIBUTE_PREFIX) {
            settings.trace_attributes.insert(name.to_owned(), value.clone());
        }
        unread(key, On::Own, warnings);
    }
    if let Some(Namespace { name, annotations }) = namespace {
        annotations.keys().for_each(|key| unread(key, On::Namespace(name), warnings));
    }
    let given = |key: &'static str| match (own.contains_key(key), inherited(key)) {
        (true, _) => Some(On::Own),
        (false, inherited) => inherited.map(|(on, _)| on),
    };
    together(&mut settings, given, warnings, &mut refusals);
    let on = |key: &str| match namespace {
        Some(Namespace { name, .. }) if !own.contains_key(key) => On::Namespace(name),
        _ => On::Own,
    };
    amounts(&mut settings, values, on, warnings);
    if refusals.is_empty() { Ok(settings) } else { Err(refusals) }
}

/// Tells of an annotation that nothing is read from.
pub(super) fn unread(key: &str, on: On<'_>, warnings: &mut Vec<Warning>) {
    let message = if is_misspelt(key) {
        "there is no such annotation: correct the spelling, or remove it"
    } else if matches!(on, On::Namespace(_)) && TABLE.iter().any(|row| row.key == key && !row.inherited) {
        "pods do not inherit it: write it on them"
    } else {
        return;
    };
    warnings.push(Warning { key: key.to_owned(), message: format!("{}{message}", on.told()) });
}

/// Whether the mesh would have such an annotation, and has none of that name.
fn is_misspelt(key: &str) -> bool {
    annotation::owner(key) == Owner::Mesh && !is_known(key)
}

/// What may be why a pod is not asked to have a proxy: an annotation with another name than was meant, or one that is empty.
pub(super) fn unasked(own: &Annotations, namespace: Namespace<'_>) -> Vec<Warning> {
    let mut warnings = vec![];
    for (on, annotations) in [(On::Own, own), (On::Namespace(namespace.name), namespace.annotations)] {
        annotations.keys().filter(|key| is_misspelt(key)).for_each(|key| unread(key, on, &mut warnings));
        if annotations.get(INJECT).is_some_and(String::is_empty) {
            let message = format!(
                "{}no proxy: it is empty, as if it were not there; write enabled, ingress or disabled",
                on.told()
            );
            warnings.push(Warning { key: INJECT.to_owned(), message });
        }
    }
    warnings
}

/// Settings that exclude each other; `given` says where an annotation stands that holds.
fn together<'a>(
    settings: &mut Settings,
    given: impl Fn(&'static str) -> Option<On<'a>>,
    warnings: &mut Vec<Warning>,
    refusals: &mut Vec<Refusal>,
) {
    let Settings { values, .. } = settings;
    if let Some((first, second)) = crate::values::clash(values) {
        let at = |port: &str| {
            let name = port.rsplit('.').next()?;
            let key = PROXY_PORTS.into_iter().find(|key| **key == format!("config.linkerd.io/{name}-port"))?;
            Some(given(key)?.field(&format!("metadata.annotations[{key}]")))
        };
        let told = |port: &str| at(port).unwrap_or_else(|| format!("{port} of the installation"));
        // What is refused is an annotation.
        let (refused, other) = if at(second).is_some() { (second, first) } else { (first, second) };
        let message = format!("it is the same port as {}: give each its own", told(other));
        refusals.push(Refusal { field: told(refused), message });
    }
    if values.proxy.native_sidecar && values.proxy.wait_before_exit_seconds > 0 {
        values.proxy.wait_before_exit_seconds = 0;
        let message = "a native sidecar does not wait: it ends after the other containers".to_owned();
        warnings.push(Warning { key: WAIT_BEFORE_EXIT.to_owned(), message });
    }
    let init = &mut values.proxy_init;
    if init.close_wait_timeout_secs > 0 && !(init.run_as_root && init.privileged) {
        init.close_wait_timeout_secs = 0;
        let message = "it needs an installation with proxyInit.runAsRoot and proxyInit.privileged".to_owned();
        warnings.push(Warning { key: CLOSE_WAIT_TIMEOUT.to_owned(), message });
    }
}

/// Drops annotations of resources with which no pod could be made: a request above its limit.
fn amounts<'a>(
    settings: &mut Settings,
    installation: &Values,
    on: impl Fn(&str) -> On<'a>,
    warnings: &mut Vec<Warning>,
) {
    let Resources { cpu, memory, ephemeral_storage } = &mut settings.values.proxy.resources;
    let whole = &installation.proxy.resources;
    for (name, amounts, before) in [
        ("cpu", cpu, &whole.cpu),
        ("memory", memory, &whole.memory),
        ("ephemeral-storage", ephemeral_storage, &whole.ephemeral_storage),
    ] {
        let Amounts { request, limit } = &*amounts;
        let (Ok(least), Ok(most)) = (request.parse::<Quantity>(), limit.parse::<Quantity>()) else { continue };
        if least <= most {
            continue;
        }
        for (kind, amount, before, message) in [
            ("request", request, &before.request, format!("it is above the limit, {}", &**limit)),
            ("limit", limit, &before.limit, format!("it is below the request, {}", &**request)),
        ] {
            let key = format!("config.linkerd.io/proxy-{name}-{kind}");
            if let Some(row) = table::find(&key).filter(|_| amount != before) {
                warnings.push(warning(row, on(&key), amount, &message));
            }
        }
        *amounts = before.clone();
    }
}

impl On<'_> {
    /// Before what is told of the annotation.
    fn told(self) -> String {
        match self {
            Self::Own => String::new(),
            Self::Namespace(name) => format!("on the Namespace {name}: "),
        }
    }

    /// How a refusal names a field of it.
    fn field(self, field: &str) -> String {
        match self {
            Self::Own => field.to_owned(),
            Self::Namespace(name) => format!("{field} of the Namespace {name}"),
        }
    }
}

pub(super) fn refusal(key: &str, on: On<'_>, value: &str, message: &str) -> Refusal {
    let field = on.field(&format!("metadata.annotations[{key}]"));
    Refusal { field, message: format!("{}: {message}", shown(value)) }
}

fn warning(row: &Annotation, on: On<'_>, value: &str, message: &str) -> Warning {
    let message = format!("{}{} is ignored: {message}", on.told(), shown(value));
    Warning { key: row.key.to_owned(), message }
}

fn shown(value: &str) -> String {
    let cut: String = value.chars().take(64).collect();
    format!("{cut:?}")
}

/// The annotations that a pod takes over from its namespace: those that it has not itself.
pub(super) fn inherited(own: &Annotations, namespace: &Annotations) -> Annotations {
    // Of three names of one setting the pod's own counts, whichever it uses.
    let decided = |key: &str| NATIVE_SIDECAR.contains(&key) && NATIVE_SIDECAR.iter().any(|k| own.contains_key(*k));
    TABLE
        .iter()
        .filter(|row| row.inherited && !own.contains_key(row.key) && !decided(row.key))
        .filter_map(|row| Some((row.key.to_owned(), namespace.get(row.key)?.clone())))
        .collect()
}

/// How texts become settings.
pub(super) mod read {
    use super::Text;
    use crate::{
        annotation,
        values::{Form, Quantity, Wrong, variable},
    };
    use k8s_openapi::api::core::v1::EnvVar;
    use std::{fmt::Display, str::FromStr, time::Duration};

    /// Variables that one annotation may give.
    const MAX_VARIABLES: usize = 100;

    /// Keeps the text of what is read elsewhere: by the proxy, or by who pulls its image.
    pub(crate) fn formed(value: &str, form: Form, to: &mut Text) -> Result<(), String> {
        if value.is_empty() {
            return Err("it is empty".to_owned());
        }
        if !form.fits(value) {
            return Err(form.remedy().to_owned());
        }
        *to = value.into();
        Ok(())
    }

    /// Go's words for truth values.
    pub(crate) fn bool(value: &str, to: &mut bool) -> Result<(), String> {
        *to = match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return Err("use true or false".to_owned()),
        };
        Ok(())
    }

    pub(crate) fn enabled(value: &str, to: &mut bool) -> Result<(), String> {
        *to = match value {
            "enabled" => true,
            "disabled" => false,
            _ => return Err("use enabled or disabled".to_owned()),
        };
        Ok(())
    }

    pub(crate) fn one_of(value: &str, allowed: &[&str], to: &mut Text) -> Result<(), String> {
        if !allowed.contains(&value) {
            return Err(format!("use {}", allowed.join(" or ")));
        }
        *to = value.into();
        Ok(())
    }

    pub(crate) fn pull_policy(value: &str, to: &mut Text) -> Result<(), String> {
        one_of(value, &["Always", "IfNotPresent", "Never"], to)
    }

    /// Keeps the text of what can be read, without spaces: the proxy and linkerd-init want none in lists.
    pub(crate) fn valid<T: FromStr<Err: Display>>(value: &str, to: &mut Text) -> Result<(), String> {
        annotation::read::<T>(value).map_err(|error| error.to_string())?;
        *to = value.split_whitespace().collect::<String>().into();
        Ok(())
    }

    pub(crate) fn networks(value: &str, to: &mut Text) -> Result<(), String> {
        super::super::table::networks(value)?;
        *to = value.split_whitespace().collect::<String>().into();
        Ok(())
    }

    pub(crate) fn quantity(value: &str, to: &mut Text) -> Result<(), String> {
        valid::<Quantity>(value, to)
    }

    pub(crate) fn number(value: &str, to: &mut u32) -> Result<(), String> {
        *to = value.parse().map_err(|_| "use a number".to_owned())?;
        Ok(())
    }

    pub(crate) fn port(value: &str, to: &mut u16) -> Result<(), String> {
        match value.parse() {
            Ok(port) if port > 0 => *to = port,
            _ => return Err("a port is a number from 1 to 65535".to_owned()),
        }
        Ok(())
    }

    pub(crate) fn uid(value: &str, to: &mut i64) -> Result<(), String> {
        match value.parse::<i64>() {
            Ok(uid) if (1..=i64::from(i32::MAX)).contains(&uid) => *to = uid,
            _ => return Err("the proxy's user is a number above 0: it cannot be root".to_owned()),
        }
        Ok(())
    }

    pub(crate) fn gid(value: &str, to: &mut i64) -> Result<(), String> {
        match value.parse::<i64>() {
            Ok(gid) if (-1..=i64::from(i32::MAX)).contains(&gid) => *to = gid,
            _ => return Err("a group is a number; -1 is the image's own".to_owned()),
        }
        Ok(())
    }

    pub(crate) fn ratio(value: &str, to: &mut Option<f64>) -> Result<(), String> {
        match value.parse::<f64>() {
            Ok(ratio) if ratio > 0.0 && ratio <= 1.0 => *to = Some(ratio),
            _ => return Err("use a number above 0, at most 1".to_owned()),
        }
        Ok(())
    }

    pub(crate) fn env(value: &str, to: &mut Vec<EnvVar>) -> Result<(), String> {
        let mut unknown = vec![];
        let mut see = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let mut reader = serde_json::Deserializer::from_str(value);
        let variables: Vec<EnvVar> = serde_ignored::deserialize(&mut reader, &mut see)
            .and_then(|variables| reader.end().map(|()| variables))
            .map_err(|error| format!("it is no JSON list of variables: {error}"))?;
        if let Some(path) = unknown.first() {
            return Err(format!("a variable has no field {path}"));
        }
        if variables.len() > MAX_VARIABLES {
            return Err(format!("it has more than {MAX_VARIABLES} variables"));
        }
        for (at, one) in variables.iter().enumerate() {
            if let Err(Wrong { field, message, remedy }) = variable(one) {
                let name = super::shown(&one.name);
                return Err(format!("[{at}].{field} of the variable {name}: {message}: {remedy}"));
            }
        }
        for variable in variables {
            match to.iter_mut().find(|v| v.name == variable.name) {
                Some(old) => *old = variable,
                None => to.push(variable),
            }
        }
        Ok(())
    }

    /// The proxy reads one number with its unit.
    pub(crate) fn millis(value: &str, to: &mut Text) -> Result<(), String> {
        *to = format!("{}ms", duration(value)?.as_millis()).into();
        Ok(())
    }

    /// For what the proxy does not take 0 for.
    pub(crate) fn positive_millis(value: &str, to: &mut Text) -> Result<(), String> {
        if duration(value)? < Duration::from_millis(1) {
            return Err("use 1ms or longer".to_owned());
        }
        millis(value, to)
    }

    pub(crate) fn seconds(value: &str, to: &mut Text) -> Result<(), String> {
        let duration = duration(value)?;
        *to = match duration.subsec_millis() {
            0 => format!("{}s", duration.as_secs()),
            _ => format!("{}ms", duration.as_millis()),
        }
        .into();
        Ok(())
    }

    pub(crate) fn whole_seconds(value: &str, to: &mut u32) -> Result<(), String> {
        *to = u32::try_from(duration(value)?.as_secs()).map_err(|_| "it is too long".to_owned())?;
        Ok(())
    }

    fn duration(text: &str) -> Result<Duration, String> {
        weft_model::duration::parse_go(text).ok_or_else(|| "a duration is such as 500ms, 10s or 1h30m".to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn durations_are_written_in_one_unit() {
            let mut text = Text::default();
            assert_eq!((seconds("90s", &mut text), &*text), (Ok(()), "90s"));
            assert_eq!((seconds("1500ms", &mut text), &*text), (Ok(()), "1500ms"));
            assert_eq!((millis("1m", &mut text), &*text), (Ok(()), "60000ms"));
            assert_eq!((millis("0s", &mut text), &*text), (Ok(()), "0ms"));
            assert_eq!((positive_millis("1.9ms", &mut text), &*text), (Ok(()), "1ms"));
            assert!(["0", "0s", "500us"].iter().all(|value| positive_millis(value, &mut text).is_err()));
            assert_eq!(millis("2562047h", &mut text), Ok(()));
            assert_eq!(weft_model::duration::parse(&text), Some(weft_model::duration::LONGEST));
        }

        #[test]
        fn variables_replace_each_other_by_name() {
            let mut variables = vec![];
            env(r#"[{"name":"A","value":"1"},{"name":"B"}]"#, &mut variables).unwrap();
            env(r#"[{"name":"A","value":"2"}]"#, &mut variables).unwrap();
            let shown: Vec<_> = variables.iter().map(|v| (v.name.as_str(), v.value.as_deref())).collect();
            assert_eq!(shown, [("A", Some("2")), ("B", None)]);
            for bad in ["", "{}", r#"[{"name":"A"}] x"#, r#"[{"name":"A","valeu":"1"}]"#, r#"[{"value":"1"}]"#] {
                assert!(env(bad, &mut vec![]).is_err(), "{bad}");
            }
        }
    }
}
