use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn doors(limit: u32) -> Doors {
    Doors::new(RateLimit::per_door(limit, Duration::from_secs(60)))
}

#[test]
fn a_flood_at_one_door_takes_nothing_from_another_or_from_another_address() {
    let doors = doors(3);
    let (flooded, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let let_in = (0..10).filter(|_| doors.enter(flooded, HERE).is_ok()).count();
    assert_eq!(let_in, 3);
    assert!(doors.enter(other, HERE).is_ok());
    assert!(doors.enter(flooded, THERE).is_ok());
    // Guessing paths has a limit of its own.
    assert_eq!((0..10).filter(|_| doors.knock(HERE).is_ok()).count(), 3);
    assert!(doors.enter(other, HERE).is_ok());
}

#[test]
fn so_many_are_inside_at_once_and_who_leaves_makes_room() {
    let doors = Doors::new(None);
    let mut inside = Vec::new();
    for door in 0..4 {
        let door = Uuid::from_u128(door);
        inside.extend((0..AT_ONE_DOOR).map(|_| doors.enter(door, HERE).unwrap()));
        assert!(doors.enter(door, HERE).is_err(), "one door is full");
    }
    assert_eq!(inside.len(), AT_ALL_DOORS);
    assert!(doors.enter(Uuid::from_u128(9), HERE).is_err(), "the house is full");
    inside.truncate(AT_ALL_DOORS - 1);
    assert!(doors.enter(Uuid::from_u128(9), HERE).is_ok());
    drop(inside);
    assert!(doors.0.inside.lock().by_door.is_empty());
}

#[test]
fn the_answer_says_where_its_client_stands() {
    let inside = doors(5).enter(Uuid::from_u128(1), HERE).unwrap();
    let mut headers = HeaderMap::new();
    inside.write(&mut headers);
    assert_eq!(headers["ratelimit-remaining"], "4");
}
