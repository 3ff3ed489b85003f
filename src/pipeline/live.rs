//! The appliance in force, and what becomes of it when its configuration is read anew.
//!
//! A reload is a transaction. The new configuration is read and judged as at a start, an appliance is assembled from it
//! beside the one in force, and its keys and tokens are looked at; only when it can do what the present one can, and the
//! log has the record, does it take over, between two requests. Whatever is in progress ends with the appliance that it
//! began with. What is wrong on the way leaves everything as it was.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Appliance;
use super::assembly::Standing;
use crate::audit::{Detail, Record};
use crate::config::{self, ConfigError, ConfigErrors, Loaded, Viewer};
use crate::custody::token::explain;
use crate::telemetry::{alert, log, manager};

/// Whoever serves a request asks for the appliance [`now`](Self::now) and keeps it to the request's end.
pub(crate) struct Live {
    now: ArcSwap<Appliance>,
    file: PathBuf,
    standing: Standing,
    /// What is in force, as it was read.
    loaded: Mutex<Loaded>,
    /// Held while one reload is under way.
    turn: tokio::sync::Mutex<()>,
}

/// A reload that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    /// Of the configuration in force now: SHA-256, in hexadecimal.
    pub(crate) digest: String,
    /// Whether it says anything else than before.
    pub(crate) changed: bool,
    /// The tokens whose workers go by what was there before, until they are started anew.
    pub(crate) workers_behind: Vec<String>,
}

/// Why the configuration in force is still the old one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// It does not parse, or not fit, or changes what only a start can change. Each line names file, line and key.
    #[error("{0}")]
    Config(ConfigErrors),
    /// A part cannot be made from it.
    #[error("{0}")]
    Assembly(String),
    /// It takes away what works.
    #[error("with it {0}; what works now is kept. A restart would take it into force all the same")]
    Worse(String),
    /// It would be a change that no auditor hears of.
    #[error("the change cannot be recorded in the audit log: {0}")]
    NotRecorded(String),
}

impl Live {
    /// The first appliance, not tended yet.
    ///
    /// # Errors
    /// As [`Appliance::assemble`].
    pub(crate) fn new(
        file: PathBuf,
        loaded: Loaded,
        standing: Standing,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let first = Appliance::assemble(loaded.clone(), &standing, None)?;
        Ok(Self {
            now: ArcSwap::from_pointee(first),
            file,
            standing,
            loaded: Mutex::new(loaded),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// What is in force.
    pub(crate) fn now(&self) -> Arc<Appliance> {
        self.now.load_full()
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Of the configuration in force.
    pub(crate) fn digest(&self) -> String {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).digest()
    }

    /// Reads the configuration anew and takes it into force, or leaves everything as it is. Tells the journal, the service
    /// manager, the audit log and the metrics which of the two, `by` whom it was asked for.
    ///
    /// # Errors
    /// [`ReloadError`]: the old configuration is in force.
    pub(crate) async fn reload(&self, by: &'static str) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        manager::reloading();
        let done = self.replace(by).await;
        match &done {
            Ok(reloaded) => {
                self.standing.metrics.reload(true);
                tracing::info!(
                    name: alert::CONFIGURATION_RELOADED, by, digest = reloaded.digest, changed = reloaded.changed,
                    "the configuration was read anew and is in force"
                );
            }
            Err(error) => {
                tracing::error!(
                    name: alert::CONFIGURATION_REFUSED, by,
                    "the configuration was not taken, the old one stays in force: {error}"
                );
                // Counted once it is on record, as one that is taken.
                self.record_refusal(by, error).await;
                self.standing.metrics.reload(false);
            }
        }
        manager::ready(&match &done {
            Ok(_) => self.now().readiness().in_words(),
            Err(error) => format!("reload refused, the old configuration is in force: {}", first_line(error)),
        });
        done
    }

    async fn replace(&self, by: &'static str) -> Result<Reloaded, ReloadError> {
        let (old, before) = (self.now(), self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let (file, standing, last) = (self.file.clone(), self.standing.clone(), before.clone());
        let assembled = tokio::task::spawn_blocking({
            let old = Arc::clone(&old);
            move || {
                let loaded = config::open(&file).map_err(ReloadError::Config)?;
                loaded.check_files(Viewer::Front).map_err(ReloadError::Config)?;
                unchanged_where_it_must(&loaded, &last).map_err(ReloadError::Config)?;
                let new = Appliance::assemble(loaded.clone(), &standing, Some(&old));
                Ok((new.map_err(|error| ReloadError::Assembly(explain(&*error)))?, loaded))
            }
        });
        let (new, loaded) = assembled.await.map_err(|error| ReloadError::Assembly(error.to_string()))??;
        new.tend(&self.standing.background);
        warm_up(&new, &old).await?;

        let digest = loaded.digest();
        let details = [("by", Detail::Text(by)), ("sha256", Detail::Text(&digest))];
        let recorded =
            self.standing.audit.append(&Record::Event { event: "configuration_reloaded", details: &details });
        recorded.await.map_err(|error| ReloadError::NotRecorded(error.to_string()))?;

        if let Err(error) = log::refilter(&new.config.log) {
            tracing::error!(%error, "the log's filter stays as it was");
        }
        self.standing.bodies.set_limit(new.config.server.limits.max_body_bytes_in_flight.get());
        let same = |key: &str| before.same(&loaded, &["server", "tls", key]);
        let trusts_others = !same("client_ca") || !same("client_crl");
        self.now.store(Arc::new(new));
        if trusts_others {
            old.tls.distrust();
        }
        let workers_behind = workers_behind(&loaded, &before);
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(Reloaded { changed: before.digest() != digest, digest, workers_behind })
    }

    async fn record_refusal(&self, by: &'static str, why: &ReloadError) {
        let why: String = why.to_string().chars().take(MAX_DETAIL).collect();
        let details = [("by", Detail::Text(by)), ("detail", Detail::Text(&why))];
        let record = Record::Event { event: "configuration_refused", details: &details };
        if let Err(error) = self.standing.audit.append(&record).await {
            tracing::error!(%error, "that the configuration was refused could not be recorded");
        }
    }
}

/// What only a start can change, because it is done once or must not be forgotten.
fn unchanged_where_it_must(new: &Loaded, old: &Loaded) -> Result<(), ConfigErrors> {
    let changed = FIXED.iter().filter(|path| !new.same(old, path));
    let errors = changed.map(|path| ConfigError {
        origin: new.origin(path),
        key: path.join("."),
        message: "it cannot change while signerd runs; take it back, or restart: `systemctl restart signerd` refuses \
                  nobody"
            .to_owned(),
    });
    match errors.collect::<Vec<_>>() {
        errors if errors.is_empty() => Ok(()),
        errors => Err(ConfigErrors(errors)),
    }
}

/// Workers read the configuration when they start.
fn workers_behind(new: &Loaded, old: &Loaded) -> Vec<String> {
    let known = new.config.tokens.keys().filter(|name| old.config.tokens.contains_key(*name));
    let behind = |name: &&String| {
        let of_key = |key: &str| !new.same(old, &["keys", key, "custody_exception"]);
        let mut keys = new.config.keys.iter().filter(|(_, key)| key.in_token(name).is_some());
        !new.same(old, &["tokens", name]) || keys.any(|(key, _)| of_key(key))
    };
    known.filter(behind).cloned().collect()
}

/// Waits until the new appliance can do what the old one does.
async fn warm_up(new: &Appliance, old: &Appliance) -> Result<(), ReloadError> {
    let deadline = tokio::time::Instant::now() + WARM_UP;
    loop {
        match new.shortfall(old) {
            None => return Ok(()),
            Some(lost) if tokio::time::Instant::now() >= deadline => return Err(ReloadError::Worse(lost)),
            Some(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn first_line(error: &ReloadError) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

/// Bound at the start, opened once, or what a memory was made for: were the last two changed, a proof could be used twice.
const FIXED: &[&[&str]] = &[
    &["server", "listen"],
    &["server", "local_listen"],
    &["server", "threads"],
    &["audit"],
    &["log", "target"],
    &["authority", "clock_skew"],
    &["authority", "dpop"],
];
/// Sessions with a token, keys of an Authority: seconds where something is slow.
const WARM_UP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// Of a record's detail.
const MAX_DETAIL: usize = 2000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("signer.toml");
        std::fs::write(&file, text).unwrap();
        config::open(&file).unwrap()
    }

    #[test]
    fn what_only_a_start_can_change_is_named_with_its_line() {
        let example = include_str!("../../docs/signer.example.toml");
        let old = read(example);
        assert_eq!(unchanged_where_it_must(&read(&format!("# more\n{example}")), &old), Ok(()));
        let text = example.replace("listen = \"0.0.0.0:8443\"", "listen = \"0.0.0.0:8444\"");
        let new = read(&text.replacen("#clock_skew = \"30s\"", "clock_skew = \"31s\"", 1));
        let errors = unchanged_where_it_must(&new, &old).unwrap_err().0;
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["server.listen", "authority.clock_skew"]);
        assert!(errors.iter().all(|error| error.origin.line > 10 && error.message.contains("restart")), "{errors:?}");
    }

    #[test]
    fn the_workers_that_must_be_started_anew_are_named() {
        let example = include_str!("../../docs/signer.example.toml");
        let old = read(example);
        assert_eq!(workers_behind(&read(&example.replace("qps = 100", "qps = 99")), &old), [""; 0]);
        let sessions = example.replacen("#sessions = 4", "sessions = 3", 1);
        assert_eq!(workers_behind(&read(&sessions), &old), ["main"]);
    }

    #[test]
    fn the_service_manager_has_one_line_for_it() {
        assert_eq!(first_line(&ReloadError::Assembly("a".into())), "a");
        assert_eq!(first_line(&ReloadError::Assembly("a\nb\nc".into())), "a (and 2 more)");
    }
}
