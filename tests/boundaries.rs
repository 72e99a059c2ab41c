//! No service knows another: none depends on another's crate, and shared code knows no business noun.

use std::{fs, path::Path};

use end_to_end::SERVICES;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace")
}

#[test]
fn no_service_depends_on_another() {
    for service in SERVICES {
        let manifest =
            fs::read_to_string(workspace().join("services").join(service).join("Cargo.toml")).expect("a manifest");
        for other in SERVICES {
            let depends = manifest
                .lines()
                .any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} =")));
            assert!(!depends, "{service} depends on {other}");
        }
    }
}

#[test]
fn shared_code_has_mechanisms_only() {
    // Words of the domain; "order" itself is too common a word in English to be looked for, a database has drivers, and
    // what is delivered once more is a redelivery.
    let nouns = ["kitchen", "ticket", "payment", "refund", "delivery_", "menu", "cook"];
    let mut files = vec![workspace().join("shared")];
    let mut looked_at = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            looked_at += 1;
            let text = fs::read_to_string(&path).expect("a file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let spoken = |line: &&str| !line.trim_start().starts_with("//") && !line.trim_start().starts_with("--");
            for line in code.lines().filter(spoken) {
                let words = line.to_lowercase().replace("redelivery", "");
                let noun = nouns.iter().find(|noun| words.contains(*noun));
                assert!(noun.is_none() || path.to_string_lossy().contains("/tests/"), "{}: {line}", path.display());
            }
        }
    }
    assert!(looked_at > 10, "shared/ has moved");
}

#[test]
fn the_domains_are_pure() {
    let impure = ["async ", "axum", "sqlx", "rdkafka", "tokio", "Timestamp::now", "Uuid::now", "rand::", "std::env"];
    for service in &SERVICES[..4] {
        let source = workspace().join("services").join(service).join("src");
        let mut files = vec![source.join("domain.rs")];
        if let Ok(folder) = fs::read_dir(source.join("domain")) {
            files.extend(folder.map(|entry| entry.expect("an entry").path()));
        }
        for file in files {
            let text = fs::read_to_string(&file).expect("a domain");
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = impure.iter().find(|word| line.contains(*word));
                assert!(found.is_none(), "{}: {line}", file.display());
            }
        }
    }
}
