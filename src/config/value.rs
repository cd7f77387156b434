//! How a value in the file is read: every kind of value once, with its range.
//!
//! A wrong value never ends the reading. It is kept as [`Wrong`] beside its place, so that one run
//! finds everything that is wrong. Ranges are part of the type: `Whole<1, 256>`. Pure.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// Why a value is none, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Continues `key: value: `.
    pub(crate) what: String,
    /// Stands in parentheses at the end.
    pub(crate) remedy: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// A key's value, right or wrong, and where the file says it; no place if it does not.
#[derive(Clone, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: Result<T, Wrong>,
    pub(super) span: Option<Range<usize>>,
}

impl<T> Setting<T> {
    /// What holds when the file says nothing.
    pub(super) fn unset(value: T) -> Self {
        Self {
            value: Ok(value),
            span: None,
        }
    }
}

/// What a value may be made of; each kind of TOML value that it does not take is wrong.
pub(super) trait Value: Sized {
    /// With its article: "a size".
    fn noun() -> String;

    /// The remedy: `write "64KiB"`.
    fn example() -> String;

    fn from_text(_: &str) -> Result<Self, Wrong> {
        Err(wrong_kind::<Self>())
    }

    fn from_number(_: i128) -> Result<Self, Wrong> {
        Err(wrong_kind::<Self>())
    }

    fn from_flag(_: bool) -> Result<Self, Wrong> {
        Err(wrong_kind::<Self>())
    }

    fn from_list<'de, A: SeqAccess<'de>>(_: A) -> Result<Result<Self, Wrong>, A::Error> {
        Ok(Err(wrong_kind::<Self>()))
    }

    fn from_table<'de, A: MapAccess<'de>>(_: A) -> Result<Result<Self, Wrong>, A::Error> {
        Ok(Err(wrong_kind::<Self>()))
    }
}

pub(super) fn wrong_kind<T: Value>() -> Wrong {
    Wrong::new(format!("not {}", T::noun()), T::example())
}

impl<'de, T: Value> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Spanned::<Outcome<T>>::deserialize(deserializer)?;
        Ok(Self {
            span: Some(read.span()),
            value: read.into_inner().0,
        })
    }
}

struct Outcome<T>(Result<T, Wrong>);

impl<'de, T: Value> Deserialize<'de> for Outcome<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(AnyKind(PhantomData))
            .map(Outcome)
    }
}

/// Hands each kind of TOML value to the [`Value`] that wants it; fails on none.
struct AnyKind<T>(PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for AnyKind<T> {
    type Value = Result<T, Wrong>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&T::noun())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::from_text(text))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::from_number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(T::from_number(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Self::Value, E> {
        Ok(T::from_number(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Self::Value, E> {
        Ok(T::from_number(i128::try_from(number).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(wrong_kind::<T>()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::from_flag(flag))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::from_list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
        T::from_table(table)
    }
}

impl Value for bool {
    fn noun() -> String {
        "true or false".into()
    }

    fn example() -> String {
        "write true or false, without quotes".into()
    }

    fn from_flag(flag: bool) -> Result<Self, Wrong> {
        Ok(flag)
    }
}

/// A whole number within a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Value for Whole<MIN, MAX> {
    fn noun() -> String {
        "a whole number".into()
    }

    fn example() -> String {
        format!("write {MIN} to {MAX}, without quotes")
    }

    fn from_number(number: i128) -> Result<Self, Wrong> {
        match u32::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(Wrong::new(
                format!("not between {MIN} and {MAX}"),
                Self::example(),
            )),
        }
    }
}

/// A value that may also be switched off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Off<T>(pub(super) Option<T>);

/// A value that the daemon may also choose by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Auto<T>(pub(super) Option<T>);

/// A value that may also be left to the kernel, or to the socket unit.
#[derive(Clone, Debug)]
pub(super) struct Kernel<T>(pub(super) Option<T>);

macro_rules! or_a_word {
    ($type:ident, $word:literal) => {
        impl<T: Value> Value for $type<T> {
            fn noun() -> String {
                format!("{} or \"{}\"", T::noun(), $word)
            }

            fn example() -> String {
                format!("{}, or \"{}\"", T::example(), $word)
            }

            fn from_text(text: &str) -> Result<Self, Wrong> {
                if text == $word {
                    return Ok(Self(None));
                }
                Self::some(T::from_text(text))
            }

            fn from_number(number: i128) -> Result<Self, Wrong> {
                Self::some(T::from_number(number))
            }

            fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Result<Self, Wrong>, A::Error> {
                Ok(Self::some(T::from_list(list)?))
            }

            fn from_table<'de, A: MapAccess<'de>>(
                table: A,
            ) -> Result<Result<Self, Wrong>, A::Error> {
                Ok(Self::some(T::from_table(table)?))
            }
        }

        impl<T: Value> $type<T> {
            // A message about the wrong kind of value should name the word as well.
            fn some(read: Result<T, Wrong>) -> Result<Self, Wrong> {
                read.map(|value| Self(Some(value))).map_err(|wrong| {
                    if wrong == wrong_kind::<T>() {
                        wrong_kind::<Self>()
                    } else {
                        wrong
                    }
                })
            }
        }
    };
}

or_a_word!(Off, "off");
or_a_word!(Auto, "auto");
or_a_word!(Kernel, "kernel");

/// A table or list of settings, each of which may be wrong on its own.
#[derive(Clone, Debug)]
pub(super) struct List<T>(pub(super) Vec<Setting<T>>);

pub(super) fn read_list<'de, T: Value, A: SeqAccess<'de>>(
    mut list: A,
) -> Result<List<T>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = list.next_element()? {
        items.push(item);
    }
    Ok(List(items))
}

/// Something that is written as one of a few words.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Every word, with what it means.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for it.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, meaning)| *meaning == self)
            .map_or("", |(word, _)| word)
    }
}

impl<T: Words> Value for T {
    fn noun() -> String {
        "a known word".into()
    }

    fn example() -> String {
        let words: Vec<_> = T::WORDS.iter().map(|(w, _)| format!("\"{w}\"")).collect();
        match &words[..] {
            [word] => format!("write {word}"),
            words => format!("write one of {}", words.join(", ")),
        }
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        T::WORDS
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning)
            .ok_or_else(wrong_kind::<T>)
    }
}

/// Tables of the schema, which serde's derive reads: each with what to write instead of anything else.
macro_rules! tables {
    ($($type:ident: $example:literal),+ $(,)?) => { $(
        impl $crate::config::value::Value for $type {
            fn noun() -> String {
                "a table".into()
            }

            fn example() -> String {
                concat!("write ", $example).into()
            }

            fn from_table<'de, A: serde::de::MapAccess<'de>>(
                table: A,
            ) -> Result<Result<Self, $crate::config::value::Wrong>, A::Error> {
                <Self as serde::Deserialize>::deserialize(serde::de::value::MapAccessDeserializer::new(table)).map(Ok)
            }
        }
    )+ };
}
pub(in crate::config) use tables;
