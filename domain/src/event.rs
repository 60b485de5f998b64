//! Names on disk: how an event becomes a type and a payload, and comes back.
//!
//! The rule of this file: a payload is one JSON object in canonical form (RFC 8785), so that what is
//! stored can be hashed; the name on disk is the variant's serde `rename` and is spelled nowhere else.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, VariantAccess, Visitor,
};
use serde::{Deserializer, Serialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

use crate::upcast::{UPCASTERS, Upcaster};

/// The name on disk of an event, as `agent.installed.v1`.
pub fn name_of<E: Serialize>(event: &E) -> &'static str {
    serde_variant::to_variant_name(event).expect("events are enums")
}

/// The version in a name on disk: `v1` of `agent.installed.v1`.
pub fn version_of(event_type: &str) -> &str {
    event_type.rsplit('.').next().unwrap_or_default()
}

/// Every name on disk that `E` writes today.
pub fn names<E: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // An enum asks to be read with the names of its variants, which is all that is wanted here.
    let _ = E::deserialize(Names(&mut names));
    names
}

/// An event as it goes to the log: its name on disk and its canonical payload.
pub fn encode<E: Serialize>(event: &E) -> (String, Box<RawValue>) {
    let event_type = name_of(event);
    let tagged = serde_json_canonicalizer::to_string(event)
        .expect("events hold nothing that JSON cannot say");
    // Externally tagged: `{"<type>":<payload>}`. A type needs no escapes, so its length is known.
    let payload = &tagged[event_type.len() + r#"{"":"#.len()..tagged.len() - 1];
    let payload =
        RawValue::from_string(payload.to_owned()).expect("a slice of JSON between braces");
    (event_type.to_owned(), payload)
}

/// An event as it comes from the log. Old shapes are lifted first; unknown fields are ignored.
///
/// # Errors
/// When `E` has no event of that name, or the payload does not fit it.
pub fn decode<E: DeserializeOwned>(event_type: &str, data: &RawValue) -> serde_json::Result<E> {
    decode_with(UPCASTERS, event_type, data)
}

/// [`decode`] with a table of upcasters.
fn decode_with<E: DeserializeOwned>(
    upcasters: &[Upcaster],
    event_type: &str,
    data: &RawValue,
) -> serde_json::Result<E> {
    let upcaster_of = |name: &str| upcasters.iter().find(|upcaster| upcaster.from == name);
    let Some(mut upcaster) = upcaster_of(event_type) else {
        return E::deserialize(Stored { event_type, data: data.get() });
    };
    let mut payload = serde_json::from_str(data.get())?;
    loop {
        payload = (upcaster.lift)(payload);
        match upcaster_of(upcaster.to) {
            Some(next) => upcaster = next,
            None => break,
        }
    }
    E::deserialize(Stored { event_type: upcaster.to, data: &payload.to_string() })
}

/// Listens to what an enum asks for, and gives it nothing.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> serde_json::Result<V::Value> {
        Err(Self::Error::custom("only an enum has names"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> serde_json::Result<V::Value> {
        *self.0 = variants;
        Err(Self::Error::custom("there is nothing to read"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A stored event, read as the externally tagged enum that it is, without a tree in between.
struct Stored<'de> {
    event_type: &'de str,
    data: &'de str,
}

impl<'de> Stored<'de> {
    fn payload<T>(
        self,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::StrRead<'de>>,
        ) -> serde_json::Result<T>,
    ) -> serde_json::Result<T> {
        let mut json = serde_json::Deserializer::from_str(self.data);
        let payload = read(&mut json)?;
        json.end()?;
        Ok(payload)
    }
}

impl<'de> Deserializer<'de> for Stored<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> serde_json::Result<V::Value> {
        Err(Self::Error::custom("a stored event is read into an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Stored<'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> serde_json::Result<(V::Value, Self)> {
        let variant = seed.deserialize(BorrowedStrDeserializer::new(self.event_type))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Stored<'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> serde_json::Result<()> {
        Err(Self::Error::custom("events are struct variants, so that they can gain fields"))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> serde_json::Result<T::Value> {
        self.payload(|json| seed.deserialize(json))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> serde_json::Result<V::Value> {
        Err(Self::Error::custom("events are struct variants, so that they can gain fields"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        self.payload(|json| json.deserialize_struct("", fields, visitor))
    }
}

#[cfg(test)]
mod tests;
