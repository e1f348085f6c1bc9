//! The OpenAPI 3.1 document, made of the table that the router is made of.

use std::sync::LazyLock;

use axum::Json as Answer;
use serde_json::{Map, Value, json};

use super::routes::{Content, Kind, Operation, operations};
use super::{documents, problem, query, views};

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// Fields that answers may leave out; every other is always there, null where there is nothing.
const SPARSE: [(&str, &str); 3] = [("Problem", "field"), ("Key", "msk"), ("Key", "salt")];

/// `GET /openapi.json`
pub(super) async fn serve() -> Answer<&'static Value> {
    Answer(&DOCUMENT)
}

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ltkmd admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Ids in paths are percent-encoded. Octets are base64 unless said otherwise; times are \
                RFC 3339 UTC. Fields and query parameters that are not known are 422. Over a unix socket no token is \
                needed but for secrets.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer", "description": "The admin_token."},
                "keyReader": {"type": "http", "scheme": "bearer", "description": "The key_reader_token."}
            }
        }
    })
}

fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in documents::schemas() {
        all.insert(name.to_owned(), schema);
    }
    for (name, schema) in views::schemas() {
        let mut schema = serde_json::to_value(schema).expect("a schema can be written");
        if let Some(properties) = schema["properties"].as_object() {
            let always = |field: &&String| !SPARSE.contains(&(&name, field));
            let required: Vec<_> = properties.keys().filter(always).cloned().collect();
            schema["required"] = json!(required);
        }
        all.insert(name, schema);
    }
    all
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn content(content: &Content) -> Option<Value> {
    let page = |name: &str| {
        json!({
            "type": "object", "required": ["items", "next"],
            "properties": {
                "items": {"type": "array", "items": reference(name)},
                "next": {"type": ["string", "null"], "description": "What `after` has to be for the next page."}
            }
        })
    };
    Some(match content {
        Content::None => return None,
        Content::Json(name) => json!({"application/json": {"schema": reference(name)}}),
        Content::Page(name) => json!({"application/json": {"schema": page(name)}}),
        Content::Lines(name) => json!({"application/x-ndjson": {"schema": reference(name)}}),
        Content::Octets => json!({"application/octet-stream": {"schema": {}}}),
        Content::Object => json!({"application/json": {"schema": {"type": "object"}}}),
        Content::Text(media) => json!({*media: {"schema": {"type": "string"}}}),
        Content::Metrics => json!({"text/plain": {"schema": {"type": "string"}}}),
    })
}

fn describe(operation: &Operation) -> Value {
    let mut parameters = Vec::new();
    let captures = operation.path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    for name in captures {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "schema": {"type": "string"},
            "description": "Percent-encoded, / as %2F."
        }));
    }
    for parameter in operation.query {
        let schema = match parameter.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Flag => json!({"type": "boolean", "default": false}),
            Kind::Limit => json!({
                "type": "integer", "minimum": 1, "maximum": query::MAX_LIMIT, "default": query::DEFAULT_LIMIT
            }),
            Kind::Words(words) => json!({"type": "string", "enum": words}),
        };
        parameters.push(json!({
            "name": parameter.name, "in": "query", "required": false, "schema": schema,
            "description": parameter.about
        }));
    }
    let mut responses = Map::new();
    for (status, about, answer) in operation.answers {
        let mut response = json!({"description": about});
        if let Some(content) = content(answer) {
            response["content"] = content;
        }
        responses.insert(status.to_string(), response);
    }
    for status in errors(operation) {
        let phrase = axum::http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        responses.insert(
            status.to_string(),
            json!({
                "description": phrase.unwrap_or("Error"),
                "content": {problem::PROBLEM_JSON: {"schema": reference("Problem")}}
            }),
        );
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": responses,
    });
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    if let Some(content) = content(&operation.body) {
        described["requestBody"] = json!({"required": !operation.body_optional, "content": content});
    }
    described["security"] = match (operation.open, super::routes::SECRETS.contains(&operation.path)) {
        (true, _) => json!([]),
        (false, true) => json!([{"admin": []}, {"keyReader": []}]),
        (false, false) => json!([{"admin": []}]),
    };
    described
}

/// The statuses of an operation's problem documents: its own, and those of the token and of a wrong query.
fn errors(operation: &Operation) -> Vec<u16> {
    let mut all = operation.errors.to_vec();
    if !operation.open {
        all.extend([400, 401, 422]);
    }
    all.sort_unstable();
    all
}
