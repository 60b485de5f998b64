//! The bytes of a deleted file are removed, wherever that is cut off, and whoever else comes with them.

use std::sync::atomic::{AtomicUsize, Ordering};

use domain::file::file_id;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::testing::upload_of;

/// What is uploaded.
const TEXT: &str = "secret";

/// The read side, and something that happens at one of the times when it is asked what there is.
struct Meanwhile<F> {
    log: Log,
    left: AtomicUsize,
    happens: F,
}

#[async_trait]
impl<F: Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static> Contents for Meanwhile<F> {
    async fn know(&self, _: Position) -> Result<(), NotNow> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            (self.happens)().await;
        }
        Ok(())
    }

    async fn forget(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
    }

    async fn sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("of a file nothing else is asked")
    }

    async fn outdated_sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("of a file nothing else is asked")
    }

    async fn files_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("of a file nothing else is asked")
    }

    async fn inside(&self, _: Uuid) -> Result<Inside, NotNow> {
        unreachable!("of a file nothing else is asked")
    }

    async fn artifacts_of(&self, _: Uuid) -> Result<Vec<String>, NotNow> {
        unreachable!("of a file nothing else is asked")
    }

    async fn has_file_with(&self, product: Uuid, blob: &str) -> Result<bool, NotNow> {
        self.log.has_file_with(product, blob).await
    }
}

impl World {
    /// A file that is to be erased, with its bytes and what was made of them.
    async fn erasing(&self) -> Erasing {
        let Full { product, base, .. } = self.product().await;
        let blob = self.file(product, base, TEXT).await;
        let file = file_id(base, &BlobRef { name: blob.name.clone(), size: blob.size });
        let artifact = format!("{product}/{}-made-of-it", blob.name);
        let bytes = Bytes::from_static(b"text and vectors");
        let vault = self.commands.vault();
        vault.put_artifact(&product_key(product), &artifact, &bytes).await.expect("stored");
        self.commands.erase_file(file, &ask().in_product(product)).await.expect("asked");
        Erasing { product, base, file, blob, artifact }
    }

    /// Whether its bytes are there, and what was made of them.
    async fn left_of(&self, erasing: &Erasing) -> (bool, bool) {
        let vault = self.commands.vault();
        let artifact = vault.get_artifact(&erasing.artifact).await.expect("asked");
        let blob = vault.has_blob(erasing.product, &erasing.blob).await.expect("asked");
        (blob, artifact.is_some())
    }
}

struct Erasing {
    product: Uuid,
    base: Uuid,
    file: Uuid,
    blob: vault::BlobRef,
    artifact: String,
}

#[tokio::test]
async fn a_file_is_erased_once_wherever_that_is_cut_off() {
    for stores_the_last in [false, true] {
        for lives in 1..=2 {
            let world = World::new().await;
            let erasing = world.erasing().await;
            let file = erasing.file;
            assert_eq!(world.left_of(&erasing).await, (true, true));

            world.first_life(lives, stores_the_last, async |it| it.erase_file(file).await).await;
            world.second_life().await.erase_file(file).await.expect("erased");

            assert_eq!(world.left_of(&erasing).await, (false, false));
            assert_eq!(world.log().count("file.erased.v1").await, 1);
            world.file(erasing.product, erasing.base, TEXT).await;
            assert_eq!(world.left_of(&erasing).await, (true, false), "it came again");
        }
    }
}

#[tokio::test]
async fn bytes_that_another_file_has_stay() {
    let world = World::new().await;
    let erasing = world.erasing().await;
    let name = name("Yet another");
    let ask = ask().in_product(erasing.product);
    let made = world.commands.create_knowledge_base(name, None, &ask).await.expect("made");
    let other = made.stream_id().expect("an id");
    world.file(erasing.product, other, TEXT).await;

    world.second_life().await.erase_file(erasing.file).await.expect("erased");

    assert_eq!(world.left_of(&erasing).await, (true, true));
    assert_eq!(world.log().count("file.erased.v1").await, 1);
}

#[tokio::test]
async fn whoever_uploads_the_bytes_while_they_are_set_aside_gets_them_back() {
    let world = Arc::new(World::new().await);
    let erasing = world.erasing().await;
    let (product, uploader) = (erasing.product, world.clone());
    let blob = BlobRef { name: erasing.blob.name.clone(), size: erasing.blob.size };
    // The blob was stored before it was set aside, and the event comes after.
    let happens = move || {
        let (world, blob) = (uploader.clone(), blob.clone());
        async move {
            let ask = ask().in_product(product);
            let name = name("Yet another");
            let made = world.commands.create_knowledge_base(name, None, &ask).await;
            let base = made.expect("made").stream_id().expect("an id");
            let (id, upload) = (file_id(base, &blob), upload_of(base, &blob));
            let ask = super::ask().in_product(product);
            world.commands.execute::<File>(id, upload, &ask).await.expect("uploaded");
        }
        .boxed()
    };
    let second_look = AtomicUsize::new(2);
    let contents = Meanwhile { log: world.log(), left: second_look, happens };
    let commands = open_commands(world.folder.path(), world.log.clone()).await;

    let erasure = Erasure::start(commands, Arc::new(contents));
    erasure.erase_file(erasing.file).await.expect("erased");

    assert_eq!(world.left_of(&erasing).await, (true, true));
}

#[tokio::test]
async fn who_says_too_late_that_the_bytes_are_needed_hears_of_it() {
    let world = World::new().await;
    let erasing = world.erasing().await;
    let commands = &world.commands;
    let ask = || ask().in_product(erasing.product);
    let made = commands.create_knowledge_base(name("Yet another"), None, &ask()).await;
    let base = made.expect("made").stream_id().expect("an id");
    world.second_life().await.erase_file(erasing.file).await.expect("erased");

    let blob = BlobRef { name: erasing.blob.name.clone(), size: erasing.blob.size };
    let id = file_id(base, &blob);
    let file = NewFile {
        name: FileName::parse("again.txt").expect("a name"),
        media_type: "text/plain".into(),
        blob,
    };
    let late = commands.upload_file(base, file, &FileFacts::default(), false, &ask()).await;

    assert!(matches!(late, Err(Error::Refused { code: "file_erasing", .. })), "{late:?}");
    assert!(matches!(commands.file(id).await.expect("asked"), File::Deleted { .. }));
}

#[tokio::test]
async fn a_file_that_is_being_read_is_erased_when_its_worker_has_let_go() {
    let world = World::new().await;
    let Full { product, base, .. } = world.product().await;
    let blob = world.file(product, base, TEXT).await;
    let file = file_id(base, &BlobRef { name: blob.name.clone(), size: blob.size });
    let ask = || ask().in_product(product);
    let start = FileCommand::StartIngestion(claim());
    world.commands.execute::<File>(file, start, &ask()).await.expect("claimed");
    world.commands.erase_file(file, &ask()).await.expect("asked");
    let erasure = world.second_life().await;

    let early = erasure.erase_file(file).await;
    assert!(matches!(early, Err(Failure::NotNow(_))), "{early:?}");
    assert!(world.commands.vault().has_blob(product, &blob).await.expect("asked"));

    erasure.commands.leases.let_pass(std::time::Duration::from_secs(3_600));
    erasure.erase_file(file).await.expect("erased");
    assert!(!world.commands.vault().has_blob(product, &blob).await.expect("asked"));
}
