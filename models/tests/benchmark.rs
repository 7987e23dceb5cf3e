//! The benchmark as `kosmosg eval` runs it, its judge, and what the built-in model must reach on it.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn eval(arguments: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kosmosg")).arg("eval").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_judge_is_right_about_drawn_pictures() {
    let answers = eval(&["judge", "--seed", "31"]);
    let answers = answers.as_array().unwrap();
    assert!(answers.len() >= 8, "{answers:?}");
    for answer in answers {
        let [right, count] = ["right", "count"].map(|number| answer[number].as_f64().unwrap());
        assert!(count >= 100.0 && right / count >= 0.99, "{answer}");
    }
}

#[test]
fn the_benchmark_says_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let run = |sheet: &Path| {
        let sheet = sheet.to_str().unwrap();
        eval(&["sprites", "--subjects", "2", "--seed", "5", "--sheet", sheet])
    };
    let sheets = ["a.png", "b.png"].map(|name| dir.path().join(name));
    let [first, second] = [run(&sheets[0]), run(&sheets[1])];
    assert_eq!(first, second);
    let [a, b] = sheets.map(|sheet| std::fs::read(sheet).unwrap());
    assert_eq!(a, b);
    assert_ne!(first["rows"]["kosmos-g"], eval(&["sprites", "--subjects", "2", "--seed", "6"])["rows"]["kosmos-g"]);
}

/// Creatures that the model was never trained on, with a seed that nothing was chosen by.
#[test]
fn the_built_in_model_is_above_its_bars() {
    let result = eval(&["sprites", "--subjects", "12", "--seed", "4711"]);
    let row = |name: &str, column: &str| result["rows"][name][column].as_f64().unwrap();
    for (column, bar) in BARS {
        assert!(row("kosmos-g", column) >= bar, "{column}: {} of {bar}", row("kosmos-g", column));
    }
    for (column, ..) in BARS {
        assert!(row("oracle", column) >= 0.9 && row("chance", column) < row("kosmos-g", column), "{column}");
    }
}

/// Two standard errors, of 120 prompts with a creature and of 40 with two, below what was measured with this seed: 0.879,
/// 0.517, 0.996 and 0.800. On the whole benchmark it has to be 0.80, 0.35, 0.90 and 0.50, and 0.60 for edits, which is what
/// was measured for these 40: one standard error less, √(0.6 · 0.4 / 40), is what they are held to.
const BARS: [(&str, f64); 5] = [
    ("subject_fidelity", 0.84),
    ("exact_subject", 0.42),
    ("text_fidelity", 0.98),
    ("both_subjects", 0.67),
    ("edit_success", 0.52),
];

#[test]
fn the_built_in_model_is_small() {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 20_000_000, "{bytes} bytes");
}
