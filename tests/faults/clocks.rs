//! Clocks that disagree by hours: time that others tell is never compared with one's own.

use std::{io::Write, path::PathBuf};

use crate::ground::{ALONE, Ground, Plan};

/// Debian's package `faketime` puts it here.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    if found.is_none() {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "faketime is missing");
        let _ = writeln!(std::io::stderr(), "SKIPPED: faketime, which bends clocks, is not installed");
    }
    found
}

/// Two processes are an hour ahead, two an hour behind, two are right.
pub async fn clocks_are_an_hour_apart(plan: Plan) {
    let Some(library) = libfaketime() else { return };
    let library = library.to_str().expect("UTF-8");
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let [ahead, early, behind, late, ..] =
        ground.shuffled(["order", "payment", "kitchen", "delivery", "query", "bridge"]);
    eprintln!("    {ahead} and {early} are ahead, {behind} and {late} behind");
    for (process, skew) in [(ahead, "+1h"), (early, "+1h"), (behind, "-1h"), (late, "-1h")] {
        ground.world.kill_one(process).await;
        // Only the calendar is wrong, not how fast time passes.
        let clock = [("LD_PRELOAD", library), ("FAKETIME", skew), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        ground.world.start_again(process, &clock).await;
    }
    ground.rain().await;
    ground.prove().await;
}
