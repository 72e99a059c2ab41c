//! No room: no connection left in PostgreSQL, no byte left on the disk.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use end_to_end::{Way, World, order, until};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::ground::{ALONE, Ground, KITCHEN, Plan};

/// Somebody else takes every connection that is left, while a service dies and needs new ones.
pub async fn postgres_has_no_connection_left(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let url = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
    ground.rain().await;
    ground.moment(500..2000).await;
    let mut all = Vec::new();
    while let Ok(connection) = PgConnection::connect(&url).await {
        all.push(connection);
        assert!(all.len() < 1000, "PostgreSQL has no end of connections");
    }
    let [service, ..] = ground.shuffled(["payment", "kitchen", "delivery"]);
    ground.world.kill_one(service).await;
    let freed = async {
        // What the dead one had is taken, too.
        tokio::time::sleep(Duration::from_secs(2)).await;
        while let Ok(connection) = PgConnection::connect(&url).await {
            all.push(connection);
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        all.clear();
    };
    tokio::join!(freed, ground.world.start_again(service, &[]));
    ground.is_over();
    ground.prove().await;
}

/// A disk of its own for one Rainstorm.
struct Disk(PathBuf);

impl Disk {
    /// One at `path` with room for all that a storm writes (each file keeps a journal of up to 32 MB); `None`
    /// where that takes rights that this process doesn't have.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a folder");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=448m", "rainstorm-fault"]).arg(path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(path.to_owned()));
        }
        let _ = writeln!(std::io::stderr(), "SKIPPED: only root may mount a small disk");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).expect("a file");
        for piece in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it was there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Embedded: what can't be stored is not accepted, and what was accepted ends once there is room again.
pub async fn the_disk_is_full(plan: Plan) {
    let mut disk = None;
    let world = World::start_after(Way::Embedded(1), &[], |data| disk = Disk::mount(data)).await;
    let Some(disk) = disk else { return };
    let mut ground = Ground::in_world(plan, world).await;
    ground.unheard_customers = true;
    ground.rain().await;
    ground.moment(500..2000).await;
    disk.fill();
    let refused = || async {
        disk.fill();
        let (status, said) = ground.world.post("order", "/orders", &order(KITCHEN, "tok_ok")).await;
        assert!([201, 503].contains(&status), "{status} {said}");
        (status == 503).then_some(said)
    };
    let said = until("an order to be refused", refused).await;
    assert_eq!(said["status"], json!(503), "{said}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    disk.make_room();
    ground.is_over();
    ground.prove().await;
    drop(disk);
}
