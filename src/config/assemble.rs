//! From raw values to [`Settings`], table by table, and what the tables must be to each other.

use std::fs;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

use ipnet::IpNet;
use mikey::IdType;
use nix::unistd::{AccessFlags, access, gethostname};

use super::reader::{Reader, named};
use super::secrets::{Shape, secret};
use super::settings::{
    Admin, Audit, BindMode, Delivery, Digest, Http, Keys, Log, LogFormat, Mikey, Node, Settings, Sms, Store,
    Udp, Xml,
};
use super::tls::{authorities, tls};
use super::value::{AdminListen, NodeName, SmsSource, Smsc, StoreUrl, network, socket_address};
use crate::delivery::{SmsAlone, SmsLimits};
use crate::digest::Algorithm;
use crate::document::ContainerChildren;
use crate::id::{BTidForm, Method};

/// Reads everything. Each table is read to its end whatever the others have, so that all faults are noted.
pub(super) fn settings(r: &mut Reader) -> Option<Settings> {
    let node = node(r);
    let http = http(r);
    let digest = digest(r);
    let xml = r.choice(
        "xml.children",
        &[ContainerChildren::Qualified, ContainerChildren::DefaultNamespace],
        ContainerChildren::as_str,
    );
    let id_type = r.choice("mikey.id_type", &[IdType::NAI, IdType::URI], |id_type| match id_type {
        IdType::URI => "uri",
        _ => "nai",
    });
    let udp = udp(r);
    let sms = sms(r);
    let delivery = delivery(r);
    let keys = keys(r);
    let store = store(r, node.as_ref());
    let admin = admin(r);
    let audit = audit(r, store.as_ref());
    let log = log(r);
    if let (Some(http), Some(admin)) = (&http, &admin) {
        separate_listeners(r, &http.listen, &admin.listen);
    }
    Some(Settings {
        node: node?,
        http: http?,
        digest: digest?,
        xml: Xml { children: xml? },
        mikey: Mikey { id_type: id_type? },
        udp: udp?,
        sms: sms?,
        delivery: delivery?,
        keys: keys?,
        store: store?,
        admin: admin?,
        audit: audit?,
        log: log?,
        warnings: Vec::new(),
    })
}

fn node(r: &mut Reader) -> Option<Node> {
    let name = match r.optional("node.name", str::parse::<NodeName>) {
        Some(None) => host_name(r),
        Some(given) => given,
        None => None,
    };
    let fqdn = r.text("node.fqdn");
    let cluster_secret = secret(r, "node.cluster_secret_file", Shape::HexKey);
    Some(Node { name: name?, fqdn: fqdn?, cluster_secret: cluster_secret? })
}

/// The host's name, as the kernel has it: a service may not see /proc/sys, and no file has to have it.
fn host_name(r: &mut Reader) -> Option<NodeName> {
    let name = gethostname().ok().and_then(|n| n.to_str()?.parse().ok());
    if name.is_none() {
        r.missing("node.name", "the host has no name to take for it, so add a line such as name = \"bsm-1\"");
    }
    name
}

fn http(r: &mut Reader) -> Option<Http> {
    let listen = r.list("http.listen", socket_address);
    let path = r.text("http.path");
    let trusted_proxies = trusted_proxies(r);
    let max_body = r.size("http.max_body");
    let request_timeout = r.duration("http.request_timeout");
    let max_connections = r.integer("http.max_connections");
    let max_items = r.integer("http.max_items");
    let drain = r.duration("http.drain");
    let tls = tls(r);
    Some(Http {
        listen: listen?,
        path: path?,
        trusted_proxies: trusted_proxies?,
        max_body: max_body?,
        request_timeout: request_timeout?,
        max_connections: max_connections?,
        max_items: max_items?,
        drain: drain?,
        tls: tls?,
    })
}

/// Host bits trust more than their writer may have meant: they are dropped, and that is said.
fn trusted_proxies(r: &mut Reader) -> Option<Vec<IpNet>> {
    let networks = r.list("http.trusted_proxies", network)?;
    let place = r.place("http.trusted_proxies");
    for network in networks.iter().filter(|n| **n != n.trunc()) {
        r.warn_at(
            place.clone(),
            "http.trusted_proxies",
            format!("{network} stands for all of {}", network.trunc()),
        );
    }
    Some(networks.iter().map(IpNet::trunc).collect())
}

fn digest(r: &mut Reader) -> Option<Digest> {
    let algorithms = r.list("digest.algorithms", |text| named(text, Algorithm::ALL, Algorithm::as_str));
    let nonce_lifetime = r.duration("digest.nonce_lifetime");
    Some(Digest { algorithms: algorithms?, nonce_lifetime: nonce_lifetime? })
}

fn udp(r: &mut Reader) -> Option<Udp> {
    let listen = r.list("udp.listen", socket_address);
    let port = r.integer::<u16>("udp.port").and_then(NonZeroU16::new);
    let attempts = r.integer("udp.attempts");
    let first_timeout = r.duration("udp.first_timeout");
    let rate = r.optional_integer::<u32>("udp.rate");
    Some(Udp {
        listen: listen?,
        port: port?,
        attempts: attempts?,
        first_timeout: first_timeout?,
        rate: rate?.and_then(NonZeroU32::new),
    })
}

fn sms(r: &mut Reader) -> Option<Option<Sms>> {
    if !r.has_table("sms") {
        return Some(None);
    }
    let smsc = r.list("sms.smsc", str::parse::<Smsc>);
    let bind = r.choice("sms.bind", BindMode::ALL, BindMode::as_str);
    let system_id = r.text("sms.system_id");
    // SMPP 3.4 §5.2.2: nine octets with the NUL.
    let password = secret(r, "sms.sms_password_file", Shape::Password(8));
    let authorities = authorities(r, smsc.iter().flatten().any(|s| s.tls));
    let source = r.optional("sms.source", str::parse::<SmsSource>);
    let window = r.integer("sms.window");
    let rate = r.integer::<u32>("sms.rate").and_then(NonZeroU32::new);
    let enquire_link = r.duration("sms.enquire_link");
    let response_timeout = r.duration("sms.response_timeout");
    let limits = sms_limits(r);
    Some(Some(Sms {
        smsc: smsc?,
        bind: bind?,
        system_id: system_id?,
        password: password?,
        authorities: authorities?,
        source: source?,
        window: window?,
        rate: rate?,
        enquire_link: enquire_link?,
        response_timeout: response_timeout?,
        limits: limits?,
    }))
}

fn sms_limits(r: &mut Reader) -> Option<SmsLimits> {
    let attempts = r.integer("sms.attempts");
    let pull_timeout = r.duration("sms.pull_timeout");
    let interval = r.duration("sms.terminal_interval");
    let daily = r.integer("sms.terminal_daily");
    let patience = r.duration("sms.patience");
    Some(SmsLimits {
        attempts: attempts?,
        pull_timeout: pull_timeout?,
        interval: interval?,
        daily: daily?,
        patience: patience?,
    })
}

fn delivery(r: &mut Reader) -> Option<Delivery> {
    let methods = r.list("delivery.methods", |text| {
        named(text, &[Method::Http, Method::Udp, Method::Sms], Method::as_str)
    });
    let verify = r.flag("delivery.verify");
    let sms_alone =
        r.choice("delivery.sms_alone", &[SmsAlone::Accept, SmsAlone::Refuse], |alone| match alone {
            SmsAlone::Accept => "accept",
            SmsAlone::Refuse => "refuse",
        });
    let mut methods = methods?;
    // UDP is what a terminal has that declares nothing (LTKM profile §4).
    if !methods.contains(&Method::Udp) {
        methods.push(Method::Udp);
    }
    Some(Delivery { methods, verify: verify?, sms_alone: sms_alone? })
}

fn keys(r: &mut Reader) -> Option<Keys> {
    let retain = r.duration("keys.retain");
    let lead_time = r.duration("keys.lead_time");
    Some(Keys { retain: retain?, lead_time: lead_time? })
}

fn store(r: &mut Reader, node: Option<&Node>) -> Option<Store> {
    let url = r.text::<StoreUrl>("store.url").filter(|url| {
        let checked = match url {
            StoreUrl::Directory(directory) => can_be_directory(directory.path()),
            StoreUrl::Postgres(url) => url.check_authorities(),
        };
        if let Err(what) = &checked {
            r.fault("store.url", what);
        }
        checked.is_ok()
    });
    let store_key = secret(r, "store.store_key_file", Shape::HexKey);
    let mut password = secret(r, "store.store_password_file", Shape::Password(1024));
    let connections = r.integer("store.connections");
    match &url {
        Some(StoreUrl::Postgres(_)) => {
            let shared = "all daemons of a PostgreSQL store need the same one: make it with \
                          `openssl rand -hex 32`, and name its file";
            if let Some(None) = store_key {
                r.missing("store.store_key_file", shared);
            }
            if node.is_some_and(|node| node.cluster_secret.is_none()) {
                r.missing("node.cluster_secret_file", shared);
            }
        }
        Some(StoreUrl::Directory(_)) => {
            let given = password.as_mut().and_then(Option::take);
            if given.is_some() && r.has("store.store_password_file") {
                let place = r.place("store.store_password_file");
                let what = "the embedded store has no password: leave it out";
                r.warn_at(place, "store.store_password_file", what);
            }
        }
        None => {}
    }
    Some(Store { url: url?, store_key: store_key?, password: password?, connections: connections? })
}

/// Whether a path is a directory this process can write to, or can be made one.
fn can_be_directory(path: &Path) -> Result<(), String> {
    for (depth, ancestor) in path.ancestors().enumerate() {
        match fs::metadata(ancestor) {
            Ok(found) if !found.is_dir() => {
                return Err(format!("{} is not a directory: name another place", ancestor.display()));
            }
            Ok(_) => return writable(ancestor, depth > 0),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{} cannot be reached ({e}): name another place", path.display())),
        }
    }
    Err(format!("{} cannot be reached: name another place", path.display()))
}

fn writable(directory: &Path, to_make_another: bool) -> Result<(), String> {
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|e| {
        let shown = directory.display();
        let purpose = if to_make_another { " to make the directory in" } else { "" };
        format!("{shown} is not writable{purpose} ({}): make it so for the daemon's user", e.desc())
    })
}

fn admin(r: &mut Reader) -> Option<Admin> {
    let listen = r.text::<AdminListen>("admin.listen");
    let admin_token = secret(r, "admin.admin_token_file", Shape::Token);
    let key_reader_token = secret(r, "admin.key_reader_token_file", Shape::Token);
    let (listen, admin_token, key_reader_token) = (listen?, admin_token?, key_reader_token?);
    match &listen {
        AdminListen::Tcp(address) if admin_token.is_none() => {
            let what = format!(
                "the admin API listens on TCP ({address}), where a token must protect it: name the token's file, or \
                 listen on a unix socket"
            );
            r.missing("admin.admin_token_file", &what);
        }
        AdminListen::Tcp(_) => {}
        AdminListen::Unix(socket) => unix_socket(r, socket),
    }
    if admin_token.is_some() && admin_token == key_reader_token {
        let what = "is the same token as admin.admin_token_file's: give the reader of keys one of its own";
        r.fault("admin.key_reader_token_file", what);
    }
    Some(Admin { listen, admin_token, key_reader_token })
}

fn unix_socket(r: &mut Reader, socket: &Path) {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(socket) {
        // Another's, such as the service manager's, who hands it over: its directory need not be writable.
        Ok(found) if found.file_type().is_socket() => return,
        Ok(_) => {
            let what = format!("{} is there and is no socket: name another path", socket.display());
            return r.fault("admin.listen", what);
        }
        Err(_) => {}
    }
    let directory = socket.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        let what = format!("the directory {} does not exist: make it, or name another", directory.display());
        r.fault("admin.listen", what);
    } else if let Err(what) = writable(directory, false) {
        r.fault("admin.listen", what);
    }
}

/// The audit log's name where no other was given.
const AUDIT_LOG: &str = "audit.log";
/// Where a daemon keeps it whose store is elsewhere.
const STATE_DIRECTORY: &str = "/var/lib/ltkmd";

fn audit(r: &mut Reader, store: Option<&Store>) -> Option<Audit> {
    let enabled = r.flag("audit.enabled");
    let given = r.optional("audit.file", |text| match Path::new(text) {
        path if path.is_absolute() && path.file_name().is_some() && !text.contains('\0') => {
            Ok(path.to_owned())
        }
        _ => Err("is no absolute path of a file: give one, such as \"/var/log/ltkmd/audit.log\""),
    });
    let given = given?;
    let default = store.map(|store| match store.url.directory() {
        Some(directory) => (directory.join(AUDIT_LOG), false),
        None => (Path::new(STATE_DIRECTORY).join(AUDIT_LOG), true),
    });
    let (file, looked_at) = given.map(|file| (file, true)).or(default)?;
    if enabled == Some(true) && looked_at {
        audit_file(r, &file);
    }
    Some(Audit { file: enabled?.then_some(file) })
}

/// Whether the file can be appended to, or made.
fn audit_file(r: &mut Reader, file: &Path) {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let fault = if file.is_dir() {
        Some(format!("{} is a directory: name a file", file.display()))
    } else if file.exists() {
        access(file, AccessFlags::R_OK | AccessFlags::W_OK).err().map(|e| {
            format!("{} cannot be read and written ({}): let the daemon's user", file.display(), e.desc())
        })
    } else if !directory.is_dir() {
        Some(format!("the directory {} does not exist: make it, or name another", directory.display()))
    } else {
        writable(directory, false).err()
    };
    if let Some(what) = fault {
        r.fault("audit.file", what);
    }
}

fn log(r: &mut Reader) -> Option<Log> {
    let format = r.choice("log.format", LogFormat::ALL, LogFormat::as_str);
    let filter = r.text("log.filter");
    let btid = r.choice("log.btid", &BTidForm::ALL, BTidForm::as_str);
    Some(Log { format: format?, filter: filter?, btid: btid? })
}

/// Two TCP listeners cannot share an address. UDP has ports of its own.
fn separate_listeners(r: &mut Reader, http: &[SocketAddr], admin: &AdminListen) {
    let AdminListen::Tcp(admin) = admin else { return };
    let shares = |a: &SocketAddr| {
        let everywhere = a.ip().is_unspecified() || admin.ip().is_unspecified();
        a.port() == admin.port() && a.port() != 0 && (a.ip() == admin.ip() || everywhere)
    };
    if let Some(taken) = http.iter().find(|a| shares(a)) {
        r.fault("admin.listen", format!("{admin} is taken by http.listen ({taken}): give another port"));
    }
}
