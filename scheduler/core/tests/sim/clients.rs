//! Clients of the simulation: they submit random jobs, repeat themselves when they hear nothing, and cancel some.

use std::time::Duration;

use partita_core::IdempotencyKey;
use partita_testkit::{JobBuilder, Random, Reference, all, array, each, fold, job, list, slice};
use partita_types::{JobId, JobSpec};

/// One job of a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) tenant: &'static str,
    pub(crate) key: IdempotencyKey,
    pub(crate) spec: JobSpec,
    pub(crate) reference: Reference,
    /// Known once the submission was acknowledged.
    pub(crate) job: Option<JobId>,
    /// Whether it is cancelled some time after the submission.
    pub(crate) cancels: bool,
    pub(crate) cancelled: bool,
    /// Whether an array of it fails whatever happens.
    pub(crate) poisoned: bool,
}

impl Client {
    pub(crate) fn new(number: u64, tenant: &'static str, random: &mut Random) -> Self {
        let poisoned = random.chance(10);
        let spec = graph(random, poisoned).spec();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let reference = Reference::new(&spec);
        let cancels = random.chance(12);
        Self { tenant, key: IdempotencyKey(key), spec, reference, job: None, cancels, cancelled: false, poisoned }
    }
}

/// A random graph of up to seven arrays.
fn graph(random: &mut Random, poisoned: bool) -> JobBuilder {
    let mut graph = job();
    // Tasks and outputs of the arrays so far.
    let mut shapes: Vec<(u32, u32)> = Vec::new();
    let arrays = random.between(1, 7);
    let poison = if poisoned { random.below(arrays) } else { arrays };
    for position in 0..arrays {
        let name = if position == poison { "poison" } else { "array" };
        let outputs = if random.chance(40) { random.between(2, 4) as u32 } else { 1 };
        let mut builder = array(name).outputs(outputs).options(|options| {
            options.retries = 20;
            options.backoff = Duration::from_millis(10);
            options.priority = random.between(0, 2) as i32;
            options.keep = random.chance(20);
        });
        let mut tasks = random.between(1, 12) as u32;
        if shapes.is_empty() || random.chance(15) {
            builder = builder.tasks(tasks);
        } else {
            let source = random.below(shapes.len() as u64) as u32;
            let (length, width) = shapes[source as usize];
            match random.below(5) {
                0 => (builder, tasks) = (builder.reads(each(source)), length),
                1 => builder = builder.tasks(tasks).reads(all(source)),
                2 => (builder, tasks) = (builder.reads(slice(source)), width),
                3 => {
                    let arity = random.between(2, 4) as u32;
                    (builder, tasks) = (builder.reads(fold(source, arity)), fold_tasks(length, arity));
                }
                _ => builder = builder.reads(random_list(random, &shapes, tasks)),
            }
            if random.chance(30) {
                builder = builder.reads(all(random.below(shapes.len() as u64) as u32));
            }
        }
        graph = graph.with(builder);
        shapes.push((tasks, outputs));
    }
    graph
}

fn fold_tasks(mut width: u32, arity: u32) -> u32 {
    let mut tasks = 0;
    loop {
        width = width.div_ceil(arity);
        tasks += width;
        if width == 1 {
            return tasks;
        }
    }
}

fn random_list(random: &mut Random, shapes: &[(u32, u32)], tasks: u32) -> partita_types::Edge {
    let mut lists: Vec<Vec<(u32, u32, u32)>> = Vec::new();
    for _ in 0..tasks {
        let reads = random.below(4);
        let read = |random: &mut Random| {
            let array = random.below(shapes.len() as u64) as u32;
            let (length, width) = shapes[array as usize];
            (array, random.below(u64::from(length)) as u32, random.below(u64::from(width)) as u32)
        };
        lists.push((0..reads).map(|_| read(random)).collect());
    }
    let borrowed: Vec<&[(u32, u32, u32)]> = lists.iter().map(Vec::as_slice).collect();
    list(&borrowed)
}
