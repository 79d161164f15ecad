//! Deterministic changes of seeds, for runs without libFuzzer: bits and bytes, pieces taken out, doubled, or put in from
//! another seed, and words that parsers stumble over. Limits: one number gives one change; nothing here learns.

/// A sequence of numbers from one (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(drawn % u64::try_from(bound.max(1)).unwrap_or(u64::MAX)).unwrap_or(0)
    }
}

const WORDS: [&[u8]; 20] = [
    b"",
    b".",
    b"..",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"null",
    b"-0",
    b"1e309",
    b"9223372036854775808",
    b"\\ud800",
    b"\"\"",
    b"{}",
    b"[[[[[[[[",
    b"eyJ9",
    b"AAAA",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x01\x80",
    b"\"kid\":\"a\",",
    b"\r\n",
];

/// A seed, changed in one to four places.
pub fn mutate(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let (at, length) = (dice.below(data.len() + 1), dice.below(16) + 1);
        let end = (at + length).min(data.len());
        match dice.below(7) {
            0 if at < data.len() => data[at] ^= 1 << dice.below(8),
            1 if at < data.len() => data[at] = u8::try_from(dice.below(256)).unwrap_or(0),
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece.repeat(dice.below(3) + 1));
            }
            4 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(64)).min(other.len());
                let piece = other[from..to].to_vec();
                data.splice(at..end, piece);
            }
            5 => data.truncate(at),
            _ => drop(data.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
        }
    }
    data
}
