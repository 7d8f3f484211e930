//! Why a task did not succeed, as the author of a task function sees it.

use std::error::Error as StdError;
use std::fmt;

/// What a task function returns: [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task failed: a message, what led to it, and whether another attempt may help.
///
/// Any error of the standard library's kind becomes one through `?`. It counts as final, so the task is not tried
/// again, unless [`retry`](Error::retry) or [`retryable`](Error::retryable) says otherwise. Displaying it prints the
/// whole chain of causes, outermost first.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::{Context as _, Error, Result};
///
/// fn parse(line: &str) -> Result<u32> {
///     let number = line.trim().parse::<u32>().context("reading the number of samples")?;
///     if number == 0 {
///         return Err(Error::new("at least one sample is needed"));
///     }
///     Ok(number)
/// }
///
/// assert_eq!(parse(" 7 ").unwrap(), 7);
/// assert_eq!(parse("0").unwrap_err().to_string(), "at least one sample is needed");
/// assert_eq!(
///     parse("x").unwrap_err().to_string(),
///     "reading the number of samples: invalid digit found in string"
/// );
/// ```
///
/// It is no [`std::error::Error`] itself: that is what lets `?` take any of those.
pub struct Error {
    cause: Cause,
    /// What was being done, innermost first.
    context: Vec<String>,
    retry: bool,
}

/// Where the chain begins.
enum Cause {
    Message(String),
    Error(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// A final failure with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { cause: Cause::Message(message.into()), context: Vec::new(), retry: false }
    }

    /// A failure that may not happen next time: the task is tried again within its number of retries.
    ///
    /// ```
    /// # extern crate partita_guest as partita;
    /// let error = partita::Error::retry("the table is being rewritten");
    /// assert!(error.is_retryable());
    /// ```
    #[must_use]
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(message).retryable()
    }

    /// The same failure, but worth another attempt.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retry = true;
        self
    }

    /// Whether another attempt may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retry
    }

    /// The same failure, with what was being done in front of it.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.context.push(what.into());
        self
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self { cause: Cause::Error(Box::new(error)), context: Vec::new(), retry: false }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in self.context.iter().rev() {
            write!(out, "{what}: ")?;
        }
        match &self.cause {
            Cause::Message(message) => out.write_str(message),
            Cause::Error(error) => {
                write!(out, "{error}")?;
                let mut next = error.source();
                while let Some(source) = next {
                    write!(out, ": {source}")?;
                    next = source.source();
                }
                Ok(())
            }
        }
    }
}

/// The same as `Display`: this is what a failed test prints.
impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Says what was being done when something failed.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::Context as _;
///
/// let none: Option<u32> = None;
/// assert_eq!(none.context("the table has no header").unwrap_err().to_string(), "the table has no header");
/// let bad = "x".parse::<u8>().with_context(|| format!("line {}", 3));
/// assert_eq!(bad.unwrap_err().to_string(), "line 3: invalid digit found in string");
/// ```
pub trait Context<T> {
    /// Puts `what` in front of the failure.
    ///
    /// # Errors
    /// The failure that was there already, with more to say.
    fn context(self, what: impl Into<String>) -> Result<T>;

    /// Puts what `what` returns in front of the failure; it is called only if there is one.
    ///
    /// # Errors
    /// The failure that was there already, with more to say.
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(what))
    }

    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(what()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| Error::new(what))
    }

    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::new(what()))
    }
}

/// Returns from the function with a final [`Error`] made from a format string.
///
/// ```
/// # extern crate partita_guest as partita;
/// fn half(number: u32) -> partita::Result<u32> {
///     if number % 2 == 1 {
///         partita::bail!("{number} is odd");
///     }
///     Ok(number / 2)
/// }
/// assert_eq!(half(3).unwrap_err().to_string(), "3 is odd");
/// ```
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::std::result::Result::Err($crate::Error::new(::std::format!($($message)+)).into())
    };
}

/// Returns from the function with a final [`Error`] unless a condition holds.
///
/// ```
/// # extern crate partita_guest as partita;
/// fn half(number: u32) -> partita::Result<u32> {
///     partita::ensure!(number % 2 == 0, "{number} is odd");
///     Ok(number / 2)
/// }
/// assert_eq!(half(4).unwrap(), 2);
/// assert!(half(5).is_err());
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            $crate::bail!($($message)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("cannot read the index")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_whole_chain_is_printed_outermost_first() {
        let result: Result<(), Outer> = Err(Outer(io::Error::other("it is torn")));
        let error = result.context("loading part 3").context("starting").unwrap_err();
        assert_eq!(error.to_string(), "starting: loading part 3: cannot read the index: it is torn");
        assert_eq!(format!("{error:?}"), error.to_string());
    }

    #[test]
    fn context_keeps_the_wish_for_a_retry() {
        let error = Err::<(), _>(Error::retry("busy")).context("asking").unwrap_err();
        assert!(error.is_retryable());
        assert!(!Error::new("broken").is_retryable());
        let from_std: Error = io::Error::other("x").into();
        assert!(!from_std.is_retryable());
    }
}
