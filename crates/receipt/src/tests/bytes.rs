//! For every byte position of the file, a change makes the verification fail. And no bytes make it panic.

use vocabulary::Profile;

use super::world::{DAY, Made, NOW, Seeded, failed, log_key, made, world};
use crate::deployment::{CheckedDeployment, Deployment};
use crate::record::Receipt;
use crate::report::Lines;
use crate::verify::judge_file;

/// Whether the file still verifies. The deployment's file is opened once: it does not change here.
fn verifies(deployment: &CheckedDeployment, receipt: &[u8]) -> bool {
    let mut lines = Lines::default();
    let judged = judge_file(&mut lines, receipt, deployment, Some(NOW.plus_millis(DAY)), None);
    let report = lines.report();
    assert_eq!(judged.is_some(), report.ok, "a verdict without its line");
    report.ok
}

/// A receipt without volumes: the loops below read it some ten thousand times.
fn small() -> Made {
    let mut world = world();
    let (mut facts, chain) = world.facts();
    facts.statement.inputs.clear();
    facts.statement.outputs.clear();
    for index in [1, 4, 5, 8, 9, 10, 11] {
        facts.entries[index].1 = false;
    }
    let file = world.file(Profile::Development, &log_key(&facts), &chain);
    Made { receipt: facts.receipt(), file, pin: world.pin() }
}

/// Tries all `changes`, on every core.
fn refused(made: &Made, changes: &[(usize, u8)]) {
    let deployment = Deployment::open(&made.file, Some(&made.pin)).unwrap();
    assert!(verifies(&deployment, &made.receipt));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let deployment = &deployment;
            scope.spawn(move || {
                for (at, now) in changes.iter().skip(worker).step_by(workers) {
                    let mut changed = made.receipt.clone();
                    // A change to what it was already is none.
                    changed[*at] = if changed[*at] == *now { now ^ 1 } else { *now };
                    assert!(!verifies(deployment, &changed), "byte {at} became {now}");
                }
            });
        }
    });
}

#[test]
fn every_changed_byte_of_the_file_is_found() {
    // A letter of base64 at every position; here and there white space and a bit above ASCII beside it.
    let made = small();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let changes: Vec<(usize, u8)> = (0..made.receipt.len())
        .flat_map(|at| {
            let letter = (at, letters[at % 64]);
            let more = [(at, b' '), (at, 0x80)];
            std::iter::once(letter).chain(more.into_iter().filter(move |_| at % 53 == 0))
        })
        .collect();
    refused(&made, &changes);
}

/// Around the payloads the file is structure: there a change is tried with many values.
#[test]
fn many_values_of_every_structural_byte_are_found() {
    let made = small();
    let receipt = Receipt::parse(&made.receipt).unwrap();
    let text = std::str::from_utf8(&made.receipt).unwrap();
    let payloads: Vec<std::ops::Range<usize>> = [&receipt.control.payload, &receipt.node.payload]
        .into_iter()
        .map(|payload| {
            let from = text.find(payload.as_str()).unwrap();
            from + 8..from + payload.len() - 8
        })
        .collect();
    let values = b"\0\n \",09:=AZ[\\]az{}\xff";
    let changes: Vec<(usize, u8)> = (0..made.receipt.len())
        .filter(|at| !payloads.iter().any(|range| range.contains(at)))
        .flat_map(|at| values.iter().map(move |value| (at, *value)))
        .collect();
    assert!(changes.len() > 5_000);
    refused(&made, &changes);
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let made = made();
    for length in (0..made.receipt.len()).step_by(397).chain([made.receipt.len() - 1]) {
        assert!(!made.verify(&made.receipt[..length]).ok, "cut to {length}");
    }
    for extra in [&b" "[..], b"\n", b"\0", b"{}", b","] {
        assert!(!made.verify(&[&*made.receipt, extra].concat()).ok);
        assert!(!made.verify(&[extra, &*made.receipt].concat()).ok);
    }
    let twice = [&*made.receipt, &*made.receipt].concat();
    assert!(!made.verify(&twice).ok);
}

/// The same content in another form of JSON is another file.
#[test]
fn other_forms_of_the_same_json_are_refused() {
    let made = made();
    let text = String::from_utf8(made.receipt.clone()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let format = "\"format\":\"swarm/receipt/v1\"";
    for (what, other) in [
        ("pretty", serde_json::to_string_pretty(&value).unwrap()),
        ("a space", text.replacen("\":", "\": ", 1)),
        ("an escape", text.replacen("swarm/receipt", "swarm\\/receipt", 1)),
        ("an escape by number", text.replacen("swarm/receipt", "s\\u0077arm/receipt", 1)),
        ("an unknown field", text.replacen(format, &format!("\"extra\":1,{format}"), 1)),
        ("an unknown field of a signature", text.replacen("\"keyid\":", "\"extra\":1,\"keyid\":", 1)),
        ("a doubled key", text.replacen(format, &format!("{format},{format}"), 1)),
        ("another order", format!("{{{format},{}", text.replacen(&format!("{format},"), "", 1).trim_start_matches('{'))),
        ("another version", text.replacen("receipt/v1", "receipt/v2", 1)),
        ("a byte order mark", format!("\u{feff}{text}")),
        ("null", text.replacen("\"signatures\":[", "\"signatures\":null,\"x\":[", 1)),
        ("deep nesting", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        assert_ne!(other, text, "{what}");
        let report = made.verify(other.as_bytes());
        assert_eq!(failed(&report), ["the file is in its one canonical form"], "{what}");
    }
    // The alphabet of base64 for addresses is another one.
    assert!(!made.verify(text.replacen('+', "-", 1).as_bytes()).ok);
}

#[test]
fn every_changed_byte_of_the_deployments_file_is_found() {
    let made = made();
    for at in 0..made.file.len() {
        let mut changed = made.file.clone();
        changed[at] ^= 1 << (at % 7);
        let report = crate::verify(&made.receipt, &changed, Some(&made.pin), None);
        assert!(!report.ok, "byte {at}");
        assert!(!crate::verify(&made.receipt, &changed, None, None).ok, "byte {at}, without a pin");
    }
}

#[test]
fn no_bytes_make_it_panic_and_none_verify() {
    let made = made();
    let mut random = Seeded(11);
    let mut below = move |n: usize| {
        let mut bytes = [0; 8];
        keys::Random::fill(&mut random, &mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % u64::try_from(n.max(1)).unwrap()).unwrap()
    };
    for _ in 0..400 {
        let mut bytes = made.receipt.clone();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            match below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(below(256)).unwrap()),
                2 => drop(bytes.splice(at..at, *b"\"a\":[{}],")),
                3 => drop(bytes.remove(at)),
                _ => {
                    let until = (at + below(200)).min(bytes.len());
                    let part = bytes[at..until].to_vec();
                    bytes.splice(at..at, part);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        if bytes != made.receipt {
            assert!(!made.verify(&bytes).ok);
        }
    }
}
