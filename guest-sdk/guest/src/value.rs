//! The forms in which a partition can be taken and given: bytes, text, JSON, postcard, a stream.

use std::io::Write as _;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context as _, Error, Reader, Result, Writer};

/// What can be made from one partition. Implement it for formats of your own; then they can be parameters, and
/// [`Many`](crate::Many) of them too.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::prelude::*;
///
/// /// Numbers, four bytes each, lowest byte first.
/// struct Numbers(Vec<u32>);
///
/// impl FromInput for Numbers {
///     fn from_input(input: Reader) -> Result<Self> {
///         let bytes = input.read_all()?;
///         let (numbers, rest) = bytes.as_chunks::<4>();
///         partita::ensure!(rest.is_empty(), "{} bytes are no whole numbers", bytes.len());
///         Ok(Self(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect()))
///     }
/// }
///
/// /// The largest number.
/// #[partita::task]
/// fn largest(numbers: Numbers) -> Json<Option<u32>> {
///     Json(numbers.0.into_iter().max())
/// }
///
/// partita::module!(largest);
/// # fn main() -> Result<()> {
/// let outputs = partita::testing::run(&MODULE, "largest", "", vec![vec![vec![1, 0, 0, 0, 2, 0, 0, 0]]], 1)?;
/// assert_eq!(outputs, [b"2"]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a task function",
    label = "neither an input nor anything else that a task can be given",
    note = "inputs are `Text`, `Bytes`, `Json<T>`, `Postcard<T>`, `Reader`, and `Many<_>` of them; `T` must implement `serde::Deserialize`",
    note = "other parameters are `Args<T>`, `Outputs`, `Writer` and `Writers`"
)]
pub trait FromInput: Sized {
    /// Makes a value from the whole of `input`.
    ///
    /// # Errors
    /// If the bytes are not of the expected form. The message need not name the input.
    fn from_input(input: Reader) -> Result<Self>;
}

/// What can be written to one output. Implement it for formats of your own; then task functions can return them, and
/// [`Partitioned`](crate::Partitioned) of them too.
///
/// ```
/// # extern crate partita_guest as partita;
/// use std::io::Write as _;
/// use partita::prelude::*;
///
/// struct Lines(Vec<String>);
///
/// impl ToOutput for Lines {
///     fn to_output(&self, output: &mut Writer) -> Result<()> {
///         for line in &self.0 {
///             writeln!(output, "{line}")?;
///         }
///         Ok(())
///     }
/// }
///
/// /// Sorts lines.
/// #[partita::task]
/// fn sort(text: Text) -> Lines {
///     let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
///     lines.sort();
///     Lines(lines)
/// }
///
/// partita::module!(sort);
/// # fn main() -> Result<()> {
/// let outputs = partita::testing::run(&MODULE, "sort", "", vec![vec![b"b\na".to_vec()]], 1)?;
/// assert_eq!(outputs, [b"a\nb\n"]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task function",
    label = "cannot be written to an output",
    note = "results are `()`, `Text`, `String`, `Bytes`, `Vec<u8>`, `Json<T>`, `Postcard<T>`, `Partitioned<_>` of them, and `Result<_, E>` of any of those; `T` must implement `serde::Serialize`"
)]
pub trait ToOutput {
    /// Writes the whole value.
    ///
    /// # Errors
    /// If the value has no such form.
    fn to_output(&self, output: &mut Writer) -> Result<()>;
}

/// Implements `Deref` and `DerefMut` for a tuple struct around one public value.
macro_rules! transparent {
    ($name:ident<$inner:ident>, $target:ty) => {
        impl<$inner> Deref for $name<$inner> {
            type Target = $target;

            fn deref(&self) -> &$target {
                &self.0
            }
        }

        impl<$inner> DerefMut for $name<$inner> {
            fn deref_mut(&mut self) -> &mut $target {
                &mut self.0
            }
        }
    };
}

/// The arguments of a task, decoded from JSON.
///
/// Without any, `T` is decoded from `{}`, so a struct whose fields are all optional needs none. Does not count as an
/// input.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::prelude::*;
///
/// #[derive(serde::Deserialize)]
/// struct Pattern {
///     word: String,
///     #[serde(default)]
///     whole_line: bool,
/// }
///
/// /// Counts the lines with a word.
/// #[partita::task]
/// fn search(text: Text, Args(pattern): Args<Pattern>) -> Json<usize> {
///     let hit = |line: &&str| if pattern.whole_line { **line == pattern.word } else { line.contains(&pattern.word) };
///     Json(text.lines().filter(hit).count())
/// }
///
/// partita::module!(search);
/// # fn main() -> Result<()> {
/// let text = b"one\ntwo\none two".to_vec();
/// let outputs = partita::testing::run(&MODULE, "search", r#"{"word": "one"}"#, vec![vec![text]], 1)?;
/// assert_eq!(outputs, [b"2"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Args<T>(pub T);

transparent!(Args<T>, T);

impl<T: DeserializeOwned> Args<T> {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes = if bytes.is_empty() { b"{}" } else { bytes };
        Ok(Self(serde_json::from_slice(bytes)?))
    }
}

/// Bytes of no particular form.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Bytes;
///
/// let bytes = Bytes::from(b"raw");
/// assert_eq!(bytes.len(), 3);
/// assert_eq!(bytes.0, b"raw");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl FromInput for Bytes {
    fn from_input(input: Reader) -> Result<Self> {
        input.read_all().map(Self)
    }
}

impl ToOutput for Bytes {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        self.0.to_output(output)
    }
}

impl ToOutput for Vec<u8> {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        Ok(output.write_all(self)?)
    }
}

/// Text in UTF-8.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Text;
///
/// let text = Text::from("two words");
/// assert_eq!(text.split(' ').count(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromInput for Text {
    fn from_input(input: Reader) -> Result<Self> {
        let bytes = input.read_all()?;
        String::from_utf8(bytes).map(Self).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            Error::new(format!("not UTF-8 from byte {position} on: take it as `Bytes` if that is no fault"))
        })
    }
}

impl ToOutput for Text {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        self.0.to_output(output)
    }
}

impl ToOutput for &str {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        Ok(output.write_all(self.as_bytes())?)
    }
}

impl ToOutput for String {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        Ok(output.write_all(self.as_bytes())?)
    }
}

/// A value in JSON: for results that people and other programs read.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Json;
///
/// let mut numbers = Json(vec![1, 2]);
/// numbers.push(3);
/// assert_eq!(numbers.0, [1, 2, 3]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

transparent!(Json<T>, T);

impl<T: DeserializeOwned> FromInput for Json<T> {
    fn from_input(input: Reader) -> Result<Self> {
        serde_json::from_slice(&input.read_all()?).map(Self).context("decoding JSON")
    }
}

impl<T: Serialize> ToOutput for Json<T> {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        serde_json::to_writer(output, &self.0).context("encoding JSON")
    }
}

/// A value in [postcard](https://postcard.jamesmunns.com)'s form: compact and fast, for what tasks pass to each other.
///
/// It does not describe itself: both sides must agree on `T`.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Postcard;
///
/// let pair = Postcard((1_u32, "one".to_owned()));
/// assert_eq!(pair.1, "one");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Postcard<T>(pub T);

transparent!(Postcard<T>, T);

impl<T: DeserializeOwned> FromInput for Postcard<T> {
    fn from_input(input: Reader) -> Result<Self> {
        let bytes = input.read_all()?;
        let (value, rest) = postcard::take_from_bytes(&bytes).context("decoding postcard")?;
        if rest.is_empty() {
            Ok(Self(value))
        } else {
            Err(Error::new(format!("decoding postcard: {} of {} bytes are left over", rest.len(), bytes.len())))
        }
    }
}

impl<T: Serialize> ToOutput for Postcard<T> {
    fn to_output(&self, output: &mut Writer) -> Result<()> {
        postcard::to_io(&self.0, output).map(drop).context("encoding postcard")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through<X: ToOutput>(value: &X) -> Reader {
        let (mut writer, written) = Writer::in_memory();
        value.to_output(&mut writer).unwrap();
        drop(writer);
        Reader::from(written.bytes(0))
    }

    fn message<X: FromInput>(bytes: &[u8]) -> String {
        X::from_input(Reader::from(bytes)).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_form_reads_what_it_wrote() {
        let bytes = Bytes::from(b"\x00\xffraw");
        assert_eq!(Bytes::from_input(through(&bytes)).unwrap(), bytes);
        let text = Text::from("Grüße");
        assert_eq!(Text::from_input(through(&text)).unwrap(), text);
        type Value = (u64, Vec<String>, Option<i8>);
        let value: Value = (7, vec!["a".to_owned(), "b".to_owned()], Some(-1));
        assert_eq!(Json::<Value>::from_input(through(&Json(&value))).unwrap().0, value);
        assert_eq!(Postcard::<Value>::from_input(through(&Postcard(&value))).unwrap().0, value);
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_with_the_place() {
        assert!(message::<Text>(b"ab\xff").contains("byte 2"));
        assert!(message::<Json<Vec<u8>>>(b"[1,").starts_with("decoding JSON: EOF while parsing"));
        assert!(message::<Json<u8>>(b"1 2").starts_with("decoding JSON: trailing characters"));
        assert!(message::<Postcard<(u32, u32)>>(&[1]).starts_with("decoding postcard"));
        assert_eq!(message::<Postcard<u8>>(&[1, 2, 3]), "decoding postcard: 2 of 3 bytes are left over");
    }

    #[test]
    fn no_arguments_are_an_empty_object() {
        #[derive(serde::Deserialize)]
        struct Optional {
            count: Option<u32>,
        }
        assert_eq!(Args::<Optional>::decode(b"").unwrap().count, None);
        assert_eq!(Args::<Optional>::decode(b"{\"count\": 3}").unwrap().count, Some(3));
        assert!(Args::<u32>::decode(b"").is_err());
    }
}
