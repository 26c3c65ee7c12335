//! JSON with placeholders: `{i}` is the number of the invocation, `{id}` its activation id.

use serde_json::{Map, Value};

/// A JSON value whose texts may hold placeholders.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Value);

impl Template {
    /// A template from the value that a user wrote.
    pub(crate) const fn new(value: Value) -> Self {
        Self(value)
    }

    /// The value for invocation `n`. A text that is nothing but `{i}` becomes the number.
    pub(crate) fn fill(&self, n: u64, id: &str) -> Value {
        fill(&self.0, n, id)
    }
}

fn fill(value: &Value, n: u64, id: &str) -> Value {
    match value {
        Value::String(text) if text == "{i}" => Value::from(n),
        Value::String(text) if text.contains('{') => {
            Value::String(text.replace("{i}", &n.to_string()).replace("{id}", id))
        }
        Value::Array(items) => items.iter().map(|item| fill(item, n, id)).collect(),
        Value::Object(fields) => {
            let filled = fields
                .iter()
                .map(|(key, value)| (key.clone(), fill(value, n, id)));
            Value::Object(filled.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_are_filled_at_any_depth() {
        let template = Template::new(json!({"n": "{i}", "deep": [{"text": "run {i} of {id}"}], "x": 1}));
        let wanted = json!({"n": 7, "deep": [{"text": "run 7 of ab"}], "x": 1});
        assert_eq!(template.fill(7, "ab"), wanted);
    }
}
