'use strict';

// A short message centre that tests drive: node-smpp, which knows nothing of the daemon's own SMPP, behind commands as
// JSON lines on standard input. All that happens is told as JSON lines on standard output. It listens on a free port
// of 127.0.0.1, or on the one that its argument names; with a second argument by TLS, with certificate.pem and key.pem of
// that directory. Passwords are checked, and told by nobody.

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const smpp = require('smpp');

// The words on the wire, not this library's reading of them, are what a test compares.
delete smpp.commands.submit_sm.params.validity_period.filter;

const STATES = ['', 'ENROUTE', 'DELIVRD', 'EXPIRED', 'DELETED', 'UNDELIV', 'ACCEPTD', 'UNKNOWN', 'REJECTD'];
const BINDS = ['bind_transceiver', 'bind_transmitter', 'bind_receiver'];

const account = { system_id: 'ltkmd', password: '' };
let refusal = null; // the status that binds are answered with
let answering = []; // {status, times, to}: how submissions are answered, the first that fits
let allowance = null; // {submits, ms}: more within so many milliseconds are throttled
let delay = 0; // milliseconds before a submission is answered
let held = null; // answers that wait for `release`
let deaf = false; // nothing is answered at all
let nameless = false; // messages are accepted without a name
let nonsense = null; // {on, octets, times}: what a command is answered with instead
let fuses = []; // submissions until all links are cut, and then until they are cut again
let binds = 0;
let messages = 0;
let outstanding = 0;
let recent = []; // when submissions were taken of late
const links = new Map(); // number -> {session, receives, outstanding}
let opened = 0;

function tell(event, more) {
  process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
}

function status(name) {
  if (name === null || name === undefined) return 0;
  if (!(name in smpp.errors)) throw new Error(`no status ${name}`);
  return smpp.errors[name];
}

function plain(value) {
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, v]) => [name, plain(v)]));
  }
  return value;
}

// A PDU as it came; the user-data header as its elements, each in octets.
function shown(pdu) {
  const { password, short_message, ...rest } = pdu;
  const fields = plain(rest);
  if (short_message) {
    fields.udh = (short_message.udh || []).map((e) => ({ iei: e[0], hex: e.subarray(2).toString('hex') }));
    fields.short_message = Buffer.from(short_message.message).toString('hex');
  }
  return fields;
}

function reply(link, pdu, fields) {
  if (!links.has(link.number) || deaf) return;
  if (nonsense && (nonsense.on === pdu.command || nonsense.on === 'all')) {
    const octets = Buffer.from(nonsense.hex, 'hex');
    if (nonsense.times && --nonsense.times === 0) nonsense = null;
    tell('nonsense', { link: link.number, command: pdu.command });
    link.session.socket.write(octets);
    return;
  }
  link.session.send(pdu.response(fields));
}

function onBind(link, pdu) {
  let verdict = 0;
  if (refusal !== null) verdict = status(refusal);
  else if (pdu.system_id !== account.system_id) verdict = smpp.errors.ESME_RINVSYSID;
  else if (pdu.password !== account.password) verdict = smpp.errors.ESME_RINVPASWD;
  reply(link, pdu, verdict ? { command_status: verdict } : { system_id: 'smsc' });
  if (verdict === 0 && !deaf && links.has(link.number)) {
    link.receives = pdu.command !== 'bind_transmitter';
    binds += 1;
    tell('bound', { link: link.number, command: pdu.command });
  } else {
    tell('refused', { link: link.number, command: pdu.command, status: verdict });
  }
}

// What a submission is answered with, decided when it comes.
function verdict(pdu) {
  const rule = answering.find((r) => !r.to || r.to === pdu.destination_addr);
  if (rule) {
    if (rule.times && --rule.times === 0) answering = answering.filter((r) => r !== rule);
    return status(rule.status);
  }
  const now = Date.now();
  if (allowance) {
    recent = recent.filter((at) => at > now - allowance.ms);
    if (recent.length >= allowance.submits) return smpp.errors.ESME_RTHROTTLED;
  }
  recent.push(now);
  return 0;
}

function onSubmit(link, pdu) {
  if (fuses.length && --fuses[0] <= 0) {
    fuses.shift();
    for (const other of [...links.values()]) other.session.destroy();
    return;
  }
  const command_status = verdict(pdu);
  const answer = () => {
    if (!links.has(link.number) || deaf) return;
    link.outstanding -= 1;
    outstanding -= 1;
    const message_id = command_status || nameless ? '' : `${process.pid}-${++messages}`;
    tell('answer', { link: link.number, sequence_number: pdu.sequence_number, command_status, message_id });
    reply(link, pdu, command_status ? { command_status } : { message_id });
  };
  if (held) held.push(answer);
  else if (delay) setTimeout(answer, delay);
  else answer();
}

function onPdu(link, pdu) {
  const submitted = pdu.command === 'submit_sm';
  if (submitted) {
    link.outstanding += 1;
    outstanding += 1;
  }
  tell('pdu', { link: link.number, at: Date.now(), outstanding, ...shown(pdu) });
  if (BINDS.includes(pdu.command)) onBind(link, pdu);
  else if (submitted) onSubmit(link, pdu);
  else if (pdu.command === 'enquire_link') reply(link, pdu, {});
  else if (pdu.command === 'unbind') {
    reply(link, pdu, {});
    if (!deaf) link.session.close();
  } else if (pdu.command === 'unbind_resp') link.session.close();
  else if (!pdu.isResponse()) reply(link, pdu, { command_status: smpp.errors.ESME_RINVCMDID });
}

const [, , port, tls] = process.argv;
const pem = (name) => fs.readFileSync(path.join(tls, name));
const options = tls ? { key: pem('key.pem'), cert: pem('certificate.pem') } : {};
const server = smpp.createServer(options, (session) => {
  const link = { number: ++opened, session, receives: false, outstanding: 0 };
  links.set(link.number, link);
  tell('connected', { link: link.number });
  session.on('pdu', (pdu) => onPdu(link, pdu));
  session.on('error', (error) => {
    tell('error', { link: link.number, error: error.message });
    session.destroy();
  });
  session.on('close', () => {
    links.delete(link.number);
    outstanding -= link.outstanding;
    tell('closed', { link: link.number });
  });
});

// SMPP 3.4 appendix B; as TLVs, as text, or as both.
function receipt({ message_id, state, form }) {
  const link = [...links.values()].reverse().find((l) => l.receives);
  if (!link) throw new Error('nobody is bound to receive');
  const number = STATES.indexOf(state);
  if (number < 1) throw new Error(`no state ${state}`);
  const text = `id:${message_id} sub:001 dlvrd:001 submit date:2601011200 done date:2601011201 stat:${state} err:000 text:`;
  const tlvs = { receipted_message_id: message_id, message_state: number };
  link.session.deliver_sm({
    source_addr: '4917000',
    destination_addr: '12345',
    esm_class: 4,
    short_message: form === 'tlv' ? '' : text,
    ...(form === 'text' ? {} : tlvs),
  });
}

const commands = {
  account: ({ system_id, password }) => Object.assign(account, { system_id, password }),
  refuse_binds: (c) => { refusal = c.status === null ? null : (status(c.status), c.status); },
  answer_submits: (c) => { status(c.status); answering.push({ status: c.status, times: c.times, to: c.to }); },
  accept_submits: () => { answering = []; allowance = null; },
  allow: ({ submits, ms }) => { allowance = { submits, ms }; },
  delay: ({ ms }) => { delay = ms; },
  hold: () => { held = held || []; },
  release: () => { const answers = held || []; held = null; answers.forEach((answer) => answer()); },
  nameless: () => { nameless = true; },
  deaf: ({ on }) => { deaf = on; },
  nonsense: (c) => { nonsense = c.on === null ? null : { on: c.on, hex: c.hex, times: c.times }; },
  drop: ({ link }) => { links.get(link).session.destroy(); },
  drop_after: ({ submits }) => { fuses = submits; },
  receipt,
  unbind: () => { for (const link of links.values()) link.session.unbind(); },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  try {
    commands[command.do](command);
    tell('done', { id: command.id });
  } catch (error) {
    tell('done', { id: command.id, error: error.message });
  }
});
// Who drives it is gone.
lines.on('close', () => process.exit(0));

server.on('error', (error) => {
  tell('failed', { error: error.message });
  process.exit(1);
});
server.listen(Number(port || 0), '127.0.0.1', () => tell('listening', { port: server.address().port }));
