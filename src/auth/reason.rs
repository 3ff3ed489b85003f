//! Why a request was not authenticated: one stable word for each situation.

/// A refusal, as audit records and metrics name it.
///
/// | reason | status and code | what it means |
/// |---|---|---|
/// | `authorization_missing` | 401 `invalid_token` | no `Authorization` header |
/// | `authorization_repeated` | 401 `invalid_token` | more than one `Authorization` header |
/// | `authorization_scheme` | 401 `invalid_token` | neither `DPoP` nor `Bearer` |
/// | `authorization_malformed` | 401 `invalid_token` | the scheme is not followed by one token |
/// | `optok_too_large` | 401 `invalid_token` | the OpTok has more than 8,192 bytes |
/// | `optok_malformed` | 401 `invalid_token` | the OpTok is not a compact JWS with an acceptable header |
/// | `optok_algorithm` | 401 `invalid_token` | `alg` is not in the configured list |
/// | `optok_type` | 401 `invalid_token` | `typ` is neither `at+jwt` nor `JWT` |
/// | `optok_key_unknown` | 401 `invalid_token` | no published key has this `kid` and fits `alg` |
/// | `optok_key_ambiguous` | 401 `invalid_token` | no `kid`, and more than one published key fits |
/// | `optok_signature` | 401 `invalid_token` | the signature does not verify |
/// | `optok_claims` | 401 `invalid_token` | the claims are not the JSON they should be |
/// | `optok_claim_missing` | 401 `invalid_token` | `iss`, `aud`, `sub`, `jti`, `exp` or `iat` is missing or empty |
/// | `optok_claim_too_long` | 401 `invalid_token` | `sub`, `jti`, `tid`, `client_id` or `inst` is longer than 256 bytes |
/// | `optok_issuer` | 401 `invalid_token` | `iss` is another issuer |
/// | `optok_audience` | 401 `invalid_token` | `aud` does not name this service |
/// | `optok_audience_wildcard` | 401 `invalid_token` | `aud` has a wildcard |
/// | `optok_scope_malformed` | 401 `invalid_token` | `scope` is not one space-separated string |
/// | `optok_scope` | 403 `insufficient_scope` | the scope that the request needs is not granted |
/// | `optok_tenant_missing` | 401 `invalid_token` | no `tid` |
/// | `optok_tenant_unknown` | 401 `invalid_token` | `tid` is no configured tenant |
/// | `optok_expired` | 401 `invalid_token` | past `exp` |
/// | `optok_not_yet_valid` | 401 `invalid_token` | before `nbf` |
/// | `optok_issued_in_future` | 401 `invalid_token` | `iat` is in the future |
/// | `optok_lifetime` | 401 `invalid_token` | `exp` is not after `iat`, or too long after it |
/// | `optok_unbound` | 401 `invalid_token` | `cnf` names neither `jkt` nor `x5t#S256` |
/// | `optok_confirmation` | 401 `invalid_token` | a member of `cnf` is no SHA-256 thumbprint |
/// | `dpop_bound_as_bearer` | 401 `invalid_token` | a DPoP-bound OpTok under the `Bearer` scheme |
/// | `optok_not_dpop_bound` | 401 `invalid_token` | an OpTok without `cnf.jkt` under the `DPoP` scheme |
/// | `certificate_mismatch` | 401 `invalid_token` | the TLS client certificate is not the one in `cnf` |
/// | `dpop_missing` | 401 `invalid_token` | no `DPoP` header |
/// | `dpop_repeated` | 401 `invalid_token` | more than one `DPoP` header |
/// | `dpop_too_large` | 401 `invalid_token` | the proof has more than 4,096 bytes |
/// | `dpop_malformed` | 401 `invalid_token` | the proof is not a compact JWS with an acceptable header |
/// | `dpop_type` | 401 `invalid_token` | `typ` is not `dpop+jwt` |
/// | `dpop_algorithm` | 401 `invalid_token` | `alg` is none of ES256, EdDSA, PS256, RS256 |
/// | `dpop_key` | 401 `invalid_token` | `jwk` is missing, private, symmetric, or no key for `alg` |
/// | `dpop_key_mismatch` | 401 `invalid_token` | `jwk` is not the key in `cnf.jkt` |
/// | `dpop_signature` | 401 `invalid_token` | the proof's signature does not verify |
/// | `dpop_claims` | 401 `invalid_token` | a claim of the proof is missing or not what it should be |
/// | `dpop_method` | 401 `invalid_token` | `htm` is another method |
/// | `dpop_uri` | 401 `invalid_token` | `htu` is another URI |
/// | `dpop_token_hash` | 401 `invalid_token` | `ath` is missing or of another OpTok |
/// | `dpop_expired` | 401 `invalid_token` | `iat` is too long ago |
/// | `dpop_issued_in_future` | 401 `invalid_token` | `iat` is in the future |
/// | `dpop_nonce_missing` | 401 `invalid_token` | a nonce is demanded now; the answer carries one |
/// | `dpop_nonce_invalid` | 401 `invalid_token` | the nonce is not ours or too old; the answer carries one |
/// | `dpop_replayed` | 401 `invalid_token` | the proof's `jti` was used before |
/// | `replay_memory_full` | 503 `overloaded` | no room to remember another proof |
/// | `authority_keys_unavailable` | 503 `dependency_unavailable` | no key set of the Authority that is fresh enough |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reason(&'static Entry);

/// What a refusal asks of the caller: it decides code, status and challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Authenticate at all.
    NoCredentials,
    /// Get another token, or present it as it was issued.
    InvalidToken,
    /// Make another proof.
    InvalidProof,
    /// Make another proof, with the nonce that comes along.
    UseNonce,
    /// Get a token with more scope.
    InsufficientScope,
    /// Come back when the Authority can be reached.
    DependencyUnavailable,
    /// Come back later.
    Overloaded,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Entry {
    name: &'static str,
    class: Class,
    title: &'static str,
}

impl Reason {
    /// The stable word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// What it asks of the caller.
    #[must_use]
    pub const fn class(self) -> Class {
        self.0.class
    }

    /// What was wrong and what would be right, in plain words that tell a stranger nothing. ASCII without quotes or
    /// backslashes, as `error_description` needs it (RFC 6750, section 3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.0.title
    }
}

macro_rules! reasons {
    ($($constant:ident, $name:literal, $class:ident, $title:literal;)*) => {
        /// The refusals that there are.
        impl Reason {
            $(
                #[doc = concat!("`", $name, "`: ", $title)]
                pub const $constant: Self = Self(&Entry { name: $name, class: Class::$class, title: $title });
            )*

            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

reasons! {
    AUTHORIZATION_MISSING, "authorization_missing", NoCredentials, "The request has no Authorization header";
    AUTHORIZATION_REPEATED, "authorization_repeated", InvalidToken, "The request has more than one Authorization header; send exactly one";
    AUTHORIZATION_SCHEME, "authorization_scheme", NoCredentials, "The Authorization header names another scheme; use DPoP or Bearer";
    AUTHORIZATION_MALFORMED, "authorization_malformed", InvalidToken, "The Authorization header is not a scheme followed by one token";
    OPTOK_TOO_LARGE, "optok_too_large", InvalidToken, "The access token is larger than 8192 bytes";
    OPTOK_MALFORMED, "optok_malformed", InvalidToken, "The access token is not a JWT that is accepted here";
    OPTOK_ALGORITHM, "optok_algorithm", InvalidToken, "The access token is signed with an algorithm that is not accepted here";
    OPTOK_TYPE, "optok_type", InvalidToken, "The token is not an access token: its typ must be at+jwt or JWT";
    OPTOK_KEY_UNKNOWN, "optok_key_unknown", InvalidToken, "The access token is signed with a key that the Authority does not publish";
    OPTOK_KEY_AMBIGUOUS, "optok_key_ambiguous", InvalidToken, "The access token names no key, and the Authority publishes more than one that fits";
    OPTOK_SIGNATURE, "optok_signature", InvalidToken, "The signature of the access token does not verify";
    OPTOK_CLAIMS, "optok_claims", InvalidToken, "The claims of the access token are malformed";
    OPTOK_CLAIM_MISSING, "optok_claim_missing", InvalidToken, "The access token lacks a claim: it needs iss, aud, sub, jti, exp and iat";
    OPTOK_CLAIM_TOO_LONG, "optok_claim_too_long", InvalidToken, "A claim of the access token is longer than 256 bytes";
    OPTOK_ISSUER, "optok_issuer", InvalidToken, "The access token comes from another issuer";
    OPTOK_AUDIENCE, "optok_audience", InvalidToken, "The access token is meant for another service";
    OPTOK_AUDIENCE_WILDCARD, "optok_audience_wildcard", InvalidToken, "The access token has a wildcard audience; it must name this service";
    OPTOK_SCOPE_MALFORMED, "optok_scope_malformed", InvalidToken, "The scope of the access token must be one string of names separated by spaces";
    OPTOK_SCOPE, "optok_scope", InsufficientScope, "The access token does not grant the scope that this request needs";
    OPTOK_TENANT_MISSING, "optok_tenant_missing", InvalidToken, "The access token names no tenant";
    OPTOK_TENANT_UNKNOWN, "optok_tenant_unknown", InvalidToken, "The tenant of the access token is not known here";
    OPTOK_EXPIRED, "optok_expired", InvalidToken, "The access token has expired";
    OPTOK_NOT_YET_VALID, "optok_not_yet_valid", InvalidToken, "The access token is not valid yet";
    OPTOK_ISSUED_IN_FUTURE, "optok_issued_in_future", InvalidToken, "The access token was issued in the future; check the clocks";
    OPTOK_LIFETIME, "optok_lifetime", InvalidToken, "The access token lives longer than is accepted here";
    OPTOK_UNBOUND, "optok_unbound", InvalidToken, "The access token is bound to no key and no certificate; ask for a DPoP or mTLS bound one";
    OPTOK_CONFIRMATION, "optok_confirmation", InvalidToken, "The cnf claim of the access token holds no SHA-256 thumbprint";
    DPOP_BOUND_AS_BEARER, "dpop_bound_as_bearer", InvalidToken, "The access token is bound to a DPoP key; use the DPoP scheme and send a proof";
    OPTOK_NOT_DPOP_BOUND, "optok_not_dpop_bound", InvalidToken, "The access token is not bound to a DPoP key; use the Bearer scheme";
    CERTIFICATE_MISMATCH, "certificate_mismatch", InvalidToken, "The access token is bound to another client certificate";
    DPOP_MISSING, "dpop_missing", InvalidProof, "The access token is bound to a DPoP key, and the request has no DPoP header";
    DPOP_REPEATED, "dpop_repeated", InvalidProof, "The request has more than one DPoP header; send exactly one";
    DPOP_TOO_LARGE, "dpop_too_large", InvalidProof, "The DPoP proof is larger than 4096 bytes";
    DPOP_MALFORMED, "dpop_malformed", InvalidProof, "The DPoP proof is not a JWT that is accepted here";
    DPOP_TYPE, "dpop_type", InvalidProof, "The typ of the DPoP proof must be dpop+jwt";
    DPOP_ALGORITHM, "dpop_algorithm", InvalidProof, "The DPoP proof is signed with an algorithm that is not accepted here";
    DPOP_KEY, "dpop_key", InvalidProof, "The jwk of the DPoP proof must be one public key that fits its alg";
    DPOP_KEY_MISMATCH, "dpop_key_mismatch", InvalidProof, "The DPoP proof is made with another key than the access token is bound to";
    DPOP_SIGNATURE, "dpop_signature", InvalidProof, "The signature of the DPoP proof does not verify";
    DPOP_CLAIMS, "dpop_claims", InvalidProof, "The DPoP proof needs the claims jti, htm, htu, iat and ath, each of its kind";
    DPOP_METHOD, "dpop_method", InvalidProof, "The htm of the DPoP proof is another method than that of the request";
    DPOP_URI, "dpop_uri", InvalidProof, "The htu of the DPoP proof is another URI than that of the request";
    DPOP_TOKEN_HASH, "dpop_token_hash", InvalidProof, "The ath of the DPoP proof is not the hash of the access token";
    DPOP_EXPIRED, "dpop_expired", InvalidProof, "The DPoP proof is too old; make a new one for each request";
    DPOP_ISSUED_IN_FUTURE, "dpop_issued_in_future", InvalidProof, "The DPoP proof was made in the future; check the clocks";
    DPOP_NONCE_MISSING, "dpop_nonce_missing", UseNonce, "The DPoP proof needs the nonce from the DPoP-Nonce header of this answer";
    DPOP_NONCE_INVALID, "dpop_nonce_invalid", UseNonce, "The nonce of the DPoP proof is not valid; use the one from the DPoP-Nonce header of this answer";
    DPOP_REPLAYED, "dpop_replayed", InvalidProof, "The DPoP proof was used before; make a new one for each request";
    REPLAY_MEMORY_FULL, "replay_memory_full", Overloaded, "Too many requests to tell their proofs apart; try again later";
    AUTHORITY_KEYS_UNAVAILABLE, "authority_keys_unavailable", DependencyUnavailable, "The keys of the Authority cannot be had at the moment; try again later";
}
