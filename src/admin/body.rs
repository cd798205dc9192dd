//! The body of a write: one JSON object, each field of it looked at, none left over.

use crate::config::{Backend, Quoted, read_duration};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The fields of an object, in their order.
pub(super) struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What is wrong with a body: a clause that names the field and says what to write.
pub(super) type Fault = String;

impl Fields {
    /// Reads `body`, which has no fields but `known`. One that is empty is an object without any.
    pub(super) fn read(body: &[u8], known: &[&str]) -> Result<Fields, Fault> {
        if body.trim_ascii().is_empty() {
            return Ok(Fields(Vec::new()));
        }
        let example = match known {
            [] => "; nothing need be sent here",
            ["weight"] => ", as in {\"weight\": 5}",
            _ => ", as in {\"host\": \"10.0.0.7\", \"port\": 8080}",
        };
        let fields: Fields = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON object: {error}; send one{example}"))?;
        for (at, (name, _)) in fields.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let near = known.iter().max_by(|a, b| {
                    let likeness = |known: &str| strsim::jaro_winkler(known, name);
                    likeness(a).total_cmp(&likeness(b))
                });
                let hint = match near {
                    Some(near) if strsim::jaro_winkler(near, name) > 0.8 => format!("did you mean {near:?}?"),
                    Some(_) => format!("the fields are {}", known.join(", ")),
                    None => "there is none here".to_owned(),
                };
                return Err(format!("{}: is no field; {hint}", Quoted::new(name)));
            }
            if fields.0[..at].iter().any(|(other, _)| other == name) {
                return Err(format!("{name}: is there twice; write it once"));
            }
        }
        Ok(fields)
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &str, example: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(other) => Err(format!("{name}: is {}; write text, as in {example:?}", kind(&other))),
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Fault> {
        let (least, most) = (range.start(), range.end());
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name}: {number} is no whole number from {least} to {most}; write one")),
            },
            Some(other) => Err(format!("{name}: is {}; write a whole number from {least} to {most}", kind(&other))),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(format!("{name}: is {}; write true or false", kind(&other))),
        }
    }

    /// A duration.
    pub(super) fn duration(&mut self, name: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>, Fault> {
        self.text(name, "10s")?.map(|text| duration(name, &text, range)).transpose()
    }

    /// An id.
    pub(super) fn id(&mut self) -> Result<Option<String>, Fault> {
        let Some(id) = self.text("id", "backend1")? else { return Ok(None) };
        match Backend::fault_of_id(&id) {
            None if id.len() > Backend::LONGEST_ID => Err(format!(
                "id: {} is longer than {} bytes; write a shorter one",
                Quoted::new(&id),
                Backend::LONGEST_ID
            )),
            None => Ok(Some(id)),
            Some(why) => Err(format!("id: {} is no id: {why}; write another", Quoted::new(&id))),
        }
    }
}

/// A duration in `range`, of the field or parameter `name`.
pub(super) fn duration(name: &str, text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let duration = read_duration(text).map_err(|fault| format!("{name}: {fault}"))?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let [least, most] = [range.start(), range.end()].map(|end| humantime::format_duration(*end));
    Err(format!("{name}: {} is out of range; write a duration from {least} to {most}", Quoted::new(text)))
}

/// What is missing.
pub(super) fn required<T>(name: &str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| format!("{name}: is missing; write it"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "empty",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
