//! The payment service by itself, on a port of its own.
//! Its settings are those of `--help`; what it does stands in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    eventing::run("payment", payment::service)
}
