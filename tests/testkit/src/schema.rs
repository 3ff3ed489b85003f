//! Whether JSON is what a JSON Schema says: as much of the 2020-12 draft as our OpenAPI document uses.

#![forbid(unsafe_code)]

use serde_json::Value;

/// Checks `value` against `schema`, resolving `$ref` within `document`. Members that the schema does not know are a
/// mistake too: an answer must not have what its description hides.
///
/// # Errors
/// The first place that does not conform, and why.
pub fn conforms(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    check(value, schema, document, "$")
}

fn check(value: &Value, schema: &Value, document: &Value, path: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').ok_or_else(|| format!("{path}: `{reference}` is not local"))?;
        let target = document.pointer(pointer).ok_or_else(|| format!("{path}: nothing at `{reference}`"))?;
        return check(value, target, document, path);
    }
    for (keyword, wanted) in [("anyOf", 1..usize::MAX), ("oneOf", 1..2)] {
        if let Some(choices) = schema[keyword].as_array() {
            let fitting = choices.iter().filter(|choice| check(value, choice, document, path).is_ok()).count();
            if !wanted.contains(&fitting) {
                return Err(format!("{path}: {value} fits {fitting} of {keyword}"));
            }
        }
    }
    if let Some(constant) = schema.get("const")
        && value != constant
    {
        return Err(format!("{path}: {value} is not {constant}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{path}: {value} is none of {choices:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(value, name)) {
        return Err(format!("{path}: {value} is not of type {types:?}"));
    }
    if let Some(items) = schema.get("items") {
        for (index, element) in value.as_array().into_iter().flatten().enumerate() {
            check(element, items, document, &format!("{path}[{index}]"))?;
        }
    }
    members(value, schema, document, path)
}

fn members(value: &Value, schema: &Value, document: &Value, path: &str) -> Result<(), String> {
    let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Err(format!("{path}: `{name}` is missing"));
        }
    }
    for (name, member) in members {
        let described = properties.get(name).ok_or_else(|| format!("{path}: `{name}` is not described"))?;
        check(member, described, document, &format!("{path}.{name}"))?;
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_conform_is_noticed() {
        let document = json!({ "defs": { "name": { "type": "string" } } });
        let schema = json!({
            "type": "object",
            "properties": { "name": { "$ref": "#/defs/name" }, "n": { "type": ["integer", "null"] }, "e": { "enum": ["a"] } },
            "required": ["name"],
        });
        assert_eq!(conforms(&json!({ "name": "x", "n": null, "e": "a" }), &schema, &document), Ok(()));
        for wrong in [
            json!([]),
            json!({}),
            json!({ "name": 1 }),
            json!({ "name": "x", "n": "1" }),
            json!({ "name": "x", "e": "b" }),
            json!({ "name": "x", "more": 1 }),
        ] {
            assert!(conforms(&wrong, &schema, &document).is_err(), "{wrong}");
        }
    }
}
