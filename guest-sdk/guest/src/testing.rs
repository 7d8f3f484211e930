//! Runs task functions natively as the sandbox would: inputs as bytes, outputs as bytes.

use crate::host::memory::Memory;
use crate::host::{Host, Source};
use crate::{Module, Result};

/// Runs the function `name` of `module` with arguments in JSON, an entry of `inputs` for each edge of the job (each with
/// the bytes of its partitions), and a number of outputs. Returns the bytes of the outputs.
///
/// Everything is decoded and encoded by the code that also runs in the sandbox; only the host is another one, in memory
/// and without limits. Empty `arguments` are none.
///
/// ```
/// # extern crate partita_guest as partita;
/// use partita::prelude::*;
///
/// /// Joins texts.
/// #[partita::task]
/// fn join(first: Text, rest: Many<Text>) -> Result<Text> {
///     let mut joined = first.0;
///     for text in rest {
///         joined.push_str(&text?);
///     }
///     Ok(Text(joined))
/// }
///
/// partita::module!(join);
/// # fn main() -> Result<()> {
/// let inputs = vec![vec![b"a".to_vec()], vec![b"b".to_vec(), b"c".to_vec()]];
/// assert_eq!(partita::testing::run(&MODULE, "join", "", inputs, 1)?, [b"abc"]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What the sandbox would report as the reason of the failed attempt.
pub fn run(
    module: &Module,
    name: &str,
    arguments: &str,
    inputs: Vec<Vec<Vec<u8>>>,
    outputs: usize,
) -> Result<Vec<Vec<u8>>> {
    let sizes: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let memory = Memory::new(inputs.into_iter().flatten().collect(), outputs);
    let mut numbers = 0_u32..;
    let groups = sizes
        .into_iter()
        .map(|size| {
            let host = || -> std::rc::Rc<dyn Host> { memory.clone() };
            numbers.by_ref().take(size).map(|number| Source::new(host(), number)).collect()
        })
        .collect();
    module.run(name, arguments.as_bytes().to_vec(), groups, memory.sinks())?;
    Ok(memory.outputs())
}

/// A value as the bytes of a partition in JSON.
///
/// ```
/// # extern crate partita_guest as partita;
/// assert_eq!(partita::testing::json(&[1, 2]).unwrap(), b"[1,2]");
/// ```
///
/// # Errors
/// If the value has no such form.
pub fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// A value as the bytes of a partition in postcard's form.
///
/// ```
/// # extern crate partita_guest as partita;
/// assert_eq!(partita::testing::postcard(&(1_u8, true)).unwrap(), [1, 1]);
/// ```
///
/// # Errors
/// If the value has no such form.
pub fn postcard(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    Ok(::postcard::to_stdvec(value)?)
}
