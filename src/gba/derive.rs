//! Key derivation (TS 33.220 annex B): Ks → Ks_(ext_)NAF, Ks_int_NAF → MRK, MUK.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::GbaType;
use crate::secret::Secret;

/// FC of the GBA derivations (TS 33.220 §B.3).
const FC: u8 = 0x01;

/// Ua security protocol identifier of MBMS (TS 33.220 annex H), the second half of the NAF_Id.
const UA_MBMS: [u8; 5] = [0x01, 0x00, 0x00, 0x00, 0x01];

/// What a NAF needs of one security association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// MBMS request key, 32 octets.
    pub mrk: Secret,
    /// MBMS user key, 32 octets.
    pub muk: Secret,
}

/// `HMAC-SHA-256(key, FC ‖ P0 ‖ L0 ‖ P1 ‖ L1 …)`, each L the parameter's length in 16 bits.
fn kdf(key: &[u8], parameters: &[&[u8]]) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&[FC]);
    for p in parameters {
        let len = u16::try_from(p.len()).expect("parameters are shorter than 65,536 octets");
        mac.update(p);
        mac.update(&len.to_be_bytes());
    }
    Secret::from(mac.finalize().into_bytes().as_slice())
}

/// Derives MRK and MUK from a Ks (TS 33.246 §6.1): GBA_ME: MUK = Ks_NAF, MRK = KDF(Ks_NAF, "mbms-mrk");
/// GBA_U: MUK = Ks_int_NAF, MRK = Ks_ext_NAF.
///
/// `ks` is CK ‖ IK (32 octets), `rand` the bootstrapping run's RAND (16), `impi` the private identity and
/// `naf_fqdn` the name that the terminal knows this NAF by; both at most 65,535 octets.
pub fn derive(gba: GbaType, ks: &[u8], rand: &[u8], impi: &str, naf_fqdn: &str) -> KeyPair {
    let mut naf_id = naf_fqdn.as_bytes().to_vec();
    naf_id.extend_from_slice(&UA_MBMS);
    let naf = |label: &[u8]| kdf(ks, &[label, rand, impi.as_bytes(), &naf_id]);
    match gba {
        GbaType::Me => {
            let muk = naf(b"gba-me");
            KeyPair { mrk: kdf(muk.expose(), &[b"mbms-mrk"]), muk }
        }
        GbaType::U => KeyPair { mrk: naf(b"gba-me"), muk: naf(b"gba-u") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[derive(serde::Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        ks: String,
        rand: String,
        impi: String,
        naf_fqdn: String,
        mrk_gba_me: String,
        muk_gba_me: String,
        mrk_gba_u: String,
        muk_gba_u: String,
    }

    #[test]
    fn the_published_vectors_are_reproduced_for_both_types() {
        let vectors: Vectors =
            serde_json::from_str(include_str!("../../tests/vectors/gba.json")).expect("the vectors are JSON");
        assert!(!vectors.cases.is_empty());
        let hex = |s: &str| HEXLOWER.decode(s.as_bytes()).expect("hex");
        for case in vectors.cases {
            let (ks, rand) = (hex(&case.ks), hex(&case.rand));
            for (gba, mrk, muk) in [
                (GbaType::Me, &case.mrk_gba_me, &case.muk_gba_me),
                (GbaType::U, &case.mrk_gba_u, &case.muk_gba_u),
            ] {
                let pair = derive(gba, &ks, &rand, &case.impi, &case.naf_fqdn);
                assert_eq!(pair.mrk.expose(), hex(mrk), "MRK of {}", case.impi);
                assert_eq!(pair.muk.expose(), hex(muk), "MUK of {}", case.impi);
            }
        }
    }
}
