//! What the simulation demands: right inputs whenever a task runs, and at the end right results, a journal that tells of
//! each task once, and nothing left behind.

use std::collections::BTreeMap;

use partita_core::{Event, JobEnd, Record, Reply, Request, RequestId};
use partita_types::{ArrayIndex, JobId, StoredPartition, TaskId};

use crate::world::World;

impl World {
    /// Whatever ran, ran on the right inputs, even if nobody wants it any more.
    pub(crate) fn check_outputs(&self, run: &partita_testkit::Run) {
        let task = run.attempt.task;
        let Some(client) = self.client_of(task.job) else { return };
        for (output, info) in (0..).zip(&run.outputs) {
            let right = client.reference.output(task.array.0, task.index, output);
            assert_eq!(info.hash, right, "output {output} of {}", run.attempt);
        }
    }

    pub(crate) fn check_results(&mut self) {
        for position in 0..self.clients.len() {
            let client = &self.clients[position];
            let job = client.job.expect("acknowledged");
            let view = self.core.job(job).expect("a job");
            match view.end {
                Some(JobEnd::Cancelled) => assert!(client.cancels, "{view:?}"),
                Some(JobEnd::Failed) => assert!(client.poisoned, "{view:?}"),
                _ => {
                    assert!(!client.poisoned, "{view:?}");
                    self.check_results_of(position, job);
                }
            }
        }
    }

    fn check_results_of(&mut self, position: usize, job: JobId) {
        let arrays = self.clients[position].spec.arrays.len() as u32;
        for array in 0..arrays {
            let outputs = self.clients[position].spec.arrays[array as usize].outputs;
            let tasks = self.clients[position].reference.tasks(array);
            for (index, output) in (0..tasks).flat_map(|index| (0..outputs).map(move |output| (index, output))) {
                if let Some(stored) = self.locate(job, array, index, output) {
                    let right = self.clients[position].reference.output(array, index, output);
                    assert_eq!(stored.info.hash, right, "{}", stored.id);
                }
            }
        }
    }

    /// Finds an output, after it was rebuilt if necessary; `None` if it was consumed and not kept.
    fn locate(&mut self, job: JobId, array: u32, index: u32, output: u32) -> Option<StoredPartition> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let what = Request::Locate { job, array: ArrayIndex(array), tasks: index..index + 1, output };
        self.apply(Event::Requested { request, what });
        self.run_until(self.now + 600_000_000, |world| world.replies.contains_key(&request));
        match self.replies.remove(&request) {
            Some(Reply::Located(found)) => {
                let (host, stored) = found[0];
                let host = &self.hosts[self.numbers[&host]];
                assert_eq!(host.model.store.get(&stored.id), Some(&stored.info), "{stored:?}");
                Some(stored)
            }
            Some(Reply::Refused(refusal)) => {
                assert!(refusal.to_string().contains("consumed"), "{refusal}");
                None
            }
            other => panic!("{other:?}: {:?}", self.core.explain(job, None, None)),
        }
    }

    /// In jobs that succeeded each task succeeded once, and once more for each time that its outputs were lost.
    pub(crate) fn check_journal(&self) {
        let mut successes: BTreeMap<TaskId, i64> = BTreeMap::new();
        for record in &self.journal {
            match record {
                Record::Succeeded { batch, .. } => batch.indexes.iter().for_each(|index| {
                    let task = TaskId { job: batch.job, array: batch.array, index: *index };
                    *successes.entry(task).or_default() += 1;
                }),
                Record::Lost { tasks } => {
                    tasks.iter().for_each(|task| *successes.entry(*task).or_default() -= 1);
                }
                _ => {}
            }
        }
        for client in self.clients.iter().filter(|client| !client.poisoned) {
            let job = client.job.expect("acknowledged");
            if self.core.job(job).is_some_and(|view| view.end == Some(JobEnd::Succeeded)) {
                for array in 0..client.spec.arrays.len() as u32 {
                    for index in 0..client.reference.tasks(array) {
                        let task = TaskId { job, array: ArrayIndex(array), index };
                        assert_eq!(successes.get(&task), Some(&1), "task {task}");
                    }
                }
            }
        }
    }

    /// After the last release nothing is left: no usage, no frames, no partitions.
    pub(crate) fn release_everything(&mut self) {
        for position in 0..self.clients.len() {
            let job = self.clients[position].job.expect("acknowledged");
            assert_eq!(self.request(Request::Release(job)), Some(Reply::Done));
        }
        self.run_until(self.now + 30_000_000, |_| false);
        for usage in self.core.tenants() {
            let used = (usage.running_jobs, usage.queued_tasks, usage.concurrent_tasks, usage.concurrent_memory.0);
            assert_eq!((used, usage.stored.0), ((0, 0, 0, 0), 0), "tenant {}", usage.name);
        }
        for host in &self.hosts {
            assert!(host.model.store.is_empty(), "{} keeps {:?}", host.model.name, host.model.store);
        }
    }
}
