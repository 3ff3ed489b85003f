//! Which certificates may sign.

use testkit::notary::{ca_template, leaf_template, subject};
use testkit::now;
use testkit::sigstore::x509::{
    Issuer, SigningKey, Template, basic_constraints, extended_key_usage, extension, key_usage,
};

use super::World;

#[test]
fn a_chain_is_complete_in_order_and_of_certificates_for_code() {
    let at = now();
    let world = World::new();
    let (root, key) = (&world.notary.root, &world.notary.key);
    let rooted = |template: &Template| world.verdict_of_chain(vec![root.sign(template), root.certificate.clone()]);
    let good = leaf_template(key.spki(), at);
    let bare = Template { extensions: Vec::new(), ..good.clone() };
    assert_eq!(rooted(&good), "trusted");
    assert_eq!(rooted(&bare.clone().with(vec![key_usage(1)])), "trusted");
    assert_eq!(rooted(&bare.clone().with(vec![key_usage(0b11), basic_constraints(false, None)])), "trusted");
    // RFC 5280's own, not critical: not looked at.
    assert_eq!(rooted(&good.clone().with(vec![extension("2.5.29.31", false, b"x")])), "trusted");
    let loose_usage = extension("2.5.29.15", false, &[0x03, 2, 7, 0x80]);
    let eku = |purpose| vec![key_usage(1), extended_key_usage(&[purpose], false)];
    for (lie, extensions) in [
        ("no key usage", vec![]),
        ("a key usage that is not critical", vec![loose_usage]),
        ("a key usage without digitalSignature", vec![key_usage(0b10)]),
        ("one that encrypts", vec![key_usage(0b101)]),
        ("one that certifies", vec![key_usage(0b10_0001)]),
        ("a CA", vec![key_usage(1), basic_constraints(true, None)]),
        ("for servers", eku("1.3.6.1.5.5.7.3.1")),
        ("for clients", eku("1.3.6.1.5.5.7.3.2")),
        ("for mail", eku("1.3.6.1.5.5.7.3.4")),
        ("for time stamps", eku("1.3.6.1.5.5.7.3.8")),
        ("for anything", eku("2.5.29.37.0")),
        ("a critical extension that nobody knows", vec![key_usage(1), extension("1.2.3", true, b"x")]),
    ] {
        assert_eq!(rooted(&bare.clone().with(extensions)), "release_certificate", "{lie}");
    }

    let ca_key = SigningKey::p384();
    let between =
        |template: Template| Issuer { certificate: root.sign(&template), name: template.subject, key: ca_key.clone() };
    let ca = between(ca_template("ca", &ca_key, None, at));
    let below = |ca: &Issuer| vec![ca.sign(&good), ca.certificate.clone(), root.certificate.clone()];
    let [leaf, middle, last] = <[_; 3]>::try_from(below(&ca)).unwrap();
    assert_eq!(world.verdict_of_chain(below(&ca)), "trusted");
    let stranger = Issuer::root("stranger", SigningKey::p256(), at);
    for (lie, chain) in [
        ("the root is missing", vec![leaf.clone(), middle.clone()]),
        ("the CA is missing", vec![leaf.clone(), last.clone()]),
        ("out of order", vec![leaf.clone(), last.clone(), middle.clone()]),
        ("the root twice", vec![leaf.clone(), middle.clone(), last.clone(), last.clone()]),
        ("something else behind", vec![leaf.clone(), middle.clone(), last.clone(), stranger.certificate.clone()]),
        ("no certificate", vec![leaf.clone(), b"no certificate".to_vec(), last.clone()]),
        ("more than anybody has", [vec![leaf.clone()], vec![last.clone(); 7]].concat()),
    ] {
        // Without any of the store's it is a stranger's, whatever else is wrong.
        let expected = if chain.contains(&last) { "release_certificate" } else { "release_certificate_untrusted" };
        assert_eq!(world.verdict_of_chain(chain), expected, "{lie}");
    }
    assert_eq!(world.verdict_of_chain([vec![leaf], vec![last; 8]].concat()), "release_signature_malformed");
    assert_eq!(world.verdict_of_chain(Vec::new()), "release_signature_malformed");
    for (lie, extensions) in [
        ("no basic constraints", vec![key_usage(1 << 5)]),
        ("no CA", vec![basic_constraints(false, None), key_usage(1 << 5)]),
        ("no key usage", vec![basic_constraints(true, None)]),
        ("no keyCertSign", vec![basic_constraints(true, None), key_usage(1 << 6)]),
    ] {
        let ca = between(Template { extensions, ..ca_template("ca", &ca_key, None, at) });
        assert_eq!(world.verdict_of_chain(below(&ca)), "release_certificate", "{lie}");
    }
    // A path length of none lets no CA stand between.
    let short = between(ca_template("short", &ca_key, Some(0), at));
    assert_eq!(world.verdict_of_chain(below(&short)), "trusted");
    let deeper_key = SigningKey::p256();
    let deeper = ca_template("deeper", &deeper_key, None, at);
    let deeper = Issuer { certificate: short.sign(&deeper), name: deeper.subject, key: deeper_key };
    let chain = [vec![deeper.sign(&good), deeper.certificate], below(&short)[1..].to_vec()].concat();
    assert_eq!(world.verdict_of_chain(chain), "release_certificate");
}

#[test]
fn a_certificate_that_signs_for_itself_counts_where_it_is_in_the_store() {
    let at = now();
    let key = SigningKey::p256();
    let mut template = Template::new("self", key.spki(), at).with(vec![key_usage(1)]);
    template.subject = subject(testkit::notary::SUBJECT);
    let alone = Issuer::root_of(template, key);
    let world = World::new();
    world.write_store("ca.pem", &[&alone.certificate]);
    // Its key is not at hand in the form that signs images: what is asked is how far its chain comes.
    assert_eq!(world.verdict_of_chain(vec![alone.certificate.clone()]), "release_signature_invalid");
    let ca = Issuer::root("a root", SigningKey::p256(), at);
    world.write_store("ca.pem", &[&ca.certificate]);
    assert_eq!(world.verdict_of_chain(vec![ca.certificate]), "release_certificate", "a root signs no image");
}
