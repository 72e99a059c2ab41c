//! How far a rebuild has come: a bar on a terminal, a plain line for each step elsewhere.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use eventing::rebuild::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// The bars of one rebuild.
pub struct Bars {
    service: String,
    step: Mutex<Option<Step>>,
}

struct Step {
    what: String,
    begun: Instant,
    done: AtomicU64,
    bar: ProgressBar,
}

impl Bars {
    /// Nothing is shown before something begins.
    pub fn new(service: &str) -> Self {
        Self { service: service.to_owned(), step: Mutex::default() }
    }

    /// The last step is done.
    pub fn finish(&self) {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Step { what, begun, done, bar }) = step {
            bar.finish_and_clear();
            let (done, seconds) = (done.into_inner(), begun.elapsed().as_secs_f64());
            let rate = done as f64 / seconds.max(0.001);
            eprintln!("{}: {what}: {done} in {seconds:.1} s ({rate:.0}/s)", self.service);
        }
    }
}

impl Progress for Bars {
    fn begin(&self, what: &str, parts: u64) {
        self.finish();
        let bar = ProgressBar::new(parts).with_message(format!("{}: {what}", self.service));
        if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan/blue} {pos}/{len}  {per_sec}  {msg}  {eta}") {
            bar.set_style(style);
        }
        let step = Step { what: what.to_owned(), begun: Instant::now(), done: AtomicU64::new(0), bar };
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    fn advance(&self, parts: u64) {
        if let Some(step) = &*self.step.lock().unwrap_or_else(PoisonError::into_inner) {
            step.done.fetch_add(parts, Ordering::Relaxed);
            step.bar.inc(parts);
        }
    }
}
