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

function delivery(d) {
  const told = [d.error, d.receipt ? `receipt: ${d.receipt.state}` : null].filter(Boolean).join(", ");
  return make("tr", {},
    make("td", {}, moment(d.updated)),
    make("td", {}, d.kind),
    make("td", {}, d.service || "–"),
    make("td", { class: "id" }, d.msk_id || "–"),
    make("td", {}, badge(KINDS[d.state] || "over", d.state.replace("_", " "))),
    make("td", {}, d.method || "–"),
    make("td", { class: "number" }, number(d.attempts)),
    make("td", {}, told || (d.next_due ? make("span", {}, "again ", moment(d.next_due)) : "")));
}

function verified(v) {
  return make("tr", {}, make("td", {}, moment(v.at)), make("td", {}, v.service), make("td", { class: "id" }, v.msk_id));
}

async function showTerminal(terminal, token) {
  const query = `terminal=${encodeURIComponent(terminal.btid)}&limit=${DELIVERIES}`;
  const { items, next } = await ask(`/v1/deliveries?${query}`, token);
  items.sort((a, b) => (a.updated < b.updated ? 1 : -1));
  const proofs = [...terminal.verified].sort((a, b) => (a.at < b.at ? 1 : -1));
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
    table(next ? `The first ${DELIVERIES} deliveries, the newest first` : "Deliveries that are remembered, the newest first",
      ["Changed", "What", "Service", "Key", "State", "Method", "Attempts", "Why"],
      items.map(delivery), "No delivery is remembered."));
  say(`${terminal.btid}: registered for ${list(terminal.services)}, ${terminal.deliveries_open === 1 ? "1 delivery" : `${number(terminal.deliveries_open)} deliveries`} open.`);
}

async function find(who, token) {
  const id = encodeURIComponent(who);
  try {
    return await showTerminal(await ask(`/v1/terminals/${id}`, token), token);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  const subscriber = await ask(`/v1/subscribers/${id}`, token);
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

/** Lets the form search. The token is in its field and nowhere else. */
export function startSearch() {
  byId("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [who, token] = [byId("who").value.trim(), byId("token").value.trim()];
    byId("found").replaceChildren();
    say("Searching …");
    try {
      await find(who, token);
    } catch (error) {
      if (error.status === 401) {
        say(token ? "The daemon refuses this token." : "The daemon wants its admin token for this.", true);
        byId("token").focus();
      } else {
        say(error.status === 404 ? `Nobody is called ${who}: no registered terminal, and no subscriber.` : error.message, true);
      }
    }
  });
}
