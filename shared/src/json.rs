//! Reading JSON with little code for each type. What `serde_json` makes of a type is a parser of its own, which reads it from
//! a list as well; all of them together were a fifth of the program that the page has to load before it can be used. Here the
//! text becomes a [`Json`] first, in one place, and a type only picks what it needs.
//!
//! Meant for files and messages of bounded length: a value takes several times the memory of its text.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Error;

/// Reads a text.
///
/// # Errors
/// It is no JSON, or not of this type.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    Json::parse(json)?.to()
}

/// What a text says. [`serde_json::Value`] has hash tables, which the page does without.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0.
    Whole(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in order.
    List(Vec<Json>),
    /// Values by name, in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a text.
    ///
    /// # Errors
    /// It is no JSON, or nested more than 127 times.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json)
    }

    /// The value of that name of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Json::Object(fields) => fields.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value as one of another type.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Reader(self))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, is: bool) -> Result<Json, E> {
                Ok(Json::Bool(is))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Whole(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(u64::try_from(number).map_or(Json::Negative(number), Json::Whole))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Json::Float(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = values.next_element()? {
                    list.push(value);
                }
                Ok(Json::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
                let mut object = Vec::new();
                while let Some(field) = fields.next_entry()? {
                    object.push(field);
                }
                Ok(Json::Object(object))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A value that is to become one of another type.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Json);

impl<'de> IntoDeserializer<'de, Error> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(is) => visitor.visit_bool(*is),
            Json::Whole(number) => visitor.visit_u64(*number),
            Json::Negative(number) => visitor.visit_i64(*number),
            Json::Float(number) => visitor.visit_f64(*number),
            Json::Text(text) => visitor.visit_str(text),
            Json::List(values) => {
                let mut values = SeqDeserializer::new(values.iter().map(Reader));
                let value = visitor.visit_seq(&mut values)?;
                values.end()?;
                Ok(value)
            }
            Json::Object(_) => self.deserialize_struct("", &[], visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier
    }

    /// Not from a list, unlike most formats: with that, a type's reader would be there twice.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Json::Object(fields) = self.0 else { return Err(Error::custom("an object is expected")) };
        visitor.visit_map(MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), Reader(value)))))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, content) = match self.0 {
            Json::Text(name) => (name, &Json::Null),
            Json::Object(fields) if fields.len() == 1 => (&fields[0].0, &fields[0].1),
            _ => return Err(Error::custom("the name of one choice is expected, or an object with it")),
        };
        visitor.visit_enum(Variant { name, content: Reader(content) })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

/// One of several: its name, and what stands behind it.
struct Variant<'a> {
    name: &'a str,
    content: Reader<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Reader<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Reader<'a>), Error> {
        let name: StrDeserializer<'a, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Reader<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        <()>::deserialize(self)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", names, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Everything {
        text: String,
        letter: char,
        truth: bool,
        byte: u8,
        big: u64,
        negative: i64,
        float: f64,
        single: f32,
        nothing: (),
        empty: Option<u8>,
        full: Option<Wrapped>,
        list: Vec<Choice>,
        pair: (u8, String),
        table: BTreeMap<String, [i16; 2]>,
        tagged: Vec<Tagged>,
        either: Vec<Either>,
        #[serde(default)]
        default: u8,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(u32);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Unit,
        Newtype(Nothing),
        Tuple(u8, u8),
        Struct { x: f32 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Tagged {
        Plain,
        Extended {
            #[serde(flatten)]
            rest: Rest,
            more: i8,
        },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Rest {
        one: f64,
        two: Vec<bool>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
        Nothing,
    }

    fn everything() -> Everything {
        Everything {
            text: "a \"b\" \u{1f98a}".into(),
            letter: '\u{e9}',
            truth: true,
            byte: 255,
            big: u64::MAX,
            negative: i64::MIN,
            float: 0.1,
            single: 1e-30,
            nothing: (),
            empty: None,
            full: Some(Wrapped(7)),
            list: vec![Choice::Unit, Choice::Newtype(Nothing), Choice::Tuple(1, 2), Choice::Struct { x: -0.5 }],
            pair: (3, String::new()),
            table: [("k".to_owned(), [1, -2])].into(),
            tagged: vec![Tagged::Plain, Tagged::Extended { rest: Rest { one: 2.5, two: vec![true, false] }, more: -1 }],
            either: vec![Either::Number(-4), Either::Text("x".into()), Either::Nothing],
            default: 9,
        }
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let json = serde_json::to_vec(&everything()).unwrap();
        assert_eq!(read::<Everything>(&json).unwrap(), everything());
        let mut json = json!(everything());
        json.as_object_mut().unwrap().remove("default");
        json["float"] = 2.into();
        let expected = Everything { default: 0, float: 2.0, ..everything() };
        assert_eq!(read::<Everything>(json.to_string().as_bytes()).unwrap(), expected);
        let pieces: (Either, Choice) = read(br#"[null, {"Unit": null}]"#).unwrap();
        assert_eq!(pieces, (Either::Nothing, Choice::Unit));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let wrong = |field: &str, value: Value| {
            let mut json = json!(everything());
            json[field] = value;
            read::<Everything>(json.to_string().as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(wrong("text", json!(3)), "invalid type: integer `3`, expected a string");
        assert_eq!(wrong("truth", json!("yes")), "invalid type: string \"yes\", expected a boolean");
        assert_eq!(wrong("list", json!({})), "invalid type: map, expected a sequence");
        for (field, value) in [
            ("byte", json!(256)),
            ("byte", json!(-1)),
            ("big", json!(1.5)),
            ("negative", json!(u64::MAX)),
            ("letter", json!("ab")),
            ("nothing", json!(0)),
            ("full", json!("7")),
            ("pair", json!([3])),
            ("pair", json!([3, "", 0])),
            ("table", json!({"k": [1]})),
            ("list", json!(["Another"])),
            ("list", json!([{"Unit": 1}])),
            ("list", json!([{"Tuple": [1, 2], "Unit": null}])),
            ("tagged", json!([{"type": "extended", "one": 1}])),
            ("either", json!([[]])),
            ("unknown", json!(0)),
        ] {
            wrong(field, value);
        }
        assert_eq!(Json::parse(br#"{"a": -1, "a": 2}"#).unwrap().get("a"), Some(&Json::Negative(-1)));
        for json in [&b""[..], b"{", b"[1]", b"null", b"{} {}", b"\xff"] {
            assert!(read::<Everything>(json).is_err());
        }
    }
}
