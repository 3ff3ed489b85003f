//! Where keys come from, and where they go.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// An Authority on loopback: `/jwks` answers what it is told to, and counts.
struct Server {
    address: std::net::SocketAddr,
    body: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, body: Arc::new(Mutex::new(Some(body))), asked: Arc::default() };
        let (body, asked) = (Arc::clone(&server.body), Arc::clone(&server.asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
                let request = String::from_utf8_lossy(&request).into_owned();
                let answer = if request.starts_with("GET /.well-known/openid-configuration ") {
                    Some(format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"http://{address}/jwks"}}"#))
                } else {
                    asked.fetch_add(1, Ordering::SeqCst);
                    body.lock().unwrap().clone()
                };
                let status = if answer.is_some() { "200 OK" } else { "500 Internal Server Error" };
                let answer = answer.unwrap_or_default();
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
                let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn publish(&self, keys: &[(&str, &SigningKey)]) {
        *self.body.lock().unwrap() = Some(published(keys));
    }

    fn fail(&self) {
        *self.body.lock().unwrap() = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn token_of(world: &World, key: &SigningKey, kid: &str, jti: &str) -> String {
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid });
    key.token(Algorithm::Es256, &header, &with(&world.claims(), "jti", jti))
}

async fn try_token(world: &World, token: &str, second: i64) -> Result<(), &'static str> {
    let proof = world.proof(&with(&World::proof_claims(token), "iat", EPOCH + second));
    world.call_dpop(token, &proof, world.at(second)).await.map(|_| ()).map_err(|error| error.reason())
}

#[tokio::test]
async fn keys_come_by_url_and_by_discovery() {
    let authority = SigningKey::generate(Algorithm::Es256);
    let server = Server::start(published(&[("k1", &authority)])).await;
    let sources = [
        JwksSource::Url(server.url("/jwks")),
        JwksSource::Discovery(server.url("")),
        JwksSource::Discovery(server.url("/")),
        JwksSource::Discovery(server.url("/.well-known/openid-configuration")),
    ];
    for source in sources {
        let mut world = World::with(|config| config.jwks = source.clone());
        assert!(!world.appliance.key_status().usable, "nothing is fetched before it is needed");
        world.authority = SigningKey::generate(Algorithm::Es256);
        let token = token_of(&world, &authority, "k1", "a");
        assert_eq!(try_token(&world, &token, 0).await, Ok(()), "{source:?}");
        assert_eq!(world.appliance.key_status().keys, 1);
    }
}

#[tokio::test]
async fn an_authority_that_gives_no_keys_makes_the_service_unavailable() {
    let server = Server::start("{}".into()).await;
    let sources = [
        JwksSource::Url(server.url("/jwks")),
        JwksSource::Discovery(server.url("/no/.well-known/metadata")),
        JwksSource::Url("http://authority.example/jwks".into()),
    ];
    for source in sources {
        let world = World::with(|config| config.jwks = source.clone());
        let token = world.good_token();
        let error = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.reason()),
            ("dependency_unavailable", "authority_keys_unavailable"),
            "{source:?}"
        );
        assert!(error.retry_after().is_some() && error.challenge().is_none());
        assert!(std::error::Error::source(&error).is_some(), "the log is told why");
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let authority = SigningKey::generate(Algorithm::Es256);
    let server = Server::start(published(&[("k1", &authority)])).await;
    let world = World::with(|config| {
        config.issuer = format!("{ISSUER}/other");
        config.jwks = JwksSource::Discovery(server.url(""));
    });
    let error = world.call_bearer(&token_of(&world, &authority, "k1", "a"), world.at(0)).await.unwrap_err();
    assert_eq!(error.reason(), "authority_keys_unavailable");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("must be equal to the last character"), "{cause}");
    assert_eq!(server.asked(), 0, "its key set is not even looked at");
}

#[tokio::test]
async fn a_new_key_is_found_when_a_token_names_it_and_the_old_one_is_dropped() {
    let (old, new) = (SigningKey::generate(Algorithm::Es256), SigningKey::generate(Algorithm::Es256));
    let server = Server::start(published(&[("old", &old)])).await;
    let world = World::with(|config| config.jwks = JwksSource::Url(server.url("/jwks")));
    let by_old = token_of(&world, &old, "old", "a");
    assert_eq!(try_token(&world, &by_old, 0).await, Ok(()));

    server.publish(&[("old", &old), ("new", &new)]);
    assert_eq!(try_token(&world, &token_of(&world, &new, "new", "b"), 10).await, Ok(()));
    assert_eq!(try_token(&world, &by_old, 10).await, Ok(()), "both overlap");
    assert_eq!(world.appliance.cached_tokens(), 2);

    server.publish(&[("new", &new)]);
    assert_eq!(try_token(&world, &token_of(&world, &new, "newer", "c"), 20).await, Err("optok_key_unknown"));
    assert_eq!(world.appliance.cached_tokens(), 1, "a remembered token dies with its key");
    assert_eq!(try_token(&world, &by_old, 20).await, Err("optok_key_unknown"));
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn the_same_name_over_another_key_makes_old_tokens_worthless() {
    let (old, new) = (SigningKey::generate(Algorithm::Es256), SigningKey::generate(Algorithm::Es256));
    let world = World::new();
    std::fs::write(&world.jwks, published(&[("k", &old)])).unwrap();
    let by_old = token_of(&world, &old, "k", "a");
    assert_eq!(try_token(&world, &by_old, 0).await, Ok(()));
    std::fs::write(&world.jwks, published(&[("k", &new), ("k2", &new)])).unwrap();
    assert_eq!(try_token(&world, &token_of(&world, &new, "k2", "b"), 10).await, Ok(()));
    assert_eq!(try_token(&world, &by_old, 10).await, Err("optok_signature"));
}

#[tokio::test]
async fn made_up_key_names_do_not_reach_the_authority_more_than_once_in_a_while() {
    let authority = SigningKey::generate(Algorithm::Es256);
    let server = Server::start(published(&[("k1", &authority)])).await;
    let world = Arc::new(World::with(|config| config.jwks = JwksSource::Url(server.url("/jwks"))));
    assert_eq!(try_token(&world, &token_of(&world, &authority, "k1", "a"), 0).await, Ok(()));
    assert_eq!(server.asked(), 1);
    for (second, asked) in [(1, 1), (9, 1), (10, 2), (19, 2), (20, 3)] {
        let attempts: Vec<_> = (0..50)
            .map(|n| {
                let world = Arc::clone(&world);
                tokio::spawn(async move {
                    let token = token_of(&world, &world.authority, &format!("garbage-{n}"), "x");
                    try_token(&world, &token, second).await
                })
            })
            .collect();
        for attempt in attempts {
            assert_eq!(attempt.await.unwrap(), Err("optok_key_unknown"));
        }
        assert_eq!(server.asked(), asked, "after {second} s");
    }
}

#[tokio::test]
async fn the_last_keys_serve_through_an_outage_up_to_their_bound() {
    let authority = SigningKey::generate(Algorithm::Es256);
    let server = Server::start(published(&[("k1", &authority)])).await;
    let world = World::with(|config| {
        config.jwks = JwksSource::Url(server.url("/jwks"));
        config.jwks_max_stale = config::Span::seconds(100);
    });
    let token = token_of(&world, &authority, "k1", "a");
    assert_eq!(try_token(&world, &token, 0).await, Ok(()));
    server.fail();
    assert_eq!(try_token(&world, &token, 100).await, Ok(()));
    assert_eq!(try_token(&world, &token, 101).await, Err("authority_keys_unavailable"), "a remembered token too");
    server.publish(&[("k1", &authority)]);
    assert_eq!(try_token(&world, &token, 105).await, Err("authority_keys_unavailable"), "asked a moment ago");
    assert_eq!(try_token(&world, &token, 111).await, Ok(()));
}

#[tokio::test]
async fn a_broken_or_missing_file_leaves_the_last_keys_in_force() {
    let world = World::new();
    let token = world.good_token();
    assert_eq!(try_token(&world, &token, 0).await, Ok(()));
    let unknown = token_of(&world, &world.authority, "k2", "b");
    std::fs::write(&world.jwks, "{ torn").unwrap();
    assert_eq!(try_token(&world, &unknown, 10).await, Err("optok_key_unknown"));
    std::fs::remove_file(&world.jwks).unwrap();
    assert_eq!(try_token(&world, &unknown, 20).await, Err("optok_key_unknown"));
    assert_eq!(try_token(&world, &token, 20).await, Ok(()));
}

#[tokio::test]
async fn a_token_without_a_key_name_is_taken_only_when_one_key_fits() {
    let world = World::new();
    let (a, b) = (SigningKey::generate(Algorithm::Es256), SigningKey::generate(Algorithm::Es256));
    let rsa = SigningKey::generate(Algorithm::Rs256);
    let nameless =
        |key: &SigningKey| key.token(Algorithm::Es256, &json!({ "alg": "ES256", "typ": "at+jwt" }), &world.claims());
    std::fs::write(&world.jwks, published(&[("a", &a), ("rsa", &rsa)])).unwrap();
    assert_eq!(try_token(&world, &token_of(&world, &a, "a", "x"), 0).await, Ok(()));
    assert_eq!(try_token(&world, &nameless(&a), 0).await, Ok(()));
    std::fs::write(&world.jwks, published(&[("a", &a), ("b", &b)])).unwrap();
    assert_eq!(try_token(&world, &token_of(&world, &b, "b", "x"), 10).await, Ok(()));
    assert_eq!(try_token(&world, &nameless(&b), 10).await, Err("optok_key_ambiguous"));
    // Two keys of one name are told apart by trying.
    std::fs::write(&world.jwks, published(&[("same", &a), ("same", &b)])).unwrap();
    assert_eq!(try_token(&world, &token_of(&world, &a, "same", "y"), 20).await, Ok(()));
    assert_eq!(try_token(&world, &token_of(&world, &b, "same", "z"), 20).await, Ok(()));
}

#[tokio::test]
async fn keys_are_fetched_in_the_background() {
    let authority = SigningKey::generate(Algorithm::Es256);
    let server = Server::start(published(&[("k1", &authority)])).await;
    let world = Arc::new(World::with(|config| config.jwks = JwksSource::Url(server.url("/jwks"))));
    let maintained = Arc::clone(&world);
    let maintenance = tokio::spawn(async move { maintained.appliance.maintain().await });
    let usable = async {
        while !world.appliance.key_status().usable {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), usable).await.unwrap();
    assert_eq!((world.appliance.key_status().keys, server.asked()), (1, 1));
    maintenance.abort();
}
