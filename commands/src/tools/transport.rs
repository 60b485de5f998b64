//! What a server says of a failure, and what a connection does.
//!
//! The rule of this file: nothing that was sent is in what it gives back.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// How long `Retry-After` says to wait, in seconds or until a date; a day at most.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

/// A reset below this is no time since 1970 but a number of seconds: as a time it would be in 2001.
const FIRST_TIME: u64 = 1_000_000_000;

/// How long until a limit of a server begins anew, by the headers that say it: as a time in seconds since 1970, as GitHub
/// does, or as so many seconds; a day at most.
pub(super) fn until_reset(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let reset = text("x-ratelimit-reset").or_else(|| text("ratelimit-reset"))?;
    let reset: u64 = reset.trim().parse().ok()?;
    let wait = Duration::from_secs(reset);
    let wait = if reset < FIRST_TIME {
        wait
    } else {
        // A time that no clock will ever show is as far away as can be.
        let at = SystemTime::UNIX_EPOCH.checked_add(wait);
        at.map_or(LONGEST_WAIT, |at| at.duration_since(SystemTime::now()).unwrap_or_default())
    };
    Some(wait.min(LONGEST_WAIT))
}

/// Whether a status may be another one in a moment.
pub(super) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// An error and what caused it, the outermost first.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// What a connection really failed of. The errors around it name the address with all that is in it.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    causes(error).skip(1).last().map_or_else(|| "it broke off".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers)
    }

    #[test]
    fn a_reset_is_a_time_or_a_number_of_seconds_and_a_day_away_at_most() {
        let reset = |name: &'static str, value: &str| {
            until_reset(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        for name in ["x-ratelimit-reset", "ratelimit-reset"] {
            assert_eq!(reset(name, "30"), Some(Duration::from_secs(30)));
            assert_eq!(reset(name, "999999999"), Some(LONGEST_WAIT));
            assert_eq!(reset(name, "1000000000"), Some(Duration::ZERO));
            assert_eq!(reset(name, "99999999999"), Some(LONGEST_WAIT));
            assert_eq!(reset(name, &u64::MAX.to_string()), Some(LONGEST_WAIT));
            assert_eq!(reset(name, "soon"), None);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let wait = reset(name, &(now.as_secs() + 100).to_string()).unwrap();
            assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
        }
        assert_eq!(until_reset(&HeaderMap::new()), None);
    }

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date_and_is_a_day_at_most() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999999"), Some(LONGEST_WAIT));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = wait(&date).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
    }
}
