//! The other sides: servers on loopback that remember what they were asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Says {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

pub fn says(status: u16, body: Value) -> Says {
    gives(status, "application/json", body.to_string())
}

/// Any bytes.
pub fn gives(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Says {
    let headers = vec![("content-type", content_type.to_owned())];
    Says { status, headers, body: body.into() }
}

impl Says {
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Says {
        self.headers.push((name, value.into()));
        self
    }
}

type Answers = Arc<dyn Fn(&Seen) -> Says + Send + Sync>;

/// An HTTP server.
pub struct OtherSide {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl OtherSide {
    pub async fn start(answers: impl Fn(&Seen) -> Says + Send + Sync + 'static) -> OtherSide {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state: (Answers, _) = (Arc::new(answers), seen.clone());
        let router = Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        OtherSide { url, seen }
    }

    /// The last request.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How often something was asked for.
    pub fn count_of(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).count()
    }
}

async fn answer(
    State((answers, log)): State<(Answers, Arc<Mutex<Vec<Seen>>>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let seen = Seen {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
            .collect(),
        body: text(&body),
    };
    log.lock().unwrap().push(seen.clone());
    let Says { status, headers, body } = answers(&seen);
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// From when on a mail server encrypts.
#[derive(Clone)]
pub enum Encrypted {
    Never,
    /// From the first byte on (RFC 8314).
    Always(TlsAcceptor),
    /// After STARTTLS (RFC 3207).
    WhenAsked(TlsAcceptor),
}

/// Who signs the certificate of mail servers.
pub struct Authority {
    /// Its own certificate, as PEM.
    pub certificate: String,
    /// What encrypts under a certificate of it.
    pub acceptor: TlsAcceptor,
}

impl Authority {
    pub fn new() -> Authority {
        let key = || KeyPair::generate().unwrap();
        let mut own = CertificateParams::new(vec![]).unwrap();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own_key = key();
        let certificate = own.self_signed(&own_key).unwrap();
        let (issuer, server_key) = (Issuer::new(own, own_key), key());
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &issuer).unwrap();
        let private = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(server.der().to_vec())], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Authority { certificate: certificate.pem(), acceptor }
    }
}

/// A mail server that takes mail of one user.
pub struct MailServer {
    pub port: u16,
    heard: Arc<Mutex<String>>,
}

impl MailServer {
    /// One that does not encrypt.
    pub async fn start(user: &str, password: &str) -> MailServer {
        MailServer::start_encrypted(user, password, Encrypted::Never).await
    }

    pub async fn start_encrypted(user: &str, password: &str, encrypted: Encrypted) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(String::new()));
        let (log, good) = (heard.clone(), BASE64.encode(format!("\0{user}\0{password}")));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (log, good, encrypted) = (log.clone(), good.clone(), encrypted.clone());
                tokio::spawn(async move {
                    let greeting = "220 mail.example.com ESMTP\r\n";
                    match encrypted {
                        Encrypted::Never => converse(stream, greeting, &good, &log).await,
                        Encrypted::Always(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            converse(stream, greeting, &good, &log).await;
                        }
                        Encrypted::WhenAsked(acceptor) => {
                            if !until_asked_to_encrypt(&mut stream, greeting, &log).await {
                                return;
                            }
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            converse(stream, "", &good, &log).await;
                        }
                    }
                });
            }
        });
        MailServer { port, heard }
    }

    /// All that was ever said to it.
    pub fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

/// The clear part of a conversation that is to be encrypted. Whether it was asked for that.
async fn until_asked_to_encrypt(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    greeting: &str,
    log: &Mutex<String>,
) -> bool {
    let mut lines = BufReader::new(stream).lines();
    let mut answer = greeting;
    loop {
        if lines.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return false;
        }
        let Ok(Some(line)) = lines.next_line().await else { return false };
        log.lock().unwrap().push_str(&format!("{line}\n"));
        answer = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-mail.example.com\r\n250 STARTTLS\r\n",
            "STARTTLS" => {
                let go_on = lines.get_mut().write_all(b"220 2.0.0 go on\r\n").await;
                return go_on.is_ok();
            }
            _ => "530 5.7.0 encrypt first\r\n",
        };
    }
}

/// RFC 5321, as far as a client needs it, with AUTH PLAIN (RFC 4954).
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    greeting: &str,
    good: &str,
    log: &Mutex<String>,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    let mut is_mail = false;
    let mut answer = greeting.to_owned();
    loop {
        if writer.write_all(answer.as_bytes()).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        let Ok(Some(line)) = lines.next_line().await else { return };
        log.lock().unwrap().push_str(&format!("{line}\n"));
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        answer = match verb.as_str() {
            _ if is_mail && line != "." => String::new(),
            _ if is_mail => {
                is_mail = false;
                "250 2.0.0 queued as 4711\r\n".to_owned()
            }
            "EHLO" => "250-mail.example.com\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN\r\n"
                .to_owned(),
            "AUTH" if line.ends_with(good) => "235 2.7.0 welcome\r\n".to_owned(),
            "AUTH" => "535 5.7.8 authentication credentials invalid\r\n".to_owned(),
            "MAIL" | "RCPT" | "NOOP" | "RSET" => "250 2.0.0 fine\r\n".to_owned(),
            "DATA" => {
                is_mail = true;
                "354 go on\r\n".to_owned()
            }
            "QUIT" => "221 2.0.0 bye\r\n".to_owned(),
            _ => "502 5.5.1 what?\r\n".to_owned(),
        };
    }
}
