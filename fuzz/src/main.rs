//! libFuzzer at one of the parsers of `tests/parsers`: `PARSER` says which. With `CORPUS`, that folder is given its
//! samples first.
#![no_main]

use std::{env, fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use parsers::{PARSERS, Parser};

static PARSER: LazyLock<&Parser> = LazyLock::new(|| {
    let name = env::var("PARSER").unwrap_or_default();
    let found = PARSERS.iter().find(|parser| parser.name == name);
    found.unwrap_or_else(|| panic!("PARSER is one of {}", PARSERS.map(|parser| parser.name).join(", ")))
});

fn give_samples() {
    let Some(corpus) = env::var_os("CORPUS").map(PathBuf::from) else { return };
    fs::create_dir_all(&corpus).expect("CORPUS is a folder that can be written");
    for (number, sample) in (PARSER.samples)().into_iter().enumerate() {
        fs::write(corpus.join(format!("sample-{number}")), sample).expect("CORPUS can be written");
    }
}

fuzz_target!(init: give_samples(), |bytes: &[u8]| (PARSER.read)(bytes));
