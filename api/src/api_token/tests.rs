//! What bodies of API tokens are read as.

use super::*;

fn moment(text: &str) -> Result<Moment, serde_json::Error> {
    serde_json::from_value(serde_json::Value::from(text))
}

#[test]
fn a_time_of_any_offset_is_the_same_moment() {
    let utc = moment("2030-01-31T12:00:00Z").unwrap();
    assert_eq!(moment("2030-01-31T13:30:00.0+01:30").unwrap(), utc);
    assert_eq!(utc.0.to_string(), "2030-01-31T12:00:00.000000Z");
}

#[test]
fn what_is_no_time_or_of_no_written_year_is_refused() {
    for text in [
        "",
        "tomorrow",
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-02-30T12:00:00Z",
        "9999-12-31T23:59:59-01:00",
    ] {
        assert!(moment(text).is_err(), "{text}");
    }
}

#[test]
fn networks_are_addresses_or_networks_without_host_bits() {
    let texts = [
        "192.0.2.7".to_owned(),
        "10.1.2.3/8".to_owned(),
        "10.0.0.0/8".to_owned(),
        "2001:db8::1".to_owned(),
    ];
    let networks = networks(&texts).unwrap();
    let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::1/128"]);
}

#[test]
fn each_wrong_network_is_named() {
    let problem =
        networks(&["10.0.0.0/8".into(), "10.0.0.0/33".into(), "home".into()]).unwrap_err();
    let places: Vec<&str> = problem.errors().iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(places, ["/allowed_ips/1", "/allowed_ips/2"]);
    assert_eq!(
        networks(&vec!["10.0.0.0/8".to_owned(); 101]).unwrap_err().errors()[0].code,
        "too_many"
    );
}

#[test]
fn a_renewal_says_its_end_even_if_there_is_none() {
    assert!(serde_json::from_str::<Renewal>("{}").is_err());
    assert!(
        serde_json::from_str::<Renewal>(r#"{"expires_at": null}"#).unwrap().expires_at.is_none()
    );
}

#[test]
fn the_documented_scopes_are_those_that_there_are() {
    let schema = serde_json::to_value(<ScopeName as utoipa::PartialSchema>::schema()).unwrap();
    let documented: Vec<&str> =
        schema["enum"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(documented, Scope::ALL.map(Scope::as_str));
}
