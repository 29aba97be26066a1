//! Mutations for text formats. Mutators of typed values (mutatis, arbitrary) do not know that `\n` and `{` matter; this
//! one takes its words from the corpus.

use fastrand::Rng;

/// Longer inputs only cost time.
const LONGEST: usize = 16 * 1024;
/// What breaks parsers in general.
const WORDS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"\n",
    b"\r\n",
    b"\"",
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"&a",
    b"*a",
    b"<<: *a",
    b"---\n",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e309",
    b"18446744073709551616",
    b"../",
    b"$(x)",
    b"`x`",
    b"%00",
    b"--flag",
    b"\x1b[31m",
    b"NaN",
    b"!!binary",
    b"!",
    b"? ",
    b"|\n",
    b">\n",
];

/// A changed copy of one input; some pieces are taken from another one.
pub fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.usize(1..=4) {
        step(rng, &mut bytes, other);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn step(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..=bytes.len());
    let span = piece(rng, bytes.len());
    match rng.u8(..10) {
        0 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
        1 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        2 => drop(bytes.drain(span)),
        3 => bytes.truncate(at),
        4 => insert(bytes, at, rng.choice(WORDS).copied().unwrap_or_default()),
        5 => insert(bytes, at, &other[piece(rng, other.len())]),
        6 => {
            let copy = bytes[span].to_vec();
            insert(bytes, at, &copy.repeat(rng.usize(1..8)));
        }
        // The same again and again: depth, and quadratic work.
        7 => insert(bytes, at, &rng.choice(WORDS).copied().unwrap_or_default().repeat(rng.usize(1..600))),
        8 => {
            let word = rng.choice(WORDS).copied().unwrap_or_default();
            bytes.splice(span, word.iter().copied());
        }
        _ => {
            let number = rng.i64(..).to_string();
            let digits = bytes.iter().position(u8::is_ascii_digit).unwrap_or(at);
            let end =
                bytes[digits..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |n| digits + n);
            bytes.splice(digits..end, number.bytes());
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    if bytes.len() + more.len() <= 2 * LONGEST {
        bytes.splice(at..at, more.iter().copied());
    }
}

/// A short range, most of the time.
fn piece(rng: &mut Rng, length: usize) -> std::ops::Range<usize> {
    let start = rng.usize(..=length);
    let most = if rng.u8(..4) == 0 { length } else { 24 };
    start..(start + rng.usize(..=most)).min(length)
}
