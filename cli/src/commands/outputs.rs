//! Writing the outputs of an array into a file or to standard output, piece by piece.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures_util::TryStreamExt;
use partita_client::JobHandle;
use partita_types::ByteSize;

use crate::files::{Readers, Unfinished};
use crate::outcome::usage;

/// `ARRAY`, `ARRAY[TASK]`, `ARRAY:OUTPUT` or `ARRAY[TASK]:OUTPUT`, where the task is a number or `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The name of the array.
    pub(crate) array: String,
    /// Which of its tasks.
    task: Task,
    /// Which output of its tasks.
    pub(crate) output: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// One after the other.
    All,
    /// The one at this position.
    At(u32),
    /// The one that has the result of a fold.
    Last,
}

impl std::str::FromStr for Selection {
    type Err = String;

    /// A number after the last colon is the output, because names of arrays may have colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.rsplit_once(':').and_then(|(array, output)| Some((array, output.parse().ok()?)));
        let (text, output) = parsed.unwrap_or((text, 0));
        let Some((array, task)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) else {
            return Ok(Self { array: text.to_owned(), task: Task::All, output });
        };
        let task = match task {
            "last" => Task::Last,
            number => {
                Task::At(number.parse().map_err(|_| format!("{number:?} is not a task: write a number or `last`"))?)
            }
        };
        Ok(Self { array: array.to_owned(), task, output })
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

/// Waits for what is selected and writes it, outputs one after the other in the order of the tasks. Says how much it was.
pub(crate) async fn write_selected(
    job: &JobHandle,
    selection: &Selection,
    target: &Target,
) -> anyhow::Result<ByteSize> {
    match target {
        Target::Stdout => copy(job, selection, &mut io::stdout().lock()).await,
        Target::File(path) => {
            let mut file = Unfinished::begin(path, Readers::Everybody)?;
            let written = copy(job, selection, &mut file).await?;
            file.finish()?;
            Ok(written)
        }
    }
}

async fn copy(job: &JobHandle, selection: &Selection, to: &mut impl Write) -> anyhow::Result<ByteSize> {
    let array = job.array_named(&selection.array);
    let mut written = ByteSize::ZERO;
    let mut take = |data: &[u8]| {
        written = written.saturating_add(ByteSize(data.len() as u64));
        to.write_all(data).context("cannot write the result")
    };
    let one = match selection.task {
        Task::All => None,
        Task::At(index) => Some(array.task(index)),
        Task::Last => Some(array.last()),
    };
    match one {
        Some(task) => {
            let mut pieces = task.output(selection.output).stream().await?;
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

    #[track_caller]
    fn reads(text: &str, array: &str, task: Task, output: u32) {
        assert_eq!(text.parse(), Ok(Selection { array: array.into(), task, output }));
    }

    #[test]
    fn a_number_after_the_last_colon_is_the_output() {
        reads("top", "top", Task::All, 0);
        reads("map:3", "map", Task::All, 3);
        reads("a:b:2", "a:b", Task::All, 2);
        reads("a:b", "a:b", Task::All, 0);
    }

    #[test]
    fn a_task_is_a_number_or_the_last() {
        reads("map[12]", "map", Task::At(12), 0);
        reads("map[12]:3", "map", Task::At(12), 3);
        reads("top[last]", "top", Task::Last, 0);
        assert_eq!("top[first]".parse::<Selection>(), Err("\"first\" is not a task: write a number or `last`".into()));
    }

    #[test]
    fn a_dash_is_standard_output() {
        assert!(matches!(Target::new(Some(Path::new("-"))), Target::Stdout));
        assert!(matches!(Target::new(Some(Path::new("x"))), Target::File(_)));
    }
}
