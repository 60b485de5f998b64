//! Whose an e-mail address is, however the log fails and wherever a change of it is cut off.

use std::sync::Arc;

use chrono::TimeDelta;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::{Altered, Fate};
use crate::testing::{open_commands, open_log};

struct World {
    log: Arc<Altered>,
    commands: Commands,
    _folder: TempDir,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let log = Altered::fateful(&open_log(folder.path()));
        let commands = open_commands(folder.path(), log.clone()).await;
        World { log, commands, _folder: folder }
    }

    fn ask() -> Ask {
        Ask::once("test", Uuid::nil(), None)
    }

    async fn make(&self, address: &str) -> Result<Uuid, Error> {
        let new = NewUser {
            email: email(address),
            name: None,
            role: Role::Member,
            password: SecretString::from("correct horse"),
        };
        let done = self.commands.create_user(new, Asker::Operator, &World::ask()).await?;
        Ok(done.stream_id().unwrap())
    }

    async fn moves(&self, user: Uuid, address: &str) -> Result<Done, Error> {
        let change = UserChange { email: Some(email(address)), ..UserChange::default() };
        self.commands.change_user(user, change, Asker::Operator, &World::ask()).await
    }

    /// Whoever signs in with an address.
    async fn at(&self, address: &str) -> Option<Uuid> {
        self.commands.user_by_email(&email(address)).await.unwrap()
    }
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

#[tokio::test]
async fn an_address_is_not_given_away_while_nobody_knows_whether_it_was_changed() {
    let it = World::new().await;
    let ada = it.make("ada@example.com").await.unwrap();

    // The address is taken, and that it is the user's is stored; but nobody hears of it.
    it.log.next_end([Fate::Good, Fate::Unheard]);
    it.moves(ada, "new@example.com").await.unwrap_err();

    assert!(it.make("new@example.com").await.is_err(), "two users have one address");
    assert_eq!(it.at("new@example.com").await, Some(ada));
    // However long that is ago.
    it.log.was(TimeDelta::minutes(2));
    assert!(it.make("new@example.com").await.is_err());
    // The one before is nobody's by then.
    let bob = it.make("ada@example.com").await.unwrap();
    assert_eq!(it.at("ada@example.com").await, Some(bob));
}

#[tokio::test]
async fn an_address_that_was_taken_and_never_used_is_free_after_a_minute() {
    let it = World::new().await;
    let ada = it.make("ada@example.com").await.unwrap();
    it.log.next_end([Fate::Good, Fate::Failed]);
    it.moves(ada, "new@example.com").await.unwrap_err();

    assert!(it.make("new@example.com").await.is_err(), "the change may still come");
    it.log.was(TimeDelta::minutes(2));
    let bob = it.make("new@example.com").await.unwrap();

    assert_eq!(it.at("new@example.com").await, Some(bob));
    assert_eq!(it.at("ada@example.com").await, Some(ada));
    assert!(it.moves(ada, "new@example.com").await.is_err());
}

#[tokio::test]
async fn who_tries_again_after_a_long_time_gets_the_address_it_had_taken() {
    let it = World::new().await;
    let ada = it.make("ada@example.com").await.unwrap();
    it.log.next_end([Fate::Good, Fate::Failed]);
    it.moves(ada, "new@example.com").await.unwrap_err();
    it.log.was(TimeDelta::minutes(2));

    it.moves(ada, "new@example.com").await.unwrap();

    assert_eq!(it.at("new@example.com").await, Some(ada));
    assert_eq!(it.at("ada@example.com").await, None);
}

#[tokio::test]
async fn a_refused_change_lets_the_address_go_at_once() {
    let it = World::new().await;
    let (ada, bob) =
        (it.make("ada@example.com").await.unwrap(), it.make("bob@example.com").await.unwrap());
    assert!(it.moves(ada, "bob@example.com").await.is_err());
    it.commands.delete_user(ada, Asker::Operator, &World::ask()).await.unwrap();
    assert!(it.moves(ada, "new@example.com").await.is_err());

    it.moves(bob, "new@example.com").await.unwrap();

    assert_eq!(it.at("new@example.com").await, Some(bob));
}
