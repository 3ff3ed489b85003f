//! What a conformance run does with a PKCS#11 token beyond signing.

#![forbid(unsafe_code)]

use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::Session;

use super::super::{Lab, TokenError, watch};
use super::Pkcs11Token;
use super::classify::failed;

impl Lab for Pkcs11Token {
    fn log_out(&self) -> Result<(), TokenError> {
        let (slot, _) = self.slot()?;
        // Login is shared by the sessions of a process, so any session can end it. Read-only and read-write sessions
        // alike; the kind that the device is known to give is the safest.
        let session = self.open(slot)?;
        let _call = watch::call("C_Logout");
        session.logout().map_err(|e| failed("C_Logout", e))
    }

    fn generate(&self, label: &str, id: &[u8]) -> Result<(), TokenError> {
        let named = || [Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(id.to_vec())];
        // Nothing about encryption: an EC key cannot do it, and tpm2-pkcs11 refuses a key that says so, because to a TPM
        // verifying and decrypting are one attribute, and signing and encrypting another.
        let mut public = named().to_vec();
        public.extend([Attribute::EcParams(P256.to_vec()), Attribute::Verify(true)]);
        let mut private = named().to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Unwrap(false),
        ]);
        let session = self.read_write()?;
        let _call = watch::call("C_GenerateKeyPair");
        session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map(drop)
            .map_err(|e| failed("C_GenerateKeyPair", e))
    }

    fn destroy(&self, label: &str, id: &[u8]) -> Result<usize, TokenError> {
        let session = self.read_write()?;
        let _call = watch::call("C_DestroyObject");
        let template = [Attribute::Label(label.into()), Attribute::Id(id.to_vec())];
        let objects = session.find_objects(&template).map_err(|e| failed("C_FindObjects", e))?;
        for object in &objects {
            session.destroy_object(*object).map_err(|e| failed("C_DestroyObject", e))?;
        }
        Ok(objects.len())
    }
}

impl Pkcs11Token {
    fn read_write(&self) -> Result<Session, TokenError> {
        let (slot, _) = self.slot()?;
        let _call = watch::call("C_OpenSession");
        self.context.open_rw_session(slot).map_err(|e| failed("C_OpenSession", e))
    }
}

/// The DER object identifier of prime256v1, 1.2.840.10045.3.1.7 (RFC 5480).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
