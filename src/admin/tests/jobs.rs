//! Fan-out jobs: how far they are, and holding and ending them.

use serde_json::{Value, json};

use super::*;
use crate::id::ServiceNo;
use crate::store::{CatalogueWrite, Job, JobKind, JobState};

#[tokio::test]
async fn a_rotation_is_a_job_whose_states_add_up() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    let job = format!("/v1/jobs/{}", rotated.body["job"]);
    let job = loop {
        let job = world.get(&job).await.body;
        let states = job["states"].as_object().expect("states");
        assert_eq!(states.len(), 8);
        let sum: u64 = states.values().filter_map(Value::as_u64).sum();
        assert_eq!((sum, &job["terminals"]), (1, &json!(1)));
        if job["sent"] == 1 {
            break job;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&job["state"], &job["msk_id"], &job["finished"]),
        (&json!("running"), &rotated.body["msk_id"], &Value::Null)
    );
    assert_eq!((&job["service"], &job["states"]["sent"]), (&json!(SERVICE_ID), &json!(1)));
    assert_eq!(world.call("DELETE", SERVICE, Value::Null).await.status, 409);
    assert_eq!(world.call("DELETE", &format!("{SERVICE}?force=true"), Value::Null).await.status, 204);
    assert_eq!(world.get(SERVICE).await.status, 404);
    let newest = world.get("/v1/jobs?limit=1").await.body;
    assert_eq!(newest["items"][0]["kind"], "retire");
    let next = newest["next"].as_str().expect("an older one");
    let older = world.get(&format!("/v1/jobs?limit=1&after={next}")).await.body;
    assert_eq!((&older["items"][0]["id"], &older["next"]), (&rotated.body["job"], &Value::Null));
}

#[tokio::test]
async fn a_job_is_paused_resumed_and_cancelled_and_listed_by_its_state() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[0]).await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    let path = format!("/v1/jobs/{}", rotated.body["job"]);
    let act = async |action: &str| world.call("POST", &format!("{path}/{action}"), Value::Null).await;
    let listed = async |state: &str| {
        let list = world.get(&format!("/v1/jobs?state={state}")).await;
        list.body["items"].as_array().expect("items").len()
    };
    // Each twice: it is harmless.
    for (action, state) in
        [("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("resume", "running")]
    {
        let answer = act(action).await;
        assert_eq!((answer.status, &answer.body["state"]), (202, &json!(state)), "{action}");
        assert_eq!((&answer.body["terminals"], &answer.body["finished"]), (&json!(1), &Value::Null));
        assert_eq!(listed(state).await, 1);
    }
    assert_eq!(world.get("/v1/status").await.body["jobs_running"], 1);
    assert_eq!(act("pause").await.status, 202);
    let status = world.get("/v1/status").await.body;
    assert_eq!((&status["jobs_running"], &status["jobs_paused"]), (&json!(0), &json!(1)));
    let cancelled = act("cancel").await;
    assert_eq!((cancelled.status, &cancelled.body["state"]), (202, &json!("cancelled")));
    assert!(cancelled.body["finished"].is_string());
    let states = cancelled.body["states"].as_object().expect("states");
    let sum: u64 = states.values().filter_map(Value::as_u64).sum();
    assert_eq!((sum, &cancelled.body["terminals"]), (1, &json!(1)));
    for action in ["pause", "resume", "cancel"] {
        let refused = act(action).await;
        assert_eq!(refused.status, 409);
        assert!(refused.body["detail"].as_str().expect("a text").contains("is cancelled already"));
    }
    assert_eq!((listed("cancelled").await, listed("paused").await), (1, 0));
    assert_eq!(world.get("/v1/jobs?state=over").await.field(), "state");
    assert_eq!(world.call("POST", "/v1/jobs/77/pause", Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_cancelled_job_takes_back_what_waits_for_its_turn_and_the_terminal_can_still_ask() {
    let world = World::new().await;
    world.provision().await;
    world.register(&[1, 2]).await;
    let rotated = world.call("POST", &format!("{SERVICE}/rotate"), Value::Null).await;
    let path = format!("/v1/jobs/{}", rotated.body["job"]);
    let until = async |state: &str| loop {
        let job = world.get(&path).await.body;
        if job["visited"] == 1 && job["states"][state] == 1 {
            return job;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(until("queued").await["state"], "running", "it waits for its turn by SMS");
    let cancelled = world.call("POST", &format!("{path}/cancel"), Value::Null).await;
    assert_eq!((cancelled.status, &cancelled.body["terminals"]), (202, &json!(1)));
    assert_eq!(until("cancelled").await["state"], "cancelled");
    let deliveries = world.get("/v1/deliveries?state=queued").await.body;
    assert_eq!(deliveries["items"], json!([]));
    world.register(&[1, 2]).await;
    let deliveries = world.get("/v1/deliveries?state=sent").await.body;
    assert_eq!(deliveries["items"][0]["msk_id"], rotated.body["msk_id"]);
}

#[tokio::test]
async fn the_end_of_a_deleted_services_registrations_cannot_be_cancelled() {
    let world = World::new().await;
    world.provision().await;
    let (service, now) = (ServiceNo(1), world.engine.now());
    let id = world.engine.store().new_job_id().await.expect("a number");
    let job = Job::new(id, JobKind::Retire, service, 0, 1, now);
    let job = Job { state: JobState::Paused, ..job };
    let write = vec![CatalogueWrite::Job(job)];
    world.engine.store().write_catalogue(write).await.expect("the store works");
    let refused = world.call("POST", &format!("/v1/jobs/{id}/cancel"), Value::Null).await;
    assert_eq!(refused.status, 409);
    assert_eq!(world.get(&format!("/v1/jobs/{id}")).await.body["state"], "paused");
    assert_eq!(world.call("POST", &format!("/v1/jobs/{id}/resume"), Value::Null).await.status, 202);
}
