//! The payment provider is another company: it may be down, slow, or have done what it was asked although its answer
//! was lost. Nobody is charged twice, and no other order waits. The provider's books are a database of its own here,
//! which is what these faults happen to; that it charged once is what the audit reads in them.

use end_to_end::PROVIDER;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    ground::{ALONE, Ground, Plan},
    proof,
};

async fn run(database_url: &str, sql: &str) {
    let mut connection = PgConnection::connect(database_url).await.expect("PostgreSQL answers");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("it can be done");
}

pub async fn the_payment_provider_is_down(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let server = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
    let provider = ground.world.database_url(PROVIDER);
    let (_, provider) = provider.rsplit_once('/').expect("a URL with a database");
    ground.rain().await;
    ground.moment(500..2000).await;
    run(&server, &format!("ALTER DATABASE {provider} ALLOW_CONNECTIONS false")).await;
    run(&server, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{provider}'")).await;
    // Meanwhile every order is heard, and its charge noted as owed.
    tokio::time::sleep(plan.length()).await;
    proof::every_order_is_paid(&ground.world).await;
    run(&server, &format!("ALTER DATABASE {provider} ALLOW_CONNECTIONS true")).await;
    ground.is_over();
    ground.prove().await;
}

/// Its books are locked, again and again for longer than anybody waits.
pub async fn the_payment_provider_is_slow(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let provider = ground.world.database_url(PROVIDER);
    ground.rain().await;
    for _ in 0..6 {
        ground.moment(100..600).await;
        let slowly = "BEGIN; LOCK TABLE provider_ledger IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.9); COMMIT";
        run(&provider, slowly).await;
    }
    ground.is_over();
    ground.prove().await;
}

/// `tok_slow` is charged when nobody waits for the answer any more, `tok_flaky` answers the third time it is asked;
/// and the payment service dies while answers are on their way. All of them are asked for again, under the same key.
pub async fn the_payment_providers_answers_are_lost(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    for _ in 0..3 {
        for token in ["tok_slow", "tok_flaky", "tok_slow", "tok_ok"] {
            ground.place(token).await;
        }
        ground.moment(0..2500).await;
        ground.world.kill_one("payment").await;
        ground.world.start_again("payment", &[]).await;
    }
    ground.is_over();
    ground.prove().await;
}
