//! Mail servers, and what they are trusted by.

use super::*;

#[tokio::test]
async fn a_test_of_a_mail_server_signs_in() {
    let app = local_app().await;
    let server = MailServer::start("ada", "open sesame").await;
    let config = json!({ "host": "127.0.0.1", "port": server.port, "security": "none",
                         "user": "ada", "from": "Prodgy <prodgy@example.com>" });
    let password = |text: &str| json!({ "password": text });
    let reply = tried(&app, "smtp", config.clone(), password("open sesame")).await;
    expect_success(&reply, "takes the password of ada");
    let reply = tried(&app, "smtp", config.clone(), password("open barley")).await;
    expect_failure(&reply, "unauthorized", "check both");
    let mut starttls = config.clone();
    starttls["security"] = json!("starttls");
    let reply = tried(&app, "smtp", starttls, password("open sesame")).await;
    assert_eq!(
        reply.data()["succeeded"],
        false,
        "it cannot, and nothing goes in the clear: {reply:?}"
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nowhere = config;
    nowhere["port"] = json!(free.port());
    let reply = tried(&app, "smtp", nowhere, password("open sesame")).await;
    expect_failure(&reply, "unreachable", "check host and port");
    assert!(!server.heard().contains("open barley"), "it is encoded");
}

#[tokio::test]
async fn a_mail_server_is_trusted_by_its_certificate() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("authorities.pem");
    std::fs::write(&authorities, &known.certificate).unwrap();
    let app = TestApp::spawn_with(&[
        ("PRODGY_HTTP_ALLOW", "127.0.0.0/8"),
        ("SSL_CERT_FILE", authorities.to_str().unwrap()),
    ])
    .await;
    let ways: [(&str, fn(_) -> _); 2] =
        [("tls", Encrypted::Always), ("starttls", Encrypted::WhenAsked)];
    for (security, encrypted) in ways {
        let tried = async |server: &MailServer| {
            let config = json!({ "host": "127.0.0.1", "port": server.port, "security": security,
                                 "user": "ada", "from": "Prodgy <prodgy@example.com>" });
            tried(&app, "smtp", config, json!({ "password": "open sesame" })).await
        };
        let start = async |authority: &Authority| {
            let encrypted = encrypted(authority.acceptor.clone());
            MailServer::start_encrypted("ada", "open sesame", encrypted).await
        };
        let server = start(&known).await;
        expect_success(&tried(&server).await, "takes the password of ada");
        let server = start(&unknown).await;
        expect_failure(&tried(&server).await, "tls_failed", "check its certificate");
        assert!(!server.heard().contains("AUTH"), "{}", server.heard());
    }
}
