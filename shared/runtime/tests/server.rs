//! Clients that are slow, silent or too many, against the real server on a real socket; with limits short enough to
//! be waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use runtime::{
    Problem, Stop,
    extract::{JsonBody, RawBody},
    server::{Limits, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

const SHORT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);
const PLACES: usize = 8;

struct Served {
    address: SocketAddr,
    stop: Stop,
    server: JoinHandle<()>,
    /// `GET /wait` is answered once for each permit.
    answers: Arc<Semaphore>,
}

async fn served() -> Served {
    let answers = Arc::new(Semaphore::new(0));
    let waiting = answers.clone();
    let wait = move || {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            "waited"
        }
    };
    let json = |JsonBody(number): JsonBody<u64>| async move { Ok::<_, Problem>(number.to_string()) };
    let raw = |RawBody(bytes): RawBody| async move { bytes.len().to_string() };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/wait", get(wait))
        .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
        .route("/json", post(json))
        .route("/raw", post(raw));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), Stop::default());
    let limits = Limits { idle: SHORT, body: SHORT, connections: PLACES };
    let server = tokio::spawn(serve(listener, router, stop.clone(), limits, std::future::ready(())));
    Served { address, stop, server, answers }
}

impl Served {
    async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(bytes.as_ref()).await.unwrap();
        client
    }
}

fn get_of(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Everything that is said until the server hangs up.
async fn to_the_end(client: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is a way of hanging up, too.
    let _ = timeout(PATIENCE, client.read_to_end(&mut said)).await.expect("the server hangs up");
    String::from_utf8_lossy(&said).into_owned()
}

/// The answer, as far as it has come when `end` has been said.
async fn until_said(client: &mut TcpStream, end: &str) -> String {
    let mut said = String::new();
    let read = async {
        while !said.contains(end) {
            let mut piece = [0; 1024];
            let length = client.read(&mut piece).await.unwrap();
            assert!(length > 0, "hung up after {said:?}");
            said.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    };
    timeout(PATIENCE, read).await.expect("an answer");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_nothing_or_not_to_its_end_is_hung_up_on() {
    let it = served().await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2", preface] {
        to_the_end(&mut it.send(begun).await).await;
    }
    let mut kept_alive = it.send(get_of("/")).await;
    assert!(to_the_end(&mut kept_alive).await.ends_with("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_a_moment_is_not_enough_to_keep_a_connection() {
    let it = served().await;
    let mut client = it.send("GET / HTTP/1.1\r\n").await;
    let dripping = async {
        while client.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 8).await;
        }
    };
    timeout(PATIENCE, dripping).await.expect("the server hangs up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_a_moment_of_the_body_is_answered_408() {
    let it = served().await;
    for path in ["/json", "/raw"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
        );
        let (mut reader, mut writer) = it.send(head).await.into_split();
        let dripping = tokio::spawn(async move {
            while writer.write_all(b"1").await.is_ok() {
                tokio::time::sleep(SHORT / 8).await;
            }
        });
        let mut said = vec![0; 1024];
        let length = timeout(PATIENCE, reader.read(&mut said)).await.expect("an answer").unwrap();
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("application/problem+json"), "{path}: {said}");
        timeout(PATIENCE, dripping).await.expect("the server hangs up").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_take_its_time_and_nobody_hangs_up_meanwhile() {
    let it = served().await;
    let mut client = it.send(get_of("/wait")).await;
    tokio::time::sleep(SHORT * 3).await;
    it.answers.add_permits(1);
    assert!(until_said(&mut client, "waited").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_the_answer_is_hung_up_on() {
    let it = served().await;
    let mut client = it.send(get_of("/large")).await;
    tokio::time::sleep(SHORT * 4).await;
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, client.read_to_end(&mut said)).await.expect("the server hung up");
    assert!(said.len() < 64 << 20, "all of it was still sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_asked_everything_and_says_so_is_answered() {
    let it = served().await;
    let mut client = it.send(get_of("/wait")).await;
    client.shutdown().await.unwrap();
    tokio::time::sleep(SHORT / 4).await;
    it.answers.add_permits(1);
    assert!(to_the_end(&mut client).await.ends_with("waited"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_and_one_in_work_is_still_answered() {
    let it = served().await;
    let mut working = it.send(get_of("/wait")).await;
    let mut idle = Vec::new();
    for _ in 0..PLACES * 4 {
        idle.push(it.send("").await);
        let mut customer = it.send(get_of("/")).await;
        until_said(&mut customer, "hello").await;
    }
    it.answers.add_permits(1);
    assert!(to_the_end(&mut working).await.ends_with("waited"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_headers_and_too_large_ones_are_answered_431() {
    let it = served().await;
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let large = format!("X: {}\r\n", "y".repeat(100 * 1024));
    for bomb in [many, large] {
        let mut client = TcpStream::connect(it.address).await.unwrap();
        // It may be refused before it is all said.
        let _ = client.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{bomb}\r\n").as_bytes()).await;
        let mut said = [0; 12];
        timeout(PATIENCE, client.read_exact(&mut said)).await.expect("an answer").unwrap();
        assert_eq!(&said, b"HTTP/1.1 431");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_finished_and_nothing_else_holds_up_the_end() {
    let it = served().await;
    let mut working = it.send(get_of("/wait")).await;
    let mut idle = it.send(get_of("/")).await;
    until_said(&mut idle, "hello").await;
    let mut silent = it.send("").await;
    it.stop.now();
    to_the_end(&mut idle).await;
    to_the_end(&mut silent).await;
    assert!(!it.server.is_finished(), "somebody is still to be answered");
    it.answers.add_permits(1);
    assert!(to_the_end(&mut working).await.ends_with("waited"));
    timeout(PATIENCE, it.server).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(it.address).await.is_err());
}
