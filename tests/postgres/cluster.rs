//! A real PostgreSQL for tests and measurements: found where Debian's package puts it, run as an
//! ordinary user on a free port, and ended with whoever uses it, however that ends.
//!
//! The one rule: it installs nothing. Where PostgreSQL is missing, the test fails and says what to run.
//!
//! A file by itself (standard library only): other test binaries, and `bench`, take it in with
//! `#[path]`, as they do with `power_cut/shim.rs`.
#![allow(dead_code, reason = "each binary uses its own part of it")]

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The superuser of every cluster.
pub const USER: &str = "prodgy";
/// Its password.
pub const PASSWORD: &str = "p@ss word/1";
/// The same, as an address spells it.
const PASSWORD_IN_ADDRESS: &str = "p%40ss%20word%2F1";

/// The settings of the tests' servers, of which many run side by side.
const SMALL: &str = "max_connections = 200\nshared_buffers = 32MB\n";

/// A database cluster and its server.
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    /// Locked for as long as the cluster is used. The lock ends with this process, and then a
    /// watchdog ends the server.
    _use: File,
}

impl Cluster {
    /// A cluster of its own, for a test that treats it badly.
    pub fn start() -> Cluster {
        Cluster::start_with(SMALL)
    }

    /// As [`Cluster::start`], with lines of `postgresql.conf` of the caller's choice.
    pub fn start_with(settings: &str) -> Cluster {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let folder = base().join(format!("own-{}-{number}", std::process::id()));
        let in_use = prepare(&folder);
        initialise(&folder, settings);
        watch(&folder, 0);
        let port = start(&folder, &free_port);
        Cluster { folder, port, _use: in_use }
    }

    /// The cluster that all tests of this binary share, in this process and in others (nextest
    /// starts one for each test). It is never stopped by a test.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| {
            let binary = std::env::current_exe().unwrap();
            let name = binary.file_name().unwrap().to_string_lossy().into_owned();
            let folder = base().join(format!("shared-{name}"));
            let in_use = prepare(&folder);
            // One process starts it, the others wait for that.
            let starting = File::create(folder.join("starting")).unwrap();
            starting.lock().unwrap();
            let known = fs::read_to_string(folder.join("port")).ok();
            let runs = postmaster(&folder).is_some_and(|pid| is_running(&pid));
            if let Some(port) = known.and_then(|text| text.parse().ok()).filter(|_| runs) {
                return Cluster { folder, port, _use: in_use };
            }
            let _ = fs::remove_dir_all(folder.join("data"));
            initialise(&folder, SMALL);
            watch(&folder, 10);
            let port = start(&folder, &free_port);
            fs::write(folder.join("port"), port.to_string()).unwrap();
            Cluster { folder, port, _use: in_use }
        })
    }

    /// A new streaming replica of this cluster's server, which must be running.
    pub fn standby(&self, name: &str) -> Cluster {
        let folder = base().join(format!("standby-{}-{name}", std::process::id()));
        let in_use = prepare(&folder);
        let data = folder.join("data");
        let mut copy = as_ordinary_user(&program("pg_basebackup"));
        copy.args(["--pgdata", path(&data), "--checkpoint", "fast", "--write-recovery-conf"])
            .args(["--wal-method", "stream", "--dbname"])
            .arg(format!("{}?application_name={name}", self.url("postgres")));
        run(&mut copy);
        watch(&folder, 0);
        let port = start(&folder, &free_port);
        Cluster { folder, port, _use: in_use }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD_IN_ADDRESS}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database that nobody else uses, and answers its name.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {name}"));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs SQL as the superuser and answers what it prints, bare.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(&self.url(database), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs SQL at an address; answers what it prints, or what PostgreSQL says against it.
    pub fn try_sql(&self, url: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"]).args([
            "--set",
            "ON_ERROR_STOP=1",
            "--dbname",
            url,
            "--command",
            sql,
        ]);
        let output = psql.stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Copies a database as `pg_dump` and `psql` do, into one of another cluster that is empty.
    pub fn dump_into(&self, database: &str, other: &Cluster, target: &str) {
        let file = self.folder.join("dump.sql");
        let mut dump = Command::new(program("pg_dump"));
        run(dump.arg("--dbname").arg(self.url(database)).arg("--file").arg(&file));
        let mut restore = Command::new(program("psql"));
        restore
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname"])
            .arg(other.url(target))
            .arg("--file")
            .arg(&file);
        run(&mut restore);
    }

    /// Stops the server in order: connections are ended, everything is written.
    pub fn stop(&self) {
        self.control(&["stop", "--mode", "fast", "--wait"]);
    }

    /// Stops the server as a crash does: nothing is ended or written in order.
    pub fn stop_immediately(&self) {
        self.control(&["stop", "--mode", "immediate", "--wait"]);
    }

    /// Kills the server's first process as nothing can be caught; its children follow it.
    pub fn kill(&self) {
        let pid = postmaster(&self.folder).expect("the server runs");
        let children = processes().into_iter().filter(|process| process.parent == pid);
        let children: Vec<String> = children.map(|process| process.id).collect();
        run(Command::new("kill").arg("-KILL").arg(&pid));
        // Those that ended by themselves in between are no longer there to be killed.
        let _ = Command::new("kill").arg("-KILL").args(&children).stdin(Stdio::null()).output();
        let all = [vec![pid], children].concat();
        while all.iter().any(|pid| is_running(pid)) {
            std::thread::yield_now();
        }
        // Whoever inherited the dead may not have looked at them yet: PostgreSQL would wait for that.
        fs::remove_file(self.folder.join("data/postmaster.pid")).unwrap();
    }

    /// Starts the server again, on its port.
    pub fn start_again(&self) {
        let port = self.port;
        start(&self.folder, &|| port);
    }

    /// Makes a standby the server that writes.
    pub fn promote(&self) {
        self.control(&["promote", "--wait"]);
    }

    /// Sets something for the whole cluster, now.
    pub fn set(&self, name: &str, value: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.control(&["reload"]);
    }

    /// Lets the server encrypt, with a certificate for 127.0.0.1. Answers the file of the authority
    /// that signed it.
    pub fn encrypt(&self) -> PathBuf {
        let script = r#"
            cd "$1"
            key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            openssl req -x509 $key -keyout authority.key -out authority.crt -subj /CN=authority
            openssl req $key -keyout data/server.key -out server.csr -subj /CN=server
            echo 'subjectAltName = IP:127.0.0.1' > server.ext
            openssl x509 -req -in server.csr -CA authority.crt -CAkey authority.key \
                -CAcreateserial -extfile server.ext -out data/server.crt
            chmod 600 data/server.key
        "#;
        let mut make = as_ordinary_user(Path::new("sh"));
        run(make.args(["-e", "-c", script, "encrypt", path(&self.folder)]));
        self.set("ssl", "on");
        self.folder.join("authority.crt")
    }

    fn control(&self, arguments: &[&str]) {
        let mut control = as_ordinary_user(&program("pg_ctl"));
        run(control.args(arguments).args([
            "--silent",
            "--pgdata",
            path(&self.folder.join("data")),
        ]));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The watchdog would do it too, once the lock is gone; this does not wait for it.
        if let Some(pid) = postmaster(&self.folder) {
            let _ = Command::new("kill").args(["-QUIT", &pid]).stderr(Stdio::null()).status();
        }
    }
}

/// Where all clusters of this user are kept while they run.
fn base() -> PathBuf {
    let base = std::env::temp_dir().join(format!("prodgy-postgres-{}", user_id()));
    fs::create_dir_all(&base).unwrap();
    base
}

/// Makes a cluster's folder and takes it into use.
fn prepare(folder: &Path) -> File {
    fs::create_dir_all(folder).unwrap();
    let in_use = File::create(folder.join("users")).unwrap();
    in_use.lock_shared().unwrap();
    if user_id() == 0 {
        run(Command::new("chown").args([ordinary_user(), path(folder)]));
    }
    in_use
}

fn initialise(folder: &Path, settings: &str) {
    let password = folder.join("password");
    File::create(&password).unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    let mut init = as_ordinary_user(&program("initdb"));
    init.args(["--username", USER, "--pwfile", path(&password), "--auth", "scram-sha-256"])
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--pgdata"])
        .arg(folder.join("data"));
    run(&mut init);
    let mut file = File::options().append(true).open(folder.join("data/postgresql.conf")).unwrap();
    let reach = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n";
    file.write_all(format!("{reach}{settings}").as_bytes()).unwrap();
}

/// Starts the server of a folder and waits until it answers.
fn start(folder: &Path, port: &dyn Fn() -> u16) -> u16 {
    let log = folder.join("log");
    // Between finding a free port and listening on it, another process may take it.
    for _ in 0..5 {
        let port = port();
        let mut control = as_ordinary_user(&program("pg_ctl"));
        control
            .args(["start", "--wait", "--silent", "--log", path(&log), "--options"])
            .arg(format!("-p {port}"))
            .args(["--pgdata", path(&folder.join("data"))])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if control.stdin(Stdio::null()).status().unwrap().success() {
            return port;
        }
    }
    panic!("PostgreSQL does not start: {}", fs::read_to_string(&log).unwrap_or_default());
}

/// Starts the process that ends the server when nobody uses it any more, not even for the time in
/// which the next test of the same binary starts.
fn watch(folder: &Path, linger_seconds: u32) {
    let script = r#"
        while :; do
            flock --exclusive "$1/users" true
            sleep "$2"
            exec 9<>"$1/users"
            flock --exclusive --nonblock 9 && break
            exec 9>&-
        done
        rm -f "$1/port"
        pid=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT "$pid"
        while grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$pid/status"; do sleep 0.1; done
        rm -rf "$1"/data "$1"/log "$1"/password "$1"/dump.sql
        [ "$2" -eq 0 ] && rm -rf "$1"
    "#;
    let started = Command::new("setsid")
        .args(["--fork", "sh", "-c", script, "watchdog", path(folder), &linger_seconds.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(started.success());
}

/// Whether there is a PostgreSQL here.
pub fn is_installed() -> bool {
    programs().is_some()
}

/// One of PostgreSQL's programs.
pub fn program(name: &str) -> PathBuf {
    let Some(folder) = programs() else {
        panic!(
            "PostgreSQL is missing, and this test needs a real one: apt-get install postgresql, \
             or run scripts/test, which does"
        );
    };
    folder.join(name)
}

/// Where the programs of the newest version are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin"))
        .filter(|folder| folder.join("postgres").exists())
        .max_by_key(|folder| {
            let version = folder.parent().and_then(Path::file_name).unwrap_or_default();
            version.to_string_lossy().parse::<u32>().unwrap_or(0)
        })
}

/// A program that PostgreSQL refuses to run as root.
fn as_ordinary_user(program: &Path) -> Command {
    let mut command = if user_id() == 0 {
        let user = ordinary_user();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user_group(user), "--clear-groups", "--"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").env_remove("PGPASSWORD");
    command
}

/// Debian's package makes the user `postgres`; any other without rights would do.
fn ordinary_user() -> &'static str {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

fn user_group(user: &str) -> &str {
    if user == "nobody" { "nogroup" } else { user }
}

fn user_id() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

/// The id of the server's first process, if it runs.
fn postmaster(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next().map(str::to_owned)
}

/// A process, as `/proc` tells of it.
struct Process {
    id: String,
    parent: String,
    is_dead: bool,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| process(&entry.file_name().to_string_lossy())).collect()
}

fn process(id: &str) -> Option<Process> {
    let stat = fs::read_to_string(Path::new("/proc").join(id).join("stat")).ok()?;
    // The name before may hold anything, but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.to_owned();
    Some(Process { id: id.to_owned(), parent, is_dead: matches!(state, "Z" | "X") })
}

fn is_running(id: &str) -> bool {
    process(id).is_some_and(|process| !process.is_dead)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}
