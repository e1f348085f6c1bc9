//! Answers held against the OpenAPI document: as much of JSON Schema as it uses.

use std::sync::LazyLock;

use serde_json::Value;

use super::Answer;
use crate::admin::openapi;

pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// The operation behind a method and a path; `None`: the document knows none.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len() && template.iter().zip(path).all(|(t, p)| t.starts_with('{') || *t == p)
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let (_, item) = paths.iter().find(|(template, _)| fits(template))?;
    item.get(method.to_lowercase())
}

/// Holds an answer against the document: its status is known there, and its content is as described.
pub(super) fn hold(method: &str, path: &str, answer: &Answer) {
    let context = format!("{method} {path} → {} {}", answer.status, answer.body);
    assert_eq!(answer.header("cache-control"), "no-store", "{context}");
    let Some(operation) = operation(method, path) else {
        assert!(matches!(answer.status, 401 | 404 | 405), "no such call, and yet {context}");
        return problem(&answer.body, &context);
    };
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "a status that the document does not know: {context}");
    match response["content"].as_object() {
        None => assert_eq!(answer.body, Value::Null, "{context}"),
        Some(content) => {
            let (media, described) = content.iter().next().expect("one media type");
            assert_eq!(answer.header("content-type").split(';').next(), Some(media.as_str()), "{context}");
            let lines = std::slice::from_ref(&answer.body);
            let lines = if media == "application/x-ndjson" {
                answer.body.as_array().map_or(lines, |a| a)
            } else {
                lines
            };
            for value in lines {
                if let Err(why) = validate(&described["schema"], value) {
                    panic!("{why}: {context}");
                }
            }
        }
    }
    if answer.status >= 400 {
        problem(&answer.body, &context);
    }
}

/// The id of the operation behind a method and a path.
pub(super) fn operation_id(method: &str, path: &str) -> Option<&'static str> {
    operation(method, path)?["operationId"].as_str()
}

fn problem(body: &Value, context: &str) {
    validate(&DOCUMENT["components"]["schemas"]["Problem"], body).expect(context);
    assert_eq!(body["type"], "about:blank", "{context}");
    assert_eq!(body["field"].is_string(), body["status"] == 422, "{context}");
    assert!(body["detail"].as_str().is_some_and(|d| d.len() > 8), "{context}");
}

/// Whether a value is as a schema says; the error says where not.
pub(super) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/components/schemas/").expect("a reference inside the document");
        let target = &DOCUMENT["components"]["schemas"][name];
        assert!(target.is_object(), "nothing is called {name}");
        return validate(target, value).map_err(|why| format!("{name}: {why}"));
    }
    if let Some(ways) = schema["oneOf"].as_array()
        && !ways.iter().any(|way| validate(way, value).is_ok())
    {
        return Err(format!("{value} is none of {}", schema["oneOf"]));
    }
    let fits = |kind: &Value| match kind.as_str().expect("a type's name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64(),
        other => panic!("a type that these schemas do not use: {other}"),
    };
    let typed = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(fits),
        kind => fits(kind),
    };
    if !typed {
        return Err(format!("{value} is not of type {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if let Some(items) = value.as_array() {
        for item in items {
            validate(&schema["items"], item)?;
        }
    }
    if let Some(members) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().expect("a name");
            if !members.contains_key(name) {
                return Err(format!("{name} is missing"));
            }
        }
        let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
        for (name, member) in members {
            let property = properties.get(name).ok_or_else(|| format!("{name} is not described"))?;
            validate(property, member).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}
