//! The server that a test runs against: a double of its own, or the real one with a namespace of
//! its own.

use std::sync::Arc;

use async_trait::async_trait;
use eventlog::conformance::Harness;
use eventlog::{EventStore, KurrentdbOptions, KurrentdbStore};
use tokio::sync::Mutex;
use uuid::Uuid;

use kurrentdb_double::{Database, Double, Flaw};

/// Where the address of a real server stands.
const REAL: &str = "PRODGY_TEST_KURRENTDB";

/// A log for one test.
pub struct Server {
    flaw: Flaw,
    started: Mutex<Option<(Option<Double>, String)>>,
}

impl Server {
    /// Nothing yet: it is started by whoever opens it first.
    pub fn new() -> Self {
        Server::with(Flaw::None)
    }

    /// A double that is wrong in one way, whatever the environment says.
    pub fn with(flaw: Flaw) -> Self {
        Server { flaw, started: Mutex::default() }
    }

    /// Opens the log once more, as another node does.
    pub async fn open(&self) -> Arc<dyn EventStore> {
        let mut started = self.started.lock().await;
        if started.is_none() {
            *started = Some(match std::env::var(REAL) {
                Ok(address) if self.flaw == Flaw::None => (None, in_a_namespace(&address)),
                _ => {
                    let double = Double::over(Arc::new(Database::new(self.flaw))).await;
                    let url = double.url();
                    (Some(double), url)
                }
            });
        }
        let (_, address) = started.as_ref().unwrap();
        Arc::new(KurrentdbStore::open(address, KurrentdbOptions::default()).await.unwrap())
    }
}

fn in_a_namespace(address: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}discoveryInterval=1&namespace=test_{}", Uuid::now_v7().simple())
}

#[async_trait]
impl Harness for Server {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        assert!(self.started.lock().await.is_none(), "one fresh store for each test");
        self.open().await
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        drop(store);
        self.open().await
    }
}
