//! The base sequence, two writes to a bucket, a request and an event a command, in `nats-py` and in `FastStream`.

use std::ffi::OsStr;
use std::process::Command;

use crate::spread::{Ratio, median};
use crate::{run_enlist, wanted};

const LIBRARIES: [&str; 2] = ["natspy", "faststream"];
const IN_HAND: [usize; 3] = [16, 64, 256];
/// Python takes so many, enlist more in as long.
const COMMANDS: usize = 3000;

pub(crate) fn compare(python: &OsStr, repeats: usize) {
    println!(
        "\nthe base sequence in Python; rates of enlist over it, {repeats} runs each in turn; median [least-most]"
    );
    println!("in hand   enlist/s  {:>10}  {:16}  {:>10}", LIBRARIES[0], "ratio", LIBRARIES[1]);
    for in_hand in IN_HAND {
        let (mut ours, mut theirs) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..repeats {
            for (runs, library) in theirs.iter_mut().zip(LIBRARIES) {
                runs.push(run(python, library, in_hand));
            }
            ours.push(run_enlist(4 * COMMANDS, in_hand).rate);
        }
        let ratio = |runs: &[f64]| Ratio::of(ours.iter().zip(runs).map(|(ours, theirs)| ours / theirs));
        let [natspy, faststream] = &theirs;
        println!(
            "{in_hand:>7} {:>10.0}  {:>10.0}  {:16}  {:>10.0}  {}",
            median(ours.iter().copied()),
            median(natspy.iter().copied()),
            ratio(natspy).to_string(),
            median(faststream.iter().copied()),
            ratio(faststream)
        );
    }
}

/// Commands a second, as the floor prints them behind the library and the number in hand.
fn run(python: &OsStr, library: &str, in_hand: usize) -> f64 {
    let scripts = wanted("FLOOR").into_string().expect("a folder's name");
    let output = Command::new(wanted("FLOOR_BINARY"))
        .arg("py")
        .args([format!("what={library}"), format!("conc={in_hand}"), format!("n={COMMANDS}"), "reps=1".to_owned()])
        .arg(format!("python={}", python.to_string_lossy()))
        .arg(format!("dir={scripts}/py"))
        .output()
        .expect("the floor runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "the floor: {errors}");
    let line = text.lines().find(|line| line.starts_with(library)).expect("the library's line");
    line.split_whitespace().nth(2).and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("no rate in {line}"))
}
