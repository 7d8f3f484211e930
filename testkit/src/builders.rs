//! Jobs and policies with defaults for everything that a test does not care about.

use std::time::Duration;

use partita_policy::{Quota, TenantPolicy};
use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, ByteSize, Edge, Isolation, JobSpec, MilliCpu,
    ModuleId, OutputRef, TaskCount, TaskLimits, TenantName,
};

/// The module that every tenant of a [`crate::Cluster`] has. Its function `work` takes anything, `pair` two inputs and one
/// output.
pub const MODULE: ModuleId = ModuleId([1; 32]);

/// A policy that allows whatever a test does not restrict.
#[must_use]
pub fn policy(name: &str) -> TenantPolicy {
    TenantPolicy {
        name: TenantName::new(name).unwrap(),
        quota: Quota {
            weight: 1,
            queued_tasks: 10_000_000,
            running_jobs: 10_000,
            concurrent_tasks: 10_000,
            concurrent_memory: ByteSize::gib(10_000),
            stored: ByteSize::gib(10_000),
            modules: 10,
            module_size: ByteSize::mib(1),
            cpu: MilliCpu(1_000_000_000),
        },
        task_defaults: TaskLimits { memory: ByteSize::mib(64), ..TaskLimits::default() },
        task_maxima: TaskLimits { memory: ByteSize::gib(4), ..TaskLimits::default() },
        datasets: Vec::new(),
        token_lifetime: Duration::from_secs(3600),
        minimum_isolation: Isolation::Process,
        share: Box::default(),
        unrunnable_after: Duration::from_secs(600),
        retention: None,
    }
}

/// A job to be.
#[derive(Debug, Clone)]
pub struct JobBuilder {
    spec: JobSpec,
}

/// A closed job without arrays.
#[must_use]
pub fn job() -> JobBuilder {
    JobBuilder { spec: JobSpec { name: "test".to_owned(), arrays: Vec::new(), open: false, deadline: None } }
}

impl JobBuilder {
    /// With one more array.
    #[must_use]
    pub fn with(mut self, array: ArrayBuilder) -> Self {
        self.spec.arrays.push(array.spec);
        self
    }

    /// To which arrays may be added.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.spec.open = true;
        self
    }

    /// Which is stopped after so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.spec.deadline = Some(deadline);
        self
    }

    /// As it is submitted.
    #[must_use]
    pub fn spec(self) -> JobSpec {
        self.spec
    }
}

/// An array to be.
#[derive(Debug, Clone)]
pub struct ArrayBuilder {
    spec: ArraySpec,
}

/// An array of function `work`, as long as its inputs say.
#[must_use]
pub fn array(name: &str) -> ArrayBuilder {
    ArrayBuilder {
        spec: ArraySpec {
            name: name.to_owned(),
            source: ArraySource::Function { module: MODULE, function: "work".to_owned() },
            tasks: TaskCount::FromInputs,
            arguments: Arguments::Common(Vec::new()),
            inputs: Vec::new(),
            outputs: 1,
            options: ArrayOptions::default(),
        },
    }
}

impl ArrayBuilder {
    /// With so many tasks.
    #[must_use]
    pub fn tasks(mut self, tasks: u32) -> Self {
        self.spec.tasks = TaskCount::Fixed(tasks);
        self
    }

    /// With one more input.
    #[must_use]
    pub fn reads(mut self, edge: Edge) -> Self {
        self.spec.inputs.push(edge);
        self
    }

    /// With so many outputs per task.
    #[must_use]
    pub fn outputs(mut self, outputs: u32) -> Self {
        self.spec.outputs = outputs;
        self
    }

    /// Of another function of [`MODULE`].
    #[must_use]
    pub fn calls(mut self, function: &str) -> Self {
        self.spec.source = ArraySource::Function { module: MODULE, function: function.to_owned() };
        self
    }

    /// Uploaded by the client.
    #[must_use]
    pub fn upload(mut self) -> Self {
        self.spec.source = ArraySource::Upload;
        self
    }

    /// With an argument for each task.
    #[must_use]
    pub fn arguments(mut self, arguments: Vec<Vec<u8>>) -> Self {
        self.spec.arguments = Arguments::PerTask(arguments);
        self
    }

    /// With this much memory per task.
    #[must_use]
    pub fn memory(mut self, memory: ByteSize) -> Self {
        self.spec.options.limits.memory = Some(memory);
        self
    }

    /// With labels and resources that its hosts must have, such as `zone=a` and `gpu=1`.
    ///
    /// # Panics
    /// If one is none.
    #[must_use]
    pub fn needs(mut self, labels: &[&str], resources: &[&str]) -> Self {
        let needs = &mut self.spec.options.needs;
        labels.iter().for_each(|label| needs.add_label(label.parse().unwrap()).unwrap());
        resources.iter().for_each(|resource| needs.add_resource(resource.parse().unwrap()).unwrap());
        self
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut ArrayOptions)) -> Self {
        change(&mut self.spec.options);
        self
    }

    /// As it is submitted.
    #[must_use]
    pub fn spec(self) -> ArraySpec {
        self.spec
    }
}

/// Task i reads output 0 of task i.
#[must_use]
pub fn each(array: u32) -> Edge {
    Edge::Each { array: ArrayIndex(array), output: 0 }
}

/// Every task reads output 0 of every task.
#[must_use]
pub fn all(array: u32) -> Edge {
    Edge::All { array: ArrayIndex(array), output: 0 }
}

/// Task i reads output i of every task.
#[must_use]
pub fn slice(array: u32) -> Edge {
    Edge::Slice { array: ArrayIndex(array) }
}

/// A tree.
#[must_use]
pub fn fold(array: u32, arity: u32) -> Edge {
    Edge::Fold { array: ArrayIndex(array), arity }
}

/// For each task the array, task and output of what it reads.
#[must_use]
pub fn list(tasks: &[&[(u32, u32, u32)]]) -> Edge {
    let reference = |(array, index, output): &(u32, u32, u32)| OutputRef {
        array: ArrayIndex(*array),
        index: *index,
        output: *output,
    };
    Edge::List { tasks: tasks.iter().map(|task| task.iter().map(reference).collect()).collect() }
}

/// Bytes in the submission.
#[must_use]
pub fn literal(values: &[&str]) -> Edge {
    Edge::Literal { values: values.iter().map(|value| value.as_bytes().to_vec()).collect() }
}

/// Task i reads split i of a dataset.
#[must_use]
pub fn dataset(name: &str) -> Edge {
    Edge::Dataset { dataset: partita_types::DatasetName::new(name).unwrap(), split: ByteSize::mib(8), limit: None }
}
