//! What an operator is told of each mistake.

use super::refusals;

#[test]
fn each_mistake_is_named_with_its_place_its_key_and_what_would_be_right() {
    let d = "signer.toml.d/1.toml";
    let mut wrong = Vec::new();
    for (drop_in, expected) in [
        (
            "[tokens.main]\nsesions = 8",
            format!(
                "{d}:2:1: tokens.main.sesions: `sesions` is not a key that is known here; did you mean `sessions`? allowed: `socket`, "
            ),
        ),
        (
            "tokens.main.sessions = 0",
            format!("{d}:1:24: tokens.main.sessions: found integer `0`; write a whole number from 1 to 4294967295"),
        ),
        (
            "tokens.main.sessions = \"8\"",
            format!("{d}:1:24: tokens.main.sessions: found text; write a whole number from 1"),
        ),
        (
            "[server]\nlisten = 'here'",
            format!("{d}:2:10: server.listen: this is no address; write an address and a port"),
        ),
        ("[sever]", format!("{d}:1:2: sever: `sever` is not a key that is known here; did you mean `server`?")),
        (
            "server.tls.min_version = '1.1'",
            format!(
                "{d}:1:26: server.tls.min_version: `1.1` is not among the values known here; did you mean `1.2`? allowed: `1.2`, `1.3`"
            ),
        ),
        (
            "server.local_listen = '0.0.0.0:9443'",
            format!("{d}:1:23: server.local_listen: `0.0.0.0:9443` is not loopback; "),
        ),
        (
            "server.local_listen = '127.0.0.1:1'\nserver.listen = '127.0.0.1:1'",
            format!("{d}:1:23: server.local_listen: 127.0.0.1:1 is the Signer API's own address; write "),
        ),
        (
            "server.limits.idle_timeout = '30'",
            format!("{d}:1:30: server.limits.idle_timeout: `30` is no duration; write "),
        ),
        (
            "server.limits.max_body_bytes = '1 GB'",
            format!("{d}:1:32: server.limits.max_body_bytes: `1 GB` is no size; write "),
        ),
        (
            "server.limits.max_body_bytes_in_flight = '1 MiB'",
            format!("{d}:1:42: server.limits.max_body_bytes_in_flight: 1 MiB for all bodies is less than the 32 MiB"),
        ),
        (
            "server.limits.max_header_bytes = '1 B'",
            format!("{d}:1:34: server.limits.max_header_bytes: 1 B is out of range; write between"),
        ),
        ("server.public_url = 'http://x'", format!("{d}:1:21: server.public_url: `http://x` is not https; write ")),
        ("server.threads = 1000", format!("{d}:1:18: server.threads: 1000 event loops")),
        (
            "authority.jwks = {}",
            format!("{d}:1:18: authority.jwks: exactly one is needed of `discovery`, `url`, `file`"),
        ),
        (
            "authority.jwks = { url = 'https://x', file = '/x' }",
            format!("{d}:1:18: authority.jwks: exactly one is needed of "),
        ),
        (
            "authority.jwks = { uri = 'https://x' }",
            format!("{d}:1:20: authority.jwks.uri: `uri` is not among the values known here; did you mean `url`?"),
        ),
        (
            "authority.jwks = { url = 'http://x.example' }",
            format!(
                "{d}:1:26: authority.jwks.url: `http://x.example` is not encrypted, which is accepted only to loopback; write "
            ),
        ),
        (
            "authority.jwks = { file = 'jwks.json' }",
            format!("{d}:1:27: authority.jwks.file: this is no absolute path; write "),
        ),
        ("authority.audience = '*'", format!("{d}:1:22: authority.audience: a wildcard would ")),
        ("authority.scope = 'a b'", format!("{d}:1:19: authority.scope: this is not one scope; write ")),
        (
            "authority.algorithms = ['ES256', 'none']",
            format!("{d}:1:34: authority.algorithms[1]: `none` is not among the values known here; "),
        ),
        ("authority.algorithms = []", format!("{d}:1:24: authority.algorithms: no signature would be accepted; list ")),
        (
            "authority.clock_skew = '1h'",
            format!("{d}:1:24: authority.clock_skew: 3600s is too long; write at most \"300s\""),
        ),
        (
            "authority.jwks_max_stale = '1m'",
            format!("{d}:1:28: authority.jwks_max_stale: 60s is shorter than `jwks_refresh` (300s); write "),
        ),
        (
            "authority.dpop.max_remembered_proofs = 5",
            format!("{d}:1:40: authority.dpop.max_remembered_proofs: a handful "),
        ),
        (
            "authority.dpop.nonce = 'never'",
            format!(
                "{d}:1:24: authority.dpop.nonce: `never` is not among the values known here; allowed: `always`, `after-restart`"
            ),
        ),
        (
            "plans.pro.max_artifact_bytes = '1 GiB'",
            format!(
                "{d}:1:32: plans.pro.max_artifact_bytes: 1 GiB can never be used, since server.limits.max_body_bytes is 32 MiB; write "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\npublic_key = '/a'\nsan = 'y'\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:1:1: release.identity[0]: it must be known by its key or by its certificate; write `public_key`, "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nsan = 'y'\nissuer = 'z'\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:1:1: release.identity[0]: `trusted_root` is missing, which says whose certificates count; name "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\npublic_key = '/a'\nrequire_time = true\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!("{d}:4:16: release.identity[0].require_time: nothing could prove the time; name a `trusted_root` "),
        ),
        (
            "[[release.identity]]\nname = 'x'\npublic_key = '/a'\nnotation = { ca = '/b', trusted_identities = ['*'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!("{d}:1:1: release.identity[0]: it must be known by its key or by its certificate; write "),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnotation = { trusted_identities = ['*'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:12: release.identity[0].notation: it has no trust store; write `ca`, `signing_authority`, or "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnotation = { ca = '/b', trusted_identities = [] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:46: release.identity[0].notation.trusted_identities: is empty; write whose certificates count"
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnotation = { ca = '/b', trusted_identities = ['x509.subject: C=US, ST=WA, O=a', 'x509.subject: C=US, ST=WA, O=a, CN=b'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:81: release.identity[0].notation.trusted_identities[1]: `x509.subject: C=US, ST=WA, O=a, CN=b` \
                 overlaps with `x509.subject: C=US, ST=WA, O=a`; keep the one that says less"
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnotation = { ca = '/b', trusted_identities = ['C=US'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:47: release.identity[0].notation.trusted_identities[0]: `C=US`: must begin with `x509.subject:`"
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnotation = { ca = '/b', trusted_identities = ['*'], revoked = ['AB:CD'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:64: release.identity[0].notation.revoked[0]: `AB:CD` is no digest of a certificate's key; write "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nrequire_time = true\nnotation = { ca = '/b', trusted_identities = ['*'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:16: release.identity[0].require_time: nothing could prove the time; name `notation.tsa` or "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\ntrusted_root = '/r'\nnotation = { ca = '/b', trusted_identities = ['*'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!("{d}:3:16: release.identity[0].trusted_root: it is for cosign's signatures; time stamps of "),
        ),
        (
            "[[release.identity]]\nname = 'x'\nsan = 'a'\nissuer = 'b'\ntrusted_root = '/r'\nnot_before = '2027-01-01T00:00:00Z'\nnot_after = '2026-01-01T00:00:00Z'\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!("{d}:7:13: release.identity[0].not_after: it ends before it begins; write a moment after "),
        ),
        (
            "[[release.identity]]\nname = 'x'\npublic_key = '/a'\nnot_before = '2026-01-01T00:00:00Z'\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:4:14: release.identity[0].not_before: nothing proves that a signature was not made earlier; give "
            ),
        ),
        (
            "[[release.identity]]\nname = 'x'\nnot_before = '2026-01-01T00:00:00Z'\nnotation = { ca = '/b', tsa = '/t', trusted_identities = ['*'] }\n[[release.repository]]\nurl = 'https://r.example/a'",
            format!(
                "{d}:3:14: release.identity[0].not_before: nothing proves that a signature was not made earlier; give "
            ),
        ),
        (
            "[[release.repository]]\nurl = 'https://registry.example/team/scanner:latest'\n[[release.identity]]\nname = 'x'\npublic_key = '/a'",
            format!(
                "{d}:2:7: release.repository[0].url: it names no repository; write the registry and the repository in it"
            ),
        ),
        (
            "[[release.repository]]\nurl = 'http://registry.example/team/scanner'\n[[release.identity]]\nname = 'x'\npublic_key = '/a'",
            format!("{d}:2:7: release.repository[0].url: `http://registry.example/team/scanner` is not encrypted, "),
        ),
        (
            "[[release.repository]]\nurl = 'https://registry.example/a'\nredirects = ['https://storage.example/bucket']\n[[release.identity]]\nname = 'x'\npublic_key = '/a'",
            format!("{d}:3:14: release.repository[0].redirects[0]: it has a path; write scheme, host and port"),
        ),
        (
            "[[release.repository]]\nurl = 'https://registry.example/a'\ncertificate = '/a'\n[[release.identity]]\nname = 'x'\npublic_key = '/a'",
            format!(
                "{d}:1:1: release.repository[0]: `certificate` and `private_key` go together; write both or neither"
            ),
        ),
        (
            "release.timeout = '60s'",
            format!("{d}:1:19: release.timeout: 60s for a repository is not less than the 60s"),
        ),
        (
            "[[release.identity]]\nname = 'x'\npublic_key = '/a'",
            format!("{d}:1:1: release.identity[0]: its signatures are found nowhere; add [[release.repository]] or "),
        ),
        (
            "[[release.repository]]\nurl = 'https://registry.example/a'",
            format!(
                "{d}:1:1: release.repository[0]: no signature would count, since nobody is named who signs releases; "
            ),
        ),
        (
            "[[release.trusted]]\ndigest = 'sha256:00'\nsigned_by = 'x'\nreason = 'y'",
            format!("{d}:2:10: release.trusted[0].digest: `sha256:00` is no image digest; write "),
        ),
        (
            "[[release.trusted]]\ndigest = 'x'\nsigned_by = 'x'",
            format!("{d}:1:1: release.trusted[0].reason: it is missing; write `reason = …` in [release.trusted[0]]"),
        ),
        (
            "tokens.main.uri = 'pkcs11:token=x?pin-value=1234'",
            format!("{d}:1:19: tokens.main.uri: a PIN is never written in a URI"),
        ),
        (
            "tokens.main.pin_file = '123456'",
            format!("{d}:1:24: tokens.main.pin_file: this is no absolute path; write "),
        ),
        (
            "tokens.main.sessions = 5000",
            format!("{d}:1:24: tokens.main.sessions: 5000 sessions are more than tokens have; write at most 1024"),
        ),
        (
            "tokens.main.connector = 'http://127.0.0.1:12345'",
            format!("{d}:1:25: tokens.main.connector: `module` is given as well; keep `connector` for a YubiHSM"),
        ),
        (
            "tokens.main.connector = 'https://hsm:12345'",
            format!("{d}:1:25: tokens.main.connector: `https://hsm:12345` is no connector; write \"http://HOST:PORT\""),
        ),
        ("tokens.main.serial = 7550140", format!("{d}:1:22: tokens.main.serial: it is for a YubiHSM with `connector`")),
        (
            "[tokens.second]\nsocket = '/run/s'\nfront_user = 'a'\nworker_user = 'b'\npin_file = '/p'\nconnector = 'usb'\nauth_key = 2\nsessions = 16",
            format!("{d}:8:12: tokens.second.sessions: a YubiHSM has 16 sessions, one of which is kept for its log"),
        ),
        (
            "tokens.main.profile = 'softhsm'",
            format!(
                "{d}:1:23: tokens.main.profile: there is no profile `softhsm`; did you mean `softhsm2`? known: `aws-cloudhsm`, "
            ),
        ),
        (
            "tokens.main.profile = 'yubihsm2'",
            format!(
                "{d}:1:23: tokens.main.profile: `yubihsm2` is for a YubiHSM's connector, which this section does not name"
            ),
        ),
        (
            "tokens.main.profile = 'yubihsm2-pkcs11'\ntokens.main.sessions = 17",
            format!("{d}:2:24: tokens.main.sessions: 17 sessions are more than YubiHSM 2"),
        ),
        (
            "tokens.second = { socket = '/run/s', front_user = 'a', worker_user = 'b', module = '/m', uri = 'pkcs11:token=x' }",
            format!("{d}:1:17: tokens.second.pin_file: it is missing; write `pin_file = …` in [tokens.second]"),
        ),
        (
            "[tokens.second]\nsocket = '/run/stellaops-signer/token-main.sock'\nfront_user = 'a'\nworker_user = 'b'\nmodule = '/m'\nuri = 'pkcs11:token=x'\npin_file = '/p'",
            format!("{d}:2:10: tokens.second.socket: token `main` has the same socket; "),
        ),
        (
            "keys.acme-2026.token = 'mian'",
            format!(
                "{d}:1:24: keys.acme-2026.token: there is no token `mian`; did you mean `main`? configured: `main`"
            ),
        ),
        (
            "keys.acme-2026.state = 'on'",
            format!(
                "{d}:1:24: keys.acme-2026.state: `on` is not among the values known here; allowed: `next`, `active`, `retired`"
            ),
        ),
        ("keys.acme-2026.state = 'retired'", "signer.toml:".to_owned()),
        (
            "tokens.main.sign_timeout = '60s'",
            format!("{d}:1:28: tokens.main.sign_timeout: 60s for a signature is not less than the 60s that "),
        ),
        (
            "[[keys.acme-2026.replica]]\ntoken = 'mian'\nuri = 'pkcs11:object=a'",
            format!("{d}:2:9: keys.acme-2026.replica[0].token: there is no token `mian`; did you mean `main`?"),
        ),
        (
            "[[keys.acme-2026.replica]]\ntoken = 'main'\nuri = 'pkcs11:object=a'",
            format!("{d}:2:9: keys.acme-2026.replica[0].token: the key is in token `main` already; name another"),
        ),
        (
            "[[keys.acme-2026.custody_exception]]\nattribute = 'CKA_LOKAL'\nreason = 'x'",
            format!(
                "{d}:2:13: keys.acme-2026.custody_exception[0].attribute: `CKA_LOKAL` is not among the values known here; did you mean `CKA_LOCAL`?"
            ),
        ),
        (
            "[[keys.acme-2026.custody_exception]]\nattribute = 'CKA_LOCAL'",
            format!("{d}:1:1: keys.acme-2026.custody_exception[0].reason: it is missing; write `reason = …`"),
        ),
        (
            "keys.b = { token = 'main', state = 'next', uri = 'pkcs11:object=b', object_id = '0x0001' }",
            format!("{d}:1:10: keys.b: `uri` and `object_id` both name the object; keep one of them"),
        ),
        (
            "keys.b = { token = 'main', state = 'next' }",
            format!("{d}:1:10: keys.b: the object is missing; write `uri = "),
        ),
        (
            "keys.b = { token = 'main', state = 'next', object_id = '7' }",
            format!("{d}:1:56: keys.b.object_id: `7` is no object id; write one from \"0x0001\""),
        ),
        (
            "custody.check_interval = '7d'",
            format!("{d}:1:26: custody.check_interval: 604800s is too long; write at most \"86400s\""),
        ),
        (
            "keys.acme-2026.not_before = 2027-01-01T00:00:00Z\nkeys.acme-2026.not_after = 2026-01-01T00:00:00Z",
            format!("{d}:2:28: keys.acme-2026.not_after: the key ends (2026-01-01T00:00:00Z) before it begins"),
        ),
        (
            "keys.acme-2026.not_before = 'soon'",
            format!("{d}:1:29: keys.acme-2026.not_before: `soon` is no moment with a time zone; write "),
        ),
        (
            "tenants.acme.keys = ['acme-2025']",
            format!(
                "{d}:1:22: tenants.acme.keys[0]: there is no key `acme-2025`; did you mean `acme-2026`? configured: `acme-2026`"
            ),
        ),
        (
            "tenants.acme.keys = ['acme-2026', 'acme-2026']",
            format!("{d}:1:35: tenants.acme.keys[1]: `acme-2026` is listed twice"),
        ),
        ("tenants.acme.keys = []", format!("{d}:1:21: tenants.acme.keys: none of the tenant's keys signs; list ")),
        (
            "tenants.acme.predicate_types = []",
            format!("{d}:1:32: tenants.acme.predicate_types: the tenant may have nothing signed; list "),
        ),
        (
            "tenants.acme.default_mode = 'hsm'",
            format!(
                "{d}:1:29: tenants.acme.default_mode: `hsm` is not among the values known here; allowed: `kms`, `keyless`"
            ),
        ),
        ("audit.path = 'audit.jsonl'", format!("{d}:1:14: audit.path: this is no absolute path; write ")),
        ("audit.group_commit = '1s'", format!("{d}:1:22: audit.group_commit: 1s is too long; write at most \"100ms\"")),
        ("log.filter = 'loud=very'", format!("{d}:1:14: log.filter: this is no filter (")),
        ("tenants = 7", format!("{d}:1:11: tenants: found a whole number; write a table of names")),
        ("server = []", format!("{d}:1:10: server: found a list; write a table of keys")),
        ("a = 1\na = 2", format!("{d}:2:1: this is not TOML: duplicate key")),
        ("[server", format!("{d}:1:")),
    ] {
        let refusals = refusals(drop_in);
        if refusals.len() != 1 || !refusals[0].starts_with(&expected) {
            wrong.push(format!("{drop_in}\n   is {refusals:#?}\n   not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const KEYLESS: &str = "
    [keyless]
    fulcio_url = 'https://fulcio.example'
    ca = '/ca'
    trusted_root = '/root.json'
    [keyless.identity.work]
    issuer = 'https://id.example'
    source = { file = '/token' }
    [tenants.globex]
    predicate_types = ['*']
    default_mode = 'keyless'
    [tenants.globex.keyless]
    identity = 'work'
    san = 'spiffe://example.org/signer'
    [timestamps]
    trusted_root = '/root.json'
    authority = { main = { url = 'https://tsa.example' } }
    ";

/// What an operator is told of mistakes in keyless signing; `KEYLESS` itself is right.
#[test]
fn each_mistake_in_keyless_signing_is_named_with_its_key_and_what_would_be_right() {
    use super::{EXAMPLE, sources};
    sources(&[EXAMPLE, KEYLESS]).unwrap();
    let assertion = "keyless.identity.work.source = { client_credentials = { token_url = 'https://a.example/token', ca = '/ca', \
                     client_id = 'signer', authentication = { private_key_jwt = { key = 'KEY' } } } }";
    let mut wrong = Vec::new();
    for (drop_in, expected) in [
        (
            "keyless.fulcio_url = 'https://fulcio.example/api'",
            "keyless.fulcio_url: `https://fulcio.example/api` has something after the authority; write ",
        ),
        (
            "keyless.fulcio_url = 'http://fulcio.example'",
            "keyless.fulcio_url: `http://fulcio.example` is not encrypted",
        ),
        ("keyless.proxy = 'https://proxy.example'", "keyless.proxy: `https://proxy.example` is not http; write "),
        (
            "keyless.proxy = 'http://user:hunter2@proxy.example'",
            "keyless.proxy: the URL carries a user name or password; ",
        ),
        (
            "keyless.fulcio_url = 'http://localhost:5555'\nkeyless.proxy = 'http://proxy.example'",
            "keyless.proxy: `fulcio_url` is http, so that the identity token would pass the proxy in clear",
        ),
        ("keyless.helper = 'signer-keyless'", "keyless.helper: this is no absolute path"),
        ("keyless.sign_timeout = '60s'", "keyless.sign_timeout: 60s for a signature is not less than the 60s"),
        ("keyless.max_flows = 2000", "keyless.max_flows: 2000 is out of range; write at most 1000"),
        (
            "keyless.sct = 'none'",
            "keyless.sct: `none` is not among the values known here; allowed: `required`, `optional`",
        ),
        (
            "keyless.reuse.max_signatures = 2\nkeyless.reuse.margin = '10m'",
            "keyless.reuse.margin: 600s is the whole life of a certificate",
        ),
        (
            "keyless.reuse.max_signatures = 2\nkeyless.reuse.max_age = '10m'",
            "keyless.reuse.max_age: 600s and the `margin` of 60s are longer than a certificate lives",
        ),
        (
            "keyless.sandbox_exception = [{ layer = 'chroot', reason = 'x' }]",
            "keyless.sandbox_exception[0].layer: `chroot` is no layer of the helper's sandbox; known: `not-dumpable`, ",
        ),
        (
            "keyless.sandbox_exception = [{ layer = 'no-new-privileges', reason = 'x' }]",
            "keyless.sandbox_exception[0].layer: `landlock` and `seccomp` need it; ",
        ),
        (
            "keyless.sandbox_exception = [{ layer = 'landlock', reason = 'x' }, { layer = 'landlock', reason = 'y' }]",
            "keyless.sandbox_exception[1].layer: `landlock` is excepted twice; write it once",
        ),
        (
            "keyless.identity.work.source = { file = 'token' }",
            "keyless.identity.work.source.file: this is no absolute path",
        ),
        (
            "keyless.identity.work.source = { secret = 'x' }",
            "keyless.identity.work.source.secret: `secret` is not among the values known here; allowed: `file`, ",
        ),
        (
            "keyless.identity.work.source = { credential = '../x' }",
            "keyless.identity.work.source.credential: this name is not usable",
        ),
        ("keyless.identity.work.audience = '*'", "keyless.identity.work.audience: a wildcard matches nothing"),
        (
            "keyless.identity.work.issuer = 'id.example'",
            "keyless.identity.work.issuer: `id.example` is not an absolute URL",
        ),
        (
            &assertion.replace("KEY", "no"),
            "keyless.identity.work.source.client_credentials.authentication.private_key_jwt.key: there is no key `no`; ",
        ),
        (
            &assertion.replace("KEY", "acme-2026"),
            "keyless.identity.work.source.client_credentials.authentication.private_key_jwt.key: tenant `acme` signs with this key; ",
        ),
        (
            &assertion.replace("https://a.example", "http://localhost").replace("KEY", "acme-2026"),
            "keyless.identity.work.source.client_credentials.token_url: `http://localhost/token` is not https",
        ),
        (
            "tenants.globex.keyless.identity = 'wrok'",
            "tenants.globex.keyless.identity: there is no identity `wrok`; did you mean `work`? ",
        ),
        ("tenants.globex.keyless.san = 'signer'", "tenants.globex.keyless.san: this is no subject alternative name; "),
        ("tenants.acme.default_mode = 'keyless'", "tenants.acme.default_mode: the tenant has no settings for it; add "),
        ("tenants.globex.default_mode = 'kms'", "tenants.globex.keys: none of the tenant's keys signs; list "),
        ("timestamps.authority = {}", "timestamps.authority: there is no authority to ask; add "),
        (
            "timestamps.authority.main.url = 'http://tsa.example'",
            "timestamps.authority.main.url: `http://tsa.example` is not encrypted",
        ),
        (
            "timestamps.policy = 'most'",
            "timestamps.policy: `most` is not among the values known here; allowed: `one`, `all`",
        ),
    ] {
        let refusals: Vec<String> = match sources(&[EXAMPLE, KEYLESS, drop_in]) {
            Ok(_) => vec!["nothing is wrong".to_owned()],
            Err(errors) => errors.0.iter().map(|error| format!("{}: {}", error.key, error.message)).collect(),
        };
        if !refusals.iter().any(|refusal| refusal.starts_with(expected)) {
            wrong.push(format!("{drop_in}\n   is {refusals:#?}\n   not {expected}"));
        }
        assert!(!refusals.join("").contains("hunter2"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_appliance_that_signs_only_keyless_needs_neither_tokens_nor_keys() {
    use super::super::testing::minimal;
    let config = minimal(&KEYLESS.replace("[timestamps]", "[tenants.other]\npredicate_types = ['*']\ndefault_mode = 'keyless'\nkeyless = { identity = 'work', san = 'a@b.example' }\n[timestamps]"));
    assert!(config.tokens.is_empty() && config.keys.is_empty());
}

#[test]
fn keyless_settings_without_a_fulcio_are_named() {
    let without = refusals("tenants.acme.keyless = { identity = 'x', san = 'spiffe://a/b' }");
    assert!(
        without[0].contains("tenants.acme.keyless: this appliance has no Fulcio to ask; add [keyless]"),
        "{without:?}"
    );
}
