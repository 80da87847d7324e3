//! Where randomness comes from.

use aws_lc_rs::rand::SecureRandom as _;

/// A source of randomness, passed in wherever a value must not be guessed.
pub trait Random: Send {
    /// Fills the buffer with random bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The operating system's source, by way of aws-lc-rs.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        if aws_lc_rs::rand::SystemRandom::new().fill(bytes).is_err() {
            // Without randomness every key would be guessable: there is no safe way to go on.
            std::process::abort();
        }
    }
}

impl<R: Random + ?Sized> Random for &mut R {
    fn fill(&mut self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

impl dyn Random + '_ {
    /// An array of random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
