//! What comes out of TLS, taken where it is decrypted. rustls would keep each record in a buffer of its own, which is
//! freed and not wiped; so the records of an answer that is a secret never get there: behind the tap they are empty.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::{CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls13CipherSuite};
use zeroize::Zeroizing;

/// Where the application data of one connection at a time runs to.
#[derive(Debug)]
pub(super) struct Tap {
    /// Of a fixed capacity, so that it never moves; `None` while nobody listens.
    sink: Mutex<Option<Zeroizing<Vec<u8>>>>,
    most: usize,
}

/// The right to what runs out. Dropped, it is wiped.
pub(super) struct Listening(&'static Tap);

impl Tap {
    /// Cryptography for TLS 1.3 whose application data runs into the tap that comes with it. Both last as long as the
    /// process: one is made for each configured endpoint.
    pub(super) fn provider(most: usize) -> (Arc<CryptoProvider>, &'static Self) {
        let tap: &'static Self = Box::leak(Box::new(Self { sink: Mutex::new(None), most }));
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let tapped = |suite: &SupportedCipherSuite| suite.tls13().map(|suite| tapped(suite, tap));
        provider.cipher_suites = provider.cipher_suites.iter().filter_map(tapped).collect();
        (Arc::new(provider), tap)
    }

    /// Listens to the next connection. One at a time: whoever listened before hears nothing more.
    pub(super) fn listen(&'static self) -> Listening {
        *self.lock() = Some(Zeroizing::new(Vec::with_capacity(self.most)));
        Listening(self)
    }

    fn take_in(&self, data: &[u8]) -> Result<(), Error> {
        match &mut *self.lock() {
            Some(sink) if sink.len() + data.len() <= self.most => {
                sink.extend_from_slice(data);
                Ok(())
            }
            _ => Err(Error::General("the answer is larger than what is read".to_owned())),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Zeroizing<Vec<u8>>>> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// All that ran out.
    pub(super) fn heard(&self) -> Zeroizing<Vec<u8>> {
        self.0.lock().take().unwrap_or_default()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

fn tapped(suite: &'static Tls13CipherSuite, tap: &'static Tap) -> SupportedCipherSuite {
    let algorithm: &'static TappedAlgorithm = Box::leak(Box::new(TappedAlgorithm { plain: suite.aead_alg, tap }));
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { ..suite.common },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: algorithm,
        quic: None,
    })))
}

struct TappedAlgorithm {
    plain: &'static dyn Tls13AeadAlgorithm,
    tap: &'static Tap,
}

impl Tls13AeadAlgorithm for TappedAlgorithm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.plain.encrypter(key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(TappedDecrypter { plain: self.plain.decrypter(key, iv), tap: self.tap })
    }

    fn key_len(&self) -> usize {
        self.plain.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.plain.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.plain.fips()
    }
}

struct TappedDecrypter {
    plain: Box<dyn MessageDecrypter>,
    tap: &'static Tap,
}

impl MessageDecrypter for TappedDecrypter {
    /// Decrypts where the record lies, which is in the caller's own buffer.
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let message = self.plain.decrypt(message, sequence)?;
        if message.typ != ContentType::ApplicationData {
            return Ok(message);
        }
        self.tap.take_in(message.payload)?;
        Ok(InboundPlainMessage { payload: &[], ..message })
    }
}
