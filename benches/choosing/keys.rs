//! Where the keys of the hashing algorithms go, and which of them move when a backend leaves.

use crate::table::{print, share};
use l4lb::balance::{Algorithm, Ask, Field, Picker, Place, key_of};
use std::sync::atomic::AtomicU64;

const HASHING: [(&str, Algorithm); 3] =
    [("ip_hash", Algorithm::IpHash), ("maglev", Algorithm::Maglev), ("consistent_hash", Algorithm::ConsistentHash)];

/// All are up and empty.
struct Open;

impl Field for Open {
    fn is_open(&self, _: u32) -> bool {
        true
    }
    fn take(&mut self, _: u32) -> bool {
        true
    }
    fn active(&self, _: u32) -> u32 {
        0
    }
}

/// Prints both tables.
pub(crate) fn show(quick: bool) {
    let keys = if quick { 50_000 } else { 200_000 };
    println!("## {keys} keys when one of n backends is removed\n");
    let head = ["algorithm", "n", "max/mean", "moved", "its share was", "moved needlessly"];
    let mut rows = Vec::new();
    for n in [3, 10, 100] {
        rows.extend(HASHING.map(|(name, algorithm)| leaving(name, algorithm, n, keys)));
    }
    print(&head, &rows);
    println!("## {keys} keys by weight: what the fullest holds for its weight, and the emptiest\n");
    let weights: [(&str, Vec<u16>); 3] = [
        ("1, 2, 4", vec![1, 2, 4]),
        ("ten: 1 to 10", (1..=10).collect()),
        ("a hundred: 1, 10", (0..100).map(|at| if at % 2 == 0 { 1 } else { 10 }).collect()),
    ];
    let mut rows = Vec::new();
    for (what, weights) in &weights {
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (name, algorithm) in HASHING {
            let held = shares(&spread(algorithm, &places(weights), keys), weights.len());
            let parts: Vec<f64> =
                held.iter().zip(weights).map(|(held, weight)| held * sum / f64::from(*weight)).collect();
            let (least, most) = parts.iter().fold((f64::MAX, 0.0f64), |(a, b), part| (a.min(*part), b.max(*part)));
            rows.push(vec![name.to_owned(), (*what).to_owned(), format!("{most:.3}"), format!("{least:.3}")]);
        }
    }
    print(&["algorithm", "weights", "max/due", "min/due"], &rows);
}

fn leaving(name: &str, algorithm: Algorithm, n: usize, keys: u64) -> Vec<String> {
    let all = places(&vec![1; n]);
    let gone = (n / 2) as u32;
    let rest: Vec<Place> = all.iter().filter(|place| place.place != gone).cloned().collect();
    let (before, after) = (spread(algorithm, &all, keys), spread(algorithm, &rest, keys));
    let moved = before.iter().zip(&after).filter(|(was, is)| was != is);
    let needless = moved.clone().filter(|(was, _)| **was != gone).count();
    let part = |count: usize| count as f64 / keys as f64;
    let held = shares(&before, n);
    vec![
        name.to_owned(),
        n.to_string(),
        format!("{:.3}", held.iter().copied().fold(0.0, f64::max) * n as f64),
        share(part(moved.count())),
        share(held[gone as usize]),
        format!("{:.2} %", part(needless) * 100.0),
    ]
}

fn places(weights: &[u16]) -> Vec<Place> {
    let place = |(at, weight): (usize, &u16)| Place { place: at as u32, id: format!("backend{at}"), weight: *weight };
    weights.iter().enumerate().map(place).collect()
}

fn spread(algorithm: Algorithm, places: &[Place], keys: u64) -> Vec<u32> {
    let picker = Picker::build(algorithm, places);
    let (turn, mut random) = (AtomicU64::new(0), fastrand::Rng::with_seed(0));
    let mut pick = |key: u64| {
        let mut ask = Ask { key: key_of(&key.to_le_bytes()), turn: &turn, random: &mut random, bound: None };
        picker.pick(&mut Open, &mut ask)
    };
    (0..keys).filter_map(&mut pick).collect()
}

fn shares(picks: &[u32], n: usize) -> Vec<f64> {
    let mut shares = vec![0.0; n];
    picks.iter().for_each(|place| shares[*place as usize] += 1.0 / picks.len() as f64);
    shares
}
