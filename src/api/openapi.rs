//! The OpenAPI 3.1 document of the Signer API, made from the route table, the body types and the problem codes.

use http::Method;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::contract::{
    EnvelopeBody, KeysBody, ReferrersResponseBody, SignRequestBody, SignResponseBody, VerifyRequestBody,
    VerifyResponseBody,
};
use super::problem::{Code, ProblemDocument};
use super::routes::{NAME, Operation, ROUTES, Route};

/// The document, in the form that `docs/openapi.json` holds.
#[must_use]
pub fn document() -> String {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    for route in &ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "StellaOps Signer API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Signatures over supply-chain evidence, by keys that never leave an HSM",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "https://signer.example:8443" }],
        "security": [{ "mtls": [], "dpop": [] }, { "mtls": [], "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "mtls": { "type": "mutualTLS", "description": "A client certificate that chains to the configured CA." },
                "dpop": { "type": "http", "scheme": "DPoP", "description": "OpTok with `cnf.jkt`, and a proof in the `DPoP` header (RFC 9449)." },
                "bearer": { "type": "http", "scheme": "Bearer", "bearerFormat": "JWT", "description": "OpTok with `cnf.x5t#S256` of the client certificate (RFC 8705)." },
            },
        },
    });
    serde_json::to_string_pretty(&document).expect("JSON values always serialize") + "\n"
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    use Code::*;
    let described = match route.operation {
        Operation::SignDsse => Described {
            id: "signDsse",
            summary: "Sign evidence",
            request: Some(schema::<SignRequestBody>(generator)),
            response: schema::<SignResponseBody>(generator),
            problems: &[
                InvalidRequest,
                InvalidToken,
                InsufficientScope,
                EntitlementDenied,
                ReleaseUntrusted,
                PredicateNotAllowed,
                ArtifactTooLarge,
                PlanThrottled,
                SigningUnavailable,
                Overloaded,
                DependencyUnavailable,
                Internal,
            ],
        },
        Operation::Keys => Described {
            id: "keys",
            summary: "The public keys of the caller's tenant",
            request: None,
            response: schema::<KeysBody>(generator),
            problems: &[InvalidToken, InsufficientScope, PlanThrottled, Overloaded, DependencyUnavailable, Internal],
        },
        Operation::Custody => Described {
            id: "custody",
            summary: "A report of the key's custody, signed by the key itself",
            request: None,
            response: schema::<EnvelopeBody>(generator),
            problems: &[
                InvalidRequest,
                InvalidToken,
                InsufficientScope,
                NotFound,
                PlanThrottled,
                SigningUnavailable,
                Overloaded,
                DependencyUnavailable,
                Internal,
            ],
        },
        Operation::VerifyDsse => Described {
            id: "verifyDsse",
            summary: "Check an envelope against the tenant's current and retired keys",
            request: Some(schema::<VerifyRequestBody>(generator)),
            response: schema::<VerifyResponseBody>(generator),
            problems: &[
                InvalidRequest,
                InvalidToken,
                InsufficientScope,
                ArtifactTooLarge,
                PlanThrottled,
                Overloaded,
                DependencyUnavailable,
                Internal,
            ],
        },
        Operation::VerifyReferrers => Described {
            id: "verifyReferrers",
            summary: "Whether a scanner image is a trusted release",
            request: None,
            response: schema::<ReferrersResponseBody>(generator),
            problems: &[
                InvalidRequest,
                InvalidToken,
                InsufficientScope,
                PlanThrottled,
                Overloaded,
                DependencyUnavailable,
                Internal,
            ],
        },
    };
    described.operation(route, &schema::<ProblemDocument<'_>>(generator))
}

struct Described {
    id: &'static str,
    summary: &'static str,
    request: Option<Value>,
    response: Value,
    problems: &'static [Code],
}

impl Described {
    fn operation(self, route: &Route, problem: &Value) -> Value {
        let mut responses = Map::new();
        responses.insert(
            "200".into(),
            json!({ "description": "Done", "content": content("application/json", &self.response) }),
        );
        for code in self.problems {
            let status = code.status().as_str().to_owned();
            let response = responses.entry(status).or_insert_with(
                || json!({ "description": "", "content": content("application/problem+json", problem) }),
            );
            let codes = response["description"].as_str().unwrap_or_default();
            let codes = if codes.is_empty() { code.as_str().to_owned() } else { format!("{codes}, {}", code.as_str()) };
            response["description"] = codes.into();
            if let Some(headers) = headers(*code) {
                response["headers"] = headers;
            }
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": [header("DPoP", "Proof of possession for this very request (RFC 9449).")],
            "responses": responses,
        });
        if let Some(request) = self.request {
            operation["requestBody"] = json!({ "required": true, "content": content("application/json", &request) });
        }
        if route.path.contains(NAME) {
            let name = json!({
                "name": "name", "in": "path", "required": true,
                "description": "The key's name, as `GET /keys` has it.",
                "schema": { "type": "string" },
            });
            operation["parameters"].as_array_mut().expect("made above").insert(0, name);
        }
        if route.operation == Operation::VerifyReferrers {
            let image = json!({
                "name": "imageDigest", "in": "query", "required": true,
                "description": "The image.",
                "schema": { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" },
            });
            operation["parameters"].as_array_mut().expect("made above").insert(0, image);
        }
        if route.operation == Operation::SignDsse && route.method == Method::POST {
            let poe = header("X-PoE", "Proof of Entitlement, where the body carries none.");
            operation["parameters"].as_array_mut().expect("made above").push(poe);
        }
        operation
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn content(media_type: &str, schema: &Value) -> Value {
    json!({ media_type: { "schema": schema } })
}

fn header(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": { "type": "string" } })
}

fn headers(code: Code) -> Option<Value> {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    match code {
        Code::InvalidToken => Some(json!({
            "WWW-Authenticate": text("Which scheme, and what was wrong (RFC 6750, RFC 9449)."),
            "DPoP-Nonce": text("The nonce to use in the next proof, where one is due."),
        })),
        Code::PlanThrottled => Some(json!({
            "Retry-After": text("Whole seconds."),
            "RateLimit": text("What is left (draft-ietf-httpapi-ratelimit-headers)."),
            "RateLimit-Policy": text("The plan's limit."),
        })),
        Code::SigningUnavailable | Code::Overloaded | Code::DependencyUnavailable => {
            Some(json!({ "Retry-After": text("Whole seconds.") }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_docs_is_the_one_that_the_code_makes() {
        let kept = include_str!("../../docs/openapi.json");
        assert!(
            kept == document(),
            "docs/openapi.json is old; write it again with `cargo run --bin signerd -- --openapi`"
        );
    }
}
