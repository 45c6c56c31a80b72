//! Lists that are refused while they are read, not after (AGREE).
//!
//! A frame's limit is in bytes, and an empty string takes one byte on the wire and twenty-four in memory: a frame of the
//! allowed length could promise a gigabyte. So every list whose items can be smaller on the wire than in memory has its
//! limit in items checked at the item that passes it.

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

/// Room made for items before they are there, items at most.
const AHEAD_ITEMS_MAX: usize = 1024;

/// Reads a list of at most `MAX` items; for `#[serde(deserialize_with = …)]`.
///
/// # Errors
/// If there are more, or an item is malformed.
pub(crate) fn list<'de, const MAX: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for List<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let says = items.size_hint().unwrap_or(0);
            if says > MAX {
                return Err(A::Error::invalid_length(says, &self));
            }
            let mut out = Vec::with_capacity(says.min(AHEAD_ITEMS_MAX));
            while let Some(item) = items.next_element()? {
                if out.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                out.push(item);
            }
            Ok(out)
        }
    }

    deserializer.deserialize_seq(List::<MAX, T>(PhantomData))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Three {
        #[serde(deserialize_with = "super::list::<3, _, _>")]
        items: Vec<Vec<u8>>,
    }

    #[test]
    fn one_item_too_many_is_refused_and_the_bytes_are_those_of_a_plain_list() {
        for count in 0..6 {
            let plain = postcard::to_stdvec(&vec![Vec::<u8>::new(); count]).expect("encodes");
            let three = Three { items: vec![vec![]; count] };
            assert_eq!(postcard::to_stdvec(&three).expect("encodes"), plain);
            let read = postcard::from_bytes::<Three>(&plain);
            assert_eq!(read.ok(), (count <= 3).then_some(three), "{count}");
        }
    }
}
