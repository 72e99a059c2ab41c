//! A rebuilt SQLite file takes the place of the one that is there, in one step: whatever dies in between, one of the two
//! is in place and whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::RebuildError;

/// What SQLite keeps beside a file while it is open, and leaves there if its process is killed.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(file: &Path, reason: impl std::fmt::Display) -> RebuildError {
    RebuildError::Place { file: file.display().to_string(), reason: reason.to_string() }
}

/// Removes a database, if it is there.
pub fn remove(file: &Path) -> Result<(), RebuildError> {
    for path in BESIDE.map(|suffix| beside(file, suffix)).into_iter().chain([file.to_owned()]) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Puts `new` where `there` is; that one is kept beside it as `….before`. Both must have been closed in order.
pub fn put(new: &Path, there: &Path) -> Result<(), RebuildError> {
    for file in [new, there] {
        // A log of changes that belongs to one file would be taken for the other's.
        let log = beside(file, BESIDE[0]);
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            return Err(failed(&log, "has changes that aren't in the file yet; is somebody else using it?"));
        }
        for suffix in BESIDE {
            let _ = fs::remove_file(beside(file, suffix));
        }
    }
    let before = beside(there, ".before");
    if there.exists() {
        remove(&before)?;
        fs::hard_link(there, &before).map_err(|error| failed(&before, error))?;
        println!("{} is kept as {}", there.display(), before.display());
    }
    fs::rename(new, there).map_err(|error| failed(there, error))?;
    let folder = there.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))?;
    println!("{} is the rebuilt one now", there.display());
    Ok(())
}
