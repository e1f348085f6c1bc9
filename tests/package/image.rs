//! The recipe of the image and the configuration in it say the same.

use std::path::Path;

use ltkmd::config::Settings;

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

/// What stands behind an instruction of the recipe's last stage.
fn instruction<'a>(recipe: &'a str, name: &str) -> &'a str {
    let (_, stage) = recipe.split_once("\nFROM scratch\n").expect("a last stage");
    let mut found = stage.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.next().unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_image_opens_the_ports_that_its_configuration_listens_on_and_needs_only_a_name() {
    let (recipe, configuration) = (source("packaging/Containerfile"), source("packaging/image/ltkmd.toml"));
    let faults = Settings::from_toml_str(&configuration, "image").expect_err("nobody made a name up");
    let faults = faults.to_string();
    assert!(faults.contains("node.fqdn"), "{faults}");

    let directory = tempfile::tempdir().expect("a directory");
    // Where the image has directories of its own.
    let at = format!("unix:{}/admin.sock", directory.path().display());
    let named = configuration.replace("unix:/run/ltkmd/admin.sock", &at);
    assert_ne!(named, configuration, "ctl looks there first");
    let settings = Settings::from_toml_str(&format!("node.fqdn = \"bmsc.example.com\"\n{named}"), "image");
    let settings = settings.expect("it needs nothing else");
    let (http, udp) = (settings.http.listen[0], settings.udp.listen[0]);
    assert!(
        http.ip().is_unspecified() && udp.ip().is_unspecified(),
        "no address of a container is known before"
    );
    assert_eq!(instruction(&recipe, "EXPOSE"), format!("{}/tcp {}/udp", http.port(), udp.port()));
    let store = settings.store.url.directory().expect("an embedded store").display().to_string();
    assert_eq!(instruction(&recipe, "VOLUME"), format!("[\"{store}\"]"));
}

#[test]
fn the_images_user_owns_what_the_daemon_writes_to_and_is_not_root() {
    let (recipe, script) = (source("packaging/Containerfile"), source("packaging/image/rootfs"));
    let user = script.lines().find_map(|line| line.strip_prefix("user=")).expect("a number");
    assert_ne!(user.parse::<u32>().expect("a number"), 0);
    assert_eq!(instruction(&recipe, "USER"), format!("{user}:{user}"));
}
