//! An issuer as tests play it: keys that it makes, tokens that it signs, documents that it serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair, RsaKeySize};
use serde_json::{Value, json};
use sha2::Sha256;
use url::Url;

/// One key of an issuer.
pub(crate) struct Signer {
    id: String,
    algorithm: Algorithm,
    pair: KeyPair,
    encoding: EncodingKey,
}

impl Signer {
    pub(crate) fn rsa(id: &str) -> Signer {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let encoding = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Signer { id: id.to_owned(), algorithm: Algorithm::RS256, pair, encoding }
    }

    pub(crate) fn ec(id: &str) -> Signer {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let encoding = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Signer { id: id.to_owned(), algorithm: Algorithm::ES256, pair, encoding }
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": format!("{:?}", self.algorithm), "kid": self.id, "typ": "JWT" })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_under(&self.header(), claims)
    }

    /// Signs whatever the header says of it.
    pub(crate) fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.encoding, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.encoding, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub(crate) fn certificate(&self) -> String {
        let parameters = CertificateParams::new(vec!["issuer.example".to_owned()]).unwrap();
        parameters.self_signed(&self.pair).unwrap().pem()
    }

    pub(crate) fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }
}

pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Signs with a shared secret.
pub(crate) fn sign_by_secret(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = message(header, claims);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

pub(crate) fn key_set(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A server of documents on loopback.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Shelved>);

struct Shelved {
    address: String,
    documents: Mutex<HashMap<String, (u16, String)>>,
    asked: AtomicUsize,
    delay: Mutex<Duration>,
}

impl Shelf {
    pub(crate) async fn open() -> Shelf {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shelf = Shelf(Arc::new(Shelved {
            address: format!("http://{}", listener.local_addr().unwrap()),
            documents: Mutex::default(),
            asked: AtomicUsize::new(0),
            delay: Mutex::default(),
        }));
        let router =
            Router::new().route("/{*path}", axum::routing::get(serve)).with_state(shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        shelf
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}/{path}", self.0.address)).unwrap()
    }

    pub(crate) fn put(&self, path: &str, document: impl ToString) {
        self.answer(path, 200, document);
    }

    pub(crate) fn answer(&self, path: &str, status: u16, document: impl ToString) {
        self.0.documents.lock().insert(path.to_owned(), (status, document.to_string()));
    }

    pub(crate) fn delay(&self, delay: Duration) {
        *self.0.delay.lock() = delay;
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

async fn serve(State(shelf): State<Shelf>, Path(path): Path<String>) -> (StatusCode, String) {
    shelf.0.asked.fetch_add(1, Ordering::SeqCst);
    let delay = *shelf.0.delay.lock();
    tokio::time::sleep(delay).await;
    let found = shelf.0.documents.lock().get(&path).cloned();
    let (status, document) = found.unwrap_or((404, String::new()));
    (StatusCode::from_u16(status).unwrap(), document)
}
