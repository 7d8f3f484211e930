//! What arrays have in common: function, outputs, options and limits, kept once for all arrays of a tenant in which they are
//! the same.
//!
//! A graph of single tasks is as many arrays, and mostly of few functions. The table holds what the tenant's arrays refer to
//! and nothing else, so it is never larger than they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use partita_types::{ArrayOptions, ArraySource, ArraySpec, Features, TaskLimits};

/// The part of an array that never changes and that others share.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) source: ArraySource,
    /// How many each task writes.
    pub(crate) outputs: u32,
    pub(crate) options: ArrayOptions,
    pub(crate) limits: TaskLimits,
    /// What its tasks need beyond memory; most need nothing. Frames keep it, too, since they can outlive their job.
    pub(crate) needs: Option<Arc<Features>>,
    /// Where its tenant keeps what it learned of the function.
    pub(crate) learned: usize,
}

impl Kind {
    fn new(spec: &ArraySpec, learned: usize) -> Self {
        Self {
            source: spec.source.clone(),
            outputs: spec.outputs,
            options: spec.options.clone(),
            limits: spec.options.limits.or(TaskLimits::default()),
            needs: (!spec.options.needs.is_empty()).then(|| Arc::new(spec.options.needs.clone())),
            learned,
        }
    }

    fn is_of(&self, spec: &ArraySpec) -> bool {
        self.outputs == spec.outputs && self.source == spec.source && self.options == spec.options
    }
}

/// The kinds of a tenant's arrays.
#[derive(Debug, Default)]
pub(crate) struct Kinds(BTreeSet<Arc<Kind>>);

impl Kinds {
    /// The kind of each of these arrays. `learned` says where the tenant keeps what it learns of a function.
    pub(crate) fn of_arrays(
        &mut self,
        specs: &[ArraySpec],
        mut learned: impl FnMut(&ArraySource) -> usize,
    ) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<Arc<Kind>> = Vec::with_capacity(specs.len());
        for spec in specs {
            // Most arrays are like the one before, and then nothing is to be made or looked up.
            let kind = match kinds.last() {
                Some(last) if last.is_of(spec) => Arc::clone(last),
                Some(_) | None => self.share(Kind::new(spec, learned(&spec.source))),
            };
            kinds.push(kind);
        }
        kinds
    }

    fn share(&mut self, kind: Kind) -> Arc<Kind> {
        if let Some(known) = self.0.get(&kind) {
            return Arc::clone(known);
        }
        let kind = Arc::new(kind);
        self.0.insert(Arc::clone(&kind));
        kind
    }

    /// An array is gone. If it was the last of its kind, that goes, too.
    pub(crate) fn give_back(&mut self, kind: Arc<Kind>) {
        // The table has one, and the caller has the other.
        if Arc::strong_count(&kind) <= 2 {
            self.0.remove(&kind);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use partita_types::{Arguments, ModuleId, TaskCount};

    use super::*;

    fn spec(function: &str, name: &str) -> ArraySpec {
        ArraySpec {
            name: name.to_owned(),
            source: ArraySource::Function { module: ModuleId([1; 32]), function: function.to_owned() },
            tasks: TaskCount::Fixed(1),
            arguments: Arguments::Common(name.as_bytes().to_vec()),
            inputs: Vec::new(),
            outputs: 1,
            options: ArrayOptions::default(),
        }
    }

    #[test]
    fn what_differs_in_name_and_arguments_is_of_one_kind() {
        let mut kinds = Kinds::default();
        let specs = [spec("f", "a"), spec("g", "b"), spec("f", "c"), spec("f", "d")];
        let shared = kinds.of_arrays(&specs, |_| 7);
        assert!(Arc::ptr_eq(&shared[0], &shared[2]) && Arc::ptr_eq(&shared[0], &shared[3]));
        assert_eq!((kinds.iter().count(), shared[1].learned), (2, 7));
        let mut other = spec("f", "a");
        other.options.priority = 1;
        assert!(!Arc::ptr_eq(&kinds.of_arrays(&[other], |_| 7)[0], &shared[0]));
    }

    #[test]
    fn the_table_holds_what_is_in_use_only() {
        let mut kinds = Kinds::default();
        let mut shared = kinds.of_arrays(&[spec("f", "a"), spec("g", "b"), spec("f", "c")], |_| 0);
        kinds.give_back(shared.remove(0));
        assert_eq!(kinds.iter().count(), 2, "another array is of that kind");
        shared.into_iter().for_each(|kind| kinds.give_back(kind));
        assert_eq!(kinds.iter().count(), 0);
    }
}
