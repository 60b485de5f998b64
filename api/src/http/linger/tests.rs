//! Over a real socket: an early answer reaches a client that only ever writes first.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::http::Problem;
use crate::http::testing::layer;

/// A server that refuses everything without reading any of it.
async fn refusing_server() -> SocketAddr {
    let refuse = async || Problem::unauthenticated("no_credential", "send a credential along");
    let app = Router::new().route("/", post(refuse)).layer(layer!(read_to_the_end));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_hears_the_answer() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let mut socket = TcpStream::connect(refusing_server().await).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let block = vec![0_u8; 1024 * 1024];
    for _ in 0..LENGTH / block.len() {
        socket.write_all(&block).await.unwrap();
    }

    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();

    assert_eq!(answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn the_connection_goes_on_afterwards() {
    let mut socket = TcpStream::connect(refusing_server().await).await.unwrap();
    for _ in 0..2 {
        let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = socket.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 401"));
    }
}

#[tokio::test]
async fn a_client_that_waits_is_not_asked_to_send() {
    let mut socket = TcpStream::connect(refusing_server().await).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();

    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();

    assert_eq!(answer, b"HTTP/1.1 401");
}
