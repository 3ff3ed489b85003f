use super::*;

const TENANT: &str = "acme";

fn digest(fill: char) -> String {
    format!("sha256:{}", String::from(fill).repeat(64))
}

fn entry(digest: &str) -> config::TrustedDigest {
    config::TrustedDigest {
        digest: digest.to_owned(),
        signed_by: "platform team".to_owned(),
        reason: "bootstrap".to_owned(),
    }
}

fn releases(trusted: Vec<config::TrustedDigest>) -> Result<TrustedReleases, ReleaseSetupError> {
    let config = config::Release { trusted, ..config::Release::default() };
    TrustedReleases::new(&config, &Handle::current(), ReleaseMetrics::unseen())
}

async fn check(releases: &TrustedReleases, digest: &str) -> Result<TrustedRelease, ReleaseError> {
    releases.check(digest, &TENANT.into()).await
}

#[tokio::test]
async fn a_listed_image_is_trusted_and_says_who_and_why() {
    let release = check(&releases(vec![entry(&digest('a'))]).unwrap(), &digest('a')).await.unwrap();
    assert_eq!(release.digest(), digest('a'));
    assert_eq!(release.signed_by(), "platform team");
    assert_eq!(release.evidence(), &Evidence::OperatorList { reason: "bootstrap".into() });
    assert_eq!((release.evidence().kind(), release.evidence().signature()), ("operator_list", None));
}

#[tokio::test]
async fn an_image_that_nobody_listed_is_refused() {
    for list in [vec![], vec![entry(&digest('a'))]] {
        let error = check(&releases(list).unwrap(), &digest('b')).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), ("release_untrusted", "release_not_listed"));
    }
}

#[tokio::test]
async fn a_revoked_image_is_refused_whoever_vouches_for_it() {
    let revoked = config::RevokedDigest { digest: digest('a'), reason: "CVE-2026-0001".to_owned() };
    let config =
        config::Release { trusted: vec![entry(&digest('a'))], revoked: vec![revoked], ..config::Release::default() };
    let releases = TrustedReleases::new(&config, &Handle::current(), ReleaseMetrics::unseen()).unwrap();
    let error = check(&releases, &digest('a')).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("release_untrusted", "release_revoked"));
    assert!(error.to_string().ends_with("is revoked: CVE-2026-0001"), "{error}");
    let (verdict, steps) = releases.explain(&digest('a')).await;
    assert_eq!((verdict.unwrap_err().reason(), steps[0].mark), ("release_revoked", Mark::Bad));
}

#[tokio::test]
async fn what_is_no_digest_is_refused_before_any_look_up() {
    let list = releases(vec![entry(&digest('a'))]).unwrap();
    for wrong in
        ["", "sha256:", "a", &digest('a').to_uppercase(), &digest('g'), &format!("{} ", digest('a')), "sha512:aa"]
    {
        assert_eq!(check(&list, wrong).await.unwrap_err().reason(), "release_digest_malformed", "{wrong}");
    }
}

#[tokio::test]
async fn every_entry_is_checked_when_the_list_is_read() {
    let silent = |entry: config::TrustedDigest| config::TrustedDigest { reason: "  ".to_owned(), ..entry };
    let nobody = |entry: config::TrustedDigest| config::TrustedDigest { signed_by: String::new(), ..entry };
    let (a, b) = (digest('a'), digest('b'));
    let cases = [
        (vec![entry(&a), entry("latest")], "release.trusted[1].digest is `latest`"),
        (vec![entry(&a.to_uppercase())], "release.trusted[0].digest is"),
        (vec![silent(entry(&a))], "release.trusted[0].reason is empty"),
        (vec![nobody(entry(&a))], "release.trusted[0].signed_by is empty"),
        (vec![entry(&a), entry(&b), entry(&a)], "release.trusted[2].digest is also that of entry 0"),
    ];
    for (entries, message) in cases {
        let error = releases(entries).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
