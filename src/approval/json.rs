//! JSON from outside, read strictly: what two readers could understand differently is refused.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::map::Entry as Slot;
use serde_json::{Map, Number, Value};

use super::Damage;

/// Reads one JSON object without duplicate keys, at whatever depth.
///
/// # Errors
/// `Damage` says where the text stops being that.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Damage> {
    if bytes.trim_ascii().is_empty() {
        return Err(Damage::new("it is empty"));
    }
    let not_json = |error: serde_json::Error| {
        let what = match error.classify() {
            Category::Data => "it is no JSON object that can be used",
            Category::Syntax | Category::Eof | Category::Io => "it is not JSON",
        };
        Damage::new(format!("{what}: {error}"))
    };
    let Object(fields) = serde_json::from_slice(bytes).map_err(not_json)?;
    Ok(fields)
}

/// One JSON object. `serde_json` alone would let the last of two equal keys win, and two readers of one file might
/// see two different requests.
struct Object(Map<String, Value>);

/// Any JSON in which no object has the same key twice.
///
/// Nor has one the key by which `serde_json` tells a number to itself: an object with it would be read as a number. A
/// true number gives its digits as owned text, which no string in a slice is.
struct Strict {
    value: Value,
    owned_text: bool,
}

/// As many fields as an approval has, or a few more.
const USUAL: usize = 16;
/// How `serde_json` marks what is its own.
const PRIVATE: &str = "$serde_json::private::";

impl From<Value> for Strict {
    fn from(value: Value) -> Self {
        Self {
            value,
            owned_text: false,
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                match StrictVisitor::of(map, Map::with_capacity(USUAL))?.value {
                    Value::Object(fields) => Ok(Object(fields)),
                    _ => Err(de::Error::custom("a number")),
                }
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl StrictVisitor {
    /// Reads an object into the empty one.
    fn of<'de, A: MapAccess<'de>>(
        mut map: A,
        mut fields: Map<String, Value>,
    ) -> Result<Strict, A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let Strict { value, owned_text } = map.next_value()?;
            if key.starts_with(PRIVATE) {
                let digits = value.as_str().filter(|_| owned_text);
                let number = digits.and_then(|digits| digits.parse::<Number>().ok());
                return match number {
                    Some(number) => Ok(Value::Number(number).into()),
                    None => Err(de::Error::custom(format_args!("key {key:?}"))),
                };
            }
            match fields.entry(key) {
                Slot::Vacant(free) => drop(free.insert(value)),
                Slot::Occupied(taken) => {
                    let key = taken.key();
                    return Err(de::Error::custom(format_args!("duplicate key {key:?}")));
                }
            }
        }
        Ok(Value::Object(fields).into())
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Strict, A::Error> {
        Self::of(map, Map::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict { value, .. }) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values).into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Strict, E> {
        Ok(Value::from(text).into())
    }

    fn visit_string<E>(self, text: String) -> Result<Strict, E> {
        Ok(Strict {
            value: text.into(),
            owned_text: true,
        })
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Value::Null.into())
    }
}
