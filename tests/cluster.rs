//! A cluster as a whole: it wakes for an event, goes back to sleep, and loses nothing when a pod is killed, a new
//! revision is rolled out, or a source gives an event up. Needs somebody's cluster:
//!
//!     RAINSTORM_CONTEXT=kind-rainstorm RAINSTORM_DOMAIN=rainstorm.localhost:8080 cargo test --workspace --test cluster
//!
//! RAINSTORM_CONTEXT is kubectl's name for it, RAINSTORM_DOMAIN what stands behind `order.`, `kitchen.` … in the services'
//! addresses. Without them it says that it skips. The tests take turns: each looks at who sleeps.

use std::{io::Write, process::Stdio, time::Duration};

use end_to_end::{SERVICES, World, until};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::Mutex,
};

/// Knative waits for a minute of quiet, and then half a minute more.
const ASLEEP_WITHIN: Duration = Duration::from_secs(300);
const STORM: [&str; 8] = ["--calm", "5", "--calm-for", "5s", "--peak", "40", "--storm-for", "40s"];
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Cluster {
    context: String,
    domain: String,
    client: reqwest::Client,
}

impl Cluster {
    /// Somebody's, if there is one.
    fn given() -> Option<Self> {
        let (context, domain) = (std::env::var("RAINSTORM_CONTEXT"), std::env::var("RAINSTORM_DOMAIN"));
        let (Ok(context), Ok(domain)) = (context, domain) else {
            // Past the test harness, which shows what a passing test prints to nobody.
            let _ = writeln!(std::io::stderr(), "SKIPPED: a cluster needs RAINSTORM_CONTEXT and RAINSTORM_DOMAIN");
            return None;
        };
        // A pod that has to be started first may take its time.
        let client = eventing::http::client().timeout(Duration::from_secs(120)).build().expect("a client");
        Some(Self { context, domain, client })
    }

    fn url(&self, service: &str) -> String {
        format!("http://{service}.{}", self.domain)
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--context", &self.context, "--namespace", "rainstorm"]).args(arguments).kill_on_drop(true);
        command
    }

    /// What kubectl answers.
    async fn ask(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments).output().await.expect("kubectl is there");
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The pods of a service, those that are on their way out included.
    async fn pods(&self, service: &str) -> Vec<String> {
        let label = format!("serving.knative.dev/service={service}");
        let names = self.ask(&["get", "pods", "--selector", &label, "--output", "name"]).await;
        names.lines().map(ToOwned::to_owned).collect()
    }

    /// Returns when a service has no pods.
    async fn sleeps(&self, service: &str) {
        let since = std::time::Instant::now();
        while !self.pods(service).await.is_empty() {
            assert!(since.elapsed() < ASLEEP_WITHIN, "{service} does not sleep");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A kitchen that is open and known, and some drivers.
    async fn seed(&self) {
        let (kitchen, delivery) = (self.url("kitchen"), self.url("delivery"));
        let seed = ["seed", "--kitchen-url", &kitchen, "--delivery-url", &delivery, "--drivers", "100"];
        let (status, said) = World::run("rainstorm", &seed, &[]).await;
        assert_eq!(status, Some(0), "{said}");
    }

    async fn place(&self) -> String {
        let body = json!({
            "customer_id": "ada", "kitchen_id": "luigis", "items": [{"item_id": "margherita", "quantity": 1}],
            "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
            "payment_token": "tok_ok",
        });
        until("an order to be taken", || async {
            let (status, said) = self.send(self.client.post(format!("{}/orders", self.url("order"))).json(&body)).await;
            (status == 201).then(|| said["order_id"].as_str().expect("an id").to_owned())
        })
        .await
    }

    async fn completes(&self, order: &str) {
        let url = format!("{}/orders/{order}", self.url("query-api"));
        until(&format!("order {order} to complete"), || async {
            let (_, view) = self.send(self.client.get(&url)).await;
            (view["status"] == "completed").then_some(())
        })
        .await;
    }

    /// Lets it rain while `trouble` happens; every order must end as it should all the same.
    async fn storm(&self, trouble: impl Future<Output = ()>) {
        self.seed().await;
        let (order, query) = (self.url("order"), self.url("query-api"));
        let storm = [&["storm", "--json", "--url", &order, "--query-url", &query][..], &STORM].concat();
        let ((status, said), ()) = tokio::join!(World::run("rainstorm", &storm, &[]), async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            trouble.await;
        });
        assert_eq!(status, Some(0), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sleeps_at_zero_wakes_for_an_event_and_sleeps_again() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::given() else { return };
    cluster.seed().await;
    let services = ["payment", "kitchen", "delivery", "query"];
    for service in services {
        cluster.sleeps(service).await;
    }
    // Nobody but the order's events knocks at these.
    let order = cluster.place().await;
    for service in services {
        until(&format!("{service} to wake"), || async { (!cluster.pods(service).await.is_empty()).then_some(()) })
            .await;
    }
    cluster.completes(&order).await;
    for service in services.into_iter().chain(["order", "query-api"]) {
        cluster.sleeps(service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_killed_in_mid_storm_lose_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::given() else { return };
    cluster
        .storm(async {
            for service in SERVICES {
                let label = format!("serving.knative.dev/service={service}");
                cluster.ask(&["delete", "pods", "--selector", &label, "--force", "--grace-period", "0"]).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_in_mid_storm_loses_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::given() else { return };
    cluster
        .storm(async {
            let number =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
            let annotations = json!({"metadata": {"annotations": {"rainstorm.dev/rollout": number.to_string()}}});
            let patch = json!({"spec": {"template": annotations}}).to_string();
            for service in SERVICES {
                let name = format!("services.serving.knative.dev/{service}");
                cluster.ask(&["patch", &name, "--type", "merge", "--patch", &patch]).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_gives_up_lies_in_the_dead_letters() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::given() else { return };
    // A source posts what it gives up to the KafkaSink, which only the cluster itself reaches; kubectl leads there.
    let forward = ["--namespace", "knative-eventing", "port-forward", "service/kafka-sink-ingress", ":80"];
    let mut forward = cluster.kubectl(&forward).stdout(Stdio::piped()).spawn().expect("kubectl is there");
    let mut lines = BufReader::new(forward.stdout.take().expect("it is piped")).lines();
    let line = lines.next_line().await.expect("it says where").expect("it says where");
    let port = line.rsplit_once("127.0.0.1:").and_then(|(_, rest)| rest.split(' ').next()).expect("a port").to_owned();
    let id = format!("given-up-{}", uuid::Uuid::now_v7());
    let request = cluster
        .client
        .post(format!("http://127.0.0.1:{port}/rainstorm/payment-dead-letters"))
        .header("ce-specversion", "1.0")
        .header("ce-id", &id)
        .header("ce-source", "/orders")
        .header("ce-type", "dev.rainstorm.order.placed.v9")
        .header("ce-subject", uuid::Uuid::now_v7().to_string())
        .header("ce-knativeerrordest", "http://payment.rainstorm.svc.cluster.local/events")
        .header("ce-knativeerrorcode", "503")
        .header("ce-knativeerrordata", "the database does not answer")
        .json(&json!({"of": "the future"}));
    let (status, said) = cluster.send(request).await;
    assert_eq!(status, 202, "{said}");
    let run = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/run");
    let listed = Command::new(run)
        .args(["dead-letters", "show", &id])
        .env("KUBECTL_CONTEXT", &cluster.context)
        .output()
        .await
        .expect("k8s/run is there");
    let said = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.status.success() && said.contains("the database does not answer"), "{said}");
}
