//! Diagnostics on standard output, plain or JSON, with a filter that can be changed while the process runs.
//!
//! Each program calls [`init`] once. It must not log on its own.

use std::{fmt, io, time::Instant};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
};

/// The filter when the environment names none (data plane 1.2).
pub const DEFAULT_FILTER: &str = "warn,linkerd=info,hickory=error";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Seconds since start, level, thread, spans, target, message.
    #[default]
    Plain,
    /// One object per line.
    Json,
}

/// Reads and changes the filter.
#[derive(Clone)]
pub struct LogHandle(Option<reload::Handle<EnvFilter, Registry>>);

/// Why logging was not set up, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("invalid log filter: {0}")]
    Filter(String),
    #[error("logging is off")]
    Off,
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging for the whole process. The filter `off` turns it off for good.
///
/// # Errors
/// The filter is malformed, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<LogHandle, LogError> {
    if is_off(filter) {
        return Ok(LogHandle(None));
    }
    let (subscriber, handle) = subscriber(filter, format, io::stdout)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(handle)
}

/// Checks a filter without using it.
///
/// # Errors
/// The filter is malformed.
pub fn check(filter: &str) -> Result<(), LogError> {
    if is_off(filter) { Ok(()) } else { parse(filter).map(drop) }
}

/// The directives of a filter that are understood, and the others.
pub fn sift(filter: &str) -> (String, Vec<String>) {
    if is_off(filter) {
        return (filter.to_owned(), vec![]);
    }
    let directives = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()).map(str::to_owned);
    let (known, others): (Vec<_>, Vec<_>) = directives.partition(|directive| parse(directive).is_ok());
    (known.join(","), others)
}

impl LogHandle {
    /// Of a process that does not log.
    pub fn off() -> Self {
        Self(None)
    }

    /// The present filter; `None` when logging is off.
    pub fn filter(&self) -> Option<String> {
        self.0.as_ref()?.with_current(ToString::to_string).ok()
    }

    /// # Errors
    /// The filter is malformed, or logging is off.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let handle = self.0.as_ref().ok_or(LogError::Off)?;
        if filter.trim().is_empty() {
            return Err(LogError::Filter("it is empty; off turns logging off".into()));
        }
        handle.reload(parse(filter.trim())?).map_err(|e| LogError::Filter(e.to_string()))
    }
}

fn subscriber<W>(
    filter: &str,
    format: Format,
    out: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, LogHandle), LogError>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(out);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match format {
        Format::Plain => {
            let lines = lines.with_ansi(false).event_format(Plain { start: Instant::now() });
            Box::new(Registry::default().with(lines.with_filter(filter)))
        }
        Format::Json => Box::new(Registry::default().with(lines.json().with_filter(filter))),
    };
    Ok((subscriber, LogHandle(Some(handle))))
}

fn is_off(filter: &str) -> bool {
    filter.trim().eq_ignore_ascii_case("off")
}

/// Directives for `linkerd` mean us as well, so that filters written for Linkerd's proxy do what they say.
fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let mut directives = String::with_capacity(filter.len() * 2);
    for directive in filter.split(',').map(str::trim).filter(|d| !d.is_empty()) {
        // The injector appends these to hide what Linkerd logs of requests. We log none of it, and a filter by span
        // fields costs every log statement.
        if matches!(directive, "[{headers}]=off" | "[{request}]=off") {
            continue;
        }
        // It would be taken for the name of a target, which nobody has, and hide everything.
        if directive.split('[').next().is_some_and(|target| target.contains(char::is_whitespace)) {
            return Err(LogError::Filter(format!("{directive:?} is neither a level nor target=level")));
        }
        if !directives.is_empty() {
            directives.push(',');
        }
        directives.push_str(match directive {
            // Levels of Linkerd's control plane, above ours and by another name; as targets they would be nobody's.
            "fatal" | "panic" => "error",
            "warning" => "warn",
            directive => directive,
        });
        if let Some(rest) = directive.strip_prefix("linkerd").filter(|r| r.is_empty() || r.starts_with('=')) {
            directives.push_str(",weft");
            directives.push_str(rest);
        }
    }
    EnvFilter::try_new(directives).map_err(|e| LogError::Filter(e.to_string()))
}

/// `[     0.012s]  INFO ThreadId(01) outbound: weft_proxy::process: message key=value`
struct Plain {
    start: Instant,
}

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let elapsed = self.start.elapsed();
        let meta = event.metadata();
        write!(out, "[{:>6}.{:06}s] ", elapsed.as_secs(), elapsed.subsec_micros())?;
        write!(out, "{:>5} {:?} ", meta.level(), std::thread::current().id())?;
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(out, "{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|f| !f.is_empty()) {
                write!(out, "{{{fields}}}")?;
            }
            write!(out, ":")?;
        }
        write!(out, " {}: ", meta.target())?;
        ctx.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: Format, f: impl FnOnce(&LogHandle)) -> String {
        let buffer = Buffer::default();
        let out = buffer.clone();
        let (subscriber, handle) = subscriber(filter, format, move || out.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || f(&handle));
        let bytes = buffer.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn plain_lines_have_every_part() {
        let text = logged("info", Format::Plain, |_| {
            let _span = tracing::info_span!("outbound", port = 80).entered();
            tracing::info!(target: "weft_proxy", n = 1, "Hello");
        });
        let (time, rest) = text.split_once("] ").unwrap();
        assert!(time.starts_with('[') && time.ends_with('s'), "{text}");
        assert!(rest.starts_with(" INFO ThreadId("), "{text}");
        assert!(rest.ends_with("outbound{port=80}: weft_proxy: Hello n=1\n"), "{text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged("info", Format::Json, |_| {
            tracing::info!(target: "weft_proxy", n = 1, "Hello");
            tracing::info!("Again");
        });
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|l| l.starts_with('{') && l.ends_with('}')), "{text}");
        assert!(text.contains(r#""level":"INFO""#) && text.contains(r#""message":"Hello""#), "{text}");
    }

    #[test]
    fn linkerds_directives_are_ours_too() {
        let text = logged(&format!("{DEFAULT_FILTER},[{{headers}}]=off,[{{request}}]=off"), Format::Plain, |_| {
            tracing::info!(target: "weft_proxy::process", "ours");
            tracing::info!(target: "h2", "theirs");
            tracing::warn!(target: "h2", "warned");
        });
        assert!(text.contains("ours") && !text.contains("theirs") && text.contains("warned"), "{text}");
    }

    #[test]
    fn linkerds_levels_are_levels() {
        for (filter, shown) in
            [("fatal", "error"), ("panic", "error"), ("warning", "warn"), ("info,panic=off", "info,panic=off")]
        {
            logged("info", Format::Plain, |handle| {
                handle.set(filter).unwrap();
                let now = handle.filter().unwrap();
                assert!(shown.split(',').all(|part| now.split(',').any(|of| of == part)), "{filter}: {now}");
            });
        }
    }

    #[test]
    fn the_filter_changes_while_running() {
        let text = logged("warn", Format::Plain, |handle| {
            tracing::info!("first");
            handle.set("info\n").unwrap();
            tracing::info!("second");
            for bad in ["a=b=c", "lots of nonsense", "warn,in fo", "\n"] {
                assert!(matches!(handle.set(bad), Err(LogError::Filter(_))), "{bad}");
            }
            assert_eq!(handle.filter().as_deref(), Some("info"));
        });
        assert!(!text.contains("first") && text.contains("second"), "{text}");
    }

    #[test]
    fn what_is_no_directive_is_told_from_the_others() {
        let sifted = |filter| {
            let (known, others) = sift(filter);
            (known, others.join(" "))
        };
        let pair = |known: &str, others: &str| (known.to_owned(), others.to_owned());
        assert_eq!(
            sifted("warn, a=b=c,linkerd=info,x y,[{headers}]=off,"),
            pair("warn,linkerd=info,[{headers}]=off", "a=b=c x y")
        );
        assert_eq!(sifted(DEFAULT_FILTER), pair(DEFAULT_FILTER, ""));
        assert_eq!(sifted("a=b=c"), pair("", "a=b=c"));
        assert_eq!(sifted(" OFF"), pair(" OFF", ""));
    }

    #[test]
    fn off_is_off() {
        let handle = init("off", Format::Plain).unwrap();
        assert_eq!(handle.filter(), None);
        assert!(matches!(handle.set("info"), Err(LogError::Off)));
        assert!(check("off").is_ok() && check("info").is_ok() && check("x=y=z").is_err());
    }
}
