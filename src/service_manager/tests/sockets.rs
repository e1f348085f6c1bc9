use std::os::unix::net::UnixStream;

use super::*;

/// A configuration in a directory, with a unix socket for operators.
struct Place {
    directory: tempfile::TempDir,
    settings: Settings,
}

impl Place {
    /// `listen` are lines for `http.listen`, `udp.listen` and, in place of the unix socket, `admin.listen`.
    fn new(listen: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        let admin = match listen.contains("admin.listen") {
            true => {
                std::fs::write(directory.path().join("token"), "token").expect("written");
                format!("admin.admin_token_file = \"{path}/token\"")
            }
            false => format!("admin.listen = \"unix:{path}/admin.sock\""),
        };
        let text = format!(
            "node.name = \"a\"\nnode.fqdn = \"a.example\"\nstore.url = \"file:{path}/s\"\n{admin}\n{listen}"
        );
        let settings = Settings::from_toml_str(&text, "a.toml").unwrap_or_else(|faults| panic!("{faults}"));
        Self { directory, settings }
    }

    fn fit(&self, handed: Vec<Handed>) -> Result<Sockets, Vec<String>> {
        let faults = |faults: Vec<HandOverError>| faults.iter().map(ToString::to_string).collect();
        Sockets::fit(handed, &self.settings).map_err(faults)
    }

    /// Binds the operators' socket.
    fn unix(&self, name: &str, mode: u32) -> Handed {
        let path = self.directory.path().join(name);
        let socket = UnixListener::bind(&path).expect("bound");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode set");
        handed(ADMIN, socket)
    }
}

fn handed(name: &str, socket: impl Into<OwnedFd>) -> Handed {
    Handed::new(name.to_owned(), socket.into())
}

fn tcp() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = socket.local_addr().expect("bound");
    (socket, at)
}

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let at = socket.local_addr().expect("bound");
    (socket, at)
}

fn at(socket: Option<&Option<TcpListener>>) -> Option<SocketAddr> {
    socket?.as_ref()?.local_addr().ok()
}

#[test]
fn each_socket_has_the_place_of_its_address_whatever_the_order_and_the_names() {
    let (((a, at_a), (b, at_b)), (u, at_u)) = ((tcp(), tcp()), udp());
    let place = Place::new(&format!(
        "http.listen = [\"{at_a}\", \"127.0.0.1:1\", \"{at_b}\"]\nudp.listen = \"{at_u}\""
    ));
    let unix = place.unix("admin.sock", 0o660);
    let sockets = place.fit(vec![unix, handed("b.socket", b), handed("unknown", u), handed(HTTP, a)]);
    let sockets = sockets.expect("all fit");
    assert_eq!([0, 1, 2].map(|n| at(sockets.http.get(n))), [Some(at_a), None, Some(at_b)]);
    assert_eq!(sockets.udp[0].as_ref().and_then(|u| u.local_addr().ok()), Some(at_u));
    assert!(matches!(sockets.admin, Some(AdminSocket::Unix(_))) && sockets.any());
}

#[test]
fn port_0_is_any_port_that_no_other_address_names() {
    let ((a, at_a), (b, at_b)) = (tcp(), tcp());
    let place = Place::new(&format!("http.listen = [\"127.0.0.1:0\", \"{at_b}\"]"));
    let sockets = place.fit(vec![handed(HTTP, a), handed(HTTP, b)]).expect("both fit");
    assert_eq!([0, 1].map(|n| at(sockets.http.get(n))), [Some(at_a), Some(at_b)]);
    let ((a, _), (b, _)) = (tcp(), tcp());
    let refused = Place::new("http.listen = \"127.0.0.1:0\"").fit(vec![handed(HTTP, a), handed(HTTP, b)]);
    let refused = refused.expect_err("there is one place");
    assert!(refused[0].contains("another socket has its place in http.listen"), "{refused:?}");
}

#[test]
fn a_tcp_socket_is_the_admin_apis_by_name_or_by_address() {
    let ((a, at_a), (b, at_b)) = (tcp(), tcp());
    let listen = format!("http.listen = \"{at_a}\"\nadmin.listen = \"{at_b}\"");
    let sockets = Place::new(&listen).fit(vec![handed("x", b), handed("x", a)]).expect("both fit");
    assert_eq!(at(sockets.http.first()), Some(at_a));
    assert!(
        matches!(sockets.admin, Some(AdminSocket::Tcp(tcp)) if tcp.local_addr().is_ok_and(|a| a == at_b))
    );
    // With the name of the one and the address of the other it is neither.
    let ((a, at_a), (b, at_b)) = (tcp(), tcp());
    let listen = format!("http.listen = \"{at_a}\"\nadmin.listen = \"{at_b}\"");
    let refused = Place::new(&listen).fit(vec![handed(HTTP, b), handed(ADMIN, a)]).expect_err("mixed up");
    assert!(refused[0].contains(&format!("at {at_b} is handed over, but http.listen")), "{refused:?}");
    assert!(refused[1].contains(&format!("at {at_a} is handed over, but admin.listen")), "{refused:?}");
}

#[test]
fn all_that_does_not_fit_is_told_at_once() {
    let place = Place::new("http.listen = \"127.0.0.1:1\"\nudp.listen = \"127.0.0.1:2\"");
    let ((a, at_a), (u, at_u)) = (tcp(), udp());
    let other = place.unix("other.sock", 0o660);
    let refused = place.fit(vec![handed(HTTP, a), handed(UDP, u), other]).expect_err("nothing fits");
    assert_eq!(refused.len(), 3);
    let told = |parts: [&str; 2]| refused.iter().any(|fault| parts.iter().all(|part| fault.contains(part)));
    assert!(told([&at_a.to_string(), "http.listen = [\"127.0.0.1:1\"]"]), "{refused:?}");
    assert!(told([&at_u.to_string(), "udp.listen = [\"127.0.0.1:2\"]"]), "{refused:?}");
    assert!(told(["other.sock", "admin.listen"]), "{refused:?}");
}

#[test]
fn a_socket_of_another_kind_is_refused() {
    let place = Place::new("http.listen = \"127.0.0.1:0\"");
    let (listener, at) = tcp();
    let connection = std::net::TcpStream::connect(at).expect("connected");
    let (pair, _other) = UnixStream::pair().expect("a pair");
    let file = std::fs::File::open("/dev/null").expect("a file");
    let refused = place.fit(vec![handed(HTTP, connection), handed(ADMIN, pair), handed("file", file)]);
    let refused = refused.expect_err("none is of use");
    assert!(refused[0].contains("not used here") && refused[0].contains("Accept=no"), "{refused:?}");
    assert!(refused[1].contains("not used here"), "{refused:?}");
    assert!(refused[2].contains("a descriptor named \"file\""), "{refused:?}");
    drop(listener);
}

#[test]
fn an_admin_socket_that_every_user_may_write_to_is_refused() {
    let place = Place::new("");
    let open = place.unix("admin.sock", 0o666);
    let refused = place.fit(vec![open]).expect_err("anybody could call");
    assert!(refused[0].contains("mode 0666") && refused[0].contains("SocketMode=0660"), "{refused:?}");
}

#[test]
fn a_udp_socket_for_all_addresses_of_ipv6_takes_no_ipv4() {
    let bound = |only_v6| {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
        socket.set_only_v6(only_v6).expect("set");
        socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into()).expect("bound");
        handed(UDP, UdpSocket::from(socket))
    };
    let place = Place::new("udp.listen = \"[::]:0\"");
    let refused = place.fit(vec![bound(false)]).expect_err("it takes both");
    assert!(refused[0].contains("BindIPv6Only=ipv6-only"), "{refused:?}");
    assert!(place.fit(vec![bound(true)]).is_ok_and(|sockets| sockets.udp[0].is_some()));
}

#[test]
fn without_anything_handed_over_all_is_bound_here() {
    assert!(!Place::new("").fit(Vec::new()).expect("nothing to fit").any());
}
