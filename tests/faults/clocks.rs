//! Clocks that disagree by hours: time that others tell is never compared with one's own.

use std::{path::PathBuf, process::Command};

use crate::ground::{ALONE, Ground, Plan};

/// Two processes are an hour ahead, two an hour behind, two are right.
pub async fn clocks_are_an_hour_apart(plan: Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let preload = wrong_clock(folder.path().join("clock.so"));
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let [ahead, early, behind, late, ..] =
        ground.shuffled(["order", "payment", "kitchen", "delivery", "query", "bridge"]);
    eprintln!("    {ahead} and {early} are ahead, {behind} and {late} behind");
    for (process, skew) in [(ahead, "3600"), (early, "3600"), (behind, "-3600"), (late, "-3600")] {
        ground.world.kill_one(process).await;
        ground.world.start_again(process, &[("LD_PRELOAD", preload.as_str()), ("CLOCK_SKEW", skew)]).await;
    }
    ground.rain().await;
    ground.prove().await;
}

/// Builds `clock.c`, which stands before a program's clock.
fn wrong_clock(library: PathBuf) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/faults/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.expect("a C compiler").success(), "{source} does not build");
    let date = Command::new("date").arg("+%s").env("LD_PRELOAD", &library).env("CLOCK_SKEW", "3600").output();
    let told = String::from_utf8(date.expect("date").stdout).expect("UTF-8");
    let right = jiff::Timestamp::now().as_second();
    assert!(told.trim().parse::<i64>().is_ok_and(|told| (told - right - 3600).abs() < 60), "{told} isn't wrong");
    library.to_str().expect("UTF-8").to_owned()
}
