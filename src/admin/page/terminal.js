// The search for one terminal, or for a subscriber's terminals.

import { ask, badge, counted, make, moment, number } from "./parts.js";

const DELIVERIES = 200;

const byId = (id) => document.getElementById(id);
const KINDS = { verified: "good", assumed: "good", sent: "sent", failed: "bad", awaiting_pull: "wait" };

function say(text, wrong = false) {
  const state = byId("search-state");
  state.className = wrong ? "bad-text" : "";
  state.textContent = text;
}

function facts(pairs) {
  return make("dl", { class: "cards" }, pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function list(items) {
  return items.length ? items.join(", ") : "none";
}

function table(caption, head, rows, empty) {
  if (!rows.length) return make("p", { class: "quiet" }, empty);
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, make("table", {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, rows)));
}

/** What a delivery is of. */
function subject(d) {
  if (d.kind === "key") return `key ${d.msk_id || "–"} of ${d.service || "a service that is gone"}`;
  if (d.kind === "invalidate") return `end of key ${d.msk_id || "–"} of ${d.service || "a service that is gone"}`;
  return d.service ? `trigger to ask for the keys of ${d.service}` : "trigger to register";
}

/** What is known of a delivery: [when, of what, how it stood then, what else is known]. */
function moments(d) {
  const by = d.method ? `${d.attempts > 1 ? ", the latest" : ""} by ${d.method}` : "";
  const tries = d.attempts ? `${counted(d.attempts, "attempt")}${by}` : "";
  const all = [[d.queued, d, "queued", d.job === null ? "" : `by job ${d.job}`]];
  if (d.receipt) all.push([d.receipt.at, d, "sent", `the short message is ${d.receipt.state}`]);
  if (d.verified) all.push([d.verified, d, "verified", tries]);
  const again = d.next_due ? [" looked at again ", moment(d.next_due)] : [];
  if (d.state !== "verified" && !(d.state === "queued" && d.attempts === 0)) {
    all.push([d.updated, d, d.state, [d.error, tries].filter(Boolean).join(", "), ...again]);
  }
  return all;
}

function happened([at, what, state, ...told]) {
  return make("tr", {},
    make("td", {}, moment(at)),
    make("td", {}, typeof what === "string" ? what : subject(what)),
    make("td", {}, state ? badge(KINDS[state] || "over", state.replace("_", " ")) : ""),
    make("td", {}, ...told));
}

function verified(v) {
  return make("tr", {}, make("td", {}, moment(v.at)), make("td", {}, v.service), make("td", { class: "id" }, v.msk_id));
}

async function showTerminal(terminal, token, signal) {
  const query = `terminal=${encodeURIComponent(terminal.btid)}&limit=${DELIVERIES}`;
  const { items, next } = await ask(`/v1/deliveries?${query}`, token, signal);
  const proofs = [...terminal.verified].sort((a, b) => (a.at < b.at ? 1 : -1));
  const story = items.flatMap(moments);
  story.push([terminal.registered_at, "registration", null, `by ${list(terminal.methods)}`]);
  if (terminal.last_seen !== terminal.registered_at) story.push([terminal.last_seen, "authenticated request", null, "the last one"]);
  // Of one moment what happened first comes last.
  story.reverse().sort((a, b) => Date.parse(b[0]) - Date.parse(a[0]));
  byId("found").replaceChildren(
    make("h3", {}, make("span", { class: "id" }, terminal.btid)),
    facts([
      ["Subscriber", terminal.subscriber],
      ["Address", terminal.address],
      ["Methods", list(terminal.methods)],
      ["Registered for", list(terminal.services)],
      ["Registered", moment(terminal.registered_at)],
      ["Last seen", moment(terminal.last_seen)],
    ]),
    make("h3", {}, "Keys it proved to have"),
    table("Proofs, the newest first", ["When", "Service", "Key"], proofs.map(verified), "None is known."),
    make("h3", {}, "History"),
    table(next ? `What is known of its first ${DELIVERIES} deliveries, the newest first` : "What is known of it, the newest first",
      ["When", "What", "State", "More"], story.map(happened), "Nothing is remembered."));
  say(`${terminal.btid}: registered for ${list(terminal.services)}, ${terminal.deliveries_open === 1 ? "1 delivery" : `${number(terminal.deliveries_open)} deliveries`} open.`);
}

async function find(who, token, signal) {
  const id = encodeURIComponent(who);
  try {
    return await showTerminal(await ask(`/v1/terminals/${id}`, token, signal), token, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const subscriber = await ask(`/v1/subscribers/${id}`, token, signal);
  const terminals = subscriber.credentials.map((btid) => {
    const button = make("button", { type: "button", class: "plain id" }, btid);
    button.addEventListener("click", () => {
      byId("who").value = btid;
      byId("search").requestSubmit();
    });
    return make("li", {}, button);
  });
  byId("found").replaceChildren(
    make("h3", {}, `Subscriber ${subscriber.id}`),
    facts([["MSISDN", subscriber.msisdn || "none"], ["Entitled to", list(subscriber.services)]]),
    make("h3", {}, "Its terminals"),
    terminals.length ? make("ul", {}, terminals) : make("p", { class: "quiet" }, "It has no credential."));
  say(`${subscriber.id} is a subscriber with ${counted(terminals.length, "terminal")}.`);
}

/** Ends the search before when another one begins. */
let searching = new AbortController();

/** Lets the form search. The token is in its field and nowhere else. */
export function startSearch() {
  byId("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [who, token] = [byId("who").value.trim(), byId("token").value.trim()];
    byId("found").replaceChildren();
    say("Searching …");
    searching.abort();
    searching = new AbortController();
    try {
      await find(who, token, searching.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 401) {
        say(token ? "The daemon refuses this token." : "The daemon wants its admin token for this.", true);
        byId("token").focus();
      } else {
        say(error.status === 404 ? `Nobody is called ${who}: no registered terminal, and no subscriber.` : error.message, true);
      }
    }
  });
}
