//! The handbook's chapters as manual pages: their names, and the Markdown that they are made of.

/// A chapter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    /// The page's name, without its section.
    pub(super) name: &'static str,
    /// The manual's section: 5 for files, 7 for everything else.
    pub(super) section: &'static str,
    /// The chapter's file in `docs`.
    pub(super) file: &'static str,
    /// What is in it.
    pub(super) text: &'static str,
}

macro_rules! pages {
    ($($name:literal ($section:literal) = $file:literal;)*) => {
        /// Every chapter, in the order of the handbook.
        pub(super) const PAGES: &[Page] = &[$(Page {
            name: $name,
            section: $section,
            file: $file,
            text: include_str!(concat!("../../../docs/", $file)),
        }),*];
    };
}

pages! {
    "ltkmd-handbook"("7") = "README.md";
    "ltkmd-install"("7") = "install.md";
    "ltkmd-packages"("7") = "packages.md";
    "ltkmd-configure"("7") = "configure.md";
    "ltkmd.toml"("5") = "configuration.md";
    "ltkmd-systemd"("7") = "systemd.md";
    "ltkmd-first-service"("7") = "first-service.md";
    "ltkmd-key-ceremony"("7") = "key-ceremony.md";
    "ltkmd-monitor"("7") = "monitor.md";
    "ltkmd-page"("7") = "page.md";
    "ltkmd-metrics"("7") = "metrics.md";
    "ltkmd-audit"("7") = "audit.md";
    "ltkmd-cluster"("7") = "cluster.md";
    "ltkmd-migrate-store"("7") = "migrate.md";
    "ltkmd-backup"("7") = "backup.md";
    "ltkmd-upgrade"("7") = "upgrade.md";
    "ltkmd-troubleshoot"("7") = "troubleshoot.md";
    "ltkmd-sizing"("7") = "sizing.md";
    "ltkmd-performance"("7") = "PERFORMANCE.md";
    "ltkmd-scaling"("7") = "SCALING.md";
    "ltkmd-soak"("7") = "SOAK.md";
}

impl Page {
    /// The page that is called so: `ltkmd-install`, `install`, `ltkmd-install.7` or `ltkmd-install(7)`.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        let is = |page: &&Self| {
            let short = page.name.strip_prefix("ltkmd-").unwrap_or(page.name);
            let rest = name.strip_prefix(page.name).or_else(|| name.strip_prefix(short));
            let section = rest.map(|rest| rest.trim_matches(['.', '(', ')']));
            section.is_some_and(|section| section.is_empty() || section == page.section)
        };
        PAGES.iter().find(is)
    }

    /// The page that a link between chapters leads to.
    pub(super) fn linked(target: &str) -> Option<&'static Self> {
        let path = target.split('#').next().unwrap_or_default();
        let file = path.strip_prefix("docs/").unwrap_or(path);
        PAGES.iter().find(|page| page.file == file)
    }

    /// The chapter's title: its first heading.
    pub(super) fn title(&self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_chapter_has_a_title_and_a_name_that_finds_it() {
        let names: BTreeSet<_> = PAGES.iter().map(|page| page.name).collect();
        assert_eq!(names.len(), PAGES.len(), "names are their own");
        for page in PAGES {
            assert_ne!(page.title(), page.name, "{} has a heading", page.file);
            for name in [page.name.to_owned(), format!("{}({})", page.name, page.section)] {
                assert_eq!(Page::named(&name).map(|p| p.file), Some(page.file), "{name}");
            }
        }
        assert_eq!(Page::named("troubleshoot").map(|p| p.name), Some("ltkmd-troubleshoot"));
        assert!(Page::named("ltkmd-install.1").is_none() && Page::named("inst").is_none());
    }

    #[test]
    fn what_the_handbook_links_to_in_its_directory_is_a_page() {
        let handbook = PAGES[0];
        for part in handbook.text.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if !target.contains('/') && !target.starts_with('#') {
                assert!(Page::linked(target).is_some(), "{target} needs its line in the table of pages");
            }
        }
        for page in &PAGES[1..] {
            assert!(handbook.text.contains(&format!("]({})", page.file)), "{} is linked", page.file);
        }
    }
}
