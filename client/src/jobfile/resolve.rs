//! From the form of a job file to its meaning: names become positions, text becomes sizes, faults become lines.

use std::collections::BTreeMap;
use std::path::Path;

use partita_types::{
    Arguments, ArrayIndex, ArrayOptions, ArraySource, ArraySpec, ByteSize, CpuTime, DatasetName, Edge, Features,
    JobSpec, LimitRequest, ModuleId, OutputRef, TaskCount, check_arrays,
};
use toml::Spanned;

use super::raw;
use super::{FileArray, JobFile, ModuleSource};

/// What one task of a dataset array reads if the file does not say.
const DEFAULT_SPLIT: ByteSize = ByteSize::mib(8);
/// How many inputs a fold merges at a time if the file does not say.
const DEFAULT_ARITY: u32 = 8;
/// Stands in for the id of a module until the file's modules were looked up.
const UNRESOLVED: ModuleId = ModuleId([0; 32]);

/// Something wrong at a byte position of the file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

pub(super) fn file(text: &str, path: &Path) -> Result<JobFile, Fault> {
    let raw: raw::Job = toml::from_str(text).map_err(|error| {
        let message = error.message().replace("unknown field", "unknown key").replace("missing field", "missing key");
        Fault::new(error.span().map_or(0, |span| span.start), message)
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let modules: BTreeMap<_, _> = raw
        .modules
        .into_iter()
        .map(|(alias, module)| module_source(&alias, module, directory).map(|source| (alias, source)))
        .collect::<Result<_, _>>()?;
    let names = array_names(&raw.array)?;
    let starts: Vec<usize> = raw.array.iter().map(|array| array.get_ref().name.span().start).collect();
    let mut arrays = Vec::with_capacity(raw.array.len());
    for (position, array) in raw.array.into_iter().enumerate() {
        let scope = Scope { names: &names, position, name: array.get_ref().name.get_ref().clone() };
        arrays.push(scope.array(array.into_inner(), &modules)?);
    }
    let name_at = raw.name.span().start;
    let deadline = raw.deadline.map(|time| time.0);
    let file = JobFile { path: path.to_owned(), name: raw.name.into_inner(), deadline, modules, arrays };
    check(&file, name_at, &starts)?;
    Ok(file)
}

fn module_source(alias: &str, module: Spanned<raw::Module>, directory: &Path) -> Result<ModuleSource, Fault> {
    let at = module.span().start;
    let raw::Module { path, name, id } = module.into_inner();
    match (path, name, id) {
        (Some(path), None, None) => Ok(ModuleSource::Path(directory.join(path))),
        (None, Some(name), None) => Ok(ModuleSource::Name(name)),
        (None, None, Some(id)) => {
            id.parse().map(ModuleSource::Id).map_err(|error| Fault::new(at, format!("module {alias:?}: {error}")))
        }
        _ => Err(Fault::new(at, format!("module {alias:?} needs exactly one of `path`, `name`, `id`"))),
    }
}

/// The arrays' names with their positions.
fn array_names(arrays: &[Spanned<raw::Array>]) -> Result<BTreeMap<String, usize>, Fault> {
    let mut names = BTreeMap::new();
    for (position, array) in arrays.iter().enumerate() {
        let name = &array.get_ref().name;
        if names.insert(name.get_ref().clone(), position).is_some() {
            return Err(Fault::new(name.span().start, format!("there are two arrays called {:?}", name.get_ref())));
        }
    }
    Ok(names)
}

/// Bounds and references, told at the line of the array.
fn check(file: &JobFile, name_at: usize, starts: &[usize]) -> Result<(), Fault> {
    let specs: Vec<ArraySpec> = file.arrays.iter().map(|array| array.spec.clone()).collect();
    let outputs: Vec<u32> = specs.iter().map(|spec| spec.outputs).collect();
    let job = JobSpec { name: file.name.clone(), arrays: specs, open: false, deadline: file.deadline };
    let Err(error) = job.check() else { return Ok(()) };
    let faulty = |position: &usize| check_arrays(&job.arrays[*position..=*position], &outputs[..*position]).is_err();
    let at = (0..job.arrays.len()).find(faulty).and_then(|position| starts.get(position).copied());
    Err(Fault::new(at.unwrap_or(name_at), error.to_string()))
}

/// One array and what it may refer to.
struct Scope<'a> {
    names: &'a BTreeMap<String, usize>,
    position: usize,
    name: String,
}

impl Scope<'_> {
    fn array(&self, raw: raw::Array, modules: &BTreeMap<String, ModuleSource>) -> Result<FileArray, Fault> {
        let (alias, function) = self.function(&raw.function, modules)?;
        let options = options(&raw);
        let (arguments, counted) = self.arguments(raw.args, raw.args_per_task)?;
        let tasks = raw.tasks.or(counted).map_or(TaskCount::FromInputs, TaskCount::Fixed);
        let inputs = raw.inputs.into_iter().map(|edge| self.edge(edge)).collect::<Result<_, _>>()?;
        let spec = ArraySpec {
            name: self.name.clone(),
            source: ArraySource::Function { module: UNRESOLVED, function },
            tasks,
            arguments,
            inputs,
            outputs: raw.outputs.unwrap_or(1),
            options,
        };
        Ok(FileArray { alias, spec })
    }

    fn function(
        &self,
        function: &Spanned<String>,
        modules: &BTreeMap<String, ModuleSource>,
    ) -> Result<(String, String), Fault> {
        let at = function.span().start;
        let text = function.get_ref();
        let Some((alias, name)) = text.rsplit_once('.') else {
            let message = format!("array {:?}: {text:?} is not a function: write `module.function`", self.name);
            return Err(Fault::new(at, message));
        };
        if !modules.contains_key(alias) {
            let message = format!(
                "array {:?} calls {text:?}, but [modules] has no {alias:?}; {}",
                self.name,
                listed(modules.keys())
            );
            return Err(Fault::new(at, message));
        }
        Ok((alias.to_owned(), name.to_owned()))
    }

    fn arguments(
        &self,
        common: Option<Spanned<toml::Value>>,
        per_task: Option<Spanned<Vec<toml::Value>>>,
    ) -> Result<(Arguments, Option<u32>), Fault> {
        let json = |at: usize, value: &toml::Value| {
            json(value).map(|value| value.to_string().into_bytes()).ok_or_else(|| {
                Fault::new(at, format!("array {:?}: arguments are JSON, which has no inf or nan", self.name))
            })
        };
        match (common, per_task) {
            (None, None) => Ok((Arguments::Common(Vec::new()), None)),
            (Some(value), None) => Ok((Arguments::Common(json(value.span().start, value.get_ref())?), None)),
            (None, Some(values)) => {
                let at = values.span().start;
                let list = values.get_ref().iter().map(|value| json(at, value)).collect::<Result<Vec<_>, _>>()?;
                let count = u32::try_from(list.len()).ok();
                Ok((Arguments::PerTask(list), count))
            }
            (Some(_), Some(values)) => Err(Fault::new(
                values.span().start,
                format!("array {:?} has both `args` and `args_per_task`: give one of them", self.name),
            )),
        }
    }

    fn edge(&self, edge: Spanned<raw::Edge>) -> Result<Edge, Fault> {
        let at = edge.span().start;
        let mut raw = edge.into_inner();
        let edge = self.one_edge(at, &mut raw)?;
        match left_over(&raw) {
            None => Ok(edge),
            Some(key) => {
                let message = format!("array {:?}: `{key}` does not go with the other keys of this input", self.name);
                Err(Fault::new(at, message))
            }
        }
    }

    /// Takes the keys that belong together out of `raw`.
    fn one_edge(&self, at: usize, raw: &mut raw::Edge) -> Result<Edge, Fault> {
        if let Some(array) = raw.each.take() {
            return Ok(Edge::Each { array: self.earlier(at, &array)?, output: raw.output.take().unwrap_or(0) });
        }
        if let Some(array) = raw.all.take() {
            return Ok(Edge::All { array: self.earlier(at, &array)?, output: raw.output.take().unwrap_or(0) });
        }
        if let Some(array) = raw.slice.take() {
            return Ok(Edge::Slice { array: self.earlier(at, &array)? });
        }
        if let Some(array) = raw.fold.take() {
            let arity = raw.arity.take().unwrap_or(DEFAULT_ARITY);
            return Ok(Edge::Fold { array: self.earlier(at, &array)?, arity });
        }
        if let Some(name) = raw.dataset.take() {
            let dataset =
                DatasetName::new(&name).map_err(|error| Fault::new(at, format!("array {:?}: {error}", self.name)))?;
            let split = raw.split.take().map_or(DEFAULT_SPLIT, |size| size.0);
            return Ok(Edge::Dataset { dataset, split, limit: raw.limit.take().map(|size| size.0) });
        }
        if let Some(text) = raw.literal.take() {
            return Ok(Edge::Literal { values: vec![text.into_bytes()] });
        }
        if let Some(texts) = raw.literals.take() {
            return Ok(Edge::Literal { values: texts.into_iter().map(String::into_bytes).collect() });
        }
        if let Some(tasks) = raw.list.take() {
            let task = |sources: Vec<Spanned<String>>| sources.iter().map(|source| self.source(source)).collect();
            return Ok(Edge::List { tasks: tasks.into_iter().map(task).collect::<Result<_, _>>()? });
        }
        let kinds = "`each`, `all`, `slice`, `fold`, `list`, `dataset`, `literal`, `literals`";
        Err(Fault::new(at, format!("array {:?}: an input needs one of {kinds}", self.name)))
    }

    /// The position of an array before this one.
    fn earlier(&self, at: usize, name: &str) -> Result<ArrayIndex, Fault> {
        let complain = |what: String| Fault::new(at, format!("array {:?} reads from {what}", self.name));
        let Some(position) = self.names.get(name) else {
            return Err(complain(format!("{name:?}, which does not exist; {}", listed(self.names.keys()))));
        };
        if *position == self.position {
            return Err(complain("itself: a job has no cycles".to_owned()));
        }
        if *position > self.position {
            return Err(complain(format!(
                "{name:?}, which comes after it: list arrays in the order of their data; a job has no cycles"
            )));
        }
        u32::try_from(*position).map(ArrayIndex).map_err(|_| complain(format!("{name:?}, beyond all bounds")))
    }

    /// `map[3]` is output 0 of task 3 of array "map"; `map[3].1` is its output 1.
    fn source(&self, source: &Spanned<String>) -> Result<OutputRef, Fault> {
        let (at, text) = (source.span().start, source.get_ref());
        let parts = || {
            let (name, rest) = text.split_once('[')?;
            let (index, rest) = rest.split_once(']')?;
            let output = if rest.is_empty() { 0 } else { rest.strip_prefix('.')?.parse().ok()? };
            Some((name, index.parse().ok()?, output))
        };
        let (name, index, output) = parts().ok_or_else(|| {
            let message = format!("array {:?}: {text:?} is not an output: write `map[3]` or `map[3].1`", self.name);
            Fault::new(at, message)
        })?;
        Ok(OutputRef { array: self.earlier(at, name)?, index, output })
    }
}

/// A key that no edge took.
fn left_over(raw: &raw::Edge) -> Option<&'static str> {
    let keys = [
        ("each", raw.each.is_some()),
        ("all", raw.all.is_some()),
        ("output", raw.output.is_some()),
        ("slice", raw.slice.is_some()),
        ("fold", raw.fold.is_some()),
        ("arity", raw.arity.is_some()),
        ("dataset", raw.dataset.is_some()),
        ("split", raw.split.is_some()),
        ("limit", raw.limit.is_some()),
        ("literal", raw.literal.is_some()),
        ("literals", raw.literals.is_some()),
        ("list", raw.list.is_some()),
    ];
    keys.into_iter().find_map(|(key, set)| set.then_some(key))
}

fn options(raw: &raw::Array) -> ArrayOptions {
    let default = ArrayOptions::default();
    ArrayOptions {
        priority: raw.priority.unwrap_or(default.priority),
        retries: raw.retries.unwrap_or(default.retries),
        backoff: raw.backoff.map_or(default.backoff, |time| time.0),
        limits: LimitRequest {
            memory: raw.memory.map(|size| size.0),
            cpu_time: raw.cpu_time.map(|time| CpuTime::from(time.0)),
            wall_time: raw.wall_time.map(|time| time.0),
            output: raw.output.map(|size| size.0),
            log: raw.log.map(|size| size.0),
        },
        deterministic: raw.deterministic.unwrap_or(default.deterministic),
        keep: raw.keep.unwrap_or(default.keep),
        memory_max: raw.memory_max.map(|size| size.0),
        needs: Features { labels: raw.labels.clone(), resources: raw.resources.clone() },
        memoise: raw.memoise.unwrap_or(default.memoise),
        speculate: raw.speculate.unwrap_or(default.speculate),
    }
}

/// TOML as JSON; dates become text. `None` for numbers that JSON does not have.
fn json(value: &toml::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::Number(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(truth) => Value::Bool(*truth),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => Value::Array(list.iter().map(json).collect::<Option<_>>()?),
        toml::Value::Table(table) => {
            let pair = |(key, value): (&String, &toml::Value)| Some((key.clone(), json(value)?));
            Value::Object(table.iter().map(pair).collect::<Option<_>>()?)
        }
    })
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    /// More names than these do not help.
    const SHOWN: usize = 12;
    let names: Vec<_> = names.take(SHOWN).map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) }
}
