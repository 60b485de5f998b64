use std::task::Poll;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use futures::stream;

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn doors(limit: u32) -> Doors {
    Doors::new(RateLimit::per_door(limit, Duration::from_secs(60)))
}

fn door(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A request whose body begins so, and never ends.
fn slow(begin: &'static [u8]) -> Request {
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(begin))]);
    Request::new(Body::from_stream(begin.chain(stream::pending())))
}

#[test]
fn a_flood_at_one_door_takes_nothing_from_another_or_from_another_address() {
    let doors = doors(3);
    let let_in = (0..10).filter(|_| doors.admit(door(1), HERE).is_ok()).count();
    assert_eq!(let_in, 3);
    assert!(doors.admit(door(2), HERE).is_ok());
    assert!(doors.admit(door(1), THERE).is_ok());
    // Guessing paths has a limit of its own.
    let nowhere = || doors.turn_away(HERE, Problem::malformed("nowhere", "nowhere")).status();
    assert_eq!((0..10).filter(|_| nowhere() == StatusCode::BAD_REQUEST).count(), 3);
    assert!(doors.admit(door(2), HERE).is_ok());
}

#[test]
fn who_came_too_often_is_turned_away_unseen_and_nobody_else() {
    let doors = doors(1);
    let is_shut = |path, address| doors.shut_at(path, address).map(|problem| problem.status());
    assert!(doors.admit(door(1), HERE).is_ok());
    assert_eq!(doors.shut(door(1), HERE).unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(is_shut("one", HERE), None, "nobody was turned away there yet");

    doors.flooded("one".to_owned(), door(1));

    assert_eq!(is_shut("one", HERE), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(is_shut("one", THERE), None);
    assert_eq!(is_shut("two", HERE), None);
    // The path may have got another trigger since.
    doors.flooded("one".to_owned(), door(2));
    assert_eq!(is_shut("one", HERE), None);
    assert!(doors.admit(door(2), HERE).is_ok(), "looking counted nothing");
    assert!(Doors::new(None).shut(door(1), HERE).is_none());
}

#[test]
fn so_many_are_at_work_at_once_and_who_leaves_makes_room() {
    let doors = Doors::new(None);
    let mut inside = Vec::new();
    for number in 0..4 {
        inside.extend((0..AT_ONE_DOOR).map(|_| doors.enter(door(number)).unwrap()));
        assert!(doors.enter(door(number)).is_err(), "one door is full");
    }
    assert_eq!(inside.len(), AT_ALL_DOORS);
    assert!(doors.enter(door(9)).is_err(), "the house is full");
    inside.truncate(AT_ALL_DOORS - 1);
    assert!(doors.enter(door(9)).is_ok());
    drop(inside);
    assert!(doors.0.crowd.lock().at_work_by_door.is_empty());
}

#[test]
fn every_answer_says_where_its_client_stands() {
    let doors = doors(1);
    let nowhere = || doors.turn_away(HERE, Problem::malformed("nowhere", "nowhere"));
    for status in [StatusCode::BAD_REQUEST, StatusCode::TOO_MANY_REQUESTS] {
        let answer = nowhere();
        assert_eq!(answer.status(), status);
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert!(answer.headers().contains_key(name), "{status}: {name}");
        }
        assert_eq!(answer.headers()["ratelimit-remaining"], "0");
    }
}

#[tokio::test]
async fn a_slow_body_keeps_nobody_out_and_is_given_up() {
    let doors = Doors::new(None);
    let read = |number, address| {
        Box::pin(doors.read(door(number), address, slow(b"{"), 100, Duration::MAX))
    };
    let mut slow_ones = Vec::new();
    for number in 0..4 {
        for _ in 0..READ_AT_ONE_DOOR {
            let mut reading = read(number, HERE);
            assert!(futures::poll!(&mut reading).is_pending());
            slow_ones.push(reading);
        }
        let Poll::Ready(Err(refused)) = futures::poll!(&mut read(number, HERE)) else {
            panic!("one more of them is read at {number}");
        };
        assert_eq!(refused.into_response().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(doors.enter(door(number)).is_ok(), "they take no place of those at work");
    }
    for (number, address) in [(9, HERE), (0, THERE)] {
        let whole = Request::new(Body::from("{}"));
        let read = doors.read(door(number), address, whole, 100, PATIENCE).await;
        let Ok((body, held)) = read else { panic!("{number} {address}") };
        assert_eq!((body.as_slice(), held.bytes), (b"{}".as_slice(), 2));
    }
    drop(slow_ones);
    let given_up = doors.read(door(0), HERE, slow(b"{"), 100, Duration::ZERO).await;
    let status = given_up.err().map(|it| it.into_response().status());
    assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE));
    let crowd = doors.0.crowd.lock();
    assert!(crowd.held == 0 && crowd.held_by_door.is_empty() && crowd.held_by_address.is_empty());
    assert!(crowd.read_by_door.is_empty() && crowd.read_by_address.is_empty());
}

#[test]
fn the_bytes_that_are_held_are_bounded_at_a_door_of_an_address_and_in_all() {
    let doors = Doors::new(None);
    let hold = |number, last: u8, bytes| {
        let network = IpAddr::from([127, 0, 0, last]);
        let mut held = Held { doors: doors.clone(), door: door(number), network, bytes: 0 };
        held.grow(bytes).ok().map(|()| held)
    };
    let at_door = hold(1, 1, HELD_AT_ONE_DOOR).expect("room");
    assert!(hold(1, 2, 1).is_none(), "the door is full");
    let rest = hold(2, 1, HELD_OF_ONE_ADDRESS - HELD_AT_ONE_DOOR).expect("room");
    assert!(hold(3, 1, 1).is_none(), "the address has enough");
    let others: Vec<_> = (3..).map_while(|number| hold(number, number as u8, 32 * MIB)).collect();
    assert_eq!(others.len(), (HELD - HELD_OF_ONE_ADDRESS) / (32 * MIB));
    drop((at_door, rest, others));
    assert!(hold(3, 1, 1).is_some());
}

#[tokio::test]
async fn a_body_is_as_long_as_it_may_be_and_no_longer() {
    let doors = Doors::new(None);
    let status = async |request| {
        let read = doors.read(door(1), HERE, request, 3, PATIENCE).await;
        read.map(|(body, _)| body.len()).map_err(|it| it.into_response().status())
    };
    let chunks = |sizes: &'static [usize]| {
        let chunks = sizes.iter().map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![0; *size])));
        Request::new(Body::from_stream(stream::iter(chunks)))
    };
    assert_eq!(status(chunks(&[1, 2])).await, Ok(3));
    assert_eq!(status(chunks(&[1, 2, 1])).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    let mut announced = slow(b"");
    announced.headers_mut().insert(CONTENT_LENGTH, 4.into());
    assert_eq!(status(announced).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
}
