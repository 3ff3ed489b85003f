//! From the tree to the schema: a `serde` deserializer whose errors know their key and keep their structure.

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::{Origin, listed, nearest};
use super::tree::{Entry, Node, Step, Value};

/// What the schema would not take.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: Kind,
    /// From the outermost table to the value, or to the table that lacks something.
    pub(super) path: Vec<Step>,
    pub(super) origin: Option<Origin>,
}

#[derive(Debug)]
pub(super) enum Kind {
    UnknownKey { key: String, allowed: &'static [&'static str] },
    MissingKey(&'static str),
    UnknownValue { value: String, allowed: &'static [&'static str] },
    WrongType { found: String, expected: String },
    Other(String),
}

impl Refusal {
    /// In words, without place and path.
    pub(super) fn message(&self) -> String {
        match &self.kind {
            Kind::UnknownKey { key, allowed } => unknown(key, "not a key that is known here", allowed),
            Kind::UnknownValue { value, allowed } => unknown(value, "not among the values known here", allowed),
            Kind::MissingKey(key) if self.path.is_empty() => format!("the section is missing; add [{key}]"),
            Kind::MissingKey(key) => {
                format!("it is missing; write `{key} = …` in [{}]", super::tree::dotted(&self.path))
            }
            Kind::WrongType { found, expected } => format!("found {found}; write {}", in_words(expected)),
            Kind::Other(message) if message == "invalid socket address syntax" => {
                format!("this is no address; write {}", in_words("socket address"))
            }
            Kind::Other(message) => message.clone(),
        }
    }

    fn inside(mut self, step: Step, origin: &Origin) -> Self {
        self.path.insert(0, step);
        self.at(origin)
    }

    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn new(kind: Kind) -> Self {
        Self { kind, path: Vec::new(), origin: None }
    }
}

fn unknown(wrong: &str, what: &str, allowed: &[&str]) -> String {
    let meant =
        nearest(wrong, allowed.iter().copied()).map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
    format!("`{wrong}` is {what}; {meant}allowed: {}", listed(allowed.iter().copied()))
}

/// What a type expects, said for a person who writes TOML.
fn in_words(expected: &str) -> &str {
    match expected {
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "socket address" => "an address and a port, as in \"0.0.0.0:8443\"",
        "path string" => "a path in quotes",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list, as in [\"a\", \"b\"]",
        "a map" => "a table of names",
        other => other.strip_prefix("struct ").map_or(other, |_| "a table of keys"),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        // The kind only: a value in the wrong place may be a secret in the wrong place.
        let found = match found {
            de::Unexpected::Bool(_) => "true or false",
            de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) => "a whole number",
            de::Unexpected::Float(_) => "a fraction",
            de::Unexpected::Str(_) => "text",
            de::Unexpected::Seq => "a list",
            de::Unexpected::Map => "a table",
            _ => "something else",
        };
        Self::new(Kind::WrongType { found: found.to_owned(), expected: expected.to_string() })
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::WrongType { found: found.to_string(), expected: expected.to_string() })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey { key: field.to_owned(), allowed: expected })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownValue { value: variant.to_owned(), allowed: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::MissingKey(field))
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::Table(table) => visitor.visit_map(Entries { rest: table.entries.iter(), value: None }),
            Value::Array(items) => visitor.visit_seq(Items { rest: items.iter().enumerate() }),
            Value::String(text) | Value::Datetime(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(truth) => visitor.visit_bool(*truth),
        }
        .map_err(|refusal| refusal.at(&self.origin))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if let Value::Array(_) = self.value {
            // A derived visitor would read a list as the fields in their order.
            return Err(<Refusal as de::Error>::invalid_type(de::Unexpected::Seq, &visitor).at(&self.origin));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let one_of =
            || Refusal::new(Kind::Other(format!("exactly one is needed of {}", listed(variants.iter().copied()))));
        match &self.value {
            Value::String(name) => visitor.visit_enum(StrDeserializer::new(name)),
            Value::Table(table) if table.entries.len() == 1 => match table.entries.first_key_value() {
                Some((name, entry)) => visitor.visit_enum(Variant { name, entry }),
                None => Err(one_of()),
            },
            _ => Err(one_of()),
        }
        .map_err(|refusal| refusal.at(&self.origin))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Entries<'de> {
    rest: std::collections::btree_map::Iter<'de, String, Entry>,
    value: Option<(&'de str, &'de Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((name, entry)) = self.rest.next() else { return Ok(None) };
        self.value = Some((name, entry));
        let key = seed.deserialize(BorrowedStrDeserializer::new(name));
        key.map(Some).map_err(|refusal: Refusal| refusal.inside(Step::Key(name.clone()), &entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let (name, entry) =
            self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(&entry.node).map_err(|refusal| refusal.inside(Step::Key(name.to_owned()), &entry.node.origin))
    }
}

struct Items<'de> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|refusal| refusal.inside(Step::Index(index), &node.origin))
    }
}

/// `{ name = value }` as the variant `name` of an enum.
struct Variant<'de> {
    name: &'de str,
    entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let name = seed.deserialize(IntoDeserializer::<Refusal>::into_deserializer(self.name));
        let name = name.map_err(|refusal| refusal.inside(Step::Key(self.name.to_owned()), &self.entry.key))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Err(Refusal::new(Kind::Other(format!("`{}` takes no value; write it in quotes", self.name))))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        let value = seed.deserialize(&self.entry.node);
        value.map_err(|refusal| refusal.inside(Step::Key(self.name.to_owned()), &self.entry.node.origin))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.entry.node.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        self.entry.node.deserialize_any(visitor)
    }
}
