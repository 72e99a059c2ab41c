//! How one service of the chain calls another: with patience, and again where that may help.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use event_sourcing::chance;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use serde_json::Value;

/// How long a try may take, and how many there are.
const TIME_OUT: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;
/// The pause after the first try; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// The status, and what there is to say.
pub type Answer = (StatusCode, &'static str);

/// Whoever calls: its connections are kept and shared.
#[derive(Clone)]
pub struct Caller(pub reqwest::Client);

impl Caller {
    /// Calls until it is answered for good; `None` once it gives up.
    pub async fn call(&self, method: reqwest::Method, url: &str, body: &Value) -> Option<StatusCode> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(pause(attempt, chance())).await;
            }
            let status = self.once(method.clone(), url, body).await.ok();
            if !may_pass(status) {
                return status;
            }
        }
        None
    }

    async fn once(&self, method: reqwest::Method, url: &str, body: &Value) -> Result<StatusCode, reqwest::Error> {
        let answer = self.0.request(method, url).json(body).timeout(TIME_OUT).send().await?;
        let status = answer.status();
        // A connection is kept only if its answer was read to the end.
        answer.bytes().await?;
        Ok(status)
    }
}

/// Whether another try may help: nobody answered in time, or the other side is in trouble.
fn may_pass(status: Option<StatusCode>) -> bool {
    status.is_none_or(|status| status.is_server_error())
}

/// Before a try; `dice` (0 to 1) spreads those who failed together, over the second half of it.
fn pause(attempt: u32, dice: f64) -> Duration {
    (PAUSE * 2_u32.pow(attempt.saturating_sub(1))).mul_f64(0.5 + dice / 2.0)
}

/// Work by the order it is for. It goes on although its caller has given up, and who calls again waits for the same.
#[derive(Clone, Default)]
pub struct InHand(Arc<Mutex<HashMap<String, Shared<BoxFuture<'static, Answer>>>>>);

impl InHand {
    /// Does `work`, unless it is being done already.
    pub async fn once(&self, order_id: &str, work: impl Future<Output = Answer> + Send + 'static) -> Answer {
        let done = self.done(order_id, work);
        done.await
    }

    fn done(
        &self,
        order_id: &str,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Answer>> {
        let mut in_hand = self.lock();
        if let Some(known) = in_hand.get(order_id) {
            return known.clone();
        }
        let (all, own) = (self.clone(), order_id.to_owned());
        let working = tokio::spawn(async move {
            let answer = work.await;
            all.lock().remove(&own);
            answer
        });
        let failed = (StatusCode::INTERNAL_SERVER_ERROR, "a bug");
        let done = working.map(move |ended| ended.unwrap_or(failed)).boxed().shared();
        in_hand.insert(order_id.to_owned(), done.clone());
        done
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Shared<BoxFuture<'static, Answer>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_call_is_made_again_only_where_that_may_help() {
        assert!(may_pass(None));
        assert!(may_pass(Some(StatusCode::SERVICE_UNAVAILABLE)));
        assert!(!may_pass(Some(StatusCode::OK)));
        assert!(!may_pass(Some(StatusCode::CONFLICT)), "who is refused is refused again");
    }

    #[test]
    fn pauses_double_and_are_spread() {
        let milliseconds = |attempt, dice| pause(attempt, dice).as_millis();
        assert_eq!([milliseconds(1, 0.0), milliseconds(1, 1.0)], [50, 100]);
        assert_eq!([milliseconds(2, 0.0), milliseconds(2, 1.0)], [100, 200]);
    }

    #[tokio::test]
    async fn work_goes_on_without_its_caller_and_is_not_begun_again() {
        let (in_hand, begun) = (InHand::default(), Arc::new(AtomicUsize::new(0)));
        let (finish, wait) = tokio::sync::oneshot::channel::<()>();
        let work = |wait: Option<tokio::sync::oneshot::Receiver<()>>| {
            let begun = begun.clone();
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                if let Some(wait) = wait {
                    wait.await.unwrap();
                }
                (StatusCode::OK, "done")
            }
        };
        drop(in_hand.done("a", work(Some(wait))));
        let again = in_hand.done("a", work(None));
        finish.send(()).unwrap();
        assert_eq!((again.await, begun.load(Ordering::SeqCst)), ((StatusCode::OK, "done"), 1));
        in_hand.once("b", work(None)).await;
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        assert!(in_hand.lock().is_empty());
    }
}
