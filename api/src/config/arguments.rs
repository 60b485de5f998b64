//! The settings as flags, for commands made with clap's `derive`.
//!
//! The one rule: a flag is only taken down here, as text; it is read with the other sources, so
//! that a bad value gets the same answer wherever it came from.
//!
//! ```text
//! #[derive(clap::Subcommand)]
//! enum Command {
//!     Serve(ServingArguments),
//!     Export { #[command(flatten)] common: CommonArguments, #[arg(long)] out: PathBuf },
//! }
//! ```

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::table::{Commands, Default, SETTINGS, Setting};

/// What the command line says about the settings.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct Arguments(pub(super) BTreeMap<&'static str, String>);

/// The flags that every command takes.
#[derive(Clone, Debug, std::default::Default)]
pub struct CommonArguments(pub Arguments);

/// The flags of the commands that serve, those of every command among them.
#[derive(Clone, Debug, std::default::Default)]
pub struct ServingArguments(pub Arguments);

impl Arguments {
    /// Says something about a setting, as the flag of this name would.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }
}

impl Args for CommonArguments {
    fn augment_args(command: Command) -> Command {
        add_flags(command, common())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CommonArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(CommonArguments(collect(matches, common())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.0.extend(collect(matches, common()).0);
        Ok(())
    }
}

impl Args for ServingArguments {
    fn augment_args(command: Command) -> Command {
        add_flags(command, flags())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServingArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(ServingArguments(collect(matches, flags())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.0.extend(collect(matches, flags()).0);
        Ok(())
    }
}

fn flags() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.has_flag())
}

fn common() -> impl Iterator<Item = &'static Setting> {
    flags().filter(|setting| setting.commands == Commands::All)
}

fn add_flags(command: Command, settings: impl Iterator<Item = &'static Setting>) -> Command {
    command.args(settings.map(|setting| {
        let default = match setting.default {
            Default::Value(value) | Default::Words(value) => value,
        };
        let help = format!("{} [env: {}] [default: {default}]", setting.help, setting.variable());
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value)
            .action(ArgAction::Set)
            .help(help)
    }))
}

fn collect(matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) -> Arguments {
    let given = settings.filter_map(|setting| {
        Some((setting.name, matches.get_one::<String>(setting.name)?.clone()))
    });
    Arguments(given.collect())
}
