//! The page that operators look at, in a real browser: Chromium without a window, driven over its debugging pipe.

mod harness;

#[path = "page/browser.rs"]
mod browser;
#[path = "page/sight.rs"]
mod sight;
