//! One call of a task function: its arguments, inputs and outputs on the way from the host to the parameters, and from
//! the result back.

use std::vec;

use crate::host::{Sink, Source};
use crate::{
    Args, Context as _, Error, FromInput, Many, Outputs, Partitioned, Reader, Result, ToOutput, Writer, Writers,
};

/// A task function, as `#[partita::task]` describes it.
#[derive(Clone, Copy)]
pub struct Task {
    /// The name by which jobs refer to it.
    pub name: &'static str,
    /// First paragraph of its documentation.
    pub doc: &'static str,
    /// How many input groups it takes.
    pub inputs: u32,
    /// How many outputs it writes; none if the job decides.
    pub outputs: Option<u32>,
    /// Decodes the parameters, calls the function, encodes the result.
    pub call: fn(&mut Call) -> Result<()>,
}

/// The task functions of a crate, as `partita::module!` lists them.
pub struct Module {
    tasks: &'static [Task],
}

impl Module {
    pub(crate) const fn new(tasks: &'static [Task]) -> Self {
        Self { tasks }
    }

    /// The task functions in the order in which they are listed.
    #[must_use]
    pub const fn tasks(&self) -> &'static [Task] {
        self.tasks
    }

    /// Runs the function `name`.
    pub(crate) fn run(
        &self,
        name: &str,
        arguments: Vec<u8>,
        groups: Vec<Vec<Source>>,
        outputs: Vec<Sink>,
    ) -> Result<()> {
        let Some(task) = self.tasks.iter().find(|task| task.name == name) else {
            let names = self.tasks.iter().map(|task| task.name).collect::<Vec<_>>().join(", ");
            return Err(Error::new(format!("the module has no function `{name}`; it has {names}")));
        };
        if groups.len() != task.inputs as usize {
            let (takes, given) = (task.inputs, groups.len());
            let inputs = if takes == 1 { "input" } else { "inputs" };
            return Err(Error::new(format!("`{name}` takes {takes} {inputs}, but the job gives it {given}")));
        }
        if let Some(writes) = task.outputs
            && outputs.len() != writes as usize
        {
            let given = outputs.len();
            return Err(Error::new(format!("`{name}` writes {writes} output, but the job asks for {given}")));
        }
        (task.call)(&mut Call { function: task.name, arguments, groups: groups.into_iter(), taken: 0, outputs })
    }
}

/// One call of a task function.
pub struct Call {
    function: &'static str,
    arguments: Vec<u8>,
    groups: vec::IntoIter<Vec<Source>>,
    /// How many input groups were given out.
    taken: u32,
    outputs: Vec<Sink>,
}

impl Call {
    /// The next input group.
    fn next_group(&mut self, parameter: &str) -> Result<Vec<Source>> {
        self.taken += 1;
        let (number, function) = (self.taken, self.function);
        self.groups.next().with_context(|| format!("the job has no input {number} (`{parameter}`) for `{function}`"))
    }

    fn output_count(&self) -> u32 {
        u32::try_from(self.outputs.len()).unwrap_or(u32::MAX)
    }

    /// The first output.
    fn first_output(&self) -> Result<Writer> {
        let function = self.function;
        let sink = self.outputs.first().cloned().with_context(|| format!("the job gives `{function}` no output"))?;
        Ok(Writer::new(sink))
    }
}

/// Which outputs a parameter or a result writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// None.
    Nothing,
    /// Output 0, and there is no other.
    First,
    /// All that the job gives.
    All,
}

impl Claim {
    /// What `describe` says about a function with this claim. The smallest number of outputs is one, which is empty if
    /// nobody writes it.
    #[must_use]
    pub const fn outputs(self) -> Option<u32> {
        match self {
            Self::Nothing | Self::First => Some(1),
            Self::All => None,
        }
    }
}

/// The only claim among `claims`.
///
/// # Panics
/// If there are two. As this is evaluated by the compiler, it is a compile error of the task function.
#[must_use]
pub const fn combine(claims: &[Claim]) -> Claim {
    let mut only = Claim::Nothing;
    let mut index = 0;
    while index < claims.len() {
        if !matches!(claims[index], Claim::Nothing) {
            assert!(
                matches!(only, Claim::Nothing),
                "the outputs of a task function have one writer: its result, or one parameter of type `Writer` or `Writers`"
            );
            only = claims[index];
        }
        index += 1;
    }
    only
}

/// What can be a parameter of a task function. The position among the parameters only matters for inputs, which take
/// the job's edges in order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a task function",
    label = "neither an input nor anything else that a task can be given",
    note = "inputs are `Text`, `Bytes`, `Json<T>`, `Postcard<T>`, `Reader`, and `Many<_>` of them; `T` must implement `serde::Deserialize`",
    note = "other parameters are `Args<T>`, `Outputs`, `Writer` and `Writers`"
)]
pub trait Parameter: Sized {
    /// How many input groups it takes.
    const INPUTS: u32;
    /// Which outputs it writes.
    const CLAIM: Claim;
    /// Takes the parameter called `name` out of `call`.
    ///
    /// # Errors
    /// If the job does not give what the parameter needs.
    fn take(call: &mut Call, name: &str) -> Result<Self>;
}

impl<X: FromInput> Parameter for X {
    const INPUTS: u32 = 1;
    const CLAIM: Claim = Claim::Nothing;

    fn take(call: &mut Call, name: &str) -> Result<Self> {
        let mut group = call.next_group(name)?;
        let (number, function) = (call.taken, call.function);
        match (group.pop(), group.len()) {
            (Some(source), 0) => {
                X::from_input(Reader::new(source)).with_context(|| format!("input {number} (`{name}`) of `{function}`"))
            }
            (popped, others) => {
                let count = others + usize::from(popped.is_some());
                Err(Error::new(format!(
                    "input {number} (`{name}`) of `{function}` takes one partition, but the job gives it {count}: use `Many`"
                )))
            }
        }
    }
}

impl<X> Parameter for Many<X> {
    const INPUTS: u32 = 1;
    const CLAIM: Claim = Claim::Nothing;

    fn take(call: &mut Call, name: &str) -> Result<Self> {
        call.next_group(name).map(Self::stored)
    }
}

impl<T: serde::de::DeserializeOwned> Parameter for Args<T> {
    const INPUTS: u32 = 0;
    const CLAIM: Claim = Claim::Nothing;

    fn take(call: &mut Call, _name: &str) -> Result<Self> {
        let function = call.function;
        Self::decode(&call.arguments).with_context(|| format!("the arguments of `{function}`"))
    }
}

impl Parameter for Outputs {
    const INPUTS: u32 = 0;
    const CLAIM: Claim = Claim::Nothing;

    fn take(call: &mut Call, _name: &str) -> Result<Self> {
        Ok(Self::of(call.output_count()))
    }
}

impl Parameter for Writer {
    const INPUTS: u32 = 0;
    const CLAIM: Claim = Claim::First;

    fn take(call: &mut Call, _name: &str) -> Result<Self> {
        call.first_output()
    }
}

impl Parameter for Writers {
    const INPUTS: u32 = 0;
    const CLAIM: Claim = Claim::All;

    fn take(call: &mut Call, _name: &str) -> Result<Self> {
        Ok(Self::new(call.outputs.clone()))
    }
}

/// What a task function can return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task function",
    label = "cannot be written to an output",
    note = "results are `()`, `Text`, `String`, `Bytes`, `Vec<u8>`, `Json<T>`, `Postcard<T>`, `Partitioned<_>` of them, and `Result<_, E>` of any of those; `T` must implement `serde::Serialize`"
)]
pub trait Return {
    /// Which outputs it writes.
    const CLAIM: Claim;
    /// Writes the result to the outputs of `call`.
    ///
    /// # Errors
    /// The failure that was returned, or what kept the result from being written.
    fn finish(self, call: &mut Call) -> Result<()>;
}

impl Return for () {
    const CLAIM: Claim = Claim::Nothing;

    fn finish(self, _call: &mut Call) -> Result<()> {
        Ok(())
    }
}

impl<X: ToOutput> Return for X {
    const CLAIM: Claim = Claim::First;

    fn finish(self, call: &mut Call) -> Result<()> {
        self.to_output(&mut call.first_output()?)
    }
}

impl<X: ToOutput> Return for Partitioned<X> {
    const CLAIM: Claim = Claim::All;

    fn finish(self, call: &mut Call) -> Result<()> {
        let (function, made, asked) = (call.function, self.len(), call.outputs.len());
        if made != asked {
            return Err(Error::new(format!(
                "`{function}` made values for {made} outputs, but the job asks for {asked}"
            )));
        }
        // Each value is dropped as soon as it is written: they may be most of the task's memory.
        for (value, sink) in self.into_iter().zip(call.outputs.drain(..)) {
            value.to_output(&mut Writer::new(sink))?;
        }
        Ok(())
    }
}

impl<R: Return, E: Into<Error>> Return for Result<R, E> {
    const CLAIM: Claim = R::CLAIM;

    fn finish(self, call: &mut Call) -> Result<()> {
        self.map_err(Into::into)?.finish(call)
    }
}
