//! Where log lines go when that is not stderr, and how long what they repeat may be.

mod journald;

use tracing::Level;
use tracing_subscriber::filter::FilterFn;

pub use journald::{JOURNAL, Journal, JournalError};

/// Keeps back what the database driver tells at `debug` and `trace`, whatever the filter says: the values that are
/// written, which name terminals and subscribers.
pub fn no_parameters() -> FilterFn {
    FilterFn::new(|about| {
        *about.level() <= Level::INFO || about.target().split("::").next() != Some("tokio_postgres")
    })
}

/// A text's beginning of at most so many octets, whole characters of it.
pub(crate) fn beginning(text: &str, octets: usize) -> &str {
    let mut end = text.len().min(octets);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::{EnvFilter, Layer, Registry};

    use super::no_parameters;

    /// The targets of the events that came through.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Layer<Registry> for Heard {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
            let line = format!("{} {}", event.metadata().level(), event.metadata().target());
            self.0.lock().expect("nobody panics").push(line);
        }
    }

    #[test]
    fn what_is_written_to_a_database_is_in_no_log_whatever_the_filter_says() {
        for text in ["trace", "tokio_postgres=trace,ltkmd=debug", "[request]=trace,ltkmd=debug"] {
            let heard = Heard::default();
            let filter = EnvFilter::builder().parse(text).expect("a filter");
            let layers = heard.clone().and_then(filter).and_then(no_parameters());
            with_default(Registry::default().with(layers), || {
                let _request = tracing::info_span!("request").entered();
                tracing::debug!(target: "tokio_postgres::query", "executing with parameters");
                tracing::trace!(target: "tokio_postgres", "polled");
                tracing::info!(target: "tokio_postgres::connection", "NOTICE");
                tracing::debug!(target: "ltkmd", "said");
            });
            let heard = heard.0.lock().expect("nobody panics").clone();
            assert!(heard.contains(&"DEBUG ltkmd".to_owned()), "{text}");
            let told: Vec<_> = heard.iter().filter(|l| l.contains("tokio_postgres")).collect();
            assert!(told.iter().all(|l| l.starts_with("INFO")), "{told:?}");
        }
    }
}
