//! The package of the program under test, made once, and changed copies of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::harness::PROGRAM;

/// What `packaging/deb` makes, and all of it unpacked.
pub(crate) struct Package {
    pub(crate) file: PathBuf,
    /// The files as they are installed, and those of dpkg in `DEBIAN`.
    pub(crate) tree: PathBuf,
    _directory: TempDir,
}

impl Package {
    pub(crate) fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Another package, from this one's files after a change.
    pub(crate) fn changed(&self, to: &Path, change: impl FnOnce(&Path)) {
        let tree = to.with_extension("tree");
        output(Command::new("dpkg-deb").arg("--raw-extract").arg(&self.file).arg(&tree));
        change(&tree);
        output(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
                .arg(&tree)
                .arg(to),
        );
    }
}

/// What a command says that ends well.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said =
        [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

static PACKAGE: LazyLock<Package> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb");
    let mut command = Command::new(script);
    command.args(["--program", PROGRAM, "--output"]).arg(directory.path());
    // The package is larger, and there sooner.
    command.args(["--", "--fast", "--compress-system", "--compress-type", "gz"]);
    output(command.env("CARGO_TARGET_DIR", target));
    let mut made =
        std::fs::read_dir(directory.path()).expect("made").map(|entry| entry.expect("a file").path());
    let file = made.next().expect("a package");
    assert_eq!(made.next(), None, "nothing else is left behind");
    let tree = directory.path().join("tree");
    output(Command::new("dpkg-deb").arg("--raw-extract").arg(&file).arg(&tree));
    Package { file, tree, _directory: directory }
});

/// The package of this build.
pub(crate) fn package() -> &'static Package {
    &PACKAGE
}
