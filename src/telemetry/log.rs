//! Operational logs: for the operator at night. What must never be lost is in the audit log instead.

use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::journal::Journal;
use crate::config::{Log, LogTarget};

/// Sets up the process's logs. `[log] filter` wins over the environment variable `SIGNER_LOG`, which wins over `info`.
///
/// # Errors
/// When the filter is wrong, journald was asked for and is not there, or logs are set up already.
pub fn init(config: &Log) -> Result<(), LogError> {
    let filter = filter(config, std::env::var("SIGNER_LOG").ok())?;
    let layer = match config.target {
        LogTarget::Auto if stderr_is_journal() => journald().unwrap_or_else(|_| text(io::stderr, false)),
        LogTarget::Auto | LogTarget::Text => text(io::stderr, io::stderr().is_terminal()),
        LogTarget::Journald => journald().map_err(LogError::Journald)?,
        LogTarget::Json => json(io::stderr),
    };
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(LogError::Twice)?;
    // Nobody else sets it: logs can be set up only once.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Has the filter of `config` in force from now on, where logs were set up. Where they go stays.
///
/// # Errors
/// When the filter is wrong; the one in force stays.
pub fn refilter(config: &Log) -> Result<(), LogError> {
    let filter = filter(config, std::env::var("SIGNER_LOG").ok())?;
    FILTER.get().map_or(Ok(()), |handle| handle.reload(filter).map_err(LogError::Reload))
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("`{filter}` is no log filter ({source}); write one like `info,stellaops_signer::auth=debug`")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is no journal to write to.
    #[error("journald cannot be reached ({0}); set [log] target to \"text\" or \"json\"")]
    Journald(#[source] io::Error),
    /// Somebody was quicker.
    #[error("logs are set up already: {0}")]
    Twice(#[source] TryInitError),
    /// They are gone.
    #[error("the filter cannot be replaced: {0}")]
    Reload(#[source] reload::Error),
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

fn filter(config: &Log, environment: Option<String>) -> Result<EnvFilter, LogError> {
    let filter = config.filter.clone().or(environment).unwrap_or_else(|| "info".to_owned());
    EnvFilter::try_new(&filter).map_err(|source| LogError::Filter { filter, source })
}

fn text<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(writer: W, colours: bool) -> Output {
    tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).boxed()
}

fn json<W: for<'w> MakeWriter<'w> + Send + Sync + 'static>(writer: W) -> Output {
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
    layer.with_current_span(false).with_span_list(false).with_writer(writer).boxed()
}

fn journald() -> io::Result<Output> {
    Ok(Journal::open()?.boxed())
}

/// Whether systemd connected standard error to the journal: `JOURNAL_STREAM` names its device and inode
/// (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    std::fs::metadata(Path::new("/proc/self/fd/2")).is_ok_and(|file| names(&stream, file.dev(), file.ino()))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(layer: impl Fn(Memory) -> Output, filter: &str) -> String {
        let memory = Memory::default();
        let output = layer(memory.clone()).with_filter(EnvFilter::try_new(filter).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(output), || {
            tracing::warn!(token = "main", attempt = 2, "the token\x1b[2J does not answer");
            tracing::debug!("not at this level");
        });
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_logs_are_one_flat_object_a_line() {
        let text = written(|memory| json(move || memory.clone()), "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["token"], "main");
        assert_eq!(line["attempt"], 2);
        assert!(line["timestamp"].is_string() && line["message"].as_str().unwrap().starts_with("the token"));
    }

    #[test]
    fn text_logs_carry_no_escapes_to_the_terminal() {
        let written = written(|memory| text(move || memory.clone(), false), "info");
        assert!(
            written.contains("WARN") && written.contains("token=\"main\"") && !written.contains('\x1b'),
            "{written:?}"
        );
    }

    #[test]
    fn the_filter_of_the_configuration_wins_over_the_environment() {
        let config = |filter: Option<&str>| Log { filter: filter.map(str::to_owned), target: LogTarget::Text };
        let chosen = |filter, environment: Option<&str>| {
            super::filter(&config(filter), environment.map(str::to_owned)).map(|f| f.to_string())
        };
        assert_eq!(chosen(Some("warn"), Some("trace")).unwrap(), "warn");
        assert_eq!(chosen(None, Some("trace")).unwrap(), "trace");
        assert_eq!(chosen(None, None).unwrap(), "info");
        assert!(chosen(Some("a=loud"), None).unwrap_err().to_string().contains("`a=loud` is no log filter"));
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(names("8:4711", 8, 4711));
        for other in ["", "8", "8:4712", "9:4711", "8:x", ":"] {
            assert!(!names(other, 8, 4711), "{other}");
        }
    }
}
