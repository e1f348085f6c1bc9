//! What a fuzzer does with an input: read it as every document, and prove that what was read survives writing.

use crate::procedure::Procedure;

use super::{
    ContainerChildren, DeregistrationRequest, DeregistrationResponse, DocumentError, Limits, MskRequest,
    MskResponse, RegistrationRequest, RegistrationResponse, Style, media_type,
};

/// Reads `data` as each of the documents and as a media type.
///
/// # Panics
/// When a document that was read does not survive being written and read again, or an error is not fit for a log
/// line: the fault that fuzzing looks for.
pub fn documents(data: &[u8]) {
    macro_rules! check {
        ($($document:ident),*) => {$(
            match $document::read(data, &Limits::default()) {
                Ok((document, form)) => {
                    for children in [ContainerChildren::Qualified, ContainerChildren::DefaultNamespace] {
                        let body = document.write(Style { children, form });
                        let limits = Limits { max_octets: usize::MAX, ..Limits::default() };
                        let again = $document::read(&body, &limits);
                        assert_eq!(again, Ok((document.clone(), form)), "a round trip changed the document");
                    }
                }
                Err(error) => check_error(&error),
            }
        )*};
    }
    check!(
        RegistrationRequest,
        DeregistrationRequest,
        MskRequest,
        RegistrationResponse,
        DeregistrationResponse,
        MskResponse
    );
    // Any answer will do: only a panic is a fault.
    let _ = media_type::check(Some(data), Procedure::Register);
}

fn check_error(error: &DocumentError) {
    let line = error.to_string();
    assert!(line.len() < 300, "a long error: {line}");
    assert!(line.bytes().all(|b| (0x20..0x7F).contains(&b)), "an error that is no log line: {line:?}");
    assert!(error.line >= 1);
}
