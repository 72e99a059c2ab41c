//! Clients of the services' own HTTP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A client for services: no proxy stands in between, and a name that ends in `.localhost` is this machine's, whatever
/// the system's resolver thinks of it (RFC 6761, section 6.3). So are the names of a cluster on a laptop.
pub fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(Resolver))
}

struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = if name.as_str().ends_with(".localhost") {
                vec![(Ipv4Addr::LOCALHOST, 0).into()]
            } else {
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect()
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_under_localhost_is_this_machine_and_others_are_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(|headers: axum::http::HeaderMap| async move {
            headers["host"].to_str().unwrap_or_default().to_owned()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = client().build().unwrap();
        for name in ["order.rainstorm.localhost", "localhost", "127.0.0.1"] {
            let answer = client.get(format!("http://{name}:{port}/")).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), format!("{name}:{port}"), "the gateway goes by the name");
        }
        assert!(client.get(format!("http://no.such.name.invalid:{port}/")).send().await.is_err());
    }
}
