//! What is in the package.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::PROGRAM;
use crate::made::{output, package};

/// The names of a directory's files that end so.
fn names(directory: &Path, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let names: Vec<_> = names.filter(|name| name.ends_with(end)).collect();
    assert!(!names.is_empty(), "{} has …{end}", directory.display());
    names
}

#[test]
fn it_holds_every_file_with_its_mode_and_all_are_roots() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = tempfile::tempdir().expect("a directory");
    output(Command::new(PROGRAM).args(["man", "--directory"]).arg(pages.path()));

    let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
    let mut file = |path: String| wanted.insert(format!("./{path}"), "-rw-r--r--");
    for name in ["ltkmd.service", "ltkmd-http.socket", "ltkmd-udp.socket", "ltkmd-admin.socket"] {
        file(format!("usr/lib/systemd/system/{name}"));
    }
    for path in [
        "etc/ltkmd/ltkmd.toml",
        "usr/lib/sysusers.d/ltkmd.conf",
        "usr/lib/tmpfiles.d/ltkmd.conf",
        "usr/share/bash-completion/completions/ltkmd",
        "usr/share/zsh/vendor-completions/_ltkmd",
        "usr/share/fish/vendor_completions.d/ltkmd.fish",
        "usr/share/lintian/overrides/ltkmd",
    ] {
        file(path.to_owned());
    }
    for name in
        ["copyright", "changelog.gz", "changelog.Debian.gz", "third-party.gz", "README.md", "ARCHITECTURE.md"]
    {
        file(format!("usr/share/doc/ltkmd/{name}"));
    }
    for (from, to, end) in [
        (&pages.path().join("man1"), "man/man1", ".1"),
        (&pages.path().join("man5"), "man/man5", ".5"),
        (&pages.path().join("man7"), "man/man7", ".7"),
        (&sources.join("docs"), "doc/ltkmd/docs", ".md"),
        (&sources.join("docs/images"), "doc/ltkmd/docs/images", ""),
        (&sources.join("config"), "doc/ltkmd/examples", ".toml"),
        (&sources.join("config/prometheus"), "doc/ltkmd/examples/prometheus", ".yml"),
        (&sources.join("config/grafana"), "doc/ltkmd/examples/grafana", ".json"),
        (&sources.join("config/cluster"), "doc/ltkmd/examples/cluster", ".sql"),
        (&sources.join("config/cluster"), "doc/ltkmd/examples/cluster", ".cfg"),
        (&sources.join("config/cluster"), "doc/ltkmd/examples/cluster", ".conf"),
        (&sources.join("config/cluster/template"), "doc/ltkmd/examples/cluster/template", ""),
    ] {
        for name in names(from, end) {
            file(format!("usr/share/{to}/{name}{}", if to.starts_with("man/") { ".gz" } else { "" }));
        }
    }
    for program in ["bin/ltkmd", "share/doc/ltkmd/examples/cluster/node"] {
        wanted.insert(format!("./usr/{program}"), "-rwxr-xr-x");
    }

    let listing = output(Command::new("dpkg-deb").arg("--contents").arg(&package().file));
    let mut held = BTreeMap::new();
    for line in listing.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[words.len() - 1]);
        assert!(["0/0", "root/root"].contains(&owner), "{line}");
        if path.ends_with('/') {
            assert_eq!(mode, "drwxr-xr-x", "{line}");
        } else {
            held.insert(path.to_owned(), mode);
        }
    }
    assert_eq!(held, wanted);
    assert_eq!(package().text("DEBIAN/conffiles").trim(), "/etc/ltkmd/ltkmd.toml");
}

#[test]
fn it_says_which_version_it_is_and_what_it_needs() {
    let field = |name: &str| {
        let value = output(Command::new("dpkg-deb").arg("--field").arg(&package().file).arg(name));
        value.trim().to_owned()
    };
    let version = field("Version");
    assert_eq!(version, format!("{}-1", env!("CARGO_PKG_VERSION")));
    let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/changelog");
    let newest = output(Command::new("dpkg-parsechangelog").arg("-l").arg(changelog).args(["-S", "Version"]));
    assert_eq!(newest.trim(), version, "packaging/debian/changelog tells of this version first");
    // What the program is linked to, found by dpkg-shlibdeps.
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    assert!(field("Depends").contains("systemd (>= 252)"), "{}", field("Depends"));
    let size: u64 = field("Installed-Size").parse().expect("KiB");
    let program = std::fs::metadata(package().tree.join("usr/bin/ltkmd")).expect("the program").len() >> 10;
    assert!((program..program + 4096).contains(&size), "{size} KiB, the program has {program}");
}

/// What lintian says of a package, line by line.
fn lintian(file: &Path) -> Vec<String> {
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--fail-on", "none", "--tag-display-limit", "0"]);
    let said = command.arg(file).output().expect("this test needs lintian (Debian: apt-get install lintian)");
    assert!(said.status.success(), "{said:?}");
    String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn lintian_has_neither_errors_nor_warnings() {
    assert_eq!(lintian(&package().file), Vec::<String>::new());
    // It does find what is wrong.
    let directory = tempfile::tempdir().expect("a directory");
    let wrong = directory.path().join("wrong.deb");
    package().changed(&wrong, |tree| {
        std::fs::remove_file(tree.join("usr/share/doc/ltkmd/copyright")).expect("removed");
    });
    let said = lintian(&wrong);
    assert!(said.iter().any(|line| line.starts_with("E: ltkmd: no-copyright-file")), "{said:?}");
}

/// What groff has to say against a manual page.
fn complaints(page: &Path) -> String {
    let mut command = Command::new("man");
    command.args(["--warnings", "--encoding=UTF-8", "--local-file", "-Tutf8", "-Z"]).arg(page);
    let said = command.env("LC_ALL", "C.UTF-8").env_remove("MANPATH").output();
    let said = said.expect("this test needs man (Debian: apt-get install man-db)");
    assert!(said.status.success() && !said.stdout.is_empty(), "{page:?}: {said:?}");
    String::from_utf8_lossy(&said.stderr).into_owned()
}

#[test]
fn every_manual_page_is_shown_without_a_warning() {
    for section in ["man1", "man5", "man7"] {
        let pages = package().tree.join("usr/share/man").join(section);
        for name in names(&pages, ".gz") {
            assert_eq!(complaints(&pages.join(&name)), "", "{name}");
        }
    }
    let wrong = tempfile::NamedTempFile::with_suffix(".1").expect("a file");
    std::fs::write(wrong.path(), ".TH wrong 1\n.SH NAME\nwrong \\- wrong\n.nosuch\n").expect("written");
    assert_ne!(complaints(wrong.path()), "");
}

#[test]
fn bash_completes_commands_and_options_from_the_packages_script() {
    let script = package().tree.join("usr/share/bash-completion/completions/ltkmd");
    let complete = |words: &str| {
        // As bash calls it: the function that is registered for the program, with the words so far.
        let source = format!(
            r#"source "$1" || exit 1
            read -ra registered <<< "$(complete -p ltkmd)"
            for at in "${{!registered[@]}}"; do [ "${{registered[at]}}" = -F ] && by=${{registered[at + 1]}}; done
            COMP_WORDS=(ltkmd {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            "$by" ltkmd "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
            printf '%s ' "${{COMPREPLY[@]}}""#
        );
        let said = output(Command::new("bash").args(["--norc", "-c", &source, "bash"]).arg(&script));
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("ser"), ["serve"]);
    assert_eq!(complete("ctl key ro"), ["rotate"]);
    assert_eq!(complete("serve --conf"), ["--config"]);
}

#[test]
fn the_crates_that_are_linked_have_their_licences_in_it() {
    let text = output(Command::new("zcat").arg(package().tree.join("usr/share/doc/ltkmd/third-party.gz")));
    let (list, notices) = text.split_once("\n-----").expect("a list, then notices");
    for name in ["tokio", "ring", "rustls", "fjall"] {
        let row = list.lines().find(|line| line.starts_with(&format!("{name} ")));
        let row = row.unwrap_or_else(|| panic!("{name} in {list}"));
        let version = row.split_whitespace().nth(1).expect("a version");
        assert!(notices.contains(&format!("{name} {version}")), "{name} brings a text");
    }
    assert!(notices.contains("THE SOFTWARE IS PROVIDED \"AS IS\""), "the texts are there");
    // What is only built or tested with is not linked.
    assert!(!list.contains("\nproptest "), "{list}");
}
