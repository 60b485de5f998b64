//! What is stored beside the log, for those who look after it: `prodgy blobs`.
//!
//! The rule of this file: it only shows; what garbage is, [`commands::collect_garbage`] knows.

use std::io::Write;
use std::time::Duration;

use commands::{Action, Amount, Collected, Collection, Progress, collect_garbage};
use indicatif::HumanBytes;

use crate::config::Config;
use crate::progress::Shown;
use crate::serve::{open_log, open_vault};

/// Reads a time span as `24h`: a number with s, m, h or d.
///
/// # Errors
/// It is none.
pub fn time_span(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with s, m, h or d, as 24h or 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| number.parse::<u64>().ok()).flatten();
    let seconds = number.and_then(|number| number.checked_mul(seconds)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

/// Collects garbage: `prodgy blobs gc`. Runs beside a server.
///
/// # Errors
/// Log or vault cannot be opened, or fail.
pub async fn collect(config: &Config, how: Collection) -> anyhow::Result<()> {
    let log = open_log(config, true).await?;
    let vault = open_vault(config).await?;
    let mut shown = Shown::counting()?;
    let collected =
        collect_garbage(log.as_ref(), &vault, how, |progress| show(&mut shown, progress)).await;
    shown.end();
    let collected = collected?;
    let mut out = std::io::stdout().lock();
    tell(&mut out, &collected, how.dry_run)?;
    log.close().await;
    Ok(())
}

fn tell(out: &mut impl Write, collected: &Collected, dry_run: bool) -> std::io::Result<()> {
    if dry_run {
        for (action, name) in &collected.actions {
            let action = match action {
                Action::SetAside => "would set aside",
                Action::BringBack => "would bring back",
                Action::Remove => "would remove",
            };
            writeln!(out, "{action} {name}")?;
        }
    }
    let Collected { named, waiting, set_aside, brought_back, removed, .. } = collected;
    let done = if dry_run { "would be " } else { "" };
    for (what, amount) in [
        ("named by the log, and kept".to_owned(), named),
        ("not named and too young, or waiting aside".to_owned(), waiting),
        (format!("{done}set aside: a later run removes them"), set_aside),
        (format!("{done}brought back: the log names them by now"), brought_back),
        (format!("{done}removed for good"), removed),
    ] {
        let Amount { objects, bytes } = amount;
        writeln!(out, "{objects:>10} objects, {:>10}  {what}", HumanBytes(*bytes).to_string())?;
    }
    Ok(())
}

fn show(shown: &mut Shown, progress: Progress) {
    match progress {
        Progress::Log { position, head } => {
            shown.show("reading the log", position.0, Some(head.0));
        }
        Progress::Store(objects) => shown.show("listing the store", objects, None),
        Progress::Garbage { done, of } => shown.show("taking garbage", done, Some(of)),
    }
}

#[cfg(test)]
mod tests {
    //! Time spans, and what is said.

    use super::*;

    #[test]
    fn a_time_span_is_a_number_with_a_unit() {
        for (text, seconds) in [("0s", 0), ("90m", 5_400), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(time_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        let far = format!("{}d", u64::MAX);
        for text in ["", "h", "24", "-1h", "1.5h", "1 h", "1w", "é", &far] {
            assert!(time_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_dry_run_names_what_it_would_do() {
        let collected = Collected {
            removed: Amount { objects: 1, bytes: 2_048 },
            actions: vec![(Action::Remove, "blobs/a".into())],
            ..Collected::default()
        };
        let mut said = Vec::new();
        tell(&mut said, &collected, true).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("would remove blobs/a\n"), "{said}");
        assert!(said.contains("1 objects,   2.00 KiB  would be removed for good"), "{said}");
    }
}
