//! Writing the outputs of an array into a file or to standard output, piece by piece.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures_util::TryStreamExt;
use partita_client::JobHandle;
use partita_types::ByteSize;

use crate::files::{Readers, Unfinished};
use crate::outcome::usage;

/// `ARRAY` or `ARRAY:OUTPUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The name of the array.
    pub(crate) array: String,
    /// Which output of its tasks.
    pub(crate) output: u32,
}

impl std::str::FromStr for Selection {
    type Err = std::convert::Infallible;

    /// A number after the last colon is the output, because names of arrays may have colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.rsplit_once(':').and_then(|(array, output)| Some((array, output.parse().ok()?)));
        let (array, output) = parsed.unwrap_or((text, 0));
        Ok(Self { array: array.to_owned(), output })
    }
}

/// Where outputs go.
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// A file that is there when it is complete, and not before.
    File(PathBuf),
}

impl Target {
    /// From `--output`; `-` and nothing are standard output.
    pub(crate) fn new(path: Option<&Path>) -> Self {
        match path {
            None => Self::Stdout,
            Some(path) if path == Path::new("-") => Self::Stdout,
            Some(path) => Self::File(path.to_owned()),
        }
    }
}

/// Waits for the array and writes its outputs one after the other, in the order of the tasks. Says how much it was.
pub(crate) async fn write_all(
    job: &JobHandle,
    selection: &Selection,
    task: Option<u32>,
    target: &Target,
) -> anyhow::Result<ByteSize> {
    match target {
        Target::Stdout => copy(job, selection, task, &mut io::stdout().lock()).await,
        Target::File(path) => {
            let mut file = Unfinished::begin(path, Readers::Everybody)?;
            let written = copy(job, selection, task, &mut file).await?;
            file.finish()?;
            Ok(written)
        }
    }
}

async fn copy(
    job: &JobHandle,
    selection: &Selection,
    task: Option<u32>,
    to: &mut impl Write,
) -> anyhow::Result<ByteSize> {
    let array = job.array_named(&selection.array);
    let mut written = ByteSize::ZERO;
    let mut take = |data: &[u8]| {
        written = written.saturating_add(ByteSize(data.len() as u64));
        to.write_all(data).context("cannot write the result")
    };
    match task {
        Some(index) => {
            let mut pieces = array.task(index).output(selection.output).stream().await?;
            while let Some(piece) = pieces.next().await? {
                take(&piece.data)?;
            }
        }
        None => {
            let mut pieces = Box::pin(array.pieces(selection.output).await?);
            while let Some(piece) = pieces.try_next().await? {
                take(&piece.data)?;
            }
        }
    }
    to.flush().context("cannot write the result")?;
    Ok(written)
}

/// Checks that a selection can be meant before a job is waited for.
pub(crate) fn check(selection: &Selection, job: &partita_types::JobSpec) -> anyhow::Result<()> {
    let Some(array) = job.arrays.iter().find(|array| array.name == selection.array) else {
        let names: Vec<_> = job.arrays.iter().map(|array| array.name.as_str()).collect();
        return Err(usage(format!("the job has no array {:?}; it has {}", selection.array, names.join(", "))));
    };
    if selection.output < array.outputs {
        return Ok(());
    }
    let (name, output, outputs) = (&selection.array, selection.output, array.outputs);
    Err(usage(format!("the tasks of array {name:?} have {outputs} outputs, so there is no output {output}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, u32) {
        let Ok(Selection { array, output }) = text.parse::<Selection>();
        (array, output)
    }

    #[test]
    fn a_number_after_the_last_colon_is_the_output() {
        assert_eq!(parse("top"), ("top".into(), 0));
        assert_eq!(parse("map:3"), ("map".into(), 3));
        assert_eq!(parse("a:b:2"), ("a:b".into(), 2));
        assert_eq!(parse("a:b"), ("a:b".into(), 0));
    }

    #[test]
    fn a_dash_is_standard_output() {
        assert!(matches!(Target::new(Some(Path::new("-"))), Target::Stdout));
        assert!(matches!(Target::new(Some(Path::new("x"))), Target::File(_)));
    }
}
