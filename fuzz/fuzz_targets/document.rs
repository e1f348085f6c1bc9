#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ltkmd::document::fuzz::documents(octets));
