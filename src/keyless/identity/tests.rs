//! Where tokens come from, and how long they are held.

use std::path::Path;

use super::*;
use crate::config::Span;

fn identity(source: IdentitySource, max_age: Span) -> Result<Identity, IdentityError> {
    let config = config::Identity {
        source,
        issuer: "https://id.example".to_owned(),
        audience: "sigstore".to_owned(),
        refresh_before: Span::seconds(60),
        max_age,
    };
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let custody = Custody::new(&config::testing::minimal(
        "[keyless]\nfulcio_url='http://127.0.0.1:1'\ntrusted_root='/r'\n[tenants.a]\npredicate_types=['*']\n\
         default_mode='keyless'\nkeyless={identity='i',san='a://b'}\n[keyless.identity.i]\n\
         issuer='https://i.example'\nsource={file='/t'}",
    ));
    Identity::new("main", &config, &Arc::new(custody.unwrap()), &AssertionEvents(events))
}

fn write(path: &Path, name: &str, lives: i64) {
    let claims = format!(
        "{{\"iss\":\"https://id.example\",\"aud\":\"sigstore\",\"sub\":\"{name}\",\"exp\":{}}}",
        UnixTime::now().0 + lives
    );
    let draft = path.with_extension("draft");
    std::fs::write(&draft, jwt(&claims)).unwrap();
    std::fs::rename(draft, path).unwrap();
}

async fn token(identity: &Identity) -> Result<Arc<IdentityToken>, IdentityError> {
    identity.token(Instant::now() + Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_file_is_read_once_and_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "one", 600);
    let identity = identity(IdentitySource::File(path.clone()), Span::seconds(3600)).unwrap();
    let (first, again) = (token(&identity).await.unwrap(), token(&identity).await.unwrap());
    assert!(Arc::ptr_eq(&first, &again), "it was read twice");
    write(&path, "another", 900);
    let second = token(&identity).await.unwrap();
    assert_ne!(first.expose(), second.expose());
    assert!(identity.status().expires.is_some() && identity.status().trouble.is_none());
    // One that cannot be looked at for a moment is no reason to give up the token that is held.
    std::fs::remove_file(&path).unwrap();
    assert!(Arc::ptr_eq(&second, &token(&identity).await.unwrap()));
}

#[tokio::test]
async fn a_token_that_was_replaced_is_held_by_nobody_between_two_looks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "one", 600);
    let identity = Arc::new(identity(IdentitySource::File(path.clone()), Span::seconds(3600)).unwrap());
    let first = Arc::downgrade(&token(&identity).await.unwrap());
    let keeping = tokio::spawn(Arc::clone(&identity).keep_fresh());
    // It has looked, and waits until it looks again.
    tokio::task::yield_now().await;
    assert!(first.upgrade().is_some());
    write(&path, "another", 900);
    token(&identity).await.unwrap();
    assert!(first.upgrade().is_none(), "the old token is still in memory");
    keeping.abort();
}

#[tokio::test]
async fn a_token_is_not_used_to_its_very_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "short", 4);
    let identity = identity(IdentitySource::File(path), Span::seconds(3600)).unwrap();
    // It still lives when it is read, and is good for that one flow.
    token(&identity).await.unwrap();
    assert_eq!(identity.status().expires, None, "it is not held");
}

#[tokio::test]
async fn what_is_wrong_is_said_once_and_forgotten_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let identity = Arc::new(identity(IdentitySource::File(path.clone()), Span::seconds(3600)).unwrap());
    assert_eq!(token(&identity).await.unwrap_err().reason(), "identity_unreadable");
    assert!(identity.status().trouble.is_some());
    write(&path, "late", 600);
    let upkeep = tokio::spawn(Arc::clone(&identity).keep_fresh());
    let deadline = Instant::now() + Duration::from_secs(20);
    while identity.status().expires.is_none() {
        assert!(Instant::now() < deadline, "{:?}", identity.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(identity.status().trouble.is_none());
    upkeep.abort();
}

#[tokio::test]
async fn a_token_that_others_may_write_is_nobody_s() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "open", 600);
    for mode in [0o666, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let identity = identity(IdentitySource::File(path.clone()), Span::seconds(3600)).unwrap();
        assert_eq!(token(&identity).await.unwrap_err().reason(), "identity_unreadable", "{mode:o}");
    }
}

#[tokio::test]
async fn a_token_in_the_hands_of_a_stranger_is_nobody_s() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can give a file away");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "strange", 600);
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    let identity = identity(IdentitySource::File(path), Span::seconds(3600)).unwrap();
    assert_eq!(token(&identity).await.unwrap_err().reason(), "identity_unreadable");
}

#[tokio::test]
async fn a_file_that_is_just_being_written_is_no_reason_to_give_up_a_good_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "one", 600);
    let identity = identity(IdentitySource::File(path.clone()), Span::seconds(3600)).unwrap();
    let good = token(&identity).await.unwrap();
    for half in ["", "eyJhbGciOiJFUzI1NiJ9.eyJpc3M"] {
        std::fs::write(&path, half).unwrap();
        assert!(Arc::ptr_eq(&good, &token(&identity).await.unwrap()), "{half}");
        assert!(identity.status().trouble.is_some(), "it is told");
    }
}

#[test]
fn a_credential_needs_a_unit_that_hands_it_over() {
    let error = identity(IdentitySource::Credential("fulcio-token".to_owned()), Span::seconds(60)).unwrap_err();
    assert!(error.to_string().contains("LoadCredential=fulcio-token:"), "{error}");
}
