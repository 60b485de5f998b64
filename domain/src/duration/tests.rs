//! What is a length of time, and what is none.

use proptest::prelude::*;

use super::*;

#[test]
fn lengths_are_read() {
    for (text, milliseconds) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("0s", 0),
    ] {
        assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
}

#[test]
fn what_is_no_length_is_refused() {
    for text in [
        "",
        "5",
        "m",
        "5 m",
        " 5m",
        "5M",
        "1.5h",
        "-5m",
        "+5m",
        "5m5",
        "30m1h",
        "5m5m",
        "PT5M",
        "5min",
        "1w",
        "9999999999s",
        "٥m",
    ] {
        assert!(parse(text).unwrap_err().contains("as 500ms"), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(milliseconds in 0_u64..100_000_000_000) {
        let length = Duration::from_millis(milliseconds);
        prop_assert_eq!(parse(&write(length)), Ok(length));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,20}|[0-9]{0,12}(d|h|m|s|ms)[0-9]{0,30}") {
        let _ = parse(&text);
    }
}
