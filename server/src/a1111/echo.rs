//! What an answer repeats of its request.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Largest request that is repeated, in bytes, its pictures left out: until its answer it is in memory.
const MAX_ECHO: usize = 1 << 20;

/// A request's fields as they came, without its pictures; none of them if that is large.
#[derive(Debug)]
pub(super) struct Echo(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Echo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields).map(Self)
    }
}

impl Serialize for Echo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut bytes) = (Vec::new(), 0);
        // Each is measured before it is kept. Names count as much as what is kept beside them.
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            let value = if name == "init_images" { RawValue::NULL } else { value };
            bytes += size_of::<(String, Box<RawValue>)>() + name.len() + value.get().len();
            if bytes <= MAX_ECHO {
                fields.push((name, value.to_owned()));
            } else {
                fields = Vec::new();
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeated_without_what_is_large() {
        let echo = |body: &str| serde_json::to_string(&serde_json::from_str::<Echo>(body).unwrap()).unwrap();
        let body = r#"{"prompt":"a \"b\"","n\"":1.50,"init_images":["AAAA"],"x":{"y":[1,null]}}"#;
        assert_eq!(echo(body), body.replace(r#"["AAAA"]"#, "null"));
        assert_eq!(echo(&format!(r#"{{"a":1,"b":"{}","c":2}}"#, "x".repeat(MAX_ECHO))), "{}");
        let many: Vec<_> = (0..MAX_ECHO / 8).map(|index| format!(r#""{index}":0"#)).collect();
        assert_eq!(echo(&format!("{{{}}}", many.join(","))), "{}");
        assert!(serde_json::from_str::<Echo>("[1]").is_err() && serde_json::from_str::<Echo>("{\"a\":}").is_err());
    }
}
