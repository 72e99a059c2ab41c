//! The audit: proves what the services promise, from the event log and the stores alone. It knows the services' streams
//! as they are published and nothing of how they work; it runs no handler of theirs, writes nothing, and asks no clock.
//!
//! - [`streams`] are the published state machines, as tables.
//! - The log is read slice by slice ([`slices`](crate)), and from it what is true of each order, kitchen and driver.
//! - Each slice is looked up in the stores and judged; what is left in the stores beyond the log is swept up at the end.
//!
//! While the system runs (`in_flight`), a story may be unfinished, an event stored and not published yet, and a view
//! behind; all else must hold at any moment. To tell the two apart, the log is read up to where it ends, then the stores
//! are read, then the log once more: what the log had before must be stored, and what was stored as published must be on
//! the log after.

mod hashes;
mod inbox;
mod judge;
mod letters;
mod money;
mod reading;
mod report;
mod rides;
mod run;
mod services;
mod slices;
mod stores;
mod story;
pub mod streams;
mod tell;
mod views;

use std::{collections::BTreeMap, sync::Arc};

use event_sourcing::Database;
use eventing::log::{EventLog, LogError};

pub use report::{Check, Differing, Excepted, Orders, Report, Row, Step, Told};
use run::Audit;
use slices::Slice;

/// What is audited.
#[derive(Clone)]
pub struct Deployment {
    pub log: Arc<dyn EventLog>,
    /// By service (`order` …), the stores that may be looked at; what can't be checked without the others is skipped,
    /// and the report says so.
    pub stores: BTreeMap<String, Database>,
    /// The payment provider's own books.
    pub ledger: Option<Database>,
}

/// How it is audited.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The system runs: stories may be unfinished, and stores ahead of the log and views behind it.
    pub in_flight: bool,
    /// Orders that were accepted, as a client noted them.
    pub accepted: Vec<String>,
}

/// How far an audit has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Records of the log that were read and judged, of so many.
    pub records: u64,
    pub of: u64,
    pub doing: &'static str,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the store of {service} can't be read: {source}")]
    Store { service: &'static str, source: sqlx::Error },
    #[error("the provider's ledger can't be read: {0}")]
    Ledger(sqlx::Error),
}

impl AuditError {
    pub(crate) fn store(service: &'static str) -> impl FnOnce(sqlx::Error) -> Self + Copy {
        move |source| Self::Store { service, source }
    }
}

/// Audits a deployment. `progress` is told now and then how far it has come.
///
/// # Errors
/// If the log or a store can't be read. What doesn't hold is no error but stands in the report.
pub async fn audit(
    deployment: &Deployment,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, AuditError> {
    let log = &*deployment.log;
    let mut audit = Audit::new(deployment, options).await?;
    let mut slices = slices::plan(log).await?;
    let of = slices.iter().map(Slice::records).sum();
    let mut done = 0;
    for slice in &mut slices {
        audit
            .audit_slice(slice, &mut |records| {
                progress(Progress { records: done + records, of, doing: "the log, order by order" });
            })
            .await?;
        done += slice.records();
    }
    audit.sweep(&mut slices, &mut |doing| progress(Progress { records: of, of, doing })).await?;
    audit.report().await
}
