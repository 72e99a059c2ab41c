# The few verbs people need. Each is one command that you can also type yourself.

[private]
default:
    @just --list --unsorted

# Everything in one process, and a rainstorm over it: `just demo --exit`
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# The tests, with nothing installed
test *arguments="--workspace":
    cargo test {{ arguments }}

# The tests on a real Kafka and PostgreSQL, none skipped
kafka-test *arguments="--workspace":
    python3 -m venv target/python/foreign
    target/python/foreign/bin/pip install --quiet -r tests/foreign/requirements.txt
    RAINSTORM_REQUIRE_SERVERS=1 RAINSTORM_PYTHON={{ justfile_directory() }}/target/python/foreign/bin/python \
        tests/servers/with cargo test {{ arguments }}

# Whatever the API may be asked, and whatever bytes the parsers may be given: so many seconds of each
fuzz seconds="60":
    cargo build --workspace --bins
    python3 -m venv target/python/attack
    target/python/attack/bin/pip install --quiet -r tests/attack/requirements.txt
    target/python/attack/bin/python tests/attack/fuzz-api {{ seconds }}
    fuzz/run {{ seconds }}

# Everything that may go wrong, in mid-storm (short: ten minutes; full: half an hour): `just faults full`
faults size="short" *arguments:
    RAINSTORM_FAULTS={{ size }} RAINSTORM_FAULTS_REPORT={{ justfile_directory() }}/target/faults.jsonl \
        tests/servers/with cargo test --workspace --test faults -- {{ arguments }}

# A shell with a real Kafka and PostgreSQL (KAFKA_BROKERS, POSTGRES_URL)
servers:
    tests/servers/with "${SHELL:-bash}"

# How far is each service behind?
lag:
    cargo run --release -- lag

# One order's story
order id:
    cargo run --release -- order {{ id }}

# Format, then lint
tidy:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# Licences and sources of what we depend on (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# What CI runs
check:
    .ci/run
