//! The floor under a list: a bare axum handler that runs the same prepared query on the same file
//! and writes the same rows, and does nothing else.
//!
//! The rule of this file: no credential, no limit, no layer, no envelope.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use uuid::Uuid;

/// The word that makes this program the bare handler.
pub const WORD: &str = "bare-list";

/// The query that the list of knowledge bases runs.
const QUERY: &str = "SELECT id, organization, product, name, description, is_default, files, created_at, updated_at, \
                     sequence, position FROM knowledge_base WHERE product = ? ORDER BY position DESC LIMIT 51 OFFSET 0";

/// A row, as it is answered.
#[derive(Serialize)]
struct Row {
    id: String,
    product_id: String,
    name: String,
    description: Option<String>,
    is_default: bool,
    files: u64,
    created_at: String,
    updated_at: String,
}

struct Question {
    file: PathBuf,
    product: String,
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Serves the list of a product until the process is ended.
pub async fn serve(file: PathBuf, product: Uuid) -> anyhow::Result<()> {
    let question = Arc::new(Question { file, product: product.to_string() });
    let router = Router::new().route("/", get(list)).with_state(question);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

async fn list(State(question): State<Arc<Question>>) -> Result<Json<Vec<Row>>, String> {
    let rows = CONNECTION.with_borrow_mut(|connection| {
        if connection.is_none() {
            *connection = Some(open(&question.file)?);
        }
        match connection {
            Some(connection) => ask(connection, &question.product),
            None => Ok(vec![]),
        }
    });
    rows.map(Json).map_err(|error| error.to_string())
}

/// As the server opens its readers.
fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.execute_batch(
        "PRAGMA query_only = on; PRAGMA mmap_size = 268435456; PRAGMA cache_size = -8192;",
    )?;
    Ok(connection)
}

fn ask(connection: &Connection, product: &str) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(QUERY)?;
    let rows = statement.query_map([product], |row| {
        Ok(Row {
            id: row.get(0)?,
            product_id: row.get(2)?,
            name: row.get(3)?,
            description: row.get(4)?,
            is_default: row.get(5)?,
            files: row.get(6)?,
            created_at: row.get(7)?,
            updated_at: row.get(8)?,
        })
    })?;
    rows.collect()
}
