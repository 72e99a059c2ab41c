//! What is shown while it rains: bars and numbers on a terminal, a plain line now and then elsewhere.

use std::{sync::Arc, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tracker::Tracker;

/// How often a terminal is redrawn, and a plain line printed.
const REDRAW: Duration = Duration::from_millis(250);
const PLAIN_LINE: u32 = 8;

/// Shows a storm until it is finished.
pub struct Display {
    task: tokio::task::JoinHandle<()>,
    bars: MultiProgress,
}

impl Display {
    /// Shows what `tracker` knows of `arrivals` orders, and the lines of `more`.
    pub fn start(
        arrivals: usize,
        tracker: Arc<Tracker>,
        more: impl Fn() -> Vec<String> + Send + 'static,
        quiet: bool,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let task = tokio::spawn(show(arrivals, tracker, more, quiet, bars.clone()));
        Self { task, bars }
    }

    /// Takes it off the screen.
    pub fn finish(self) {
        self.task.abort();
        // A screen that can't be cleared stays as it is.
        let _ = self.bars.clear();
    }
}

async fn show(
    arrivals: usize,
    tracker: Arc<Tracker>,
    more: impl Fn() -> Vec<String> + Send,
    quiet: bool,
    bars: MultiProgress,
) {
    let terminal = console_is_terminal();
    let progress = ProgressStyle::with_template("{bar:40.cyan/blue} {pos}/{len} orders  {msg}");
    let bar = bars.add(ProgressBar::new(arrivals as u64));
    if let Ok(style) = progress {
        bar.set_style(style);
    }
    let mut lines: Vec<ProgressBar> = Vec::new();
    let (mut before, mut beat) = (0, 0);
    let mut interval = tokio::time::interval(REDRAW);
    if quiet {
        return;
    }
    loop {
        interval.tick().await;
        beat += 1;
        let (accepted, text) = {
            let counts = tracker.counts();
            let of = |quantile| Duration::from_micros(counts.place.value_at_quantile(quantile)).as_secs_f64() * 1000.0;
            let ended = counts.completed + counts.cancelled;
            let text = format!(
                "in flight {:>5}  ended {ended:>6}  placing p50 {:.1} ms p99 {:.1} ms",
                counts.in_flight(),
                of(0.5),
                of(0.99)
            );
            (counts.accepted, text)
        };
        if terminal {
            let rate = (accepted - before) * 4;
            before = accepted;
            bar.set_position(accepted);
            bar.set_message(format!("{rate:>4}/s  {text}"));
            for (place, line) in more().into_iter().enumerate() {
                if lines.len() <= place {
                    let new = bars.add(ProgressBar::no_length());
                    new.set_style(
                        ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
                    );
                    lines.push(new);
                }
                lines[place].set_message(line);
            }
        } else if beat % PLAIN_LINE == 0 {
            let rate = (accepted - before) / u64::from(PLAIN_LINE / 4);
            before = accepted;
            eprintln!("{accepted}/{arrivals} orders  {rate}/s  {text}");
            for line in more() {
                eprintln!("    {line}");
            }
        }
    }
}

fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
