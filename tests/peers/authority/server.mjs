// A real OpenID provider as the Authority of a test: it issues the OpToks that the signer must accept, and the identity
// tokens that the signer shows Fulcio.
//
// Environment: TLS_CERT, TLS_KEY (PEM files of the server), CLIENT_CA (PEM file that client certificates chain to),
// DPOP_SECRET (secret of the client `scanner-dpop`), ORPHAN_WATCH=1 to end when standard input ends, and
// IDENTITY_CLIENTS, a JSON array of clients that get identity tokens whose subject is their `client_id`: each proves
// itself by a certificate for a DNS name (`dns`) or by assertions of a key (`jwk`).
// Prints `listening PORT` once it answers. `POST /test/rotate` makes a new signing key: the old one stays published;
// `POST /test/forget` takes all but the newest out of the JWK set.

import { createServer } from 'node:https';
import { X509Certificate, generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Provider, { errors } from 'oidc-provider';

const RESOURCE = 'urn:stellaops:signer';
const FULCIO = 'urn:stellaops:fulcio';
const AUDIENCES = { [RESOURCE]: 'signer', [FULCIO]: 'sigstore' };
const IDENTITY_CLIENTS = JSON.parse(process.env.IDENTITY_CLIENTS ?? '[]');

// `sub`-less service tokens carry who they are for in these claims.
const TENANTS = {
  'scanner-dpop': { tid: 'acme', inst: 'acme-install-1', roles: ['scanner'] },
  'scanner-mtls': { tid: 'acme', inst: 'acme-install-1', roles: ['scanner'] },
};

const keys = [];
let respond;

function addKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  // The provider signs with the first key that fits.
  keys.unshift({ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'ES256', use: 'sig' });
}

function rebuild(issuer) {
  const provider = new Provider(issuer, configuration());
  const callback = provider.callback();
  respond = (request, response) => callback(request, response);
}

function configuration() {
  const client = {
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    // The only key is P-256, and the default of this member is RS256.
    id_token_signed_response_alg: 'ES256',
    scope: 'signer.sign signer.read',
  };
  return {
    jwks: { keys },
    clients: [
      { ...client, client_id: 'scanner-dpop', client_secret: process.env.DPOP_SECRET },
      {
        ...client,
        client_id: 'scanner-mtls',
        token_endpoint_auth_method: 'tls_client_auth',
        tls_client_auth_san_dns: 'acme-ci.test',
        tls_client_certificate_bound_access_tokens: true,
      },
      ...IDENTITY_CLIENTS.map(({ client_id, dns, jwk }) => ({
        ...client,
        client_id,
        ...(jwk ? {
          token_endpoint_auth_method: 'private_key_jwt',
          token_endpoint_auth_signing_alg: 'ES256',
          jwks: { keys: [jwk] },
        } : { token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_san_dns: dns }),
      })),
    ],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'tls_client_auth', 'private_key_jwt'],
    enabledJWA: { dPoPSigningAlgValues: ['ES256', 'EdDSA'], clientAuthSigningAlgValues: ['ES256'] },
    scopes: ['signer.sign', 'signer.read'],
    ttl: { ClientCredentials: 300 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        getCertificate: certificate,
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_san_dns'
          && certificate(ctx).subjectAltName.split(', ').includes(`DNS:${expected}`),
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx, client) => (
          IDENTITY_CLIENTS.some(({ client_id }) => client_id === client.clientId) ? FULCIO : RESOURCE
        ),
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => {
          if (!(resource in AUDIENCES)) throw new errors.InvalidTarget();
          return {
            scope: resource === RESOURCE ? 'signer.sign signer.read' : '',
            audience: AUDIENCES[resource],
            accessTokenTTL: 300,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
    },
    extraTokenClaims: (ctx, token) => TENANTS[token.clientId],
  };
}

function certificate(ctx) {
  const { raw } = ctx.socket.getPeerCertificate();
  return raw && new X509Certificate(raw);
}

const server = createServer({
  cert: readFileSync(process.env.TLS_CERT),
  key: readFileSync(process.env.TLS_KEY),
  ca: readFileSync(process.env.CLIENT_CA),
  requestCert: true,
  // Whoever shows no certificate may still ask for the metadata; `tls_client_auth` looks at `authorized`.
  rejectUnauthorized: false,
});

server.on('request', (request, response) => {
  if (request.method === 'POST' && request.url === '/test/rotate') {
    addKey();
  } else if (request.method === 'POST' && request.url === '/test/forget') {
    keys.length = 1;
  } else {
    respond(request, response);
    return;
  }
  rebuild(issuer());
  response.end(JSON.stringify({ kid: keys[0].kid }));
});

const issuer = () => `https://127.0.0.1:${server.address().port}`;

server.listen(0, '127.0.0.1', () => {
  addKey();
  rebuild(issuer());
  console.log(`listening ${server.address().port}`);
});

if (process.env.ORPHAN_WATCH) {
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}
