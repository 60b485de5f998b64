//! A vault of one test in a bucket of its own, and ways to look below it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, path::Path, prefix::PrefixStore,
};
use uuid::Uuid;
use vault::{Error, MasterKey, S3Address, Vault};

pub use crate::common::{ago, body, noise, place, product_key};
use crate::server::S3Server;

/// Of many alike things that a test could try, it tries one in so many: each costs requests.
pub const ONE_IN: usize = 13;

/// What every name begins with: a bucket may hold other things too.
const PREFIX: &str = "some/prefix";

/// A vault in a bucket.
pub struct Store {
    pub vault: Vault,
    pub master: MasterKey,
    server: Arc<S3Server>,
    bucket: String,
    /// The bucket as anybody else sees it.
    objects: PrefixStore<object_store::aws::AmazonS3>,
}

/// The server of all tests that do it no harm.
fn shared() -> Arc<S3Server> {
    static SERVER: OnceLock<Arc<S3Server>> = OnceLock::new();
    SERVER.get_or_init(|| Arc::new(S3Server::start())).clone()
}

impl Store {
    pub async fn new() -> Store {
        Store::on(shared()).await
    }

    /// A vault on this server.
    pub async fn on(server: Arc<S3Server>) -> Store {
        let bucket = Uuid::now_v7().to_string();
        server.make_bucket(&bucket);
        let mut builder = AmazonS3Builder::new().with_bucket_name(&bucket).with_allow_http(true);
        for (name, value) in server.environment() {
            builder = builder.with_config(name.to_lowercase().parse().unwrap(), value);
        }
        let objects = PrefixStore::new(builder.build().unwrap(), PREFIX);
        let master = MasterKey::generate().unwrap();
        let vault = open(&server, &bucket, master.clone()).await.unwrap();
        Store { vault, master, server, bucket, objects }
    }

    /// A store with the key of a product.
    pub async fn with_product() -> (Store, Uuid) {
        Store::with_product_on(shared()).await
    }

    /// A store on this server with the key of a product.
    pub async fn with_product_on(server: Arc<S3Server>) -> (Store, Uuid) {
        let store = Store::on(server).await;
        let product = Uuid::now_v7();
        store.vault.create_key(&product_key(product)).await.unwrap();
        (store, product)
    }

    /// The same objects in a vault that remembers nothing, as on another node.
    pub async fn reopened(&self) -> Vault {
        self.opened_with(self.master.clone()).await.unwrap()
    }

    /// The same objects under another master key.
    pub async fn opened_with(&self, master: MasterKey) -> Result<Vault, Error> {
        open(&self.server, &self.bucket, master).await
    }

    /// The names of all objects below a name, in their order.
    pub async fn names(&self, below: &str) -> Vec<String> {
        let found = self.objects.list(Some(&Path::from(below)));
        let names = found.map_ok(|object| object.location.to_string());
        let mut names: Vec<String> = names.try_collect().await.unwrap();
        names.sort();
        names
    }

    /// How many things are there that have not got their name.
    pub async fn unfinished(&self) -> usize {
        self.names("unfinished").await.len() + self.server.uploads_under_way(&self.bucket)
    }

    pub async fn bytes(&self, name: &str) -> Vec<u8> {
        self.objects.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub async fn overwrite(&self, name: &str, bytes: &[u8]) {
        self.objects.put(&Path::from(name), bytes.to_vec().into()).await.unwrap();
    }

    pub async fn remove(&self, name: &str) {
        self.objects.delete(&Path::from(name)).await.unwrap();
    }

    /// Changes one bit in the middle of an object.
    pub async fn flip_a_bit(&self, name: &str) {
        let mut bytes = self.bytes(name).await;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.overwrite(name, &bytes).await;
    }

    /// Lets everything be so much older.
    pub async fn age(&self, by: Duration) {
        self.server.age(&self.bucket, by);
    }
}

async fn open(server: &S3Server, bucket: &str, master: MasterKey) -> Result<Vault, Error> {
    let address: S3Address = format!("s3://{bucket}/{PREFIX}").parse().unwrap();
    Vault::s3(&address, &server.environment(), master).await
}
