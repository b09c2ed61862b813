//! TLS: the right root, the wrong one, and clients with and without a certificate.

use narrows::link::{Bounds, Client, ClientOptions, Data, Identity, Retry, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::Code;

use crate::support::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for a name, in PEM.
fn leaf(name: &str, authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_string()]).unwrap().signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

async fn ask(address: &str, scheme: &str, tls: Tls) -> Result<(), tonic::Status> {
    let retry = Retry { attempts: 2, ..Retry::default() };
    let servers = vec![format!("{scheme}://{address}")];
    let client = Client::new(ClientOptions { servers, tls, retry, ..ClientOptions::default() }).unwrap();
    client.infer("sums", "stream", &Data::Bytes(vec![stream(1).into()])).await.map(|_| ())
}

fn trusting(authority: &Authority, identity: Option<(String, String)>) -> Tls {
    Tls { root: Some(authority.pem()), name: Some("edge".into()), identity }
}

#[tokio::test]
async fn a_server_is_known_by_its_root() {
    let (good, other) = (authority(), authority());
    let (certificate, key) = leaf("edge", &good);
    let server = Running::start(Bounds::default(), Some(Identity { certificate, key, clients: None })).await;
    ask(&server.address, "https", trusting(&good, None)).await.unwrap();
    let other_name = Tls { name: Some("elsewhere".into()), ..trusting(&good, None) };
    for (scheme, tls, code) in [
        ("https", trusting(&other, None), Code::Unauthenticated),
        ("https", other_name, Code::Unauthenticated),
        ("http", Tls::default(), Code::Unavailable),
    ] {
        let status = ask(&server.address, scheme, tls).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    // It is not waited for either, and a replica that is who it should be is asked in its place.
    let (certificate, key) = leaf("edge", &other);
    let second = Running::start(Bounds::default(), Some(Identity { certificate, key, clients: None })).await;
    let servers = [&server, &second].map(|server| format!("https://{}", server.address));
    let client = |servers: &[String]| {
        let (servers, tls) = (servers.to_vec(), trusting(&other, None));
        Client::new(ClientOptions { servers, tls, ..ClientOptions::default() }).unwrap()
    };
    assert_eq!(client(&servers[..1]).ready("sums").await.unwrap_err().code(), Code::Unauthenticated);
    client(&servers).ready("sums").await.unwrap();
    assert_eq!(server.metric("narrows_items_total{model=\"sums\"}"), 1.0);
}

#[tokio::test]
async fn a_client_is_known_by_its_root_where_that_is_asked_for() {
    let (servers, clients, others) = (authority(), authority(), authority());
    let (certificate, key) = leaf("edge", &servers);
    let identity = Identity { certificate, key, clients: Some(clients.pem()) };
    let server = Running::start(Bounds::default(), Some(identity)).await;
    ask(&server.address, "https", trusting(&servers, Some(leaf("device", &clients)))).await.unwrap();
    for identity in [None, Some(leaf("device", &others))] {
        assert!(ask(&server.address, "https", trusting(&servers, identity)).await.is_err());
    }
    assert_eq!(server.metric("narrows_items_total{model=\"sums\"}"), 1.0);
}

#[tokio::test]
async fn a_root_that_is_none_is_refused_before_anything_is_sent() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (root, words) in [
        (None, "https needs the root"),
        (Some(String::new()), "no certificate in the PEM"),
        (Some(key), "no certificate in the PEM"),
    ] {
        let tls = Tls { root, ..Tls::default() };
        let servers = vec!["https://127.0.0.1:1".into()];
        let error = Client::new(ClientOptions { servers, tls, ..ClientOptions::default() }).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_before_anything_is_served() {
    let model = narrows::link::Model::tail("sums", vec![profile()], std::sync::Arc::new(Sums::default()));
    let identity = Identity { certificate: "none".into(), key: "none".into(), clients: None };
    let server = narrows::link::Server::new(vec![model], Bounds::default()).unwrap().identity(identity);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = server.run(listener, None, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("certificate and key"), "{error}");
}

#[tokio::test]
async fn a_threshold_that_is_no_probability_is_refused() {
    for threshold in [f64::NAN, -0.1, 2.0] {
        let model = narrows::link::Model::tail("sums", vec![profile()], std::sync::Arc::new(Sums::default()));
        let server = narrows::link::Server::new(vec![model], Bounds::default()).unwrap().threshold(threshold);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = server.run(listener, None, std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains("no probability"), "{error}");
    }
}
