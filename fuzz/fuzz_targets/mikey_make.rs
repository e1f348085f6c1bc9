#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ltkmd_fuzz::mikey::make(octets));
