//! The double of a KurrentDB server, on threads of its own: a test that waits for a process must not
//! keep it from answering that process.

use std::future::Future;
use std::sync::Arc;

use kurrentdb_double::{Double, USER};
use tokio::runtime::Runtime;

/// What the server's user has to say, and nobody is to be shown.
pub const PASSWORD: &str = "changeit";

/// A server for one test.
pub struct Server {
    double: Arc<Double>,
    /// Taken when it ends: that must not wait inside a test's own runtime.
    runtime: Option<Runtime>,
}

impl Server {
    pub fn start() -> Server {
        assert_eq!(USER.split_once(':').unwrap().1, PASSWORD);
        let started = std::thread::spawn(|| {
            let runtime = Runtime::new().unwrap();
            (Arc::new(runtime.block_on(Double::start())), runtime)
        });
        let (double, runtime) = started.join().unwrap();
        Server { double, runtime: Some(runtime) }
    }

    /// What `--event-store` is told.
    pub fn url(&self) -> String {
        self.double.url()
    }

    /// Of every event that is stored and that the server did not write itself.
    pub fn positions(&self) -> Vec<u64> {
        let records = self.double.database.all();
        let ours = records.iter().filter(|record| !record.event_type.starts_with('$'));
        ours.map(|record| record.position).collect()
    }

    /// Ends it: nobody listens any more, and every connection is cut.
    pub async fn stop(&self) {
        self.on_its_threads(|double| async move { double.stop().await }).await;
    }

    /// Starts it again where it was, with all that it held.
    pub async fn start_again(&self) {
        self.on_its_threads(|double| async move { double.restart() }).await;
    }

    async fn on_its_threads<F>(&self, what: impl FnOnce(Arc<Double>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.spawn(what(self.double.clone())).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
