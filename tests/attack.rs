//! Clients that are broken, hostile or too many. Whatever they send: nobody is ever answered 5xx, and afterwards the
//! next customer is served as if nothing had been, in about as much memory. (The API's own rules are attacked from its
//! OpenAPI document, by `tests/attack/fuzz-api`; the server's limits, one by one, in `shared/runtime/tests/server.rs`.)

use std::time::Duration;

use end_to_end::{PATIENCE, SERVICES, Way, World, until};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// How long to listen to somebody who neither says anything more nor hangs up.
const SILENCE: Duration = Duration::from_millis(500);
/// Resident memory that no attack may reach, in MB. At rest the demo takes about 50, in a debug build.
const MEMORY: u64 = 400;

/// Runs each attack on a demo of its own, and all of them in turn on the order service as a process of its own.
macro_rules! attacks {
    ($($attack:ident)*) => {
        mod embedded {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $attack() {
                    let target = Target::start(Way::Embedded(1)).await;
                    super::$attack(&target).await;
                    target.is_fit().await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn one_service_by_itself_withstands_all_of_it() {
            let way = Way::KafkaAndPostgres(1);
            if way.is_possible() {
                let target = Target::start(way).await;
                $(
                    $attack(&target).await;
                    target.is_fit().await;
                )*
            }
        }
    };
}

attacks! {
    garbage_is_answered_400_and_what_was_asked_before_it_is_answered
    header_bombs_are_answered_431
    bodies_too_large_are_answered_413
    http2_gone_wrong_harms_nobody
    requests_cut_off_in_the_middle_are_forgotten
    nonsense_in_paths_and_parameters_is_a_clients_mistake
    json_nested_without_end_is_refused_and_so_are_numbers_and_texts_that_cannot_be
    events_that_no_store_can_hold_are_never_told_to_come_again
    events_with_data_that_cannot_be_are_never_told_to_come_again
    headers_said_twice_or_against_each_other_are_a_clients_mistake
    half_closed_connections_are_answered_and_let_go
    slow_clients_are_hung_up_on_and_hold_up_nobody
    ten_thousand_idle_connections_leave_room_for_customers
}

/// A system under attack, at its order service.
struct Target {
    world: World,
    address: String,
    /// The path of the order service's door.
    door: &'static str,
}

impl Target {
    async fn start(way: Way) -> Self {
        let world = World::start(way, &[]).await;
        world.open_kitchen("luigis").await;
        let address = world.url("order").trim_start_matches("http://").to_owned();
        let door = if matches!(way, Way::Embedded(_)) { "/order/events" } else { "/events" };
        Self { world, address, door }
    }

    /// Where a service hears events.
    fn door_of(&self, service: &str) -> String {
        let path = self.door.replace("order", service);
        format!("{}{path}", self.world.url(service))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("it accepts connections")
    }

    /// Sends bytes and listens to the end: what was said, which is never a 5xx.
    async fn say(&self, bytes: impl AsRef<[u8]>) -> Vec<u16> {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let bytes = bytes.as_ref();
        let listening = async {
            let (mut said, mut piece) = (Vec::new(), [0; 4096]);
            // The first word may take its time.
            let mut patience = PATIENCE;
            while let Ok(Ok(length @ 1..)) = timeout(patience, reader.read(&mut piece)).await {
                said.extend_from_slice(&piece[..length]);
                patience = SILENCE;
            }
            said
        };
        // Whoever is hung up on can't say the rest.
        let (_, said) = tokio::join!(writer.write_all(bytes), listening);
        let said = String::from_utf8_lossy(&said);
        let statuses = said.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().expect("a status"));
        let statuses: Vec<u16> = statuses.collect();
        let begun = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        assert!(statuses.iter().all(|status| *status < 500), "{statuses:?} to {begun}");
        statuses
    }

    /// A JSON command or event; the one status it is answered with.
    async fn post(&self, path: &str, more: &str, body: impl AsRef<[u8]>) -> u16 {
        let body = body.as_ref();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        let more = if more.is_empty() { "Content-Type: application/json\r\n" } else { more };
        let statuses = self.say([head.as_bytes(), more.as_bytes(), b"\r\n", body].concat()).await;
        assert_eq!(statuses.len(), 1, "{path} {more}");
        statuses[0]
    }

    /// The order service does what it is there for, over HTTP/1 and HTTP/2, and has not grown beyond measure.
    async fn is_fit(&self) {
        let placed = timeout(Duration::from_secs(5), self.world.place("luigis", "tok_ok"));
        placed.await.expect("an order is taken at once");
        let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
        let ready = http2.get(format!("http://{}/healthz/ready", self.address)).send().await.expect("an answer");
        assert_eq!(ready.status(), 200);
        if let Some(memory) = self.memory() {
            assert!(memory < MEMORY, "{memory} MB");
        }
        let said = self.world.said();
        assert!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
    }

    /// The order service's process: the only one there is, or the first that was started.
    fn pid(&self) -> u32 {
        self.world.pids()[0]
    }

    /// Its resident memory in MB, where the system tells.
    fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
    }

    /// The files and connections it has open, where the system tells.
    fn open_files(&self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count())
    }

    /// Waits until what was opened since is closed again, a few of the services' own aside.
    async fn lets_go_of_all_but(&self, before: Option<usize>) {
        let Some(before) = before else { return };
        until("the connections to be let go of", || async {
            (self.open_files().expect("it told before") < before + 50).then_some(())
        })
        .await;
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

async fn garbage_is_answered_400_and_what_was_asked_before_it_is_answered(target: &Target) {
    let noise: Vec<u8> = (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let garbage: [&[u8]; 10] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03tls hello\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        &noise,
    ];
    for bytes in garbage {
        for asked_before in [0, 3] {
            let request = get("/healthz/live").repeat(asked_before);
            let statuses = target.say([request.as_bytes(), bytes].concat()).await;
            assert!(statuses.iter().take(asked_before).eq(&vec![200; asked_before]), "{statuses:?}");
            assert!(statuses[asked_before..].iter().all(|status| *status < 500 && *status >= 400), "{statuses:?}");
        }
    }
}

async fn header_bombs_are_answered_431(target: &Target) {
    let bombs = [
        "X: y\r\n".repeat(10_000),
        format!("X: {}\r\n", "y".repeat(1 << 20)),
        format!("{}: y\r\n", "X".repeat(1 << 20)),
        format!("Cookie: {}\r\n", "a=b; ".repeat(1 << 18)),
    ];
    for bomb in bombs {
        let statuses = target.say(format!("GET /orders HTTP/1.1\r\nHost: x\r\n{bomb}\r\n")).await;
        // A client that is hung up on while it still speaks may not hear the answer.
        assert!(matches!(statuses[..], [431 | 400] | []), "{statuses:?}");
    }
    let statuses = target.say(get(&format!("/orders?customer_id={}", "x".repeat(1 << 20)))).await;
    assert!(matches!(statuses[..], [414 | 431 | 400] | []), "{statuses:?}");
}

async fn bodies_too_large_are_answered_413(target: &Target) {
    let mut attackers = JoinSet::new();
    for _ in 0..20 {
        for (path, length) in [("/orders", 65 << 10), (target.door, (4 << 20) + 1)] {
            let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(length));
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
            let (address, length_said) = (target.address.clone(), format!("Content-Length: {}\r\n\r\n", 1_u64 << 40));
            for body in [format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"), length_said + &" ".repeat(length)] {
                let (request, address) = (format!("{head}{body}"), address.clone());
                attackers.spawn(async move {
                    let (mut reader, mut writer) = TcpStream::connect(address).await.expect("accepted").into_split();
                    let mut said = [0; 12];
                    let (_, read) = tokio::join!(writer.write_all(request.as_bytes()), reader.read_exact(&mut said));
                    read.is_err() || &said == b"HTTP/1.1 413"
                });
            }
        }
    }
    let answers = timeout(PATIENCE, attackers.join_all()).await.expect("everybody is answered");
    assert!(answers.iter().all(|as_expected| *as_expected));
}

/// An HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

async fn http2_gone_wrong_harms_nobody(target: &Target) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let [data, headers, reset, settings, ping, window, continuation] = [0, 1, 3, 4, 6, 8, 9];
    // :method GET, :scheme http, :path /, from HPACK's static table.
    const REQUEST: &[u8] = &[0x82, 0x86, 0x84];
    let hello = frame(settings, 0, 0, &[]);
    let rapid_reset: Vec<u8> = (0..20_000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [frame(headers, 5, stream, REQUEST), frame(reset, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let endless_headers = [frame(headers, 1, 1, REQUEST), frame(continuation, 0, 1, &[0; 64]).repeat(20_000)].concat();
    let oddities = [
        b"garbage after the preface".repeat(100),
        [&hello[..], &[0xff; 4096]].concat(),
        [&hello[..], &[0xff, 0xff, 0xff, data, 0, 0, 0, 0, 1]].concat(),
        [hello.clone(), frame(headers, 5, 1, &[0xff; 200])].concat(),
        [hello.clone(), frame(headers, 5, 2, REQUEST)].concat(),
        [hello.clone(), frame(data, 1, 1, b"a body of nothing")].concat(),
        [hello.clone(), frame(window, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)].concat(),
        [hello.clone(), frame(settings, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])].concat(),
        [hello.clone(), frame(settings, 0, 0, &[]).repeat(20_000)].concat(),
        [hello.clone(), frame(ping, 0, 0, &[7; 8]).repeat(20_000)].concat(),
        [hello.clone(), rapid_reset].concat(),
        [hello.clone(), endless_headers].concat(),
    ];
    for oddity in oddities {
        target.say([PREFACE, &oddity].concat()).await;
    }
}

async fn requests_cut_off_in_the_middle_are_forgotten(target: &Target) {
    let before = target.open_files();
    for begun in [
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"customer",
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        "POST /orders HTTP/1.1\r\nHost",
    ] {
        for _ in 0..200 {
            let mut client = target.connect().await;
            client.write_all(begun.as_bytes()).await.expect("it listens");
        }
    }
    target.lets_go_of_all_but(before).await;
}

async fn nonsense_in_paths_and_parameters_is_a_clients_mistake(target: &Target) {
    let nonsense = [
        "%",
        "%0",
        "%zz",
        "%00",
        "%ff%fe",
        "%c0%ae",
        "%2e%2e%2f",
        "..",
        "%F0%9F%8D%B2",
        "%ED%A0%80",
        "'%20OR%201=1--",
        "a%0d%0aX:y",
        "\\",
        "|",
        "-1",
        "99999999999999999999",
        "{id}",
        "%u0041",
        "019a0000-0000-7000-8000-00000000000%30",
    ];
    for text in nonsense {
        for path in [
            format!("/{text}"),
            format!("/{text}/{text}"),
            format!("/orders/{text}"),
            format!("/orders/{text}/cancel"),
            format!("/orders?limit={text}&cursor={text}&status={text}&customer_id={text}&{text}"),
            format!("/orders/{text}?at_least={text}"),
            format!("/page/{text}"),
            format!("/operator/{text}"),
            format!("/kitchens/{text}/board"),
            format!("/tickets/{text}/pack"),
            format!("/deliveries/{text}/deliver"),
        ] {
            for method in ["GET", "POST", "PUT", "BREW"] {
                let request =
                    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                let statuses = target.say(request).await;
                // A customer of any name may be asked for.
                let expected = |status: &u16| (400..500).contains(status) || (method == "GET" && *status == 200);
                assert!(statuses.len() == 1 && statuses.iter().all(expected), "{method} {path}: {statuses:?}");
            }
        }
    }
}

async fn json_nested_without_end_is_refused_and_so_are_numbers_and_texts_that_cannot_be(target: &Target) {
    let with = |name: &str, value: &str| {
        let mut order = end_to_end::order("luigis", "tok_ok");
        order[name] = json!("HERE");
        order.to_string().replace("\"HERE\"", value)
    };
    for deep in ["[", "{\"a\":", "[{\"a\":"] {
        let deep = |size: usize| deep.repeat(size / deep.len());
        assert!(matches!(target.post("/orders", "", deep(60 << 10)).await, 400 | 422));
        assert!(matches!(target.post("/orders", "", with("items", &deep(60 << 10))).await, 400 | 422));
        for media_type in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
            let header = format!("Content-Type: {media_type}\r\n");
            assert_eq!(target.post(target.door, &header, deep(4 << 20)).await, 400);
        }
        let menu = |data: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"deep","source":"/attack","subject":"deep",
                "type":"dev.rainstorm.kitchen.menu_published.v1","datacontenttype":"application/json","data":{data}}}"#
            )
        };
        let structured = "Content-Type: application/cloudevents+json\r\n";
        assert_eq!(target.post(target.door, structured, menu(&deep(3 << 20))).await, 400);
    }
    // In binary mode the data is nobody's business before the service reads it; then it is a dead letter.
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    let not_utf8 = "\u{80}".as_bytes()[1..].to_vec();
    for (number, data) in ["[".repeat(1 << 20), nested(1_000), nested(1 << 20), "not JSON".to_owned()]
        .map(String::into_bytes)
        .into_iter()
        .chain([not_utf8, vec![0; 3 << 20]])
        .enumerate()
    {
        let binary = format!(
            "Content-Type: application/json\r\nce-specversion: 1.0\r\nce-id: odd-{number}\r\nce-source: /attack\r\n\
             ce-subject: odd-{number}\r\nce-type: dev.rainstorm.kitchen.menu_published.v1\r\n"
        );
        assert_eq!(target.post(target.door, &binary, data).await, 204, "{number}");
    }
    let line = |quantity: &str| with("items", &format!(r#"[{{"item_id":"soup","quantity":{quantity}}}]"#));
    for number in
        ["9223372036854775808", "-9223372036854775809", "1e400", "1e-400", "1.5", "-0", "4294967296", "0x10", "NaN"]
    {
        assert!(matches!(target.post("/orders", "", line(number)).await, 400 | 422), "{number}");
    }
    assert!(matches!(target.post("/orders", "", line(&"9".repeat(50_000))).await, 400 | 422));
    for text in [r#""\u0000""#, r#""\ud800""#, r#""\udfff\ud800""#, "\"\0\"", "\"\\x\"", "\"\u{7f}\"", "\"\u{85}\""] {
        for field in ["customer_id", "kitchen_id", "payment_token"] {
            assert!(matches!(target.post("/orders", "", with(field, text)).await, 400 | 422), "{field} {text}");
        }
    }
    for bytes in [&b"\"\xed\xa0\x80\""[..], b"\"\xff\"", b"\"\xc0\xaf\""] {
        let order = with("customer_id", "HERE").into_bytes();
        let at = order.windows(4).position(|here| here == b"HERE").expect("it is there");
        let order = [&order[..at], bytes, &order[at + 4..]].concat();
        assert_eq!(target.post("/orders", "", order).await, 400);
    }
}

async fn events_that_no_store_can_hold_are_never_told_to_come_again(target: &Target) {
    let long = "x".repeat(100 << 10);
    let odd =
        ["\0", "a\0b", "\u{ffff}", "\u{202e}", "'; --", " ", "\n", "..", "019a0000-0000-7000-8000-000000000001", &long];
    let menu = json!({"name": "x", "open": true, "currency": "EUR", "menu": []});
    for event_type in ["kitchen.menu_published.v1", "delivery.delivered.v1"] {
        for (number, text) in odd.iter().enumerate() {
            for attribute in [
                "id",
                "source",
                "subject",
                "time",
                "sequence",
                "correlationid",
                "causationid",
                "traceparent",
                "tracestate",
                "partitionkey",
                "dataschema",
                "data",
            ] {
                let mut event = json!({
                    "specversion": "1.0", "id": format!("{event_type}-{number}-{attribute}"), "source": "/attack",
                    "type": format!("dev.rainstorm.{event_type}"), "subject": format!("attack-{number}-{attribute}"),
                    "datacontenttype": "application/json", "data": menu.clone(),
                });
                event[attribute] = json!(text);
                let media_type = "Content-Type: application/cloudevents+json\r\n";
                let status = target.post(target.door, media_type, event.to_string()).await;
                assert!(matches!(status, 204 | 400), "{status} to {attribute} {:?}", &text[..text.len().min(40)]);
            }
        }
    }
}

/// What the producers' samples become when one value in their data is another.
fn spoilt(sample: &Value) -> Vec<Value> {
    fn places(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| places(value, &format!("{path}/{name}"), found))
            }
            Value::Array(items) => items.iter().take(1).for_each(|value| places(value, &format!("{path}/0"), found)),
            _ => found.push(path.to_owned()),
        }
    }
    let noise: String =
        (0..20_000_u32).map(|number| char::from(b'a' + (number.wrapping_mul(2_654_435_761) >> 28) as u8)).collect();
    let odd = |value: &Value| match value {
        Value::String(_) => [json!("a\0b"), json!(noise)],
        _ => [json!(i64::MAX), json!(1e300)],
    };
    let mut found = Vec::new();
    places(&sample["data"], "/data", &mut found);
    let mut spoilt = Vec::new();
    let each = |place: &String| odd(sample.pointer(place).unwrap_or(&Value::Null)).map(|odd| (place.clone(), odd));
    for (place, odd) in found.iter().flat_map(each) {
        let mut event = sample.clone();
        *event.pointer_mut(&place).expect("it was found there") = odd;
        let stream = uuid::Uuid::now_v7().to_string();
        for attribute in ["id", "subject", "partitionkey", "correlationid"] {
            event[attribute] = json!(stream);
        }
        // The first of its stream, so that nobody waits for another.
        event["sequence"] = json!("00000000000000000001");
        spoilt.push(event);
    }
    spoilt
}

async fn events_with_data_that_cannot_be_are_never_told_to_come_again(target: &Target) {
    let services = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
    let mut events = Vec::new();
    for service in ["order", "payment", "kitchen", "delivery"] {
        for file in std::fs::read_dir(services.join(service).join("contract")).expect("a folder") {
            let file = file.expect("an entry").path();
            if file.to_string_lossy().ends_with(".v1.json") {
                let sample = std::fs::read_to_string(&file).expect("a sample");
                events.extend(spoilt(&serde_json::from_str(&sample).expect("JSON")));
            }
        }
    }
    assert!(events.len() > 100, "{}", events.len());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for events in events.chunks(4) {
        let mut told = JoinSet::new();
        for service in SERVICES {
            for event in events {
                let (client, door, event) = (client.clone(), target.door_of(service), event.clone());
                told.spawn(async move {
                    let what = format!("{service} to take {} with {:.300}", event["type"], event["data"].to_string());
                    // A busy service may ask for it again; for ever would be a bug.
                    until(&what, || async {
                        let request = client.post(&door).header("content-type", "application/cloudevents+json");
                        let status = request.body(event.to_string()).send().await.expect("an answer").status();
                        assert!(matches!(status.as_u16(), 204 | 503), "{status}: {what}");
                        (status == 204).then_some(())
                    })
                    .await;
                });
            }
        }
        told.join_all().await;
    }
}

async fn headers_said_twice_or_against_each_other_are_a_clients_mistake(target: &Target) {
    let order = end_to_end::order("luigis", "tok_ok").to_string();
    let length = order.len();
    let json = "Content-Type: application/json\r\n";
    for lengths in [
        format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1),
        format!("Content-Length: {length}, {}\r\n", length + 1),
        format!("Content-Length: {length}x\r\n"),
        "Content-Length: 99999999999999999999999999\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
    ] {
        let statuses = target.say(format!("POST /orders HTTP/1.1\r\nHost: x\r\n{json}{lengths}\r\n{order}")).await;
        assert!(matches!(statuses[..], [400..500] | [400..500, 400]), "{lengths}: {statuses:?}");
    }
    // Where both are said, the chunks count and the connection ends (RFC 9112, section 6.3): nothing is smuggled in.
    let both = format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}", get("/healthz/live"));
    let statuses = target.say(format!("POST /orders HTTP/1.1\r\nHost: x\r\n{json}{both}")).await;
    assert!(matches!(statuses[..], [400]), "{statuses:?}");
    let twice =
        "ce-specversion: 1.0\r\nce-id: a\r\nce-id: b\r\nce-source: /a\r\nce-source: /b\r\nce-type: x\r\nce-type: y\r\n";
    assert!(target.post(target.door, &format!("{json}{json}{twice}"), "{}").await < 500);
    let keys = format!("{json}Idempotency-Key: a\r\nIdempotency-Key: b\r\n");
    assert!(target.post("/orders", &keys, &order).await < 500);
    let hosts = target.say("GET /healthz/live HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n").await;
    assert_eq!(hosts.len(), 1);
}

async fn half_closed_connections_are_answered_and_let_go(target: &Target) {
    let before = target.open_files();
    let mut clients = Vec::new();
    for number in 0..300 {
        let mut client = target.connect().await;
        if number % 3 > 0 {
            let half = get("/healthz/live");
            let said = if number % 3 == 1 { &half[..] } else { &half[..10] };
            client.write_all(said.as_bytes()).await.expect("it listens");
        }
        client.shutdown().await.expect("it is connected");
        clients.push(client);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut said = String::new();
        let _ = timeout(PATIENCE, client.read_to_string(&mut said)).await.expect("it hangs up");
        assert_eq!(said.starts_with("HTTP/1.1 200"), number % 3 == 1, "{said}");
    }
    drop(clients);
    target.lets_go_of_all_but(before).await;
}

async fn slow_clients_are_hung_up_on_and_hold_up_nobody(target: &Target) {
    let before = target.open_files();
    let body = "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
    let slow = ["", "GET /orders HTTP/1.1\r\n", body, "PRI * HTTP/2.0\r\n\r\n"];
    let mut clients = JoinSet::new();
    for number in 0..400 {
        let mut client = target.connect().await;
        client.write_all(slow[number % slow.len()].as_bytes()).await.expect("it listens");
        clients.spawn(async move {
            let drip = if number % slow.len() == 1 { "X: y\r\n" } else { "1" };
            // A few say a byte a second; the others nothing at all.
            while number % 5 == 0 && client.write_all(drip.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let mut said = String::new();
            let _ = client.read_to_string(&mut said).await;
            said
        });
    }
    target.is_fit().await;
    let said = timeout(PATIENCE, clients.join_all()).await.expect("all of them are hung up on");
    assert!(said.iter().all(|said| !said.starts_with("HTTP/1.1 5")), "{said:#?}");
    target.lets_go_of_all_but(before).await;
}

async fn ten_thousand_idle_connections_leave_room_for_customers(target: &Target) {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let idle = usize::try_from(files).map_or(10_000, |files| files.saturating_sub(500).min(10_000));
    let (before, at_rest) = (target.open_files(), target.memory());
    let mut clients = Vec::with_capacity(idle);
    for number in 0..idle {
        let mut client = target.connect().await;
        if number % 2 == 0 {
            client.write_all(get("/healthz/live").as_bytes()).await.expect("it listens");
        }
        clients.push(client);
    }
    target.is_fit().await;
    eprintln!("{idle} idle connections: from {at_rest:?} to {:?} MB", target.memory());
    drop(clients);
    target.lets_go_of_all_but(before).await;
}
