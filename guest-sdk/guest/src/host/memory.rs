//! A host in memory: for values made in the program itself, and for running task functions in tests.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Host, Sink, Source};

/// Inputs and outputs as byte vectors.
#[derive(Default)]
pub(crate) struct Memory {
    inputs: Vec<Vec<u8>>,
    outputs: RefCell<Vec<Vec<u8>>>,
}

impl Memory {
    /// A host with these inputs, numbered from 0, and this many empty outputs.
    pub(crate) fn new(inputs: Vec<Vec<u8>>, outputs: usize) -> Rc<Self> {
        Rc::new(Self { inputs, outputs: RefCell::new(vec![Vec::new(); outputs]) })
    }

    /// The only input of a host of its own.
    pub(crate) fn source(bytes: Vec<u8>) -> Source {
        Source::new(Self::new(vec![bytes], 0), 0)
    }

    /// All outputs of this host.
    pub(crate) fn sinks(self: &Rc<Self>) -> Vec<Sink> {
        let count = self.outputs.borrow().len();
        (0..count)
            .filter_map(|output| u32::try_from(output).ok())
            .map(|output| Sink::new(self.clone(), output))
            .collect()
    }

    /// What was written so far.
    pub(crate) fn outputs(&self) -> Vec<Vec<u8>> {
        self.outputs.borrow().clone()
    }

    fn input(&self, input: u32) -> &[u8] {
        usize::try_from(input).ok().and_then(|input| self.inputs.get(input)).map_or(&[], Vec::as_slice)
    }
}

impl Host for Memory {
    fn size(&self, input: u32) -> u64 {
        self.input(input).len() as u64
    }

    fn read(&self, input: u32, offset: u64, length: u32) -> Vec<u8> {
        let bytes = self.input(input);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(length as usize).min(bytes.len());
        bytes[start..end].to_vec()
    }

    fn write(&self, output: u32, bytes: &[u8]) {
        if let Some(written) = self.outputs.borrow_mut().get_mut(output as usize) {
            written.extend_from_slice(bytes);
        }
    }
}
