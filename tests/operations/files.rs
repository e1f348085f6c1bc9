//! The files in config/cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ltkmd::store::Store;

use crate::postgres::process::command;
use crate::postgres::{programs, shared};
use crate::terminals::{provision, register, run, services};
use crate::{database, open};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cluster").join(name)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Where these are below: installed on the machine, or taken out of Debian's packages by `./test`.
fn root(files: &[&str]) -> &'static Path {
    let roots = ["/", concat!(env!("CARGO_TARGET_TMPDIR"), "/unpacked")].map(Path::new);
    let found = roots.into_iter().find(|root| files.iter().all(|file| root.join(file).is_file()));
    found.unwrap_or_else(|| panic!("{files:?} are not there: ./test sees to them"))
}

/// Secrets that are none, where the files look for them.
fn secrets(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["db1.example.com".to_owned()]).expect("a certificate");
    let key = "5a".repeat(32);
    for (name, text) in [
        ("cluster_secret", key.as_str()),
        ("store_key", &key),
        ("store_password", "a password"),
        ("admin_token", &key),
        ("db_ca.pem", &made.cert.pem()),
    ] {
        let path = dir.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
    }
}

/// `ltkmd check` on a node's file, with the system's directories somewhere else.
fn check(dir: &Path, node: &str, text: &str) -> Output {
    let here = dir.display().to_string();
    let text = text.replace("/etc/ltkmd", &here).replace("/var/lib/ltkmd", &here);
    let file = dir.join(format!("{node}.toml"));
    fs::write(&file, text).expect("written");
    let mut check = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
    check.env_clear().arg("check").arg("--config").arg(&file).output().expect("it runs")
}

const NODES: [(&str, &str); 3] = [("bsm-1", "10.0.0.11"), ("bsm-2", "10.0.0.12"), ("bsm-3", "10.0.0.13")];

#[test]
fn each_nodes_files_are_made_from_the_template_and_the_check_finds_nothing_to_say() {
    let dir = tempfile::tempdir().expect("a directory");
    secrets(dir.path());
    for (node, address) in NODES {
        let made = dir.path().join(format!("made-{node}"));
        let status = Command::new(shipped("node")).args([node, address]).arg(&made).status();
        assert!(status.expect("it runs").success());
        for entry in fs::read_dir(shipped("template")).expect("a directory") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_str().expect("UTF-8");
            let text = fs::read_to_string(shipped(node).join(name)).expect(name);
            assert_eq!(fs::read_to_string(made.join(name)).expect(name), text, "{node}/{name}");
            assert!(!text.contains('@') || name == "ltkmd.toml", "{node}/{name} is filled in");
        }
        let text = fs::read_to_string(shipped(node).join("ltkmd.toml")).expect("a file");
        assert!(!text.contains("@NAME@") && !text.contains("@ADDRESS@"));
        let output = check(dir.path(), node, &text);
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), "ok\n"), "{node}");
        let sockets = format!("{address}:8080 {address}:4359");
        for (socket, key) in [("http", "ListenStream"), ("udp", "ListenDatagram")] {
            let drop_in = fs::read_to_string(shipped(node).join(format!("ltkmd-{socket}.socket.conf")));
            let drop_in = drop_in.expect("a file");
            let listens = drop_in.lines().filter_map(|line| line.strip_prefix(&format!("{key}=")));
            let listens: Vec<&str> = listens.collect();
            assert!(listens.len() == 2 && listens[0].is_empty(), "the unit's own address is taken away");
            assert!(sockets.contains(listens[1]) && text.contains(&format!("[\"{}\"]", listens[1])));
        }
    }
    // The same check finds what is wrong.
    let text = fs::read_to_string(shipped("bsm-1/ltkmd.toml")).expect("a file");
    let output = check(dir.path(), "broken", &text.replace("cluster_secret_file", "cluster_secret"));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn haproxy_and_nginx_take_their_files_and_name_the_nodes_addresses() {
    let haproxy = "usr/sbin/haproxy";
    let mut haproxy = Command::new(root(&[haproxy]).join(haproxy));
    let output = haproxy.arg("-c").arg("-f").arg(shipped("haproxy.cfg")).output();
    let output = output.expect("it runs");
    assert!(output.status.success() && !said(&output).contains("WARNING"), "{}", said(&output));
    let dir = tempfile::tempdir().expect("a directory");
    let pid = format!("pid {}/pid; error_log {0}/log;", dir.path().display());
    let file = shipped("nginx-udp.conf");
    let (nginx, modules) = ("usr/sbin/nginx", "usr/lib/nginx/");
    let root = root(&[nginx, &format!("{modules}modules/ngx_stream_module.so")]);
    let mut nginx = Command::new(root.join(nginx));
    nginx.arg("-p").arg(root.join(modules)).args(["-e", "stderr"]);
    let output = nginx.arg("-t").arg("-g").arg(pid).arg("-c").arg(&file).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    let (http, udp) = (fs::read_to_string(shipped("haproxy.cfg")), fs::read_to_string(file));
    let (http, udp) = (http.expect("a file"), udp.expect("a file"));
    for (node, address) in NODES {
        assert!(http.contains(&format!("server {node} {address}:8080")), "{node}");
        assert!(udp.contains(&format!("server {address}:4359;")), "{node}");
    }
}

#[test]
fn the_role_of_the_sql_file_is_no_superuser_and_all_that_a_daemon_needs() {
    let mut psql = command(programs().join("psql"));
    psql.args(["-X", "-q", "-U", "postgres", "-d", "postgres", "-v", "role=daemon", "-v", "database=shared"]);
    psql.arg("-h").arg(shared().socket()).args(["-p", &shared().port().to_string()]);
    let file = fs::File::open(shipped("database.sql")).expect("a file");
    let output = psql.stdin(file).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(shared().sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'daemon'"), "f");
    let url = shared().url_of("daemon", "shared");
    let store = open(&url, "a");
    run(async {
        services(&store, 1).await;
        provision(&store, 0..3, 1).await;
        register(&store, 0, &[1]).await;
        let database = store.cluster().await.unwrap().database.expect("a database");
        assert_eq!(database.standbys.map(|all| all.len()), Some(0), "it may look");
        store.close().await.unwrap();
    });
    let raised = ltkmd::store::raise_t(&crate::settings(&url, "x"), 5, &mut |_, _| true).unwrap();
    assert!(raised.finished);
    // Without the grant the schema cannot be made, which the sentence says.
    let name = shared().database();
    let refused = ltkmd::store::PgStore::open(&crate::settings(&shared().url_of("daemon", &name), "a"));
    let told = refused.expect_err("refused").to_string();
    assert!(told.contains("does not let the user work"), "{told}");
}

#[test]
fn the_command_raises_and_asks_before_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    secrets(dir.path());
    let url = database();
    run(async { open(&url, "a").close().await }).unwrap();
    let here = dir.path().display();
    let text = format!(
        "node.name = \"a\"\nnode.fqdn = \"a.example\"\nnode.cluster_secret_file = \"{here}/cluster_secret\"\n\
         store.url = \"{url}\"\nstore.store_key_file = \"{here}/store_key\"\nadmin.listen = \"unix:{here}/admin\"\n\
         audit.file = \"{here}/audit.log\"\n"
    );
    let file = dir.path().join("raise.toml");
    fs::write(&file, text).expect("written");
    let raise = |more: &[&str]| {
        let mut raise = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
        raise.env_clear().arg("raise-t").arg("--config").arg(&file).args(more);
        raise.stdin(std::process::Stdio::null()).output().expect("it runs")
    };
    let output = raise(&[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("nothing was changed"), "{}", said(&output));
    // Another store key than the database's.
    let output = raise(&["--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    fs::write(dir.path().join("store_key"), "07".repeat(32)).expect("written");
    let output = raise(&["--yes", "--by", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).starts_with("every T is 7 higher: 0 terminals\n"), "{}", said(&output));
}
