//! Rules by a clock that the tests set: judged by the log, cut off at every append, and on two nodes at once.

use async_trait::async_trait;
use domain::file::file_id;
use domain::{BlobRef, Name, Retention as Rule};
use eventlog::EventStore;
use tempfile::TempDir;

use super::*;
use crate::policies::Inside;
use crate::policies::NotNow;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log, upload_of};

/// How long a file is kept here.
const DAYS: i64 = 30;

/// A read side that says what it is told to: which files are due from when on, with their products.
#[derive(Default)]
struct Reader(Mutex<Vec<(DateTime<Utc>, Uuid, Uuid)>>);

#[async_trait]
impl Contents for Reader {
    async fn know(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
    }

    async fn forget(&self, _: Position) -> Result<(), NotNow> {
        unreachable!("nothing is removed here")
    }

    async fn sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("rules are about files")
    }

    async fn outdated_sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("rules are about files")
    }

    async fn files_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        unreachable!("rules are about deleted files")
    }

    async fn inside(&self, _: Uuid) -> Result<Inside, NotNow> {
        unreachable!("rules are about files")
    }

    async fn artifacts_of(&self, _: Uuid) -> Result<Vec<String>, NotNow> {
        unreachable!("nothing is removed here")
    }

    async fn due_files(&self, now: DateTime<Utc>, most: usize) -> Result<Due, NotNow> {
        let all = self.0.lock().clone();
        let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(from, _, _)| *from <= now);
        let files = due.into_iter().map(|(_, file, product)| (file, product)).take(most).collect();
        Ok(Due { files, next: later.into_iter().map(|(from, _, _)| from).min() })
    }
}

/// A product whose deleted files are kept for [`DAYS`] days.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    product: Uuid,
    reader: Arc<Reader>,
    /// How far the clock of this world is ahead.
    ahead: Arc<Mutex<TimeDelta>>,
}

fn ask() -> Ask {
    Ask::once("test", Uuid::nil(), None)
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let ahead = Arc::new(Mutex::new(TimeDelta::zero()));
        let world = World { folder, log, commands, product, reader: Arc::default(), ahead };
        world.rule(Some(DAYS)).await;
        world
    }

    async fn rule(&self, days: Option<i64>) {
        let days = days.map(|days| days.try_into().expect("days"));
        let rule = Some(Rule::parse(days).expect("a rule"));
        let changed = self.commands.change_product(self.product, None, None, rule, &ask()).await;
        changed.expect("a rule");
    }

    fn blob(number: usize) -> BlobRef {
        BlobRef { name: format!("{number:064}"), size: 1 }
    }

    /// A file is uploaded, for the first time or again.
    async fn upload(&self, number: usize) -> Uuid {
        let blob = World::blob(number);
        let (file, upload) = (file_id(self.product, &blob), upload_of(self.product, &blob));
        let ask = ask().in_product(self.product);
        self.commands.execute::<File>(file, upload, &ask).await.expect("uploaded");
        file
    }

    /// A file is deleted. Answers when.
    async fn delete(&self, file: Uuid) -> DateTime<Utc> {
        let done = self.commands.delete_file(file, &ask().in_product(self.product)).await;
        done.expect("deleted").events[0].time
    }

    /// A deleted file that the read side knows of.
    async fn deleted(&self, number: usize) -> Uuid {
        let file = self.upload(number).await;
        let at = self.delete(file).await;
        self.reader.0.lock().push((at + TimeDelta::days(DAYS), file, self.product));
        file
    }

    /// The process manager of a server that starts now, and does not look by itself.
    fn manager(&self, commands: Commands) -> Retention {
        Retention::new(commands, self.reader.clone(), self.clock())
    }

    fn clock(&self) -> Clock {
        let ahead = self.ahead.clone();
        Arc::new(move || Utc::now() + *ahead.lock())
    }

    fn set_ahead(&self, ahead: TimeDelta) {
        *self.ahead.lock() = ahead;
    }

    /// So long after everything so far that all of it is due.
    fn let_pass(&self) {
        self.set_ahead(TimeDelta::days(DAYS));
    }

    async fn look(&self) {
        self.manager(self.commands.clone()).look(Position::START).await.expect("looked");
    }

    async fn events(&self) -> Vec<Arc<RecordedEvent>> {
        self.log.read_after(Position::START, 10_000).await.expect("read")
    }

    /// The files that were asked to be erased, in that order.
    async fn asked(&self) -> Vec<Uuid> {
        let events = self.events().await.into_iter();
        let asked = events.filter(|event| event.event_type == "file.erasure_requested.v1");
        asked.map(|event| event.stream.uuid().expect("an id")).collect()
    }

    async fn eventually_asked(&self, files: &[Uuid]) {
        let asked = async {
            let mut head = self.log.watch();
            while self.asked().await != files {
                let _ = tokio::time::timeout(Duration::from_millis(20), head.changed()).await;
            }
        };
        tokio::time::timeout(LONGEST_SLEEP / 2, asked).await.expect("it is asked for");
    }
}

#[tokio::test]
async fn a_file_goes_because_of_its_deletion_in_the_name_of_the_rule() {
    let world = World::new().await;
    let file = world.deleted(1).await;
    world.look().await;
    assert!(world.asked().await.is_empty(), "too early");
    world.let_pass();

    for _ in 0..2 {
        world.look().await;
        assert_eq!(world.asked().await, [file], "once");
    }

    let events = world.events().await;
    let [.., deleted, asked] = &events[..] else { panic!("{events:?}") };
    assert_eq!(deleted.event_type, "file.deleted.v1");
    assert_eq!(asked.actor, "system:retention");
    assert_eq!(asked.causation, Some(deleted.id));
    assert_eq!(asked.correlation, deleted.correlation);
    assert_eq!(asked.product, Some(world.product));
}

#[tokio::test]
async fn the_rule_counts_as_it_stands_in_the_log() {
    let world = World::new().await;
    let file = world.deleted(1).await;
    world.let_pass();

    for rule in [None, Some(DAYS + 1)] {
        world.rule(rule).await;
        world.look().await;
        assert!(world.asked().await.is_empty(), "{rule:?}, though the read side does not know yet");
    }
    world.rule(Some(DAYS)).await;
    world.look().await;
    assert_eq!(world.asked().await, [file]);
}

#[tokio::test]
async fn what_is_in_a_product_that_is_gone_is_left_to_whoever_erases_that() {
    let world = World::new().await;
    world.deleted(1).await;
    world.let_pass();
    world.commands.delete_product(world.product, &ask()).await.expect("deleted");

    world.look().await;

    assert!(world.asked().await.is_empty());
}

#[tokio::test]
async fn what_came_again_stays_and_counts_from_its_newest_deletion() {
    let world = World::new().await;
    let file = world.deleted(1).await;
    world.let_pass();
    world.upload(1).await;

    world.look().await;
    assert!(world.asked().await.is_empty(), "the read side does not know yet that it is there");
    assert!(world.commands.file(file).await.expect("asked").upload().is_some());

    let again = world.delete(file).await;
    let looking = world.manager(world.commands.clone());
    let between = again - TimeDelta::microseconds(1);
    looking.erase(file, between).await.expect("looked");
    assert!(world.asked().await.is_empty(), "of the two deletions the newest counts");
    looking.erase(file, again).await.expect("looked");
    assert_eq!(world.asked().await, [file]);
}

#[tokio::test]
async fn what_comes_again_in_the_very_moment_stays() {
    for is_deleted_again in [false, true] {
        let world = Arc::new(World::new().await);
        let file = world.deleted(1).await;
        world.let_pass();
        let somebody = world.clone();
        let comes_again = async move {
            somebody.upload(1).await;
            if is_deleted_again {
                somebody.delete(file).await;
            }
        };
        let overtaken = Altered::overtaken(&world.log, comes_again);
        let commands = open_commands(world.folder.path(), overtaken).await;

        world.manager(commands).look(Position::START).await.expect("looked");

        assert!(world.asked().await.is_empty(), "deleted again: {is_deleted_again}");
        let state = world.commands.file(file).await.expect("asked");
        assert_eq!(state.upload().is_none(), is_deleted_again);
    }
}

#[tokio::test]
async fn a_crash_at_any_append_erases_every_file_once() {
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::new().await;
            let mut files = Vec::new();
            for number in 0..3 {
                files.push(world.deleted(number).await);
            }
            world.let_pass();
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let commands = open_commands(world.folder.path(), mortal.clone()).await;
            let first_life = world.manager(commands).look(Position::START).await;
            let survived = first_life.is_ok() && mortal.lives();

            let commands = open_commands(world.folder.path(), world.log.clone()).await;
            let second_life = world.manager(commands);
            second_life.look(Position::START).await.expect("looked");

            let mut asked = world.asked().await;
            asked.sort();
            files.sort();
            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(asked, files, "{context}");
            if survived {
                assert!(lives > 3, "it was killed at each of its events before");
                break;
            }
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_erase_every_file_once() {
    let world = World::new().await;
    let mut files = Vec::new();
    for number in 0..40 {
        files.push(world.deleted(number).await);
    }
    world.let_pass();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let shared = Altered::shared(&world.log);
        nodes.push(world.manager(open_commands(world.folder.path(), shared).await));
    }

    let (one, other) = tokio::join!(nodes[0].look(Position::START), nodes[1].look(Position::START));

    one.expect("looked");
    other.expect("looked");
    let mut asked = world.asked().await;
    asked.sort();
    files.sort();
    assert_eq!(asked, files);
}

#[tokio::test]
async fn it_looks_when_the_next_file_is_due_and_when_something_has_happened() {
    let world = World::new().await;
    let first = world.deleted(1).await;
    let due = world.reader.0.lock()[0].0;
    world.set_ahead(due - TimeDelta::milliseconds(700) - Utc::now());
    let retention = Retention::start(world.commands.clone(), world.reader.clone(), world.clock());
    world.eventually_asked(&[first]).await;
    assert!((world.clock())() >= due, "not before its time");

    let second = world.deleted(2).await;
    world.set_ahead(TimeDelta::days(DAYS));
    retention.look_after(world.log.head().await.expect("a head"));
    world.eventually_asked(&[first, second]).await;
    retention.stop().await;

    world.deleted(3).await;
    retention.look_after(world.log.head().await.expect("a head"));
    tokio::time::sleep(2 * GATHER).await;
    assert_eq!(world.asked().await, [first, second], "it was stopped");
}
