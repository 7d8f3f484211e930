//! What the outputs of a job must be, worked out from its submission alone and without a scheduler.
//!
//! The model of a host writes as each output the digest of everything that went into it. So an output is right exactly if
//! its task, and all before it, read the right things in the right order.

use std::collections::BTreeMap;

use partita_types::{Arguments, ArraySource, ContentHash, DatasetName, Edge, JobSpec, OutputInfo, TaskCount};

use crate::random::mix;

/// A running digest of what a task is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn number(&mut self, number: u64) {
        self.0 = mix(self.0 ^ mix(number.wrapping_add(0x5851_f42d_4c95_7f2d)));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        bytes.iter().for_each(|byte| self.number(u64::from(*byte)));
    }

    pub(crate) fn output(&self, output: u32) -> ContentHash {
        let mut hash = [0; 32];
        for (position, part) in (0_u64..).zip(hash.chunks_mut(8)) {
            part.copy_from_slice(&mix(self.0 ^ mix(u64::from(output) << 8 | position)).to_le_bytes());
        }
        ContentHash(hash)
    }
}

/// The right outputs of a job.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Array by array the digest of each task.
    digests: Vec<Vec<Digest>>,
    /// How many outputs the tasks of each array have.
    outputs: Vec<u32>,
    /// How many splits each dataset has.
    splits: BTreeMap<DatasetName, u32>,
}

/// The size of an output with this content: any number from 1 to 4096 bytes, the same for all who ask.
#[must_use]
pub fn size_of_output(hash: &ContentHash) -> partita_types::ByteSize {
    partita_types::ByteSize(1 + (u64::from(hash.0[0]) << 8 | u64::from(hash.0[1])) % 4_096)
}

/// What a client uploads for a task of an array.
#[must_use]
pub fn uploaded(array: u32, index: u32) -> OutputInfo {
    let hash = upload_digest(array, index).output(0);
    OutputInfo { size: size_of_output(&hash), hash }
}

fn upload_digest(array: u32, index: u32) -> Digest {
    let mut digest = Digest::default();
    digest.bytes(b"upload");
    digest.number(u64::from(array));
    digest.number(u64::from(index));
    digest
}

impl Reference {
    /// For a job without datasets. Uploads are those of [`uploaded`].
    ///
    /// # Panics
    /// On a dataset.
    #[must_use]
    pub fn new(spec: &JobSpec) -> Self {
        Self::with_datasets(spec, BTreeMap::new())
    }

    /// For a job that reads datasets with so many splits.
    ///
    /// # Panics
    /// On a dataset that is not among them.
    #[must_use]
    pub fn with_datasets(spec: &JobSpec, splits: BTreeMap<DatasetName, u32>) -> Self {
        let mut reference = Self { digests: Vec::new(), outputs: Vec::new(), splits };
        for array in &spec.arrays {
            let folds = array.inputs.iter().any(|edge| matches!(edge, Edge::Fold { .. }));
            let tasks = if folds { reference.fold_plan(array).len() as u32 } else { reference.length(array) };
            reference.digests.push(Vec::new());
            reference.outputs.push(array.outputs);
            for index in 0..tasks {
                let digest = reference.digest(array, index);
                reference.digests.last_mut().unwrap().push(digest);
            }
        }
        reference
    }

    /// How many tasks an array has.
    #[must_use]
    pub fn tasks(&self, array: u32) -> u32 {
        self.digests[array as usize].len() as u32
    }

    /// How many outputs each task of an array has.
    #[must_use]
    pub fn width(&self, array: u32) -> u32 {
        self.outputs[array as usize]
    }

    /// The right content of an output.
    #[must_use]
    pub fn output(&self, array: u32, index: u32, output: u32) -> ContentHash {
        self.digests[array as usize][index as usize].output(output)
    }

    fn length(&self, array: &partita_types::ArraySpec) -> u32 {
        if let TaskCount::Fixed(tasks) = array.tasks {
            return tasks;
        }
        let of_edge = |edge: &Edge| match edge {
            Edge::Each { array, .. } => Some(self.tasks(array.0)),
            Edge::Slice { array } => Some(self.outputs[array.0 as usize]),
            Edge::List { tasks } => Some(tasks.len() as u32),
            Edge::Literal { values } if values.len() > 1 => Some(values.len() as u32),
            Edge::Dataset { dataset, .. } => Some(self.splits[dataset]),
            _ => None,
        };
        array.inputs.iter().find_map(of_edge).unwrap_or(1)
    }

    /// For each task of a fold the tasks it reads, and whether they are its own.
    fn fold_plan(&self, array: &partita_types::ArraySpec) -> Vec<(bool, Vec<u32>)> {
        let fold = array.inputs.iter().find_map(|edge| match edge {
            Edge::Fold { array, arity } => Some((*array, *arity)),
            _ => None,
        });
        let (source, arity) = fold.unwrap();
        let mut plan: Vec<(bool, Vec<u32>)> = Vec::new();
        let mut level: Vec<u32> = (0..self.tasks(source.0)).collect();
        let mut own = false;
        loop {
            let first = plan.len() as u32;
            plan.extend(level.chunks(arity as usize).map(|children| (own, children.to_vec())));
            level = (first..plan.len() as u32).collect();
            own = true;
            if level.len() == 1 {
                return plan;
            }
        }
    }

    fn digest(&self, array: &partita_types::ArraySpec, index: u32) -> Digest {
        let ArraySource::Function { function, .. } = &array.source else {
            return upload_digest(self.digests.len() as u32 - 1, index);
        };
        let mut digest = Digest::default();
        digest.bytes(function.as_bytes());
        match &array.arguments {
            Arguments::Common(bytes) => digest.bytes(bytes),
            Arguments::PerTask(list) => digest.bytes(&list[index as usize]),
        }
        let own = self.digests.len() - 1;
        for edge in &array.inputs {
            match edge {
                Edge::Each { array, output } => self.add(&mut digest, &[(array.0, index, *output)]),
                Edge::All { array, output } => {
                    let reads: Vec<_> = (0..self.tasks(array.0)).map(|task| (array.0, task, *output)).collect();
                    self.add(&mut digest, &reads);
                }
                Edge::Slice { array } => {
                    let reads: Vec<_> = (0..self.tasks(array.0)).map(|task| (array.0, task, index)).collect();
                    self.add(&mut digest, &reads);
                }
                Edge::List { tasks } => {
                    let reads = tasks[index as usize].iter().map(|from| (from.array.0, from.index, from.output));
                    self.add(&mut digest, &reads.collect::<Vec<_>>());
                }
                Edge::Fold { array: source, .. } => {
                    let (is_own, children) = self.fold_plan(array)[index as usize].clone();
                    let from = if is_own { own as u32 } else { source.0 };
                    self.add(&mut digest, &children.iter().map(|task| (from, *task, 0)).collect::<Vec<_>>());
                }
                Edge::Literal { values } if values.len() > 1 => digest.bytes(&values[index as usize]),
                Edge::Literal { values } => digest.bytes(&values[0]),
                Edge::Dataset { .. } => digest.number(u64::from(index)),
            }
        }
        digest
    }

    fn add(&self, digest: &mut Digest, reads: &[(u32, u32, u32)]) {
        digest.number(reads.len() as u64);
        for (array, index, output) in reads {
            digest.bytes(&self.output(*array, *index, *output).0);
        }
    }

    /// Checks outputs that were located against what they must be.
    ///
    /// # Panics
    /// If one is wrong.
    pub fn check(&self, located: &BTreeMap<(u32, u32, u32), ContentHash>) {
        for ((array, index, output), hash) in located {
            assert_eq!(*hash, self.output(*array, *index, *output), "output {output} of task {index} of array {array}");
        }
    }
}
