//! Randomness from the system.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// The letters of base32 (RFC 4648), in lower case.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Letters of base32, each worth five random bits.
///
/// # Errors
/// The system gives no random bytes.
pub fn letters(count: usize) -> io::Result<String> {
    let mut bytes = vec![0; count];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte & 31)]))
        .collect())
}

/// Random bytes, for a secret.
///
/// # Errors
/// The system gives no random bytes.
pub fn bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

/// Whether a text consists of so many letters, as [`letters`] makes them.
pub fn are_letters(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| LETTERS.contains(&b))
}

/// A number from 0 to 1; the middle when the system gives no random bytes.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    match getrandom(&mut bytes, GetRandomFlags::NONBLOCK) {
        Ok(4) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        _ => 0.5,
    }
}
