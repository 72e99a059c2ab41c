//! A setting that can't be used is an error that names it, before anything is started.

use end_to_end::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_setting_is_named() {
    let database = ("DATABASE_URL", "sqlite:target/never-made.db");
    let brokers = ("KAFKA_BROKERS", "127.0.0.1:1");
    const SINKS: &str = "order=http://localhost:1/events";
    type Case<'a> = (&'a str, &'a [&'a str], Vec<(&'a str, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("order-service", &[], vec![("PORT", "many"), database, brokers], "--port"),
        ("order-service", &[], vec![("PORT", "70000"), database, brokers], "--port"),
        ("order-service", &[], vec![brokers], "DATABASE_URL"),
        ("order-service", &[], vec![("DATABASE_URL", "mysql://localhost/x"), brokers], "DATABASE_URL"),
        ("order-service", &[], vec![("DATABASE_URL", "sqlite:"), brokers], "DATABASE_URL"),
        ("order-service", &[], vec![database], "KAFKA_BROKERS"),
        ("order-service", &[], vec![("DATABSE_URL", "sqlite:x.db"), database, brokers], "DATABSE_URL"),
        ("order-service", &[], vec![("KAFKA_BROKER", "localhost:9092"), database, brokers], "KAFKA_BROKER"),
        ("order-service", &[], vec![("PARTITIONS", "0"), database, brokers], "PARTITIONS"),
        ("order-service", &[], vec![("KAFKA_SASL_MECHANISMO", "PLAIN"), database, brokers], "sasl.mechanismo"),
        ("order-service", &["--colour"], vec![database, brokers], "--colour"),
        ("kitchen-service", &[], vec![("COOKING", "slowly"), database, brokers], "COOKING"),
        ("delivery-service", &[], vec![("RIDING", "-1s"), database, brokers], "RIDING"),
        ("delivery-service", &[], vec![("DELIVERY_PATIENCE", "long"), database, brokers], "DELIVERY_PATIENCE"),
        ("payment-service", &[], vec![("PROVIDER_TIMEOUT", "never"), database, brokers], "PROVIDER_TIMEOUT"),
        (
            "payment-service",
            &[],
            vec![("PROVIDER_DATABASE_URL", "ledger.txt"), database, brokers],
            "PROVIDER_DATABASE_URL",
        ),
        ("rainstorm", &["bridge"], vec![brokers], "SINK"),
        ("rainstorm", &["bridge", "--sink", "order"], vec![brokers], "SINKS"),
        ("rainstorm", &["bridge", "--sink", "cook=http://localhost:1/events"], vec![brokers], "cook"),
        ("rainstorm", &["bridge", "--sink", SINKS], vec![brokers], "payment"),
        ("rainstorm", &["bridge", "--sink", SINKS, "--sources", "no/such/folder"], vec![brokers], "no/such/folder"),
        ("rainstorm", &["serve", "order", "query"], vec![database, brokers], "{service}"),
        ("rainstorm", &["serve", "cook"], vec![database, brokers], "cook"),
        ("rainstorm", &["storm", "--peak", "0"], vec![], "--peak"),
        ("rainstorm", &["storm", "--cancel", "1.5"], vec![], "--cancel"),
        ("rainstorm", &["storm", "--calm-for", "ages"], vec![], "--calm-for"),
        ("rainstorm", &["storm", "--url", "http://127.0.0.1:1"], vec![], "http://127.0.0.1:1"),
        ("rainstorm", &["lag", "--data", "no/such/folder"], vec![], "no/such/folder"),
        ("rainstorm", &["topics"], vec![], "KAFKA_BROKERS"),
        ("rainstorm", &["healthy", "--port", "1"], vec![], "http://127.0.0.1:1/"),
        ("rainstorm", &["dead-letters", "list", "--data", "no/such/folder"], vec![], "no/such/folder"),
    ];
    for (program, arguments, settings, named) in cases {
        let (status, said) = World::run(program, arguments, &settings).await;
        assert!(status.is_some_and(|status| status != 0), "{program} {arguments:?} {settings:?} went on: {said}");
        assert!(said.contains(named), "{program} {arguments:?} {settings:?} should name {named}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_asks_its_service_whether_it_is_ready() {
    let world = World::start(end_to_end::Way::Embedded(1), &[]).await;
    let port = world.url("order").rsplit(':').next().expect("a port").to_owned();
    let (status, said) = World::run("rainstorm", &["healthy"], &[("PORT", &port)]).await;
    assert_eq!(status, Some(0), "{said}");
    let nowhere = format!("{}/nowhere", world.url("order"));
    let (status, said) = World::run("rainstorm", &["healthy", "--url", &nowhere], &[]).await;
    assert!(status == Some(1) && said.contains("404"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_topic_that_somebody_hears_is_created() {
    let way = end_to_end::Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let mut world = World::start(way, &[]).await;
    world.kill().await;
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    for round in ["missing", "there", "missing again", "missing once more"] {
        if round.starts_with("missing") {
            World::empty_kafka().await;
        }
        let (status, said) = World::run("rainstorm", &["topics"], &[("KAFKA_BROKERS", &brokers)]).await;
        assert!(
            status == Some(0) && said.contains("9 topics are there: deliveries, delivery.dead-letters, "),
            "{said}"
        );
        // Whoever asks at once gets an answer, even if Kafka has yet to settle who leads what.
        let (status, lag) = World::run("rainstorm", &["lag", "--all"], &[("KAFKA_BROKERS", &brokers)]).await;
        assert!(status == Some(0) && lag.contains("query.dead-letters") && lag.contains("payments"), "{round}: {lag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_demos_do_not_share_a_data_folder() {
    let world = World::start(end_to_end::Way::Embedded(1), &[]).await;
    let (status, said) = world.rainstorm_on_its_data(&["demo", "--no-storm", "--port", "0", "--exit"]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("--data"), "{said}");
}
