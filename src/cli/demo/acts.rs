//! The play: what happens in which order, and what has to be true after each step.

mod sms;

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::Broken;
use super::actor::{Actor, NAT, Part, Taken, cast};
use super::stage::{FQDN, Running, Stage};
use super::story::{Role, Story};
use crate::cli::ctl::api::encode;
use crate::cli::ue::ask::Ask;
use crate::cli::ue::smsc::Smsc;
use crate::cli::ue::terminal::{Effect, Refusal};
use crate::id::{KeyDomainId, Method, MskId, ServiceId};

/// What everybody is entitled to.
const NEWS: &str = "urn:example:news";
/// What nobody is entitled to.
const MOVIES: &str = "urn:example:movies";
/// The key domain of both.
const KEY_DOMAIN: KeyDomainId = KeyDomainId([0xb8, 0x70, 0x9d]);
/// The key group of [`NEWS`].
const GROUP: u16 = 0x68c9;

type Held<T = ()> = Result<T, Broken>;

/// Names the step that a failure belongs to.
trait Step<T> {
    fn step(self, step: &str) -> Held<T>;
}

impl<T> Step<T> for Result<T, String> {
    fn step(self, step: &str) -> Held<T> {
        self.map_err(|why| Broken { step: step.to_owned(), why })
    }
}

/// Fails the step unless it is so.
fn holds(so: bool, step: &str, why: impl FnOnce() -> String) -> Held {
    if so { Ok(()) } else { Err(Broken { step: step.to_owned(), why: why() }) }
}

/// Everybody and everything.
struct Play<'a> {
    story: &'a mut Story,
    stage: Stage,
    smsc: Smsc,
    running: Running,
    cast: HashMap<&'static str, Actor>,
}

/// Plays all acts.
pub(super) async fn play(story: &mut Story) -> Held {
    let part = |name, methods: Option<&[Method]>, msisdn| {
        let declared = methods.map(|methods| methods.iter().map(|method| *method as u8).collect());
        Part { name, declared, msisdn, behind_nat: msisdn.is_some() }
    };
    let who = [
        part("alice", Some(&[Method::Http, Method::Udp]), None),
        part("bob", None, None),
        part("carol", Some(&[Method::Http]), None),
        part("dave", Some(&[Method::Sms]), None),
        part("erin", Some(&[Method::Udp]), None),
        part("frank", Some(&[Method::Http, Method::Sms]), Some("491701234567")),
    ];
    let (actors, port) = cast(&who).await.step("the terminals take their addresses")?;
    let smsc = sms::centre(&actors).await.step("the short message centre listens")?;
    let stage = Stage::set(port, smsc.address()).step("the stage is set")?;
    let running = stage.start().await.step("the daemon starts")?;
    let cast = actors.into_iter().map(|actor| (actor.name, actor)).collect();
    let mut play = Play { story, stage, smsc, running, cast };
    play.opening(port).await?;
    play.registrations().await?;
    play.refusals().await?;
    play.losses().await?;
    let mut play = play.restart().await?;
    play.key_update().await?;
    play.farewells().await?;
    play.curtain().await
}

impl Play<'_> {
    fn daemon(&mut self, text: &str) {
        self.story.tell(Role::Daemon, "daemon", text);
    }

    fn operator(&mut self, text: &str) {
        self.story.tell(Role::Operator, "operator", text);
    }

    fn says(&mut self, name: &'static str, text: &str) {
        self.story.tell(Role::Terminal, name, text);
    }

    fn actor(&mut self, name: &'static str) -> &mut Actor {
        self.cast.get_mut(name).expect("everybody who acts was cast")
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.cast.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Everybody learns where the daemon is.
    fn meet(&mut self, step: &str) -> Held {
        let (http, udp) = (self.running.http, self.running.udp);
        self.cast.values_mut().try_for_each(|actor| actor.meet(http, udp)).step(step)
    }

    async fn opening(&mut self, port: u16) -> Held {
        let step = "the operator provisions";
        self.story.heading("The daemon and its operator");
        let Running { http, udp, admin, .. } = self.running;
        let store = self.stage.scratch.path().join("store").display().to_string();
        self.daemon(&format!("{FQDN} serves on http://{http}, UDP {udp}, admin http://{admin}"));
        self.daemon(&format!("its store is {store}; terminals' LTKM port is {port}"));
        self.daemon("delivers inside HTTP answers, by UDP, and by SMS that makes terminals pull");
        let smsc = self.smsc.address();
        self.network(&format!("listens on smpp://{smsc}"));
        self.await_bind(step).await?;
        for (service, group) in [(NEWS, GROUP), (MOVIES, GROUP + 1)] {
            let document = json!({
                "key_domain": KEY_DOMAIN.to_string(),
                "key_group": format!("{group:04x}"),
                "validity": "ntp",
                "lifetime": "24h",
                "rotate_every": null,
                "open": false,
                "ext_bcast": null,
                "invalidate_on_deregister": true,
            });
            let path = format!("/v1/services/{}", encode(service));
            let made = self.running.call("PUT", &path, Some(document)).await.step(step)?;
            self.operator(&format!("makes the service {service}; its key is {}", text(&made["msk_id"])));
        }
        for name in self.names() {
            let actor = self.cast.get(name).expect("everybody who acts was cast");
            let Actor { subscriber, msisdn, credential, .. } = actor;
            self.running.provision(subscriber, *msisdn, &[NEWS], credential).await.step(step)?;
        }
        let names = self.names().join(", ");
        self.operator(&format!("makes {names} known: B-TID, MRK and MUK each, entitled to {NEWS}"));
        self.meet(step)
    }

    async fn registrations(&mut self) -> Held {
        self.story.heading("Registration");
        self.register("alice", "http, udp", &[Method::Http, Method::Udp], Method::Http).await?;
        self.register("bob", "nothing", &[Method::Udp], Method::Udp).await?;
        self.register("carol", "http", &[Method::Http], Method::Http).await?;
        self.register("frank", "http, sms", &[Method::Http, Method::Sms], Method::Http).await
    }

    /// A registration whose key has to come by `way`, and to be verified.
    async fn register(&mut self, name: &'static str, declares: &str, set: &[Method], way: Method) -> Held {
        let step = format!("{name} registers");
        let address = self.cast[name].address;
        let nat = if address == NAT { " (a NAT that lets no datagram in)" } else { "" };
        self.says(name, &format!("registers for {NEWS} from {address}{nat}, declares {declares}"));
        let ask = self.registration(name);
        let (answer, mut taken) = self.actor(name).ask(&ask).await.step(&step)?;
        holds(answer.is_all_ok(), &step, || format!("{:?}", answer.items))?;
        let announced = self.cast[name].declared.as_ref().map(|_| sorted(set));
        let told = answer.delivery.as_deref().map(sorted);
        holds(told == announced, &step, || format!("the answer announces {told:?}, not {announced:?}"))?;
        self.daemon(&match &told {
            Some(set) => format!("200 OK to {name}; delivers by {}", list(set)),
            None => format!("200 OK to {name}; nothing was declared, so it delivers by udp"),
        });
        if way == Method::Udp {
            holds(taken.is_empty(), &step, || "a key rode in the answer".to_owned())?;
            taken.push(self.actor(name).receive().await.step(&step)?);
        }
        let key = self.only_key(name, &step, &taken, way)?;
        self.await_verified(name, key, &step).await
    }

    fn registration(&self, name: &'static str) -> Ask {
        Ask::register(vec![service(NEWS)], self.cast[name].declared.clone())
    }

    /// The one new key of what a terminal took, told.
    fn only_key(&mut self, name: &'static str, step: &str, taken: &[Taken], way: Method) -> Held<MskId> {
        let [one] = taken else {
            return Err(Broken { step: step.to_owned(), why: format!("not one LTKM came, but {taken:?}") });
        };
        let Effect::Stored(validity) = &one.effect else {
            return Err(Broken { step: step.to_owned(), why: format!("no new key came, but {one:?}") });
        };
        holds(one.method == way, step, || format!("the key came by {}, not by {way}", one.method))?;
        holds(one.acknowledged, step, || "the LTKM did not ask for a verification message".to_owned())?;
        let where_from = if way == Method::Http { "inside the answer" } else { "by UDP" };
        let Taken { msk_id, counter, .. } = one;
        self.says(
            name,
            &format!("takes key {msk_id} {where_from} (T {counter}), valid {validity}; acknowledges"),
        );
        Ok(*msk_id)
    }

    /// Waits until the admin API knows the key as verified.
    async fn await_verified(&mut self, name: &'static str, key: MskId, step: &str) -> Held {
        self.verified(name, key, step).await?;
        self.daemon(&format!("key {key} is verified for {name}"));
        Ok(())
    }

    /// The same, without a word.
    async fn verified(&mut self, name: &'static str, key: MskId, step: &str) -> Held {
        let path = format!("/v1/terminals/{}", encode(self.cast[name].credential.btid.as_str()));
        let verified = |seen: &Value| {
            let keys = seen["verified"].as_array().into_iter().flatten();
            keys.map(|key| text(&key["msk_id"])).any(|id| id == key.to_string())
        };
        self.running.until(&path, verified).await.step(step)?;
        self.actor(name).verified.push(key);
        Ok(())
    }

    async fn refusals(&mut self) -> Held {
        self.story.heading("Refusals");
        let step = "dave, who can take SMS alone, is refused";
        self.says("dave", &format!("registers for {NEWS}, declares sms alone"));
        let ask = self.registration("dave");
        let mrk = self.cast["dave"].credential.mrk.clone();
        let reply = self.actor("dave").request(&ask, mrk.expose()).await.step(step)?;
        holds(reply.status == 403, step, || format!("the answer is {}", reply.status))?;
        let why = "SMS alone brings no key, and this daemon refuses it";
        self.daemon(&format!("{} to dave: {why}", reply.status));

        let step = "a wrong digest is refused";
        self.story.tell(Role::Intruder, "mallory", "registers with bob's B-TID and a guessed MRK");
        let ask = self.registration("bob");
        let reply = self.actor("bob").request(&ask, &[0x55; 32]).await.step(step)?;
        holds(reply.status == 401, step, || format!("the answer is {}", reply.status))?;
        self.daemon(&format!("{} to mallory, with a fresh challenge", reply.status));

        let step = "bob, who is not entitled to it, gets no other service";
        self.says("bob", &format!("registers for {MOVIES}"));
        let ask = Ask::register(vec![service(MOVIES)], None);
        let (answer, taken) = self.actor("bob").ask(&ask).await.step(step)?;
        let codes: Vec<u16> = answer.items.iter().map(|item| item.code.number()).collect();
        holds(codes == [403] && taken.is_empty(), step, || format!("the items are {:?}", answer.items))?;
        self.daemon(&format!("{} for {MOVIES}: bob is not entitled to it", answer.items[0].code));

        let step = "a replayed LTKM is refused by the terminal";
        self.story.tell(Role::Intruder, "mallory", "sends bob's own LTKM to him once more");
        let replayed = self.cast["bob"].last_datagram.clone();
        let to = self.cast["bob"].ltkm_address().step(step)?;
        let io = |e: std::io::Error| e.to_string();
        let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(io).step(step)?;
        socket.send_to(&replayed, to).await.map_err(io).step(step)?;
        let refusal = self.actor("bob").refuse().await.step(step)?;
        let replay = matches!(refusal, Refusal::Replay { .. });
        holds(replay, step, || format!("it was refused for another reason: {refusal}"))?;
        self.says("bob", &format!("drops it: {refusal}"));
        Ok(())
    }

    async fn losses(&mut self) -> Held {
        self.story.heading("A lost LTKM");
        let step = "erin gets what was lost once more";
        self.says(
            "erin",
            &format!("registers for {NEWS}, declares udp; the first LTKM is lost on its way to her"),
        );
        let ask = self.registration("erin");
        let (answer, _) = self.actor("erin").ask(&ask).await.step(step)?;
        holds(answer.is_all_ok(), step, || format!("{:?}", answer.items))?;
        let lost = self.actor("erin").datagram().await.step(step)?;
        self.daemon("waits half a second for erin's verification message");
        let taken = self.actor("erin").receive().await.step(step)?;
        self.daemon("got none, and has sent a new LTKM with a higher T");
        let again = self.cast["erin"].last_datagram != lost;
        holds(again && taken.counter > 1, step, || "the same LTKM came twice".to_owned())?;
        let key = self.only_key("erin", step, &[taken], Method::Udp)?;
        self.await_verified("erin", key, step).await
    }

    async fn restart(mut self) -> Held<Self> {
        self.story.heading("A restart");
        let step = "a restart forgets nothing";
        let registered = ["alice", "bob", "carol", "erin", "frank"];
        let before = self.records(&registered, step).await?;
        self.operator("stops the daemon and starts it again on the same store");
        let Self { story, stage, smsc, running, cast } = self;
        running.stop().await;
        let running = stage.start().await.step(step)?;
        let mut play = Self { story, stage, smsc, running, cast };
        play.await_farewell(step).await?;
        play.await_bind(step).await?;
        let after = play.records(&registered, step).await?;
        for ((name, before), after) in registered.iter().zip(&before).zip(&after) {
            holds(before == after, step, || format!("{name} was {before}, and is {after}"))?;
        }
        play.daemon("knows everybody's set, services, address and verified keys as before");
        play.meet(step)?;
        Ok(play)
    }

    /// What the admin API knows of terminals.
    async fn records(&mut self, names: &[&'static str], step: &str) -> Held<Vec<Value>> {
        let mut records = Vec::new();
        for name in names {
            let btid = self.cast[name].credential.btid.to_string();
            records.push(self.running.terminal(&btid).await.step(step)?);
        }
        Ok(records)
    }

    async fn key_update(&mut self) -> Held {
        self.story.heading("A key update");
        let step = "a new key reaches whom UDP reaches";
        let path = format!("/v1/services/{}/rotate", encode(NEWS));
        let rotation = self.running.call("POST", &path, None).await.step(step)?;
        let (job, key) = (format!("/v1/jobs/{}", rotation["job"]), text(&rotation["msk_id"]).to_owned());
        self.operator(&format!("asks for a new key of {NEWS}: {key}"));
        for name in ["alice", "bob", "erin"] {
            let taken = self.actor(name).receive().await.step(step)?;
            let came = self.only_key(name, step, &[taken], Method::Udp)?;
            holds(came.to_string() == key, step, || format!("key {came} came"))?;
            self.verified(name, came, step).await?;
        }
        self.key_update_by_sms(&key).await?;
        let counts =
            |job: &Value| [&job["terminals"], &job["verified"], &job["awaiting_pull"]].map(Value::as_u64);
        let seen =
            self.running.until(&job, |job| counts(job) == [Some(5), Some(4), Some(1)]).await.step(step)?;
        self.daemon(&progress(&seen));

        let step = "carol, whom only HTTP reaches, pulls the new key";
        self.says("carol", &format!("asks for the current key of group {GROUP:04x} by an MSK request"));
        let (answer, taken) = self.actor("carol").ask(&Actor::pull(KEY_DOMAIN, GROUP)).await.step(step)?;
        holds(answer.is_all_ok(), step, || format!("{:?}", answer.items))?;
        let came = self.only_key("carol", step, &taken, Method::Http)?;
        holds(came.to_string() == key, step, || format!("key {came} came"))?;
        self.verified("carol", came, step).await?;
        let done = |seen: &Value| counts(seen) == [Some(5), Some(5), Some(0)] && seen["state"] == "done";
        let seen = self.running.until(&job, done).await.step(step)?;
        self.daemon(&progress(&seen));
        Ok(())
    }

    async fn farewells(&mut self) -> Held {
        self.story.heading("Deregistration");
        self.deregister("alice", Method::Http).await?;
        self.deregister("bob", Method::Udp).await
    }

    /// A deregistration after which every key has to be invalidated, by `way`.
    async fn deregister(&mut self, name: &'static str, way: Method) -> Held {
        let step = format!("{name} deregisters");
        self.says(name, &format!("deregisters from {NEWS}"));
        let held = self.cast[name].terminal.keys().len();
        let ask = Ask::deregister(vec![service(NEWS)]);
        let (answer, mut taken) = self.actor(name).ask(&ask).await.step(&step)?;
        holds(answer.is_all_ok(), &step, || format!("{:?}", answer.items))?;
        while way == Method::Udp && taken.len() < held {
            taken.push(self.actor(name).receive().await.step(&step)?);
        }
        let ended = taken.iter().filter(|one| one.effect == Effect::Invalidated { held: true }).count();
        let left = self.cast[name].terminal.keys().len();
        let by_way = taken.iter().all(|one| one.method == way);
        holds(ended == held && left == 0 && by_way, &step, || {
            format!("{taken:?} came, {left} keys are left")
        })?;
        let given_up = ids(taken.iter().map(|one| one.msk_id));
        let where_from = if way == Method::Http { "inside the answer" } else { "by UDP" };
        self.says(name, &format!("gives up {given_up}, as told {where_from}; acknowledges"));
        let btid = encode(self.cast[name].credential.btid.as_str());
        let ended = |seen: &Value| {
            let all = seen["items"].as_array().into_iter().flatten();
            let mut ends = all.filter(|delivery| delivery["kind"] == "invalidate").peekable();
            ends.peek().is_some() && ends.all(|delivery| delivery["state"] == "verified")
        };
        self.running.until(&format!("/v1/deliveries?terminal={btid}"), ended).await.step(&step)?;
        self.daemon(&format!("{name} is no longer registered, and is known to have given the keys up"));
        Ok(())
    }

    async fn curtain(mut self) -> Held {
        let step = "the closing table agrees with the daemon";
        self.story.heading("What everybody has");
        let mut table = crate::cli::ue::plain_table(&[
            "TERMINAL",
            "DECLARED",
            "SET",
            "LTKMS CAME BY",
            "VERIFIED",
            "HOLDS",
            "RESULT",
        ]);
        for (name, holding, result) in [
            ("alice", 0, "deregistered, keys invalidated in the answer"),
            ("bob", 0, "deregistered, keys invalidated by UDP"),
            ("carol", 2, "pulled the new key"),
            ("dave", 0, "403 Forbidden"),
            ("erin", 2, "first LTKM lost, resent"),
            ("frank", 2, "woken by SMS, pulled the new key"),
        ] {
            let actor = &self.cast[name];
            let held = actor.terminal.keys().len();
            holds(held == holding, step, || format!("{name} holds {held} keys"))?;
            let declared = actor.declared.as_ref().map_or_else(
                || "nothing".to_owned(),
                |types| list(&types.iter().filter_map(|ty| Method::from_type(*ty)).collect::<Vec<_>>()),
            );
            let brings = |one: &&Taken| matches!(one.effect, Effect::Stored(_) | Effect::Pull(_));
            let ways: Vec<Method> = actor.taken.iter().filter(brings).map(|one| one.method).collect();
            let keys = ids(actor.terminal.keys().iter().map(|key| key.msk_id));
            let verified = ids(actor.verified.iter().copied());
            let btid = actor.credential.btid.to_string();
            let set = match self.running.terminal(&btid).await {
                Ok(record) => {
                    let methods = record["methods"].as_array().into_iter().flatten().map(text);
                    methods.collect::<Vec<_>>().join(", ")
                }
                Err(_) if name == "dave" => String::new(),
                Err(why) => return Err(Broken { step: step.to_owned(), why }),
            };
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            let row = [name.to_owned(), declared, set, list(&ways), verified, keys, result.to_owned()];
            table.add_row(row.map(or_dash));
        }
        let intruded = self.cast["frank"].was_sent_to_its_nat();
        holds(!intruded, step, || "a datagram was sent to frank's NAT".to_owned())?;
        self.story.print(&table.to_string());
        self.running.stop().await;
        self.smsc.close().await;
        Ok(())
    }
}

fn service(id: &str) -> ServiceId {
    ServiceId::new(id).expect("the demo's services have sound ids")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn sorted(methods: &[Method]) -> Vec<Method> {
    let mut methods = methods.to_vec();
    methods.sort_unstable();
    methods
}

fn list(methods: &[Method]) -> String {
    methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ")
}

fn ids(keys: impl Iterator<Item = MskId>) -> String {
    keys.map(|key| key.to_string()).collect::<Vec<_>>().join(", ")
}

fn progress(job: &Value) -> String {
    let [state, terminals, verified, waiting] =
        ["state", "terminals", "verified", "awaiting_pull"].map(|name| job[name].to_string());
    let state = state.trim_matches('"');
    format!("job is {state}: {terminals} terminals, {verified} verified, {waiting} awaiting a pull")
}
