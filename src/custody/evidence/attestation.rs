//! A device's own word for a key: certificates, judged offline against a root that the auditor has pinned.

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::custody::PublicKey;

/// What is wrong with an attestation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// Not X.509.
    #[error("certificate {0} of the chain is no X.509 certificate")]
    Form(usize),
    /// The leaf is for another key.
    #[error("the first certificate is for another key")]
    OtherKey,
    /// A link of the chain does not hold.
    #[error("certificate {0} of the chain was not signed by the next one")]
    NotSignedByNext(usize),
    /// The last one was not signed by the root, nor is it the root.
    #[error("the chain does not end at the pinned root")]
    OtherRoot,
    /// Outside its validity.
    #[error("certificate {0} of the chain was not valid when the report was made")]
    NotValidThen(usize),
}

/// Checks that the device vouches for this key: the leaf is for it, each certificate was signed by the next, the last
/// by `root` (or is it), and all were valid at `then`.
///
/// Signatures, names and times, and nothing else: attestation certificates of devices carry no usages and no
/// constraints of the web PKI, which is why its rules are not applied (Yubico, "YubiHSM 2 attestation").
///
/// # Errors
/// The first thing that does not hold.
pub fn check(chain: &[Vec<u8>], key: &PublicKey, root: &[u8], then: Timestamp) -> Result<(), AttestationError> {
    let mut certificates = Vec::with_capacity(chain.len() + 1);
    for (at, der) in chain.iter().map(Vec::as_slice).chain([root]).enumerate() {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => certificates.push(certificate),
            _ => return Err(AttestationError::Form(at)),
        }
    }
    let leaf = chain.first().and(certificates.first()).ok_or(AttestationError::Empty)?;
    if PublicKey::from_spki(leaf.public_key().raw) != Ok(*key) {
        return Err(AttestationError::OtherKey);
    }
    let seconds = then.as_second();
    for (at, certificate) in certificates.iter().enumerate() {
        let validity = certificate.validity();
        if seconds < validity.not_before.timestamp() || seconds > validity.not_after.timestamp() {
            return Err(AttestationError::NotValidThen(at));
        }
    }
    // A device may send its root along.
    let last = chain.len() - 1;
    let ends_with_root = chain[last] == root;
    for (at, pair) in certificates.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        if at == last && ends_with_root {
            return Ok(());
        }
        let signed =
            certificate.issuer() == issuer.subject() && certificate.verify_signature(Some(issuer.public_key())).is_ok();
        if !signed {
            return Err(if at == last { AttestationError::OtherRoot } else { AttestationError::NotSignedByNext(at) });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    struct Vendor {
        root: CertifiedIssuer<'static, KeyPair>,
        device: CertifiedIssuer<'static, KeyPair>,
        key: KeyPair,
        attestation: Vec<u8>,
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn vendor() -> Vendor {
        let mut params = named("root");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        // As devices do it: no basic constraints, no usages.
        let device = CertifiedIssuer::signed_by(named("device"), KeyPair::generate().unwrap(), &root).unwrap();
        let key = KeyPair::generate().unwrap();
        let attestation = named("key").signed_by(&key, &device).unwrap().der().to_vec();
        Vendor { root, device, key, attestation }
    }

    impl Vendor {
        fn public_key(&self) -> PublicKey {
            PublicKey::from_pem(self.key.public_key_pem().as_bytes()).unwrap()
        }

        fn chain(&self) -> Vec<Vec<u8>> {
            vec![self.attestation.clone(), self.device.der().to_vec()]
        }
    }

    #[test]
    fn a_chain_to_the_pinned_root_holds_with_and_without_the_root_in_it() {
        let vendor = vendor();
        let (key, root, now) = (vendor.public_key(), vendor.root.der(), Timestamp::now());
        let mut chain = vendor.chain();
        assert_eq!(check(&chain, &key, root, now), Ok(()));
        chain.push(root.to_vec());
        assert_eq!(check(&chain, &key, root, now), Ok(()));
    }

    #[test]
    fn whatever_is_not_that_chain_is_told_apart() {
        let (ours, other) = (vendor(), vendor());
        let (key, root, now) = (ours.public_key(), ours.root.der().to_vec(), Timestamp::now());
        let chain = ours.chain();
        let later: Timestamp = "9000-01-01T00:00:00Z".parse().unwrap();
        let table = [
            (vec![], key, &root, now, AttestationError::Empty),
            (vec![vec![0x30]], key, &root, now, AttestationError::Form(0)),
            ([&chain[0][..], &[0]].map(<[u8]>::to_vec).to_vec(), key, &root, now, AttestationError::Form(1)),
            (chain.clone(), other.public_key(), &root, now, AttestationError::OtherKey),
            (vec![chain[0].clone(), other.chain()[1].clone()], key, &root, now, AttestationError::NotSignedByNext(0)),
            (vec![chain[0].clone()], key, &root, now, AttestationError::OtherRoot),
            (chain.clone(), key, &other.root.der().to_vec(), now, AttestationError::OtherRoot),
            (chain.clone(), key, &root, later, AttestationError::NotValidThen(0)),
        ];
        for (chain, key, root, then, expected) in table {
            assert_eq!(check(&chain, &key, root, then), Err(expected));
        }
    }
}
