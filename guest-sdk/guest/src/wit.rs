//! The component's side of the contract in `guest-sdk/wit/task.wit`. Only `partita::module!` refers to it.
//!
//! What the host offers is bound by `wit_bindgen`. The two exports are written out by hand below, as the canonical ABI of
//! the component model lays their values out, because `wit_bindgen` makes code that does not compile for a list of
//! borrowed handles (its issue 811). It is also cheaper: a handle stays the number that it is, and what `describe`
//! returns is never copied. Nothing is freed for the caller (there is no `cabi_post_…`), as an instance serves one call.

use std::rc::Rc;

use self::bindings::partita::task::context::{Input, Output};
use crate::call::{Module, Task};
use crate::host::sandbox::Sandbox;
use crate::host::{Host, Sink, Source, ambient};

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod bindings {
    wit_bindgen::generate!({
        inline: "
            package partita:guest;
            world imports { import partita:task/context@0.1.0; }
        ",
        world: "partita:guest/imports",
        path: "../wit",
        generate_all,
    });
}

/// The world, for the linker.
#[allow(unsafe_code, reason = "the linker finds it by the name of its section")]
#[unsafe(link_section = "component-type:partita:task/task-module")]
#[used]
static WORLD: [u8; include_bytes!(concat!(env!("OUT_DIR"), "/task-module.component-type")).len()] =
    *include_bytes!(concat!(env!("OUT_DIR"), "/task-module.component-type"));

/// A `string`, or a `list` of `T`.
#[repr(C)]
pub struct List<T> {
    start: *const T,
    length: usize,
}

impl<T> List<T> {
    /// A list that is given to the caller for good.
    fn leaked(items: &'static [T]) -> Self {
        Self { start: items.as_ptr(), length: items.len() }
    }

    /// Makes a list that the caller has allocated for us ours.
    ///
    /// # Safety
    /// `start` and `length` come from the caller of an export, as the parts of one parameter of type `list<T>`, for the
    /// first time.
    #[allow(unsafe_code, reason = "the canonical ABI passes lists as addresses")]
    unsafe fn lift(self) -> Vec<T> {
        // SAFETY: the caller allocated room for `length` items of `T` by `cabi_realloc`, which takes it from the global
        // allocator with exactly this size and alignment, and initialised them. An empty list has an aligned address.
        unsafe { Vec::from_raw_parts(self.start.cast_mut(), self.length, self.length) }
    }
}

/// An `option<u32>`.
#[repr(C)]
struct Optional {
    present: u8,
    value: u32,
}

impl From<Option<u32>> for Optional {
    fn from(value: Option<u32>) -> Self {
        Self { present: u8::from(value.is_some()), value: value.unwrap_or_default() }
    }
}

/// The record `function`.
#[repr(C)]
struct Function {
    name: List<u8>,
    doc: List<u8>,
    inputs: Optional,
    outputs: Optional,
}

impl From<&Task> for Function {
    fn from(task: &Task) -> Self {
        Self {
            name: List::leaked(task.name.as_bytes()),
            doc: List::leaked(task.doc.as_bytes()),
            inputs: Some(task.inputs).into(),
            outputs: task.outputs.into(),
        }
    }
}

/// A `list<function>` as a result.
#[repr(C)]
pub struct Described(List<Function>);

/// The export `describe`.
#[must_use]
pub fn describe(module: &'static Module) -> &'static Described {
    let functions: Vec<Function> = module.tasks().iter().map(Function::from).collect();
    Box::leak(Box::new(Described(List::leaked(functions.leak()))))
}

/// The variant `failure`; both of its cases carry a message.
#[repr(C)]
struct Failure {
    retry: u8,
    message: List<u8>,
}

/// A `result<_, failure>`.
#[repr(C)]
pub struct Ended {
    failed: u8,
    failure: Failure,
}

impl From<crate::Result<()>> for Ended {
    fn from(result: crate::Result<()>) -> Self {
        let (failed, retry, message) = match result {
            Ok(()) => (0, 0, String::new()),
            Err(error) => (1, u8::from(error.is_retryable()), error.to_string()),
        };
        Self { failed, failure: Failure { retry, message: List::leaked(message.leak().as_bytes()) } }
    }
}

/// The parameters of the export `run`, each in the two halves that it is passed in.
#[repr(C)]
pub struct Parameters {
    /// `name: string`
    pub name: (*const u8, usize),
    /// `args: list<u8>`
    pub arguments: (*const u8, usize),
    /// `inputs: list<list<borrow<input>>>`
    pub inputs: (*const List<u32>, usize),
    /// `outputs: list<borrow<output>>`
    pub outputs: (*const u32, usize),
}

/// The export `run`.
///
/// # Safety
/// `parameters` are those of one call of the export, passed on for the first time.
#[must_use]
#[allow(unsafe_code, reason = "the canonical ABI passes lists as addresses and borrows as numbers")]
pub unsafe fn run(module: &'static Module, parameters: Parameters) -> &'static Ended {
    wit_bindgen::rt::run_ctors_once();
    ambient::install_panic_hook();
    let Parameters { name, arguments, inputs, outputs } = parameters;
    let list = |(start, length)| List { start, length };
    // SAFETY: each list is lifted once, by the promise of the caller, and the lists inside `inputs` once each too.
    let (name, arguments, inputs, outputs) = unsafe {
        let inputs: Vec<Vec<u32>> =
            List { start: inputs.0, length: inputs.1 }.lift().into_iter().map(|group| group.lift()).collect();
        (list(name).lift(), list(arguments).lift(), inputs, List { start: outputs.0, length: outputs.1 }.lift())
    };

    let host: Rc<dyn Host> = Rc::new(Sandbox);
    let source = |input: &u32| Source::new(host.clone(), *input);
    let groups = inputs.iter().map(|group| group.iter().map(source).collect()).collect();
    let sinks = outputs.iter().map(|output| Sink::new(host.clone(), *output)).collect();
    let result = module.run(&String::from_utf8_lossy(&name), arguments, groups, sinks);

    // Borrowed handles have to be given back before the export returns.
    for input in inputs.into_iter().flatten() {
        // SAFETY: a handle that this call was given, and its last use.
        drop(unsafe { Input::from_handle(input) });
    }
    for output in outputs {
        // SAFETY: as above.
        drop(unsafe { Output::from_handle(output) });
    }
    Box::leak(Box::new(Ended::from(result)))
}
