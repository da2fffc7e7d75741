//! Every target over its corpus, and over mutations of it that are the same in every run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};
use weft_fuzz::TARGETS;

/// Of each file.
const MUTATIONS: usize = 300;

#[test]
fn every_target_has_a_corpus_and_passes_it() {
    for target in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let mut files: Vec<_> = fs::read_dir(&dir)
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
            .flatten()
            .map(|e| e.path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", dir.display());
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let mut chance = fastrand::Rng::with_seed(7);
        for (file, seed) in files.iter().zip(&seeds) {
            run(target.run, seed, &file.display().to_string());
            for n in 0..MUTATIONS {
                let other = &seeds[chance.usize(..seeds.len())];
                run(target.run, &mutated(seed, other, &mut chance), &format!("mutation {n} of {}", file.display()));
            }
        }
    }
}

/// Every folder belongs to a target.
#[test]
fn no_corpus_is_forgotten() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "corpus/{name} belongs to no target");
    }
}

fn run(target: fn(&[u8]), data: &[u8], what: &str) {
    if std::panic::catch_unwind(|| target(data)).is_err() {
        panic!("{what}: {}", data.escape_ascii());
    }
}

fn mutated(seed: &[u8], other: &[u8], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=chance.usize(..4) {
        let at = chance.usize(..=data.len());
        match chance.u8(..6) {
            0 if at < data.len() => data[at] ^= 1 << chance.u8(..8),
            1 if at < data.len() => data[at] = *chance.choice(b"\r\n \t:;,/%\0\xff0aZ".iter()).unwrap(),
            2 => data.truncate(at),
            3 => data.insert(at, chance.u8(..)),
            4 if at < data.len() => drop(data.remove(at)),
            _ => {
                let from = chance.usize(..=other.len());
                let piece = &other[from..(from + chance.usize(..64)).min(other.len())];
                data.splice(at..at, piece.iter().copied());
            }
        }
    }
    data
}
