//! Linkerd's flags for logs, which all helpers with logs share.

use clap::{Args, ValueEnum};

#[derive(Args)]
pub(crate) struct LogFlags {
    /// What is told.
    #[arg(long, default_value = "info")]
    log_level: Level,
    /// How it is told.
    #[arg(long, default_value = "plain")]
    log_format: Format,
}

/// The levels of Linkerd's helpers; ours has none above error.
#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Trace,
    Debug,
    Info,
    #[value(alias = "warning")]
    Warn,
    #[value(aliases = ["fatal", "panic"])]
    Error,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    #[value(alias = "text")]
    Plain,
    Json,
}

pub(crate) fn init(flags: &LogFlags) -> anyhow::Result<()> {
    let level = match flags.log_level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let format = match flags.log_format {
        Format::Plain => weft_telemetry::logs::Format::Plain,
        Format::Json => weft_telemetry::logs::Format::Json,
    };
    weft_telemetry::logs::init(level, format)?;
    Ok(())
}
