//! A Fulcio: a root, an intermediate, and ten-minute certificates.

use super::ct::CtLog;
use super::der;
use super::x509::{self, Issuer, SigningKey, Template};

/// One instance.
pub struct Fulcio {
    /// Its root.
    pub root: Issuer,
    /// What issues.
    pub intermediate: Issuer,
}

impl Fulcio {
    /// With fresh keys.
    #[must_use]
    pub fn new(now: i64) -> Self {
        let root = Issuer::root("fulcio root", SigningKey::p384(), now);
        let key = SigningKey::p256();
        let template = Template::new("fulcio intermediate", key.spki(), now)
            .with(x509::ca_extensions(Some(0)))
            .with(vec![x509::extended_key_usage(&[x509::CODE_SIGNING], false)]);
        let intermediate = root.below(template, key);
        Self { root, intermediate }
    }

    /// What a trusted root pins: intermediate, root.
    #[must_use]
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.intermediate.certificate.clone(), self.root.certificate.clone()]
    }

    /// A certificate without promise of a log.
    #[must_use]
    pub fn issue(&self, template: &Template) -> Vec<u8> {
        self.intermediate.sign(template)
    }

    /// A certificate with the promise of `log` in it.
    #[must_use]
    pub fn issue_logged(&self, template: &Template, log: &CtLog) -> Vec<u8> {
        let sct = log.sct_of_precertificate(template, &self.intermediate, template.not_before * 1000);
        self.issue(&template.clone().with(vec![super::ct::list_extension(&[sct])]))
    }
}

/// What Fulcio issues at `now` for a key to a URI, vouched for by `issuer`.
#[must_use]
pub fn template(spki: Vec<u8>, uri: &str, issuer: &str, now: i64) -> Template {
    let mut template = Template::new("", spki, now).with(vec![
        x509::key_usage(1),
        x509::extended_key_usage(&[x509::CODE_SIGNING], false),
        x509::subject_alt_name(&[(URI, uri.as_bytes())], true),
        x509::extension("1.3.6.1.4.1.57264.1.1", false, issuer.as_bytes()),
        x509::extension("1.3.6.1.4.1.57264.1.8", false, &der::utf8(issuer)),
    ]);
    (template.not_before, template.not_after) = (now, now + 600);
    template
}

/// uniformResourceIdentifier.
pub const URI: u8 = 0x86;
/// rfc822Name.
pub const EMAIL: u8 = 0x81;
/// otherName.
pub const OTHER_NAME: u8 = 0xa0;
