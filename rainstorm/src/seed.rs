//! A town to order food in: kitchens with menus, and a fleet of drivers on shift.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

/// Drivers in the fleet unless somebody asks for more or fewer.
pub const FLEET: usize = 300;

/// `(kitchen id, name, dishes as (id, name, price in cents))`.
type Kitchen = (&'static str, &'static str, &'static [(&'static str, &'static str, i64)]);

const KITCHENS: [Kitchen; 6] = [
    (
        "luigis",
        "Luigi's",
        &[
            ("margherita", "Pizza Margherita", 950),
            ("diavola", "Pizza Diavola", 1190),
            ("quattro-formaggi", "Pizza Quattro Formaggi", 1250),
            ("tiramisu", "Tiramisù", 590),
        ],
    ),
    (
        "golden-wok",
        "Golden Wok",
        &[
            ("spring-rolls", "Spring rolls", 490),
            ("mapo-tofu", "Mapo tofu", 1090),
            ("kung-pao", "Kung pao chicken", 1290),
            ("fried-rice", "Egg fried rice", 790),
        ],
    ),
    (
        "taqueria-sol",
        "Taquería Sol",
        &[
            ("al-pastor", "Tacos al pastor", 990),
            ("quesadilla", "Quesadilla", 850),
            ("guacamole", "Guacamole and chips", 650),
            ("horchata", "Horchata", 390),
        ],
    ),
    (
        "bombay-corner",
        "Bombay Corner",
        &[
            ("butter-chicken", "Butter chicken", 1350),
            ("dal-tadka", "Dal tadka", 990),
            ("garlic-naan", "Garlic naan", 350),
            ("mango-lassi", "Mango lassi", 420),
        ],
    ),
    (
        "sushi-kaito",
        "Sushi Kaito",
        &[("salmon-set", "Salmon set", 1690), ("maki-mix", "Maki mix", 1290), ("miso-soup", "Miso soup", 390)],
    ),
    (
        "green-bowl",
        "Green Bowl",
        &[("falafel-bowl", "Falafel bowl", 1090), ("poke-bowl", "Poké bowl", 1390), ("lemonade", "Mint lemonade", 380)],
    ),
];

#[derive(Debug, clap::Args)]
pub struct SeedArgs {
    /// Where commands are taken.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Where the kitchen service takes commands, if elsewhere.
    #[arg(long, value_name = "URL")]
    kitchen_url: Option<String>,
    /// Where the delivery service takes commands, if elsewhere.
    #[arg(long, value_name = "URL")]
    delivery_url: Option<String>,
    /// How many drivers go on shift.
    #[arg(long, default_value_t = FLEET)]
    drivers: usize,
}

/// Why there is no town.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{url} does not answer; is the service running there? ({source})")]
    NoAnswer { url: String, source: reqwest::Error },
    #[error("{url} refused with {status}: {said}")]
    Refused { url: String, status: u16, said: String },
}

/// `rainstorm seed`.
pub async fn seed(args: SeedArgs) -> Result<(), SeedError> {
    let kitchens = args.kitchen_url.as_deref().unwrap_or(&args.url);
    let drivers = args.delivery_url.as_deref().unwrap_or(&args.url);
    open_town(kitchens, drivers, args.drivers).await?;
    println!("{} kitchens are open and {} drivers on shift", KITCHENS.len(), args.drivers);
    Ok(())
}

/// Opens every kitchen and puts the fleet on shift. What is there already stays as it is.
pub async fn open_town(kitchen_url: &str, delivery_url: &str, drivers: usize) -> Result<(), SeedError> {
    let client = eventing::http::client().build();
    let client = client.map_err(|source| SeedError::NoAnswer { url: kitchen_url.to_owned(), source })?;
    let kitchens = KITCHENS.iter().map(|(id, name, dishes)| {
        let menu: Vec<Value> = dishes
            .iter()
            .map(|(id, name, price)| json!({"item_id": id, "name": name, "price": price, "available": true}))
            .collect();
        let body = json!({"name": name, "open": true, "currency": "EUR", "menu": menu});
        (format!("{kitchen_url}/kitchens/{id}"), body)
    });
    let drivers =
        (1..=drivers).map(|number| (format!("{delivery_url}/drivers/driver-{number:04}"), json!({"on_shift": true})));
    let puts = kitchens.chain(drivers).map(|(url, body)| put(&client, url, body));
    stream::iter(puts).buffer_unordered(16).try_collect::<Vec<()>>().await.map(|_| ())
}

async fn put(client: &reqwest::Client, url: String, body: Value) -> Result<(), SeedError> {
    match client.put(&url).json(&body).send().await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => {
            let status = response.status().as_u16();
            Err(SeedError::Refused { url, status, said: response.text().await.unwrap_or_default() })
        }
        Err(source) => Err(SeedError::NoAnswer { url, source }),
    }
}
