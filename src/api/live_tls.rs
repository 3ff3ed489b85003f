//! The TLS of the Signer API in force, replaced when one of its files is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::tls::{MadeOf, ServerTls, TlsError, server_tls};
use crate::audit::{AuditLog, Detail, Record};
use crate::config::Tls;
use crate::live_file::FileState;
use crate::telemetry::{Metrics, alert};

/// What handshakes are made with, from the files of `[server.tls]`.
pub(crate) struct LiveTls {
    settings: Tls,
    in_force: ArcSwap<ServerTls>,
    files: Mutex<Files>,
    /// Changes when other clients are trusted than before.
    trust: watch::Sender<()>,
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// They are those judged last.
    Unchanged,
    /// Certificate or key was written anew.
    Replaced,
    /// Client CAs or revocation lists were: connections made under the old ones end.
    TrustReplaced,
}

struct Files {
    /// Of all files, when they were judged last, whether or not they were taken.
    judged: Vec<State>,
    /// Of client CAs and revocation lists, when they were taken into force.
    trusted: Vec<State>,
}

/// `None` for a file that is not there.
type State = Option<FileState>;

impl LiveTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the key and the file at fault.
    pub(crate) fn open(settings: &Tls) -> Result<Self, TlsError> {
        let files = Files { judged: states(all(settings)), trusted: states(trusted(settings)) };
        let first = server_tls(settings)?;
        Ok(Self {
            settings: settings.clone(),
            in_force: ArcSwap::from_pointee(first),
            files: Mutex::new(files),
            trust: watch::Sender::new(()),
        })
    }

    /// Other settings are in force, by which other clients are trusted: connections made under these end.
    pub(crate) fn distrust(&self) {
        self.trust.send_replace(());
    }

    /// For the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().config)
    }

    /// Tells when other clients are trusted than now. To be asked for before [`config`](Self::config).
    pub(super) fn trust(&self) -> watch::Receiver<()> {
        self.trust.subscribe()
    }

    /// Looks whether a file has changed, and if so, takes all of them into force together. What was judged and refused is
    /// not judged again until something changes.
    ///
    /// # Errors
    /// [`TlsError`]; what is in force stays.
    pub(crate) fn refresh(&self) -> Result<Looked, TlsError> {
        // Held throughout: two looks at once could otherwise put older files after newer ones.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (judged, trusted) = (states(all(&self.settings)), states(trusted(&self.settings)));
        if files.judged == judged {
            return Ok(Looked::Unchanged);
        }
        files.judged = judged;
        self.in_force.store(Arc::new(server_tls(&self.settings)?));
        if files.trusted == trusted {
            return Ok(Looked::Replaced);
        }
        files.trusted = trusted;
        self.trust.send_replace(());
        Ok(Looked::TrustReplaced)
    }

    /// Calls [`refresh`](Self::refresh) every second, for ever, logs and records what comes of it, and keeps the metrics.
    pub(crate) async fn watch(self: Arc<Self>, metrics: &Metrics, audit: &AuditLog) {
        let mut owed = true;
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let in_force = self.in_force.load_full();
            metrics.certificate_expiry("server", in_force.certificate_expires.0);
            if let Some(next_update) = in_force.lists_end {
                metrics.client_crl_next_update(next_update.0);
            }
            if owed {
                owed = !recorded(audit, "tls_in_force", &in_force.made_of.details()).await;
            }
            ticks.tick().await;
            let this = Arc::clone(&self);
            let Ok(looked) = tokio::task::spawn_blocking(move || this.refresh()).await else { continue };
            owed |= match looked {
                Ok(Looked::Unchanged) => false,
                Ok(Looked::Replaced) => {
                    tracing::info!("a new server certificate is in force");
                    true
                }
                Ok(Looked::TrustReplaced) => {
                    tracing::warn!(name: alert::CLIENT_TRUST_REPLACED, "new client CAs or revocation lists are in force; open connections end");
                    true
                }
                Err(error) => {
                    tracing::error!(
                        name: alert::TLS_FILES_REFUSED, %error,
                        "the files of [server.tls] were not taken; those in force stay"
                    );
                    recorded(audit, "tls_refused", &[("detail", Detail::Text(&error.to_string()))]).await;
                    false
                }
            };
        }
    }
}

impl MadeOf {
    fn details(&self) -> [(&'static str, Detail<'_>); 3] {
        [
            ("certificateSha256", Detail::Text(&self.certificate)),
            ("clientCaSha256", Detail::List(&self.client_ca)),
            ("clientCrlSha256", Detail::List(&self.client_crl)),
        ]
    }
}

/// Whether the disk has taken it. Not waited for any longer: the next list that revokes somebody does not wait for a disk
/// that hangs. The log says for itself that it fails, and nothing is signed while it does.
async fn recorded(audit: &AuditLog, event: &'static str, details: &[(&'static str, Detail<'_>)]) -> bool {
    let appended = tokio::time::timeout(PATIENCE, audit.append(&Record::Event { event, details }));
    appended.await.is_ok_and(|taken| taken.is_ok())
}

fn all(settings: &Tls) -> impl Iterator<Item = &Path> {
    [&*settings.certificate, &*settings.private_key].into_iter().chain(trusted(settings))
}

fn trusted(settings: &Tls) -> impl Iterator<Item = &Path> {
    std::iter::once(&*settings.client_ca).chain(settings.client_crl.iter().map(|path| &**path))
}

fn states<'p>(paths: impl Iterator<Item = &'p Path>) -> Vec<State> {
    paths.map(|path| std::fs::metadata(path).ok().map(|found| FileState::of(&found))).collect()
}

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(500);
