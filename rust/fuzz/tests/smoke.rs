//! Every target over its seeds, over what fuzzing has found, and over a few thousand mutations from a fixed seed; with
//! `FUZZ_CORPUS` set, writes the seeds there instead, a folder a target, for libFuzzer to start from.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use ehrfast_fuzz::{TARGETS, Target};

/// Mutations a target: together a few seconds.
const MUTATIONS: usize = 1500;

struct Dice(blake3::OutputReader);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_be_bytes(bytes) % bound.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, 0),
                3 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    bytes.splice(at.., other[from..].iter().copied());
                }
                4 => {
                    let value = self.byte();
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                }
                _ => {
                    let more = 1 + self.below(5);
                    (0..more).for_each(|_| bytes.push(self.byte()));
                }
            }
        }
        bytes
    }
}

fn smoke(target: &Target) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} starts from nothing", target.name);
    seeds.iter().for_each(|seed| (target.run)(seed));
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target.name);
    for file in std::fs::read_dir(found).into_iter().flatten() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        (target.run)(&hex::decode(text.trim()).unwrap());
    }
    let mut dice = Dice(blake3::Hasher::new().update(target.name.as_bytes()).finalize_xof());
    for _ in 0..MUTATIONS {
        (target.run)(&dice.mutate(&seeds));
    }
}

#[test]
fn every_target_holds() {
    if let Some(folder) = std::env::var_os("FUZZ_CORPUS") {
        for target in TARGETS {
            let folder = Path::new(&folder).join(target.name);
            std::fs::create_dir_all(&folder).unwrap();
            for (number, seed) in (target.seeds)().iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
            }
        }
        return;
    }
    std::thread::scope(|scope| {
        let (left, right) = TARGETS.split_at(TARGETS.len() / 2);
        let right = scope.spawn(|| right.iter().for_each(smoke));
        left.iter().for_each(smoke);
        right.join().unwrap();
    });
}
