//! The examples of RFC 9449, judged at the time they were made.

use std::sync::{Arc, OnceLock};

use super::*;
use crate::auth::dpop::{ProofMemory, Proofs, Request};
use crate::auth::htu::PublicUrl;
use crate::auth::token_cache::VerifiedToken;
use crate::jose::{Jws, VerifyingKey, base64url_decode};

/// Section 7.1, figure 12.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const PROOF: &str = concat!(
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs",
    "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2",
    "In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm9",
    "0ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVF",
    "FbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
);
/// Section 5, figure 5: the proof of a token request, which has no `ath`.
const TOKEN_REQUEST_PROOF: &str = concat!(
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs",
    "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2",
    "In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2V",
    "uIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37x",
    "RZT3Lg",
);
/// Section 6.1, figure 8.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const MADE_AT: i64 = 1_562_262_618;

fn jkt() -> [u8; 32] {
    base64url_decode(JKT, "jkt").unwrap().try_into().unwrap()
}

fn token() -> VerifiedToken {
    let caller = Caller {
        tenant: "t".into(),
        subject: "someone@example.com".into(),
        client_id: None,
        token_id: "t".into(),
        installation: None,
        sender: SenderKey::Dpop(jkt()),
        expires_at: UnixTime(1_562_266_216),
    };
    VerifiedToken {
        caller: Arc::new(caller),
        jkt: Some(jkt()),
        certificate: None,
        scope: "".into(),
        not_before: None,
        issued_at: UnixTime(MADE_AT),
        signed_by: [0; 32],
        proof_key: OnceLock::new(),
    }
}

fn check(url: &str, method: &Method, path: &str, proof: &str, token_text: &str, at: i64) -> Result<(), &'static str> {
    let started = Moment { wall: UnixTime(MADE_AT - 7200), steady: Instant::now() };
    let now = Moment { wall: UnixTime(at), steady: started.steady + Duration::from_secs(7200) };
    let skew = Duration::from_secs(30);
    let dpop = config::Dpop::default();
    let memory = Arc::new(ProofMemory::new(&dpop, skew, started).unwrap());
    let proofs = Proofs::new(&dpop, skew, PublicUrl::parse(url).unwrap(), memory);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token_text.as_bytes());
    let token_hash: [u8; 32] = hash.as_ref().try_into().unwrap();
    let request = Request { method, path, token_hash: &token_hash };
    proofs.check(proof, &jkt(), &token(), &request, now).map(|_| ()).map_err(|error| error.reason())
}

#[test]
fn the_protected_resource_request_passes_as_it_stands_and_in_no_other_way() {
    let (url, path) = ("https://resource.example.org", "/protectedresource");
    let get = Method::GET;
    assert_eq!(check(url, &get, path, PROOF, TOKEN, MADE_AT), Ok(()));
    assert_eq!(check(url, &get, path, PROOF, TOKEN, MADE_AT + 90), Ok(()));
    assert_eq!(check(url, &get, path, PROOF, TOKEN, MADE_AT - 30), Ok(()));
    assert_eq!(check(url, &get, path, PROOF, TOKEN, MADE_AT + 91), Err("dpop_expired"));
    assert_eq!(check(url, &get, path, PROOF, TOKEN, MADE_AT - 31), Err("dpop_issued_in_future"));
    assert_eq!(check(url, &Method::POST, path, PROOF, TOKEN, MADE_AT), Err("dpop_method"));
    assert_eq!(check(url, &get, "/protected", PROOF, TOKEN, MADE_AT), Err("dpop_uri"));
    assert_eq!(check("https://server.example.com", &get, path, PROOF, TOKEN, MADE_AT), Err("dpop_uri"));
    assert_eq!(check(url, &get, path, PROOF, "another", MADE_AT), Err("dpop_token_hash"));
}

#[test]
fn the_token_request_proof_verifies_and_is_no_proof_for_a_resource() {
    let jws = Jws::parse(TOKEN_REQUEST_PROOF, 4096).unwrap();
    let jwk = jws.header().jwk.as_ref().unwrap();
    assert_eq!(base64url(&jwk.thumbprint()), JKT);
    let claims = jws.verify(&VerifyingKey::from_jwk(jwk).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["jti"], "-BwC3ESc6acc2lTc");
    let refused = check("https://server.example.com", &Method::POST, "/token", TOKEN_REQUEST_PROOF, TOKEN, MADE_AT);
    assert_eq!(refused, Err("dpop_token_hash"));
}
