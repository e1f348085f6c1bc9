//! Making a load run's terminals known to the daemon, and asking it what it counted.

use data_encoding::HEXLOWER;
use hyper::Request;
use indicatif::ProgressBar;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::people;
use crate::cli::client::{Client, Endpoint, body, stream};
use crate::cli::ctl::api::{Api, encode};
use crate::cli::ue::credential::Credential;
use crate::id::ServiceId;

/// Octets of one piece of an import.
const PIECE: usize = 64 << 10;

/// Pieces that wait to be sent.
const PIECES: usize = 8;

/// The key domain of services that are made here: the test network 001-01.
const KEY_DOMAIN: &str = "00f110";

/// The counter of verified LTKMs among the daemon's metrics.
const VERIFIED: &str = "ltkmd_ltkm_verified_total{";

/// Makes the services that are not there yet: open to everybody, in the key domain of the test network and a group
/// that follows from their id.
pub(super) async fn services(api: &mut Api, services: &[ServiceId]) -> Result<(), String> {
    for service in services {
        let path = format!("/v1/services/{}", encode(service.as_str()));
        if api.get(&path).await.is_ok() {
            continue;
        }
        let group = Sha256::digest(service.as_str().as_bytes());
        let document = json!({
            "key_domain": KEY_DOMAIN,
            "key_group": HEXLOWER.encode(&group[..2]),
            "validity": "ntp",
            "lifetime": "24h",
            "rotate_every": null,
            "open": true,
            "ext_bcast": null,
            "invalidate_on_deregister": true,
        });
        api.call("PUT", &path, Some(&document))
            .await
            .map_err(|failure| format!("service {service}: {failure}: make it with ltkmd ctl service put"))?;
    }
    Ok(())
}

/// Imports subscribers and credentials.
pub(super) async fn terminals(
    api: &mut Api,
    credentials: Vec<Credential>,
    services: Vec<ServiceId>,
    bar: &ProgressBar,
) -> Result<Vec<Credential>, String> {
    let (sender, receiver) = mpsc::channel(PIECES);
    bar.set_length(credentials.len() as u64);
    let progress = bar.clone();
    let feeding = tokio::task::spawn_blocking(move || {
        for piece in people::import(&credentials, &services, PIECE) {
            // Two lines make one terminal.
            progress.inc(piece.iter().filter(|octet| **octet == b'\n').count() as u64 / 2);
            if sender.blocking_send(Ok(piece.into())).is_err() {
                break;
            }
        }
        credentials
    });
    let reply = api.upload("/v1/import", stream(receiver)).await.map_err(|failure| failure.to_string())?;
    let credentials = feeding.await.map_err(|e| format!("the import broke off: {e}"))?;
    match reply.value["failed"].as_u64() {
        Some(0) => Ok(credentials),
        failed => Err(format!(
            "{} lines of the import failed; the first: {}",
            failed.unwrap_or_default(),
            reply.value["faults"][0]["error"].as_str().unwrap_or("the daemon does not say why")
        )),
    }
}

/// How many LTKMs the daemon has counted as verified; none when it does not say.
pub(super) async fn verified(endpoint: &Endpoint) -> Option<u64> {
    let request = Request::get("/metrics").body(body("")).ok()?;
    let response = Client::new(endpoint.clone()).send(request).await.ok()?;
    let text = std::str::from_utf8(response.body()).ok()?;
    let values = text.lines().filter(|line| line.starts_with(VERIFIED));
    values.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok().map(|value| value as u64)).sum()
}
