//! What the front's memory holds after a thousand keyless signatures: the identity token that its cache says, no older
//! one, and no ephemeral key.

use std::collections::HashSet;
use std::thread;

use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use testkit::fulcio_client::Applicant;
use testkit::keyless::{LONG, OwnFulcio, sign, token_file, wait_until, write_token};

use super::scan::{count, point_of, private_keys};

#[test]
#[ignore = "needs root: cargo xtask test keyless"]
fn after_a_thousand_signatures_the_front_holds_one_token_and_no_key() {
    let mut world = OwnFulcio::start(|builder| builder);
    let file = token_file(world.fixture.dir(), "acme");
    let mut tokens = vec![std::fs::read_to_string(&file).unwrap()];
    for round in 0..ROUNDS {
        if round > 0 {
            let fresh = world.fixture.authority.mint_identity("acme").shift("exp", LONG);
            tokens.push(write_token(&file, &fresh).unwrap());
            wait_until("the new token is shown", || {
                sign(&world.fixture.client(), "dsse+cert").send().expect(200);
                world.fulcio.seen().last().map(|seen| seen.token.clone()) == tokens.last().cloned()
            });
        }
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let client = world.fixture.client().fork();
                thread::spawn(move || {
                    for _ in 0..SIGNATURES / ROUNDS / WORKERS {
                        sign(&client, "dsse+cert").send().expect(200);
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
    let seen = world.fulcio.seen();
    assert!(seen.len() >= SIGNATURES, "{}", seen.len());
    let front = world.fixture.appliance.front().id();

    // The signature is what makes a token one; the rest of it is not secret, and much the same in all.
    let signatures: Vec<&[u8]> = tokens.iter().map(|token| token.rsplit('.').next().unwrap().as_bytes()).collect();
    let counts = count(front, &signatures);
    println!("tokens in the front's memory, oldest first: {counts:?}");
    assert!(counts.last().is_some_and(|&held| held > 0), "the search finds the token that is held: {counts:?}");
    assert!(counts[..counts.len() - 1].iter().all(|&held| held == 0), "older tokens: {counts:?}");

    let points: HashSet<Vec<u8>> = seen.iter().map(|seen| public_point(&seen.csr)).collect();
    assert_eq!(points.len(), seen.len(), "a key for each signature");
    assert!(private_keys(front, &points).is_empty(), "a private key of a certificate is in the front's memory");
}

#[test]
#[ignore = "needs root: cargo xtask test keyless"]
fn the_search_finds_a_key_that_is_there() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let secret: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
    let scalar: [u8; 32] = secret.as_ref().try_into().unwrap();
    let point = pair.public_key().as_ref().to_vec();
    assert_eq!(point_of(&scalar), Some(point.clone()));
    let little_endian: Vec<u8> = scalar.iter().rev().copied().collect();
    let planted = std::hint::black_box(Box::new([scalar.to_vec(), little_endian]));
    let found = private_keys(std::process::id(), &HashSet::from([point.clone()]));
    assert!(!found.is_empty() && found.iter().all(|found| *found == point));
    drop(planted);
    let applicant = Applicant::new().unwrap();
    assert_eq!(public_point(&applicant.csr).len(), 65);
}

/// The public point of a certificate signing request, PEM.
fn public_point(csr: &str) -> Vec<u8> {
    let der = testkit::from_base64(&csr.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let at = der.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).expect("a P-256 key is in it");
    der[at + 3..at + 68].to_vec()
}

const SIGNATURES: usize = 1000;
const ROUNDS: usize = 10;
const WORKERS: usize = 4;
