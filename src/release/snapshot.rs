//! Release signatures taken along to a site that has no registry: one file, signed by the operator who made it.
//!
//! It is a DSSE envelope around an in-toto statement: its subjects are the images, its predicate holds, for each signature,
//! the bytes of its manifest and of its layer. The envelope says who collected them and until when they may be used; what
//! they prove is judged anew at the site, by its own identities. So the file can leave signatures out, and never add trust.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::digest::Digest;
use super::lookup::Collected;
use super::registry::{MAX_BLOB, MAX_MANIFEST, Manifest, Target};
use super::search::{Found, Via};
use crate::clock::UnixTime;
use crate::dsse::{Envelope, PAYLOAD_TYPE, keyid, pae};
use crate::sigstore::VerifyingKey;
use crate::statement::ReadStatement;
use crate::statement::json::{Document, Field, FieldError, JsonLimits};

/// A snapshot whose signature holds.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was made.
    pub created: UnixTime,
    /// Until when it may be used.
    pub expires: UnixTime,
    signatures: HashMap<Digest, Vec<Found>>,
}

/// A snapshot in a file, read again when the file changes.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    key: VerifyingKey,
    max_age: Duration,
    /// What was in it, or why nothing is believed of it: neither is found out again before the file changes.
    read: Mutex<Option<(Stamp, Content)>>,
}

/// What changes when a file does.
type Stamp = (SystemTime, u64);
type Content = Result<Arc<Snapshot>, Arc<SnapshotError>>;

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system says no.
    #[error("the snapshot {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than any.
    #[error("the snapshot has more than {0} bytes")]
    TooLarge(u64),
    /// Not a snapshot.
    #[error("this is no snapshot of release signatures: {0}")]
    Malformed(String),
    /// Not signed by the pinned key.
    #[error("the snapshot is not signed by the configured key")]
    Signature,
    /// Too old.
    #[error("the snapshot was made at {} and may no longer be used; make a new one with `signerctl release snapshot`", .0.rfc3339())]
    Expired(UnixTime),
    /// Not of this time.
    #[error("the snapshot was made at {}, which has not come yet; set right whichever clock is wrong", .0.rfc3339())]
    Future(UnixTime),
    /// The key cannot sign.
    #[error("{0}")]
    Key(&'static str),
    /// There is no RFC 3339 for such an end.
    #[error("a snapshot cannot be valid beyond the year 9999; give it less time, as in `--valid 30d`")]
    Valid,
    /// No site could use what was made.
    #[error("the snapshot that was made cannot be read back, so that it was not written: {0}; take fewer images along")]
    Unusable(Box<SnapshotError>),
}

impl SnapshotError {
    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired(_) | Self::Future(_) => "release_snapshot_expired",
            _ => "release_snapshot",
        }
    }
}

impl Snapshot {
    /// The signatures that it holds of an image.
    #[must_use]
    pub fn of(&self, image: Digest) -> &[Found] {
        self.signatures.get(&image).map_or(&[], Vec::as_slice)
    }

    /// Images and signatures.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.signatures.len(), self.signatures.values().map(Vec::len).sum())
    }

    pub(super) fn read(envelope: Bytes, key: &VerifyingKey) -> Result<Self, SnapshotError> {
        let malformed = |why: String| SnapshotError::Malformed(why);
        let document = Document::parse(envelope, &LIMITS).map_err(|error| malformed(error.to_string()))?;
        let envelope = Envelope::read(&Field::root(document.root())).map_err(|error| malformed(error.to_string()))?;
        if !key.verifies(&pae(PAYLOAD_TYPE, &envelope.payload), &envelope.signature) {
            return Err(SnapshotError::Signature);
        }
        let statement = ReadStatement::parse(envelope.payload.clone()).map_err(|error| malformed(error.to_string()))?;
        if statement.predicate_type != PREDICATE_TYPE {
            return Err(malformed(format!("its predicate type must be {PREDICATE_TYPE}")));
        }
        let document = Document::parse(envelope.payload, &LIMITS).map_err(|error| malformed(error.to_string()))?;
        let root = Field::root(document.root());
        let predicate = root.member("predicate").ok_or_else(|| malformed("it has no predicate".to_owned()))?;
        read_predicate(&predicate).map_err(|error| malformed(error.to_string()))
    }

    /// Makes the envelope: `signatures` of images, good until `expires`, signed with an ECDSA key on P-256 in PEM
    /// (PKCS#8 or SEC1). What was made is read back as a site would, since a file that no site can use is noticed there only
    /// when it is needed.
    pub(super) fn write(
        signatures: &[(Digest, Collected)],
        created: UnixTime,
        expires: UnixTime,
        key_pem: &[u8],
    ) -> Result<String, SnapshotError> {
        let wrong = SnapshotError::Key("the key must be an ECDSA key on P-256 in PEM (PKCS#8 or SEC1)");
        let der = PrivateKeyDer::from_pem_slice(key_pem).ok();
        let pair = der
            .and_then(|der| EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_der()).ok());
        let Some(pair) = pair else { return Err(wrong) };
        if jiff::Timestamp::from_second(expires.0).is_err() {
            return Err(SnapshotError::Valid);
        }
        let images: BTreeSet<String> = signatures.iter().map(|(image, _)| image.hex()).collect();
        let subjects: Vec<_> = images.iter().map(|hex| json!({ "digest": { "sha256": hex } })).collect();
        let signature = |(image, Collected { found, found_in, .. }): &(Digest, Collected)| {
            let mut entry = json!({
                "image": image.to_string(),
                "foundIn": &**found_in,
                "via": found.via.name(),
                "manifest": BASE64_STANDARD.encode(&found.manifest.bytes),
                "layer": found.layer,
                "content": BASE64_STANDARD.encode(&found.blob),
            });
            if let Some(Target { size, media_type }) = &found.target {
                entry["target"] = json!({ "size": size, "mediaType": media_type });
            }
            entry
        };
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "created": created.rfc3339(),
                "expires": expires.rfc3339(),
                "signatures": signatures.iter().map(signature).collect::<Vec<_>>(),
            },
        });
        let payload = statement.to_string();
        let made = pair
            .sign(&SystemRandom::new(), &pae(PAYLOAD_TYPE, payload.as_bytes()))
            .map_err(|_| SnapshotError::Key("the key could not be used to sign"))?;
        let point: &[u8; 65] =
            pair.public_key().as_ref().try_into().map_err(|_| SnapshotError::Key("the key is not on P-256"))?;
        let envelope = json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": BASE64_STANDARD.encode(&payload),
            "signatures": [{ "keyid": keyid(point), "sig": BASE64_STANDARD.encode(made) }],
        });
        let text = format!("{envelope:#}\n");
        let read = || {
            if text.len() as u64 > MAX_FILE {
                return Err(SnapshotError::TooLarge(MAX_FILE));
            }
            let spki = pair.public_key().as_der().map_err(|_| SnapshotError::Signature)?;
            let key = VerifyingKey::from_spki(spki.as_ref()).ok_or(SnapshotError::Signature)?;
            Self::read(Bytes::copy_from_slice(text.as_bytes()), &key)
        };
        let read = read().map_err(|error| SnapshotError::Unusable(Box::new(error)))?;
        if (read.created, read.expires, read.size()) != (created, expires, (images.len(), signatures.len())) {
            let why = "it says something else than what was collected".to_owned();
            return Err(SnapshotError::Unusable(Box::new(SnapshotError::Malformed(why))));
        }
        Ok(text)
    }
}

/// Of the signatures of one image those that are taken along. One suffices the site; others are there in case that it trusts
/// other identities. So each identity has its turn before any has another: whoever may push can attach copies of a
/// signature that counts, without end.
pub(super) fn worth_taking(collected: Vec<Collected>) -> Vec<Collected> {
    let mut seen = HashSet::new();
    let (mut first, others): (Vec<_>, Vec<_>) =
        collected.into_iter().partition(|one| seen.insert(Arc::clone(&one.identity)));
    first.extend(others);
    first.truncate(MAX_OF_IMAGE);
    first
}

fn read_predicate(predicate: &Field<'_>) -> Result<Snapshot, FieldError> {
    let fields = predicate.object(&["created", "expires", "signatures"])?;
    let moment = |name: &str| -> Result<UnixTime, FieldError> {
        let field = fields.required(name, "a moment")?;
        let text = field.text(64, "a moment")?;
        let moment: jiff::Timestamp = text.parse().map_err(|_| field.wrong("must be RFC 3339"))?;
        Ok(UnixTime(moment.as_second()))
    };
    let mut snapshot =
        Snapshot { created: moment("created")?, expires: moment("expires")?, signatures: HashMap::new() };
    for signature in fields.required("signatures", "an array")?.elements(0..=MAX_SIGNATURES, "signatures")? {
        let fields = signature.object(&["image", "foundIn", "via", "manifest", "layer", "content", "target"])?;
        let text =
            |name: &'static str, max| fields.required(name, name)?.text(max, name).map(std::borrow::Cow::into_owned);
        let wrong = |name: &str, why: &str| signature.wrong(format!("`{name}` {why}"));
        let bytes = |name: &'static str, max: usize| -> Result<Bytes, FieldError> {
            let decoded =
                BASE64_STANDARD.decode(text(name, max / 3 * 4 + 4)?).map_err(|_| wrong(name, "is no base64"))?;
            Ok(decoded.into())
        };
        let image: Digest = text("image", 128)?.parse().map_err(|_| wrong("image", "is no digest"))?;
        let via = Via::of_name(&text("via", 32)?).ok_or_else(|| wrong("via", "is none of those that there are"))?;
        let manifest =
            Manifest::parse(bytes("manifest", MAX_MANIFEST)?).map_err(|error| wrong("manifest", &error.to_string()))?;
        let layer = fields.required("layer", "a number")?.node().as_u64().and_then(|layer| usize::try_from(layer).ok());
        let layer = layer.filter(|layer| *layer < manifest.layers.len());
        let layer = layer.ok_or_else(|| wrong("layer", "is none of the manifest's"))?;
        let blob = bytes("content", MAX_BLOB)?;
        if Digest::of(&blob) != manifest.layers[layer].digest {
            return Err(wrong("content", "has another digest than the manifest says"));
        }
        // As for what comes from a registry; cosign's tag names the image by itself.
        if via != Via::SignatureTag && manifest.subject != Some(image) {
            return Err(wrong("manifest", "is attached to another image"));
        }
        let target = fields.optional("target").map(|target| read_target(&target)).transpose()?;
        let found = Found { via, manifest: Arc::new(manifest), layer, blob, target };
        snapshot.signatures.entry(image).or_default().push(found);
    }
    Ok(snapshot)
}

/// The image as it was in the repository, for signatures that are compared with it.
fn read_target(target: &Field<'_>) -> Result<Target, FieldError> {
    let fields = target.object(&["size", "mediaType"])?;
    let size = fields.required("size", "a number")?;
    let size = size.node().as_u64().ok_or_else(|| size.wrong("must be a number of bytes"))?;
    let media_type = fields.required("mediaType", "a media type")?.text(256, "a media type")?.into_owned();
    Ok(Target { size, media_type })
}

impl SnapshotFile {
    pub(super) fn new(path: &Path, key: VerifyingKey, max_age: Duration) -> Self {
        Self { path: path.to_owned(), key, max_age, read: Mutex::default() }
    }

    /// The snapshot as it is in the file now, and until when it may be used: as it says itself, and no longer than the site
    /// lets any.
    ///
    /// # Errors
    /// [`SnapshotError`]; one that cannot be used is not replaced by an older one.
    pub(super) fn current(&self, now: UnixTime) -> Result<(Arc<Snapshot>, UnixTime), Arc<SnapshotError>> {
        let unread = |source| SnapshotError::Read { path: self.path.clone(), source };
        let metadata = fs::metadata(&self.path).map_err(unread)?;
        if metadata.len() > MAX_FILE {
            return Err(SnapshotError::TooLarge(MAX_FILE).into());
        }
        let stamp = (metadata.modified().map_err(unread)?, metadata.len());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = match &*read {
            Some((known, read)) if *known == stamp => read.clone()?,
            _ => {
                let bytes = fs::read(&self.path).map_err(unread)?;
                let snapshot = Snapshot::read(bytes.into(), &self.key).map(Arc::new).map_err(Arc::new);
                *read = Some((stamp, snapshot.clone()));
                snapshot?
            }
        };
        if snapshot.created > now.plus(SKEW) {
            return Err(SnapshotError::Future(snapshot.created).into());
        }
        let ends = snapshot.expires.min(snapshot.created.plus(self.max_age));
        if now > ends {
            return Err(SnapshotError::Expired(snapshot.created).into());
        }
        Ok((snapshot, ends))
    }
}

/// What the statement in a snapshot says of its images.
pub const PREDICATE_TYPE: &str = "https://stella-ops.org/attestations/release-snapshot/1";

/// A thousand images, since a statement has as many subjects, with several signatures each.
const MAX_SIGNATURES: usize = 8192;

/// Signatures of one image that are taken along.
const MAX_OF_IMAGE: usize = 4;
const MAX_FILE: u64 = 128 << 20;
const SKEW: Duration = Duration::from_secs(60);
const LIMITS: JsonLimits = JsonLimits { max_depth: 32, max_values: 1 << 20 };

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn image() -> Digest {
        Digest::of(b"image")
    }

    fn collected(identity: &str, layers: usize, blob: &'static [u8]) -> Collected {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = |digest: Digest| json!({ "mediaType": kind, "digest": digest.to_string(), "size": 1 });
        let manifest = json!({
            "schemaVersion": 2, "subject": descriptor(image()), "layers": vec![descriptor(Digest::of(blob)); layers],
        });
        let manifest = Arc::new(Manifest::parse(manifest.to_string().into()).unwrap());
        let found = Found { via: Via::Referrers, manifest, layer: 0, blob: blob.into(), target: None };
        Collected { found, found_in: "registry".into(), identity: identity.into() }
    }

    fn write(signatures: Vec<Collected>, lasts: Duration, key: &rcgen::KeyPair) -> Result<String, SnapshotError> {
        let signatures: Vec<_> = signatures.into_iter().map(|one| (image(), one)).collect();
        Snapshot::write(&signatures, NOW, NOW.plus(lasts), key.serialize_pem().as_bytes())
    }

    fn file_of(text: &str, key: &rcgen::KeyPair, max_age: Duration) -> (tempfile::TempDir, SnapshotFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.json");
        fs::write(&path, text).unwrap();
        let key = VerifyingKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(key)).unwrap();
        let file = SnapshotFile::new(&path, key, max_age);
        (directory, file)
    }

    #[test]
    fn a_snapshot_ends_as_it_says_and_no_later_than_the_site_lets_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let text = write(vec![collected("a", 1, b"x")], DAY, &key).unwrap();
        for (max_age, ends) in [(HOUR, NOW.plus(HOUR)), (DAY * 2, NOW.plus(DAY))] {
            let (_directory, file) = file_of(&text, &key, max_age);
            for now in [NOW, ends] {
                let (snapshot, until) = file.current(now).unwrap();
                assert_eq!((snapshot.of(image()).len(), until), (1, ends));
            }
            let late = file.current(ends.plus(Duration::from_secs(1))).unwrap_err();
            assert!(matches!(*late, SnapshotError::Expired(NOW)), "{late}");
        }
    }

    #[test]
    fn what_is_taken_of_one_image_is_bounded_and_each_identity_has_its_turn() {
        let names = |all: Vec<Collected>| all.iter().map(|one| one.identity.to_string()).collect::<Vec<_>>();
        let of = |list: &[&str]| worth_taking(list.iter().map(|name| collected(name, 1, b"x")).collect());
        assert_eq!(names(of(&["a", "a", "b"])), ["a", "b", "a"]);
        assert_eq!(names(of(&["a", "a", "a", "a", "a", "a", "b", "c"])), ["a", "b", "c", "a"]);
    }

    #[test]
    fn an_end_that_no_site_can_read_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        for lasts in [Duration::from_secs(300_000_000_000), Duration::MAX] {
            let refused = write(vec![collected("a", 1, b"x")], lasts, &key).unwrap_err();
            assert!(matches!(refused, SnapshotError::Valid), "{refused}");
            assert!(refused.to_string().contains("--valid"), "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        let key = rcgen::KeyPair::generate().unwrap();
        // A layer that is none of the manifest's, one of another digest, more signatures than a site reads.
        let mut beyond = collected("a", 1, b"x");
        beyond.found.layer = 1;
        let mut other = collected("a", 1, b"x");
        other.found.blob = Bytes::from_static(b"y");
        let many = (0..=MAX_SIGNATURES).map(|_| collected("a", 1, b"x")).collect();
        for wrong in [vec![beyond], vec![other], many] {
            let refused = write(wrong, DAY, &key).unwrap_err();
            assert!(matches!(refused, SnapshotError::Unusable(_)), "{refused}");
        }
    }

    #[test]
    fn why_a_snapshot_is_not_used_is_found_out_once() {
        let key = rcgen::KeyPair::generate().unwrap();
        let text = write(vec![collected("a", 1, b"x")], DAY, &key).unwrap();
        let (_directory, file) = file_of(&text, &rcgen::KeyPair::generate().unwrap(), DAY);
        let (first, again) = (file.current(NOW).unwrap_err(), file.current(NOW).unwrap_err());
        assert!(matches!(*first, SnapshotError::Signature), "{first}");
        assert!(Arc::ptr_eq(&first, &again));
        fs::write(&file.path, "something else").unwrap();
        assert!(matches!(*file.current(NOW).unwrap_err(), SnapshotError::Malformed(_)), "it is read when it changes");
    }
}
