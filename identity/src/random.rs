//! Unpredictable bytes, for keys, serial numbers and token ids.

use crate::provider::provider;

/// `N` unpredictable bytes from the same generator that TLS uses.
///
/// # Panics
/// If the system has no entropy to give. Nothing can be kept secret then, so going on would be worse.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if provider().secure_random.fill(&mut bytes).is_err() {
        panic!("the operating system gives no random bytes");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(random::<32>(), random::<32>());
    }
}
