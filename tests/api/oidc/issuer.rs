//! An OIDC issuer on loopback: keys that it makes, tokens that it signs.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{CertificateParams, KeyPair, RsaKeySize};
use serde_json::{Value, json};
use sha2::Sha256;

/// Whom its tokens are for.
pub const AUDIENCE: &str = "prodgy";

/// A key that signs.
#[derive(Clone)]
pub struct Signer {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
    pub public_pem: String,
    pub private_pem: String,
    /// A certificate of the key, as PEM.
    pub certificate: String,
}

impl Signer {
    pub fn rsa(id: &str) -> Signer {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Signer::new(id, Algorithm::RS256, key, &pair)
    }

    pub fn ec(id: &str) -> Signer {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Signer::new(id, Algorithm::ES256, key, &pair)
    }

    fn new(id: &str, algorithm: Algorithm, key: EncodingKey, pair: &KeyPair) -> Signer {
        let parameters = CertificateParams::new(vec!["issuer.example".to_owned()]).unwrap();
        Signer {
            id: id.to_owned(),
            algorithm,
            key,
            public_pem: pair.public_key_pem(),
            private_pem: pair.serialize_pem(),
            certificate: parameters.self_signed(pair).unwrap().pem(),
        }
    }

    pub fn header(&self) -> Value {
        json!({ "alg": format!("{:?}", self.algorithm), "kid": self.id, "typ": "JWT" })
    }

    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_under(&self.header(), claims)
    }

    pub fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }
}

pub fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub fn sign_by_secret(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = message(header, claims);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The issuer.
pub struct Issuer {
    pub url: String,
    keys: Arc<Mutex<Option<Value>>>,
}

impl Issuer {
    /// One that publishes these keys; one that is down, without any.
    pub async fn open(signers: &[&Signer]) -> Issuer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(None));
        let state = (url.clone(), keys.clone());
        let router = axum::Router::new().fallback(get(serve)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Issuer { url, keys };
        issuer.publish(signers);
        issuer
    }

    pub fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = (!signers.is_empty()).then(|| key_set(signers));
    }

    /// What a good token says.
    pub fn claims(&self, subject: &str, email: &str) -> Value {
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": subject, "email": email, "email_verified": true,
            "name": "Ada", "iat": now(), "nbf": now() - 10, "exp": now() + 600,
        })
    }
}

pub fn key_set(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

type Published = (String, Arc<Mutex<Option<Value>>>);

async fn serve(State((url, keys)): State<Published>, uri: Uri) -> (StatusCode, String) {
    let keys = keys.lock().unwrap().clone();
    match (uri.path(), keys) {
        (_, None) => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        ("/.well-known/openid-configuration", _) => {
            let found = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
            (StatusCode::OK, found.to_string())
        }
        ("/keys", Some(keys)) => (StatusCode::OK, keys.to_string()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}
