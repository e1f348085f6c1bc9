// What comes when: the overview as events, services and the last hour by asking again.

import { ask, badge, bar, counted, make, moment, number, octets, percent, replace, span } from "./parts.js";
import { showHour } from "./plots.js";
import { startSearch } from "./terminal.js";

const SERVICES = 100;
const ASK_AGAIN = 5000;
const SILENCE = 5000;

const byId = (id) => document.getElementById(id);
const since = (now, then) => Math.max(0, Date.parse(now) - Date.parse(then));

let serviceLimit = SERVICES;
let heard = 0;

function link(text, wrong = false) {
  const element = byId("link");
  element.classList.toggle("bad-text", wrong);
  if (element.textContent !== text) element.textContent = text;
}

function card(name, figure, told, wrong = false) {
  return make("div", {}, make("dt", {}, name), make("dd", { class: `figure${wrong ? " bad" : ""}` }, figure), make("dd", { class: "quiet" }, told));
}

function cards(o) {
  const open = o.deliveries_open;
  const all = Object.values(open).reduce((sum, n) => sum + n, 0);
  const { sms, store, registrations: r } = o;
  const commit = store.last_commit ? `last commit ${span(since(o.now, store.last_commit))} ago, ` : "";
  const smsc = !sms.enabled ? "off" : sms.up ? "bound" : "not bound";
  const turns = sms.enabled ? `${number(sms.in_flight)} in flight, ${number(sms.turns)} turns awaited` : "SMS is not among the methods";
  return [
    card("Store", store.up ? "works" : "does not write", `${commit}${octets(store.taken)} on disk, ${store.free === null ? "" : `${octets(store.free)} free, `}${number(store.errors)} errors`, !store.up),
    card("Short message centre", smsc, turns, sms.enabled && !sms.up),
    card("Registrations", number(r.total), `UDP ${number(r.udp)}, HTTP ${number(r.http)}, SMS ${number(r.sms)} in their sets`),
    card("Open deliveries", number(all), `${number(open.queued)} queued, ${number(open.sent)} sent, ${number(open.awaiting_pull)} wait for a pull`),
    ...Object.entries(o.checks).filter(([, told]) => told !== "ok").map(([name, told]) => card(name, "fails", told, true)),
  ];
}

function summary(o) {
  const wrong = Object.entries(o.checks).filter(([, told]) => told !== "ok").map(([name]) => name);
  const smsc = o.sms.enabled && !o.sms.up ? [" No short message centre is bound."] : [];
  if (!o.ready) return [badge("bad", "not ready"), ` ${wrong.join(", ")} does not work.`, ...smsc];
  return [badge(smsc.length ? "wait" : "good", "ready"), ` ${counted(o.services, "service")}, ${counted(o.jobs_open, "job")} open.`, ...smsc];
}

const PARTS = [["verified", "good", "verified"], ["assumed", "good", "taken for delivered"], ["sent", "sent", "sent"], ["awaiting_pull", "wait", "wait for a pull"],
  ["failed", "bad", "failed"], ["superseded", "over", "superseded"], ["cancelled", "over", "cancelled"], ["queued", "none", "queued"]];

const arrived = (job) => job.states.verified + job.states.assumed;

function job(j, now) {
  const told = PARTS.filter(([state]) => j.states[state] > 0).map(([state, , name]) => `${number(j.states[state])} ${name}`).join(", ");
  const what = j.kind === "key" ? `key ${j.msk_id}` : "end of the registrations";
  const kind = { running: "sent", paused: "wait" }[j.state] || "over";
  const parts = PARTS.filter(([state]) => state !== "queued").map(([state, css, name]) => [j.states[state], css, name]);
  return make("article", { class: "job", "aria-labelledby": `job-${j.id}` },
    make("h3", { id: `job-${j.id}` }, badge(kind, j.state), ` Job ${j.id}: ${what} of ${j.service || "a service that is gone"}`),
    make("p", {}, `${percent(arrived(j), j.terminals)} of ${counted(j.terminals, "terminal")} have it; ${number(j.visited)} visited, for ${span(since(now, j.started))}`),
    bar(parts, j.terminals, told || "nothing yet"),
    make("p", { class: "quiet" }, told));
}

const told = new Map();

/** Says what is new of jobs in coarse steps: a reader is not talked over once a second. */
function news(jobs) {
  const said = [];
  for (const j of jobs) {
    const step = j.terminals ? Math.floor((4 * arrived(j)) / j.terminals) : 0;
    const before = told.get(j.id);
    if (before === undefined || before.step !== step || before.state !== j.state) {
      said.push(`Job ${j.id} is ${j.state}, ${percent(arrived(j), j.terminals)} have it.`);
    }
    told.set(j.id, { step, state: j.state });
  }
  for (const id of [...told.keys()]) {
    if (jobs.some((j) => j.id === id)) continue;
    told.delete(id);
    if (jobs.length < 50) said.push(`Job ${id} is over.`);
  }
  if (!said.length) return;
  byId("job-news").textContent = said.slice(0, 3).join(" ");
  // A job that came or went has changed keys and who holds them.
  showServices().catch((error) => link(error.message, true));
}

function showOverview(o) {
  heard = Date.now();
  document.title = `${o.ready ? "" : "✗ "}ltkmd ${o.fqdn}`;
  replace(byId("fqdn"), o.fqdn);
  replace(byId("summary"), ...summary(o));
  replace(byId("cards"), ...cards(o));
  replace(byId("version"), `ltkmd ${o.version}, running for ${span(since(o.now, o.started))}. `);
  link(`as of ${new Date(o.now).toLocaleTimeString("en-GB")}`);
  if (o.jobs === null) {
    replace(byId("job-list"), make("p", { class: "bad-text" }, "The store does not tell its jobs."));
    return;
  }
  const more = o.jobs_open - o.jobs.length;
  replace(byId("job-list"),
    o.jobs.length ? o.jobs.map((j) => job(j, o.now)) : make("p", { class: "quiet" }, "No job is open. Those that are over: ltkmd ctl job list"),
    more > 0 ? make("p", { class: "quiet" }, `And ${number(more)} older ones: ltkmd ctl job list`) : null);
  news(o.jobs);
}

function age(s, now) {
  if (!s.valid_from) return make("td", { role: "cell" }, make("span", { class: "told bad-text" }, "No key is valid now"));
  const [whole, gone] = [since(s.valid_to, s.valid_from), since(now, s.valid_from)];
  const said = `${span(gone)} old, ends in ${span(since(s.valid_to, now))}`;
  return make("td", { role: "cell" }, make("span", { class: "told" }, said), bar([[gone, gone > 0.9 * whole ? "old" : "age"]], whole, said));
}

function coverage(s) {
  const [h, all] = [s.holders, s.terminals.total];
  const said = all ? `${number(h.total)} of ${number(all)} (${percent(h.total, all)})` : "nobody is registered";
  const ways = [[h.udp, "udp", "by UDP"], [h.http, "http", "in an HTTP answer"], [h.sms, "sms", "pulled after an SMS"]];
  const by = ways.filter(([n]) => n > 0).map(([n, , name]) => `${number(n)} ${name}`);
  if (h.assumed > 0) by.push(`${number(h.assumed)} without proof`);
  return make("td", { role: "cell" }, make("span", { class: "told" }, said), bar(ways, all, [said, ...by].join(", ")),
    by.length ? make("span", { class: "told quiet" }, by.join(", ")) : null);
}

const NEXT = { role: "cell", "data-label": "Next key" };

function nextKey(s) {
  if (s.next) {
    const held = `${number(s.next.holders.total)} hold it already`;
    return make("td", NEXT, make("span", { class: "told id" }, s.next.msk_id), make("span", { class: "told quiet" }, "from ", moment(s.next.valid_from), `; ${held}`));
  }
  if (s.rotation_due) return make("td", NEXT, make("span", { class: "told quiet" }, "is made ", moment(s.rotation_due)));
  return make("td", NEXT, make("span", { class: "told quiet" }, "by hand"));
}

async function showServices() {
  const items = [];
  let after = null;
  do {
    const limit = Math.min(1000, serviceLimit - items.length);
    const page = await ask(`/status/services?limit=${limit}${after === null ? "" : `&after=${encodeURIComponent(after)}`}`);
    items.push(...page.items);
    after = page.next;
  } while (after !== null && items.length < serviceLimit);
  const now = new Date().toISOString();
  const rows = items.map((s) => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader" }, s.id), make("td", { role: "cell", "data-label": "Key", class: "id" }, s.msk_id || "–"), age(s, now), coverage(s), nextKey(s)));
  const none = make("tr", {}, make("td", { colspan: 5, class: "quiet" }, "There is no service yet: ltkmd ctl service put makes one."));
  byId("service-rows").replaceChildren(...(rows.length ? rows : [none]));
  byId("more-services").hidden = after === null;
}

/** Asks again and again while somebody looks. */
function repeat(show) {
  const turn = async () => {
    if (!document.hidden) {
      try {
        await show();
      } catch (error) {
        link(error.status ? error.message : "The daemon does not answer", true);
      }
    }
    setTimeout(turn, ASK_AGAIN);
  };
  turn();
}

/** Events while somebody looks; when none come, the page asks. */
function listen() {
  let events = null;
  const open = () => {
    if (events && events.readyState !== EventSource.CLOSED) return;
    events = new EventSource("/status/events");
    events.addEventListener("overview", (event) => showOverview(JSON.parse(event.data)));
  };
  const look = () => {
    if (!document.hidden) return open();
    if (events) events.close();
  };
  document.addEventListener("visibilitychange", look);
  look();
  repeat(async () => {
    if (Date.now() - heard < SILENCE) return;
    showOverview(await ask("/status/overview"));
    look();
  });
}

byId("more-services").addEventListener("click", () => {
  serviceLimit += SERVICES;
  showServices().catch((error) => link(error.message, true));
});
startSearch();
listen();
repeat(showServices);
repeat(async () => showHour(await ask("/status/hour")));
