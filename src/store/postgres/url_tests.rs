use super::*;

fn url(text: &str) -> PgUrl {
    text.parse().unwrap_or_else(|fault| panic!("{text} {fault}"))
}

fn fault(text: &str) -> String {
    text.parse::<PgUrl>().expect_err(text).to_string()
}

const CA: &str = "sslrootcert=/etc/ca.pem";

#[test]
fn servers_are_read_from_the_authority_or_the_parameters() {
    let tcp = |host: &str, port| PgHost::Tcp(host.to_owned(), port);
    let unix = |directory: &str, port| PgHost::Unix(PathBuf::from(directory), port);
    for (text, hosts) in [
        ("postgres://localhost/db", vec![tcp("localhost", 5432)]),
        ("postgresql://127.0.0.1:6000/db", vec![tcp("127.0.0.1", 6000)]),
        ("postgres://[::1]/db", vec![tcp("::1", 5432)]),
        ("postgres://[::1]:6000/db", vec![tcp("::1", 6000)]),
        (
            "postgres://DB1:1,db_2,[fd00::1]:3/db?sslrootcert=/ca",
            vec![tcp("db1", 1), tcp("db_2", 5432), tcp("fd00::1", 3)],
        ),
        ("postgres:///db?host=/run/postgresql", vec![unix("/run/postgresql", 5432)]),
        ("postgres://u@/db?host=/run/postgresql&port=6000", vec![unix("/run/postgresql", 6000)]),
        ("postgres://%2Frun%2Fpostgresql:6000/db", vec![unix("/run/postgresql", 6000)]),
        ("postgres:///db?host=localhost,/tmp&port=1,2", vec![tcp("localhost", 1), unix("/tmp", 2)]),
        ("postgres:///db?host=localhost,/tmp&port=7", vec![tcp("localhost", 7), unix("/tmp", 7)]),
    ] {
        assert_eq!(url(text).hosts(), hosts, "{text}");
    }
}

#[test]
fn user_and_database_are_percent_decoded() {
    let read = url("postgres://a%40b@localhost/k%2Fe%20y");
    assert_eq!((read.user(), read.database()), (Some("a@b"), "k/e y"));
    let read = url("postgres://localhost?user=u&dbname=d&target_session_attrs=read-write");
    assert_eq!((read.user(), read.database()), (Some("u"), "d"));
    assert_eq!(url("postgres://localhost/d").user(), None);
}

#[test]
fn servers_elsewhere_are_verified_unless_the_url_says_otherwise() {
    let mode = |text: &str, i: usize| {
        let read = url(text);
        read.tls(&read.hosts()[i])
    };
    for local in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "%2Ftmp"] {
        assert_eq!(mode(&format!("postgres://{local}/d"), 0), TlsMode::Disable, "{local}");
    }
    let both = format!("postgres://db1,%2Ftmp/d?{CA}");
    assert_eq!((mode(&both, 0), mode(&both, 1)), (TlsMode::VerifyFull, TlsMode::Disable));
    assert_eq!(mode(&format!("postgres://localhost/d?{CA}"), 0), TlsMode::VerifyFull);
    assert_eq!(mode("postgres://db1/d?sslmode=disable", 0), TlsMode::Disable);
    assert_eq!(mode("postgres://db1/d?sslmode=require", 0), TlsMode::Require);
    for unverified in
        ["postgres://db1/d", "postgres://localhost,db1/d", "postgres://localhost/d?sslmode=verify-full"]
    {
        assert!(fault(unverified).contains("add ?sslrootcert=FILE"), "{unverified}");
    }
    for idle in
        ["postgres://db1/d?sslmode=require&", "postgres://db1/d?sslmode=disable&", "postgres:///d?host=/tmp&"]
    {
        assert!(fault(&format!("{idle}{CA}")).contains("nothing is verified with"), "{idle}");
    }
}

#[test]
fn a_password_is_refused_wherever_it_stands_and_never_repeated() {
    for text in [
        "postgres://u:hunter2@localhost/d",
        "postgres://u:@localhost/d",
        "postgres://u:hunt@er2@localhost/d",
        "postgres://localhost/d?password=hunter2",
        "postgres://localhost/d?pass%77ord=hunter2",
        "postgres://localhost/d?PASSWORD=hunter2",
        "postgres://u:hunter2/x@localhost/d",
        "postgres://u:1/hunter2@localhost/d",
        "postgres://u:1/hunter2@localhost",
    ] {
        let told = fault(text);
        assert!(!told.contains("hunt") && !told.contains("er2"), "{text}: {told}");
        if !text.contains("hunter2/") {
            assert!(told.contains("store.store_password_file"), "{text}: {told}");
        }
    }
}

#[test]
fn what_is_no_url_of_a_store_is_refused_with_what_to_do() {
    for (text, told) in [
        ("", "is no URL of a database"),
        ("mysql://localhost/d", "is no URL of a database"),
        ("postgres:localhost/d", "is no URL of a database"),
        ("postgres://localhost", "names no database"),
        ("postgres://localhost/", "names no database"),
        ("postgres:///d", "names no server"),
        ("postgres://localhost:0/d", "no port from 1 to 65535"),
        ("postgres://localhost:65536/d", "no port from 1 to 65535"),
        ("postgres://localhost:+1/d", "no port from 1 to 65535"),
        ("postgres://localhost:/d", "no port from 1 to 65535"),
        ("postgres:///d?host=localhost,localhost,localhost&port=1,2", "not as many ports"),
        ("postgres://localhost/d?host=db1", "servers twice"),
        ("postgres://localhost/d?port=1", "servers twice"),
        ("postgres://a b/d", "no valid host"),
        ("postgres://localhost,/d", "no valid host"),
        ("postgres://[localhost]/d", "no valid host"),
        ("postgres://::1/d", "no valid host"),
        ("postgres://@localhost/d", "has no user"),
        ("postgres://u@localhost/d?user=v", "user twice"),
        ("postgres://localhost/d?dbname=e", "database twice"),
        ("postgres://localhost/d%0A", "has no database of"),
        ("postgres://localhost/d%", "without two hex digits"),
        ("postgres://localhost/%FF", "not UTF-8"),
        ("postgres://localhost/d?sslmode=prefer", "give disable, require or verify-full"),
        ("postgres://localhost/d?sslmode=disable&sslmode=disable", "sslmode twice"),
        ("postgres://localhost/d?sslrootcert=ca.pem", "no absolute path"),
        ("postgres://localhost/d?target_session_attrs=any", "leave it out"),
        ("postgres://localhost/d?options=-csearch_path=x", "a parameter that is not known here"),
    ] {
        assert!(fault(text).contains(told), "{text}: {}", fault(text));
    }
    let many = ["localhost"; MAX_HOSTS + 1].join(",");
    assert!(fault(&format!("postgres://{many}/d")).contains("16 at most"));
    assert!(
        fault(&format!("postgres://localhost/{}", "d".repeat(MAX_NAME + 1))).contains("has no database of")
    );
}

#[test]
fn what_is_shown_reads_as_the_same() {
    for text in [
        "postgres://localhost:5432/d",
        "postgres://a%40b@[::1]:6000/k%2Fe%20y?sslmode=require",
        "postgres://u@/d?host=/run/postgresql&port=6000",
        "postgres:///d?host=/run/my%20sockets",
        "postgres://db1:1,%2Ftmp:2/d?sslmode=verify-full&sslrootcert=/etc/my%20ca.pem",
    ] {
        assert_eq!(url(text).to_string(), text);
        assert_eq!(url(&url(text).to_string()), url(text), "{text}");
    }
    let read = url("postgres://u@db1/keys?sslmode=require");
    assert_eq!(read.place(&read.hosts()[0]), "db1:5432/keys");
}
