//! Which word counts, and what is said of bad ones.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{CommandFactory, Parser};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;

use super::arguments::{CommonArguments, ServingArguments};
use super::table::SETTINGS;
use super::*;

#[derive(Debug, Parser)]
enum Cli {
    Serve(ServingArguments),
    Export {
        #[command(flatten)]
        common: CommonArguments,
        #[arg(long)]
        out: Option<String>,
    },
}

#[derive(Default)]
struct Said {
    file: Option<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
    flags: Vec<&'static str>,
}

impl Said {
    fn load(self) -> Result<Config, String> {
        let mut environment: BTreeMap<String, String> =
            self.environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let file = self.file.map(file_with);
        if let Some(file) = &file {
            let path = file.path().to_str().unwrap().to_owned();
            environment.insert("PRODGY_CONFIG".to_owned(), path);
        }
        let command_line = ["prodgy", "serve"].iter().chain(&self.flags);
        let Cli::Serve(ServingArguments(arguments)) = Cli::parse_from(command_line) else {
            panic!("`serve` was parsed as another command")
        };
        let read = |name: &str| environment.get(name).map(OsString::from);
        Config::resolve(&arguments, read).map_err(|error| {
            let said = error.to_string();
            match &file {
                Some(file) => said.replace(&file.path().display().to_string(), "FILE"),
                None => said,
            }
        })
    }
}

fn file_with(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn from_file(text: &'static str) -> Result<Config, String> {
    Said { file: Some(text), ..Said::default() }.load()
}

fn from_environment(name: &'static str, value: &'static str) -> Result<Config, String> {
    Said { environment: vec![(name, value)], ..Said::default() }.load()
}

fn from_flags(flags: &[&'static str]) -> Result<Config, String> {
    Said { flags: flags.to_vec(), ..Said::default() }.load()
}

#[test]
fn without_a_word_the_defaults_hold() {
    let config = Said::default().load().unwrap();

    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.event_store.expose(), "sqlite:./data/events.db");
    assert_eq!(config.upload_limit_bytes, 512 * 1024 * 1024);
    assert_eq!(config.body_limit_bytes, 1024 * 1024);
    assert_eq!(config.request_timeout, Duration::from_secs(30));
    assert_eq!((config.rate_limit_per_second, config.sign_in_limit_per_minute), (1000, 10));
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(config.master_key.is_none() && config.cors_origins.is_empty());
}

#[test]
fn the_later_source_counts() {
    let file = Some("listen = \"127.0.0.1:1\"\ndata_dir = \"from-file\"\nlog = \"warn\"");
    let environment = vec![("PRODGY_LISTEN", "127.0.0.1:2"), ("PRODGY_DATA_DIR", "from-env")];
    let flags = vec!["--listen", "127.0.0.1:3"];

    let config = Said { file, environment, flags }.load().unwrap();

    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.data_dir, Path::new("from-env"));
    assert_eq!(config.log_filter().to_string(), "warn");
    assert_eq!(config.event_store.expose(), "sqlite:from-env/events.db");
}

/// A value of each setting that is not its default.
const SAMPLES: &[(&str, &str)] = &[
    ("data-dir", "elsewhere"),
    ("event-store", "sqlite:/tmp/log.db"),
    ("blobs", "file:///tmp/blobs"),
    ("model-dir", "models"),
    ("log", "warn,api=debug"),
    ("log-format", "json"),
    ("listen", "[::1]:0"),
    ("public-url", "https://prodgy.example.org"),
    ("admin-email", "ada@example.org"),
    ("access-token-seconds", "60"),
    ("refresh-token-seconds", "3600"),
    ("rate-limit-per-second", "0"),
    ("webhook-limit-per-second", "4"),
    ("sign-in-limit-per-minute", "5"),
    ("trusted-proxies", "10.0.0.0/8, 192.0.2.7"),
    ("forwarded-header", "forwarded"),
    ("cors-origins", "https://a.example,http://localhost:3000"),
    ("body-limit-bytes", "2048"),
    ("upload-limit-bytes", "4096"),
    ("request-timeout-seconds", "5"),
    ("shutdown-timeout-seconds", "0"),
    ("embedding-workers", "3"),
    ("agent-workers", "4"),
    ("agent-workers-per-product", "3"),
    ("oidc-issuer", "https://login.example.org/tenant"),
    ("oidc-audience", "prodgy, https://prodgy.example.org"),
    ("oidc-jwks", "/etc/prodgy/keys.json"),
    ("oidc-email-claim", "upn"),
    ("oidc-subject-claim", "oid"),
    ("oidc-provision", "viewer"),
    ("extraction-seconds", "5"),
    ("extraction-memory-bytes", "268435456"),
    ("extraction-output-bytes", "1048576"),
    ("http-allow", "10.1.0.0/16, fd00::/8"),
    ("llm-url", "http://127.0.0.1:11434/v1"),
    ("llm-model", "small"),
    ("llm-idle-timeout-seconds", "5"),
];

#[test]
fn every_setting_is_read_from_every_source_alike() {
    let silent = format!("{:?}", Said::default().load().unwrap());
    let sampled: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
    for setting in SETTINGS.iter().filter(|setting| setting.has_key()) {
        assert!(sampled.contains(&setting.name), "{} has no sample", setting.name);
    }
    for (name, value) in SAMPLES {
        let setting = SETTINGS.iter().find(|setting| setting.name == *name).unwrap();
        let file = file_with(&format!("{} = \"{value}\"", setting.key()));
        let path = file.path().to_str().unwrap();
        let by_file = Cli::parse_from(["prodgy", "serve", "--config", path]);
        let by_flag = Cli::parse_from(["prodgy", "serve", &format!("--{}", setting.name), value]);
        let variable = setting.variable();

        let shown = |cli: Cli, variable: Option<&str>| {
            let Cli::Serve(ServingArguments(arguments)) = cli else { panic!("not `serve`") };
            let read = |name: &str| (Some(name) == variable).then(|| OsString::from(value));
            format!("{:?}", Config::resolve(&arguments, read).unwrap())
        };
        let (by_file, by_flag) = (shown(by_file, None), shown(by_flag, None));
        let by_variable = shown(Cli::parse_from(["prodgy", "serve"]), Some(&variable));
        assert_eq!(by_file, by_flag, "{name}");
        assert_eq!(by_file, by_variable, "{name}");
        assert_ne!(by_file, silent, "{name} is read by nobody");
    }
}

#[test]
fn numbers_and_lists_of_toml_are_taken_as_such() {
    let config = from_file(
        "rate_limit_per_second = 7\ncors_origins = [\"https://a.example\", \"https://b.example\"]",
    );

    let config = config.unwrap();
    assert_eq!(config.rate_limit_per_second, 7);
    assert_eq!(config.cors_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn a_fault_names_the_place_it_came_from_and_not_the_value() {
    let expected = "must be an address and a port, as 127.0.0.1:8080 or [::1]:8080";

    let fault = from_file("listen = \"canary\"").unwrap_err();
    assert_eq!(fault, format!("`listen` in FILE: {expected}"));
    let fault = from_environment("PRODGY_LISTEN", "canary").unwrap_err();
    assert_eq!(fault, format!("PRODGY_LISTEN in the environment: {expected}"));
    let fault = from_flags(&["--listen", "canary"]).unwrap_err();
    assert_eq!(fault, format!("--listen on the command line: {expected}"));
}

#[test]
fn bad_values_say_what_would_be_right() {
    for (flag, value, reason) in [
        ("--rate-limit-per-second", "-1", "must be a whole number from 0 to 1000000"),
        ("--rate-limit-per-second", "ten", "must be a whole number from 0 to 1000000"),
        ("--request-timeout-seconds", "0", "must be a whole number from 1 to 3600"),
        ("--body-limit-bytes", "10", "must be a whole number from 1024 to 1073741824"),
        ("--log-format", "xml", "must be one of text, json"),
        ("--forwarded-header", "via", "must be one of x-forwarded-for, forwarded"),
        (
            "--event-store",
            "data/events.db",
            "must be sqlite:PATH, postgres://USER:PASSWORD@HOST:PORT/DATABASE or kurrentdb://USER:PASSWORD@HOST:PORT",
        ),
        ("--event-store", "sqlite:", "sqlite: is followed by a path, as sqlite:data/events.db"),
        ("--blobs", "/var/blobs", "must be file://DIR or s3://BUCKET/PREFIX"),
        ("--blobs", "file://", "must be file://DIR or s3://BUCKET/PREFIX"),
        (
            "--blobs",
            "s3://key:secret@bucket/prefix",
            "the object store cannot be used: the name of a bucket has 3 to 63 of a-z, 0-9, '.' and '-'; it must be \
             s3://BUCKET/PREFIX",
        ),
        ("--embedding-workers", "0", "must be a number from 1"),
        ("--data-dir", "", "a path is missing"),
        ("--admin-email", "ada", "must be an e-mail address, as ada@example.org"),
        (
            "--public-url",
            "prodgy.example.org",
            "must be a web address, as https://prodgy.example.org",
        ),
        (
            "--cors-origins",
            "https://a.example/path",
            "must be * or origins without a path, as https://app.example.org",
        ),
        (
            "--cors-origins",
            "https://a.example,",
            "must be * or origins without a path, as https://app.example.org",
        ),
        (
            "--oidc-issuer",
            "http://login.example.org",
            "must be the issuer as its tokens name it, as https://login.example.org; http:// only on this machine",
        ),
        (
            "--oidc-issuer",
            "login.example.org",
            "must be the issuer as its tokens name it, as https://login.example.org; http:// only on this machine",
        ),
        (
            "--oidc-jwks",
            "http://login.example.org/keys",
            "must be a file, or an address as https://login.example.org/keys; http:// only on this machine",
        ),
        ("--oidc-provision", "owner", "must be viewer, member or admin; only owners make owners"),
        ("--http-allow", "intranet", "must be addresses or networks, as 10.0.0.0/8, 192.0.2.7"),
        (
            "--llm-url",
            "https://user:key@llm.example/v1",
            "must be a web address without a user name, as https://api.openai.com/v1; the key is PRODGY_LLM_API_KEY",
        ),
        (
            "--trusted-proxies",
            "10.0.0.0/40",
            "must be addresses or networks, as 10.0.0.0/8, 192.0.2.7",
        ),
    ] {
        let fault =
            from_flags(&[Box::leak(format!("{flag}={value}").into_boxed_str())]).unwrap_err();
        assert_eq!(fault, format!("{flag} on the command line: {reason}"));
    }
    assert!(from_flags(&["--log", "api=loud"]).unwrap_err().contains("must be a level"));
}

#[test]
fn blobs_lie_in_a_folder_or_in_a_bucket() {
    assert!(from_flags(&[]).unwrap().blobs.is_none());
    let folder = from_flags(&["--blobs", "file:///var/blobs"]).unwrap().blobs.unwrap();
    assert_eq!(folder, BlobsAddress::Folder("/var/blobs".into()));
    let bucket = from_environment("PRODGY_BLOBS", "s3://bucket/a/b").unwrap().blobs.unwrap();
    assert_eq!(bucket, BlobsAddress::S3("s3://bucket/a/b".parse().unwrap()));
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    let fault = from_file("data_dir = \"x\"\nlisten_on = \"y\"").unwrap_err();

    assert!(fault.starts_with("`listen_on` in FILE: there is no such setting"), "{fault}");
    assert!(fault.contains("data_dir, event_store, blobs, model_dir"), "{fault}");
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    let fault = from_file("data_dir = \"x\"\nlisten = canary").unwrap_err();

    assert!(fault.starts_with("FILE, line 2: this is not TOML:"), "{fault}");
    assert!(!fault.contains("canary"), "{fault}");
}

#[test]
fn values_of_other_kinds_are_refused() {
    for text in ["listen = true", "[listen]", "cors_origins = [1]", "cors_origins = [\"a,b\"]"] {
        assert!(from_file(text).unwrap_err().ends_with("must be text, a whole number or a list"));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let fault = from_flags(&["--config", "/nowhere/prodgy.toml"]).unwrap_err();

    assert!(
        fault.starts_with("cannot read the configuration file /nowhere/prodgy.toml"),
        "{fault}"
    );
}

#[test]
fn secrets_come_from_the_environment_alone_and_are_never_shown() {
    let config = Said {
        environment: vec![
            ("PRODGY_MASTER_KEY", " canary-key\n"),
            ("PRODGY_ADMIN_PASSWORD", "canary-password"),
            ("PRODGY_LLM_API_KEY", "canary-llm\n"),
        ],
        ..Said::default()
    };
    let config = config.load().unwrap();
    assert_eq!(config.master_key.as_ref().unwrap().expose_secret(), "canary-key");
    assert_eq!(config.llm_api_key.as_ref().unwrap().expose_secret(), "canary-llm");
    assert!(!format!("{config:?}").contains("canary"));

    let fault = from_file("master_key = \"canary\"").unwrap_err();
    assert_eq!(
        fault,
        "`master_key` in FILE: cannot be said in a file; set PRODGY_MASTER_KEY instead"
    );
    assert!(Cli::try_parse_from(["prodgy", "serve", "--master-key", "canary"]).is_err());
}

#[test]
fn an_empty_variable_says_nothing() {
    let config = from_environment("PRODGY_LISTEN", "").unwrap();

    assert_eq!(config.listen.port(), 8080);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let read = |name: &str| (name == "PRODGY_LOG").then(|| OsString::from_vec(vec![0xff]));

    let fault = Config::resolve(&Arguments::default(), read).unwrap_err();

    assert_eq!(fault.to_string(), "PRODGY_LOG in the environment: must be UTF-8 text");
}

#[test]
fn every_command_takes_the_common_flags_and_only_serving_ones_the_others() {
    Cli::command().debug_assert();
    let export = ["prodgy", "export", "--data-dir", "d", "--out", "o"];

    let Cli::Export { common, out } = Cli::parse_from(export) else { panic!("not `export`") };

    let config = Config::resolve(&common.0, |_| None).unwrap();
    assert_eq!((config.data_dir, out), ("d".into(), Some("o".to_owned())));
    assert!(Cli::try_parse_from(["prodgy", "export", "--listen", "x"]).is_err());
}

#[test]
fn the_help_shows_variables_and_defaults() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("serve").unwrap().render_long_help().to_string();

    assert!(help.contains("--listen <ADDRESS>"), "{help}");
    assert!(help.contains("[env: PRODGY_LISTEN] [default: 127.0.0.1:8080]"), "{help}");
}

#[test]
fn arguments_can_be_made_by_a_command() {
    let mut arguments = Arguments::default();
    arguments.set("listen", "127.0.0.1:0");

    assert_eq!(Config::resolve(&arguments, |_| None).unwrap().listen.port(), 0);
}

#[test]
fn the_document_lists_every_setting_as_it_is() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../docs/configuration.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let table = table::as_markdown();

    assert!(document.contains(&table), "put this table into docs/configuration.md:\n{table}");
}

#[test]
fn the_address_of_a_database_is_taken_and_its_password_is_never_shown() {
    for scheme in ["postgres", "postgresql"] {
        let address = format!("{scheme}://ada:canary@db.example:5432/prodgy?sslmode=require");
        let flag = Box::leak(format!("--event-store={address}").into_boxed_str());

        let config = from_flags(&[flag]).unwrap();

        assert_eq!(config.event_store.expose(), address);
        assert!(!format!("{config:?}").contains("canary"));
    }
    for scheme in ["kurrentdb", "kurrentdb+discover", "esdb", "esdb+discover"] {
        let address = format!("{scheme}://ada:canary@log.example:2113?namespace=prodgy");
        let flag = Box::leak(format!("--event-store={address}").into_boxed_str());

        let config = from_flags(&[flag]).unwrap();

        assert_eq!(config.event_store.expose(), address);
        assert!(!format!("{config:?}").contains("canary"));
    }
    for (address, words) in [
        ("postgres://ada:canary@db:port/prodgy", "is no PostgreSQL address"),
        ("kurrentdb://ada:canary@log:port", "write it as kurrentdb://user:password@host:2113"),
        ("esdb://ada:canary@log?namespace=a-b", "its namespace may hold letters"),
        ("eventstore://ada:canary@log", "must be sqlite:PATH"),
    ] {
        let flag = Box::leak(format!("--event-store={address}").into_boxed_str());

        let fault = from_flags(&[flag]).unwrap_err();

        assert!(fault.contains(words), "{fault}");
        assert!(!fault.contains("canary"), "{fault}");
    }
}
