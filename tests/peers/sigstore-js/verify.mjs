// Verifies a Sigstore bundle offline with @sigstore/verify, which knows nothing of the signer.
//
// usage: node verify.mjs --bundle FILE --trusted-root FILE --digest HEX (--key PEM | --identity SAN --issuer URL)
//
// No transparency log is asked for; a signed timestamp is. `--digest` is the SHA-256 of a subject: the library leaves
// it to its caller to compare. Exits 0 when the bundle holds, 1 with `refused: …` when it does not, 2 when it could not
// be tried.

import { readFileSync } from 'node:fs';
import { createPublicKey } from 'node:crypto';
import { parseArgs } from 'node:util';
import { bundleFromJSON } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { Verifier, toSignedEntity, toTrustMaterial } from '@sigstore/verify';

const option = { type: 'string' };
const { values } = parseArgs({
  options: { bundle: option, 'trusted-root': option, digest: option, key: option, identity: option, issuer: option },
});

function attempt() {
  const root = TrustedRoot.fromJSON(JSON.parse(readFileSync(values['trusted-root'], 'utf8')));
  const publicKey = values.key && createPublicKey(readFileSync(values.key));
  // One key is known, by whatever name the bundle calls it.
  const keys = publicKey && (() => ({ publicKey, validFor: () => true }));
  const policy = publicKey ? undefined : {
    // The library takes it for a regular expression.
    subjectAlternativeName: `^${values.identity.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`,
    extensions: { issuer: values.issuer },
  };
  const thresholds = { ctlogThreshold: values.key ? 0 : 1, tlogThreshold: 0, timestampThreshold: 1 };
  const verifier = new Verifier(toTrustMaterial(root, keys), thresholds);
  const text = readFileSync(values.bundle, 'utf8');
  return () => {
    const bundle = bundleFromJSON(JSON.parse(text));
    if (Boolean(values.key) !== (bundle.verificationMaterial.content.$case === 'publicKey')) {
      throw new Error('the bundle is of the other kind');
    }
    verifier.verify(toSignedEntity(bundle), policy);
    const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString('utf8'));
    if (!statement.subject.some((subject) => subject.digest.sha256 === values.digest)) {
      throw new Error('no subject has this digest');
    }
  };
}

let verify;
try {
  verify = attempt();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(2);
}
try {
  verify();
} catch (error) {
  console.error(`refused: ${error.message}`);
  process.exit(1);
}
