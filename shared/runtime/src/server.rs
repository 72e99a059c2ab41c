//! Serving HTTP/1 and HTTP/2 to clients that may be slow, broken or hostile: whoever holds a connection must do
//! something with it. `axum::serve` has no such limits, so the connections are accepted here and given to Hyper one by
//! one.
//!
//! | what a client holds | for how long, or how much of it |
//! |---|---|
//! | a connection on which nothing is asked, or not to its end, or whose answer isn't read | [`Limits::idle`] |
//! | a request whose body is on its way | [`Limits::body`], then it is answered 408 |
//! | header lines, and all of them together | 100 and [`HEADERS`] bytes, else it is answered 431 |
//! | connections | [`Limits::connections`]; one more, and the oldest of them is asked to finish |
//!
//! An answer without end (server-sent events) is work as long as its client reads it, and ends when its connection is
//! asked to finish: the client comes again by itself.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, header},
};
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tower_http::timeout::DeadlineBody;

use crate::Stop;

/// How long what is in flight may take after SIGTERM.
pub const SHUTDOWN: Duration = Duration::from_secs(10);
/// The largest head of an HTTP/1 request, in bytes; HTTP/2's own default is a quarter of it.
pub const HEADERS: usize = 64 * 1024;
/// The most connections, however many files the system allows: idle, this many take some hundred megabytes.
const CONNECTIONS: usize = 20_000;
/// How long the oldest connection has to make room before the next one is asked, too.
const MAKE_ROOM: Duration = Duration::from_millis(50);
/// How long to wait when the system has no file or memory left for one more connection.
const NO_FILES: Duration = Duration::from_millis(100);

/// How much of the server clients may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a connection is kept on which no request is in work.
    pub idle: Duration,
    /// How long the body of a request may be on its way.
    pub body: Duration,
    /// Connections at the same time.
    pub connections: usize,
}

impl Limits {
    /// As this system allows: three quarters of the files that a process may open are for connections.
    #[must_use]
    pub fn of_this_system() -> Self {
        // Shells and containers often give 1,024 and allow far more.
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let connections = (files - files / 4).clamp(1, CONNECTIONS);
        Self { idle: Duration::from_secs(30), body: Duration::from_secs(30), connections }
    }
}

/// Serves until `stop`, then lets what is in flight finish, and after it `finish`: for [`SHUTDOWN`] at most.
pub async fn serve(listener: TcpListener, router: Router, stop: Stop, limits: Limits, finish: impl Future) {
    let connections = TaskTracker::new();
    let mut room = Room::new(limits.connections);
    let next = async |room: &mut Room| (accept(&listener).await, room.one_more().await);
    while let Some((stream, place)) = tokio::select! {
        accepted = next(&mut room) => Some(accepted),
        () = stop.wait() => None,
    } {
        connections.spawn(converse(stream, router.clone(), stop.clone(), place, limits));
    }
    drop(listener);
    connections.close();
    // What is not finished by then is cut off with the process.
    let finished = async {
        connections.wait().await;
        finish.await;
    };
    let _ = tokio::time::timeout(SHUTDOWN, finished).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client's affair: it left before it was let in.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted right now");
                tokio::time::sleep(NO_FILES).await;
            }
        }
    }
}

/// Answers what a client asks on one connection, until either has had enough.
async fn converse(stream: TcpStream, router: Router, stop: Stop, mut place: Place, limits: Limits) {
    let work = Arc::new(Work::default());
    let finish = CancellationToken::new();
    let answer = {
        let (work, finish) = (work.clone(), finish.clone());
        move |request: Request<hyper::body::Incoming>| {
            let (router, in_work, finish) = (router.clone(), InWork::begin(&work), finish.clone());
            async move {
                let request = request.map(|body| Body::new(DeadlineBody::new(limits.body, body)));
                let answer = router.oneshot(request).await?;
                Ok::<_, Infallible>(if is_endless(&answer) { until(finish, in_work.0.clone(), answer) } else { answer })
            }
        }
    };
    let mut http = auto::Builder::new(TokioExecutor::new());
    // Who has asked everything may say so, and is still answered.
    http.http1().half_close(true).max_buf_size(HEADERS);
    let service = TowerToHyperService::new(tower::service_fn(answer));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut leaving = false;
    loop {
        tokio::select! {
            // Ended well or not: nobody is left to be told.
            _ = connection.as_mut() => return,
            () = work.idle_for(limits.idle) => return,
            () = async { tokio::select! { () = stop.wait() => (), () = place.wanted() => () } }, if !leaving => {
                leaving = true;
                finish.cancel();
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn is_endless(answer: &Response<Body>) -> bool {
    let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type.is_some_and(|media_type| media_type.starts_with("text/event-stream"))
}

/// The answer until its connection is to finish. Every piece of it that is asked for, because the client has taken the
/// ones before, shows that somebody is there.
fn until(finish: CancellationToken, work: Arc<Work>, answer: Response<Body>) -> Response<Body> {
    answer.map(|body| {
        let pieces = body.into_data_stream().inspect(move |_| work.change(|requests| requests));
        Body::from_stream(pieces.take_until(finish.cancelled_owned()))
    })
}

/// The requests in work on one connection, and since when that has been so many.
struct Work(Mutex<(usize, Instant)>);

impl Default for Work {
    fn default() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }
}

impl Work {
    /// Returns once nothing has been in work for so long.
    async fn idle_for(&self, span: Duration) {
        loop {
            let (in_work, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = if in_work == 0 { since } else { Instant::now() };
            if begun.elapsed() >= span {
                return;
            }
            tokio::time::sleep_until(begun + span).await;
        }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }
}

/// A request is in work while this lives.
struct InWork(Arc<Work>);

impl InWork {
    fn begin(work: &Arc<Work>) -> Self {
        work.change(|requests| requests + 1);
        Self(work.clone())
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.change(|requests| requests - 1);
    }
}

/// Room for so many connections.
struct Room {
    most: usize,
    free: Arc<Semaphore>,
    /// How to ask each connection to finish, the oldest first.
    open: VecDeque<oneshot::Sender<Infallible>>,
}

/// A connection's place, given back when this is dropped.
struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    asked: oneshot::Receiver<Infallible>,
}

impl Room {
    fn new(most: usize) -> Self {
        Self { most, free: Arc::new(Semaphore::new(most)), open: VecDeque::new() }
    }

    /// A place for one more. If there is none, whoever came first is asked to finish: an idle connection is gone at
    /// once, one in work after its answer; so idle ones never keep others out.
    async fn one_more(&mut self) -> Place {
        let permit = loop {
            if let Ok(permit) = self.free.clone().try_acquire_owned() {
                break Some(permit);
            }
            drop(self.open.pop_front());
            if let Ok(permit) = tokio::time::timeout(MAKE_ROOM, self.free.clone().acquire_owned()).await {
                break permit.ok();
            }
        };
        if self.open.len() > 2 * self.most {
            self.open.retain(|connection| !connection.is_closed());
        }
        let (ask, asked) = oneshot::channel();
        self.open.push_back(ask);
        Place { _permit: permit, asked }
    }
}

impl Place {
    /// Returns when somebody else needs this place.
    async fn wanted(&mut self) {
        // Nothing is ever sent: that the sender is gone is the message.
        let _ = (&mut self.asked).await;
    }
}
