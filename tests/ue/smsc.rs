//! `ue smsc` as a process: an ESME by script on one side, a terminal's UDP port on the other.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command as Program, Stdio};
use std::str::FromStr;

use bytes::BytesMut;
use ltkmd::transport::sms::udh::{Ports, split};
use mikey::ltkm::Ltkm;
use mikey::psk::PresharedKey;
use mikey::{CsbId, IdType, KeyDomainId, MskId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength;
use rusmpp_core::encode::{Encode, Length};
use rusmpp_core::pdus::owned::{
    BindReceiver, BindTransceiver, BindTransmitter, DataSm, DeliverSm, DeliverSmResp, Pdu, SubmitSm,
};
use rusmpp_core::tlvs::owned::{MessageSubmissionRequestTlvValue as Optional, TlvValue};
use rusmpp_core::types::owned::{AnyOctetString, COctetString, OctetString};
use rusmpp_core::values::owned::MessagePayload;
use rusmpp_core::values::{DataCoding, EsmClass, InterfaceVersion, MessageState, RegisteredDelivery};
use rusmpp_core::{CommandId, CommandStatus};
use serde_json::{Value, json};

use crate::harness::PATIENCE;

const MSISDN: &str = "491701234567";
const PORTS: Ports = Ports { destination: 4359, source: 4359 };
const UDHI: u8 = 0x40;

/// A running centre; killed when the test ends early.
pub(crate) struct Smsc {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    pub(crate) address: SocketAddr,
}

impl Smsc {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Program::new(env!("CARGO_BIN_EXE_ltkmd"))
            .args(["ue", "smsc", "--json", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let first = lines.next().expect("a line").expect("text");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        let address = first["listening"].as_str().expect("an address").parse().expect("an address");
        Self { child, lines, address }
    }

    /// The next event of this name; others are passed over.
    pub(crate) fn await_event(&mut self, name: &str) -> Value {
        loop {
            let line = self.lines.next().unwrap_or_else(|| panic!("it ended before {name}")).expect("text");
            let event: Value = serde_json::from_str(&line).expect("a JSON line");
            if event["event"] == name {
                return event;
            }
        }
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("signalled");
    }
}

impl Drop for Smsc {
    fn drop(&mut self) {
        // It has ended when the test was about that.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An ESME that does what the test says.
struct Esme {
    stream: TcpStream,
    sequence: u32,
    others: VecDeque<Command>,
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> COctetString<MIN, MAX> {
    COctetString::from_str(text).expect("it fits")
}

impl Esme {
    fn connect(smsc: &Smsc) -> Self {
        let stream = TcpStream::connect(smsc.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        Self { stream, sequence: 0, others: VecDeque::new() }
    }

    fn transceiver(smsc: &Smsc) -> Self {
        let mut esme = Self::connect(smsc);
        let bind = BindTransceiver::builder().system_id(text("ltkmd")).password(text("secret"));
        let answer = esme.call(bind.interface_version(InterfaceVersion::Smpp3_4).build());
        assert_eq!(answer.status(), CommandStatus::EsmeRok);
        esme
    }

    fn write(&mut self, command: &Command) {
        let len = 4 + command.length();
        let mut octets = vec![0; len];
        octets[..4].copy_from_slice(&(len as u32).to_be_bytes());
        command.encode(&mut octets[4..]);
        self.stream.write_all(&octets).expect("written");
    }

    /// Sends a request, and does not wait for its answer.
    fn ask(&mut self, pdu: impl Into<Pdu>) -> u32 {
        self.sequence += 1;
        let sequence = self.sequence;
        self.write(&Command::new(CommandStatus::EsmeRok, sequence, pdu));
        sequence
    }

    /// What comes next; none when the centre has closed.
    fn read(&mut self) -> Option<Command> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let len = u32::from_be_bytes(length) as usize - 4;
        let mut body = BytesMut::zeroed(len);
        self.stream.read_exact(&mut body).expect("a whole PDU");
        let (command, _) = Command::decode(&mut body, len).expect("a PDU");
        assert!(body.is_empty(), "octets behind {command:?}");
        Some(command)
    }

    /// The answer to a request; what comes before it is kept.
    fn answer(&mut self, sequence: u32) -> Command {
        loop {
            let command = self.read().expect("an answer");
            if command.id().is_response() && command.sequence_number() == sequence {
                return command;
            }
            self.others.push_back(command);
        }
    }

    fn call(&mut self, pdu: impl Into<Pdu>) -> Command {
        let sequence = self.ask(pdu);
        self.answer(sequence)
    }

    /// Submits a message that has to be taken; gives the centre's name of it.
    fn submit(&mut self, submit: SubmitSm) -> String {
        let answer = self.call(submit);
        assert_eq!(answer.status(), CommandStatus::EsmeRok);
        match answer.pdu() {
            Some(Pdu::SubmitSmResp(answer)) => answer.message_id().to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The next delivery receipt, acknowledged.
    fn receipt(&mut self) -> DeliverSm {
        let command = self.others.pop_front().unwrap_or_else(|| self.read().expect("a receipt"));
        let Some(Pdu::DeliverSm(receipt)) = command.pdu() else { panic!("{command:?}") };
        let resp = DeliverSmResp::new(COctetString::empty(), Vec::new());
        self.write(&Command::new(CommandStatus::EsmeRok, command.sequence_number(), resp));
        receipt.clone()
    }
}

fn message(to: &str, user_data: &[u8], registered: u8) -> SubmitSm {
    SubmitSm::builder()
        .source_addr(text("12345"))
        .destination_addr(text(to))
        .esm_class(EsmClass::from(UDHI))
        .registered_delivery(RegisteredDelivery::from(registered))
        .data_coding(DataCoding::OctetUnspecified2)
        .short_message(OctetString::from_slice(user_data).expect("it fits"))
        .build()
}

/// A short message to the LTKM port.
fn small(to: &str, registered: u8) -> SubmitSm {
    message(to, &split(b"octets", PORTS, 1).expect("it is short")[0], registered)
}

/// A trigger that needs two short messages.
fn trigger() -> Vec<u8> {
    let ltkm = Ltkm {
        v: false,
        csb_id: CsbId(9),
        counter: 7,
        rand: &[0x47; 16],
        id_type: IdType::NAI,
        idi: b"bmsc.example.com",
        idr: b"bXkgYm9vdHN0cmFwcGluZw==@bsf.example.com",
        key_domain_id: KeyDomainId([0xb8, 0x70, 0x9d]),
        msk_id: MskId::new(0x68c9, 0),
        ext_bcast: None,
        srtp: None,
        key: None,
    };
    let mut octets = vec![0; ltkm.encoded_len()];
    ltkm.write(&PresharedKey::new(&[0x2c; 32]), &mut octets).expect("an LTKM");
    octets
}

/// A terminal's LTKM port.
fn terminal() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let route = format!("{MSISDN}={}", socket.local_addr().expect("bound"));
    (socket, route)
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut octets = vec![0; 4096];
    let len = socket.recv(&mut octets).expect("a datagram");
    octets.truncate(len);
    octets
}

/// Id and state, as the text and as the TLVs of a receipt say them.
fn said(receipt: &DeliverSm) -> ((String, String), (String, MessageState)) {
    let words = receipt.short_message().to_str().expect("text").to_owned();
    let word = |name: &str| {
        let rest = words.split(' ').find_map(|word| word.strip_prefix(name));
        rest.unwrap_or_else(|| panic!("{name} in {words}")).to_owned()
    };
    let (mut id, mut state) = (None, None);
    for tlv in receipt.tlvs() {
        match tlv.value() {
            Some(TlvValue::ReceiptedMessageId(value)) => id = Some(value.to_string()),
            Some(TlvValue::MessageState(value)) => state = Some(*value),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(u8::from(receipt.esm_class), 4);
    ((word("id:"), word("stat:")), (id.expect("an id"), state.expect("a state")))
}

#[test]
fn a_trigger_in_two_parts_reaches_the_terminals_port_as_one_datagram_and_each_part_has_its_receipt() {
    let (socket, route) = terminal();
    let mut smsc = Smsc::start(&["--deliver", &route]);
    let mut esme = Esme::transceiver(&smsc);
    let ltkm = trigger();
    let parts = split(&ltkm, PORTS, 9).expect("it is short");
    assert_eq!(parts.len(), 2);
    let last_first = parts.iter().rev().map(|part| esme.submit(message(MSISDN, part, 1)));
    let ids: Vec<String> = last_first.collect();
    assert_eq!(received(&socket), ltkm);

    let event = smsc.await_event("message");
    assert_eq!(event["ids"], json!([ids[1], ids[0]]));
    assert_eq!((&event["from"], &event["to"]), (&json!("12345"), &json!(MSISDN)));
    assert_eq!((&event["port"], &event["data_coding"]), (&json!(4359), &json!(4)));
    assert_eq!(event["outcome"], "delivered");
    let told = json!({
        "btid": "bXkgYm9vdHN0cmFwcGluZw==@bsf.example.com", "key_domain": "b8709d", "msk_id": "68c90000",
        "t": 7, "v": false, "pull": "msk-request", "key": false,
    });
    assert_eq!(event["ltkm"], told);

    for id in [&ids[1], &ids[0]] {
        let receipt = esme.receipt();
        let (text, tlvs) = said(&receipt);
        assert_eq!(text, (id.clone(), "DELIVRD".to_owned()));
        assert_eq!(tlvs, (id.clone(), MessageState::Delivered));
        assert_eq!((receipt.source_addr.as_str(), receipt.destination_addr.as_str()), (MSISDN, "12345"));
        assert_eq!(smsc.await_event("receipt")["id"], json!(id));
    }
    assert_eq!(esme.call(Pdu::Unbind).id(), CommandId::UnbindResp);
    assert!(esme.read().is_none(), "the link is closed");
    assert_eq!(smsc.await_event("ended")["why"], "unbound");
}

#[test]
fn what_nobody_is_there_for_is_undeliverable_and_the_receipts_say_so_when_they_are_wanted() {
    // An address that no other test has sockets at.
    let closed = UdpSocket::bind("127.9.0.1:0").expect("bound").local_addr().expect("bound");
    let mut smsc = Smsc::start(&["--deliver", &format!("{MSISDN}={closed}")]);
    let mut esme = Esme::transceiver(&smsc);
    for to in [MSISDN, "4918"] {
        for registered in [0, 1, 2] {
            let id = esme.submit(small(to, registered));
            assert_eq!(smsc.await_event("message")["outcome"], "undeliverable");
            if registered > 0 {
                let (text, tlvs) = said(&esme.receipt());
                assert_eq!(text, (id.clone(), "UNDELIV".to_owned()));
                assert_eq!(tlvs, (id, MessageState::Undeliverable));
            }
        }
    }
}

#[test]
fn receipts_of_a_transmitter_go_to_the_receiver_of_the_same_system_id_whenever_it_binds() {
    let (_socket, route) = terminal();
    let smsc = Smsc::start(&["--deliver", &route]);
    let mut transmitter = Esme::connect(&smsc);
    let bind = BindTransmitter::builder().system_id(text("ltkmd")).build();
    assert_eq!(transmitter.call(bind).status(), CommandStatus::EsmeRok);
    let early = transmitter.submit(small(MSISDN, 1));
    let receiver = |name: &str| {
        let mut esme = Esme::connect(&smsc);
        let bind = BindReceiver::builder().system_id(text(name)).build();
        assert_eq!(esme.call(bind).status(), CommandStatus::EsmeRok);
        esme
    };
    let mut other = receiver("other");
    let mut ours = receiver("ltkmd");
    assert_eq!(said(&ours.receipt()).0.0, early);
    let late = transmitter.submit(small(MSISDN, 1));
    assert_eq!(said(&ours.receipt()).0.0, late);
    assert_eq!(ours.call(small(MSISDN, 0)).status(), CommandStatus::EsmeRinvbndsts);
    assert_eq!(other.call(Pdu::EnquireLink).id(), CommandId::EnquireLinkResp);
    assert!(other.others.is_empty(), "{:?}", other.others);
}

#[test]
fn a_receipt_that_was_not_acknowledged_comes_again_on_the_next_link() {
    let (_socket, route) = terminal();
    let smsc = Smsc::start(&["--deliver", &route]);
    let mut esme = Esme::transceiver(&smsc);
    let id = esme.submit(small(MSISDN, 1));
    let unacknowledged = esme.read().expect("a receipt");
    assert_eq!(unacknowledged.id(), CommandId::DeliverSm);
    drop(esme);
    let mut esme = Esme::transceiver(&smsc);
    assert_eq!(said(&esme.receipt()).0.0, id);
}

#[test]
fn a_bind_is_refused_for_the_reason_that_it_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "secret\n").expect("written");
    let file = file.to_str().expect("a path");
    for (args, status) in [
        (vec!["--system-id", "other"], CommandStatus::EsmeRinvsysid),
        (vec!["--reject-bind"], CommandStatus::EsmeRbindfail),
        (vec!["--system-id", "ltkmd", "--password-file", file], CommandStatus::EsmeRinvpaswd),
    ] {
        let mut smsc = Smsc::start(&args);
        let mut esme = Esme::connect(&smsc);
        let bind = BindTransceiver::builder().system_id(text("ltkmd")).password(text("guessed"));
        assert_eq!(esme.call(bind.build()).status(), status, "{args:?}");
        assert!(esme.read().is_none(), "the link is closed");
        assert_eq!(smsc.await_event("bind-refused")["system_id"], "ltkmd");
    }
    let smsc = Smsc::start(&["--system-id", "ltkmd", "--password-file", file]);
    Esme::transceiver(&smsc);
}

#[test]
fn nothing_is_taken_before_a_bind_and_no_link_binds_twice() {
    let smsc = Smsc::start(&[]);
    let mut esme = Esme::connect(&smsc);
    assert_eq!(esme.call(small(MSISDN, 0)).status(), CommandStatus::EsmeRinvbndsts);
    assert_eq!(esme.call(Pdu::EnquireLink).id(), CommandId::EnquireLinkResp);
    let bind = || BindTransceiver::builder().system_id(text("ltkmd")).build();
    assert_eq!(esme.call(bind()).status(), CommandStatus::EsmeRok);
    assert_eq!(esme.call(bind()).status(), CommandStatus::EsmeRalybnd);
    assert_eq!(esme.call(small("not a number", 0)).status(), CommandStatus::EsmeRinvdstadr);
}

#[test]
fn data_sm_is_delivered_like_any_message() {
    let (socket, route) = terminal();
    let smsc = Smsc::start(&["--deliver", &route]);
    let mut esme = Esme::transceiver(&smsc);
    let data = DataSm::builder()
        .source_addr(text("12345"))
        .destination_addr(text(MSISDN))
        .esm_class(EsmClass::from(0))
        .tlvs(vec![
            Optional::DestPort(4359),
            Optional::MessagePayload(MessagePayload::new(AnyOctetString::from_slice(&[7; 1000]))),
        ])
        .build();
    let answer = esme.call(data);
    assert_eq!((answer.id(), answer.status()), (CommandId::DataSmResp, CommandStatus::EsmeRok));
    assert_eq!(received(&socket), [7; 1000]);
}

#[test]
fn a_message_goes_to_the_port_it_names_on_a_host_without_one() {
    let (socket, _) = terminal();
    let destination = socket.local_addr().expect("bound").port();
    let smsc = Smsc::start(&["--deliver-all", "127.0.0.1"]);
    let mut esme = Esme::transceiver(&smsc);
    let ports = Ports { destination, source: 1 };
    esme.submit(message("4918", &split(b"octets", ports, 1).expect("it is short")[0], 0));
    assert_eq!(received(&socket), b"octets");
}

#[test]
fn beyond_the_rate_messages_are_answered_with_throttled() {
    let mut smsc = Smsc::start(&["--throttle", "1"]);
    let mut esme = Esme::transceiver(&smsc);
    let asked: Vec<u32> = (0..50).map(|_| esme.ask(small(MSISDN, 0))).collect();
    let statuses: Vec<_> = asked.into_iter().map(|sequence| esme.answer(sequence).status()).collect();
    assert_eq!(statuses[0], CommandStatus::EsmeRok);
    let throttled = statuses.iter().filter(|status| **status == CommandStatus::EsmeRthrottled).count();
    let taken = statuses.iter().filter(|status| **status == CommandStatus::EsmeRok).count();
    assert!(throttled >= 1 && throttled + taken == 50, "{statuses:?}");
    let status = smsc.await_event("refused")["status"].to_string();
    assert!(status.contains("ESME_RTHROTTLED"), "{status}");
}

#[test]
fn slow_answers_hold_nothing_else_up() {
    let (socket, route) = terminal();
    let smsc = Smsc::start(&["--deliver", &route, "--delay", "0.5"]);
    let mut esme = Esme::transceiver(&smsc);
    let slow: Vec<u32> = (0..10).map(|_| esme.ask(small(MSISDN, 0))).collect();
    esme.ask(Pdu::EnquireLink);
    esme.ask(Pdu::Unbind);
    let order: Vec<CommandId> = std::iter::from_fn(|| esme.read()).map(|command| command.id()).collect();
    assert_eq!(order[0], CommandId::EnquireLinkResp);
    assert_eq!(order[1..=slow.len()], vec![CommandId::SubmitSmResp; slow.len()]);
    assert_eq!(order[slow.len() + 1..], [CommandId::UnbindResp]);
    assert_eq!(received(&socket), b"octets");
}

#[test]
fn a_link_is_dropped_in_place_of_the_answer_that_was_named() {
    let mut smsc = Smsc::start(&["--drop-after", "3"]);
    for _ in 0..2 {
        let mut esme = Esme::transceiver(&smsc);
        esme.submit(small(MSISDN, 0));
        esme.submit(small(MSISDN, 0));
        esme.ask(small(MSISDN, 0));
        assert!(esme.read().is_none());
        assert_eq!(smsc.await_event("ended")["why"], "dropped, as --drop-after asks");
    }
}

#[test]
fn nonsense_ends_its_own_link_alone() {
    let mut smsc = Smsc::start(&[]);
    let mut good = Esme::transceiver(&smsc);
    let mut bad = Esme::connect(&smsc);
    bad.stream.write_all(b"GET / HTTP/1.1\r\nHost: smsc\r\n\r\n").expect("written");
    let nack = bad.read().expect("an answer");
    assert_eq!((nack.id(), nack.status()), (CommandId::GenericNack, CommandStatus::EsmeRinvcmdlen));
    assert!(bad.read().is_none());
    assert!(smsc.await_event("ended")["why"].as_str().expect("text").contains("PDU of"));
    let unknown = Pdu::Other { command_id: CommandId::Other(0x77), body: AnyOctetString::empty() };
    let sequence = good.ask(unknown);
    let nack = good.read().expect("an answer");
    assert_eq!((nack.id(), nack.status()), (CommandId::GenericNack, CommandStatus::EsmeRinvcmdid));
    assert_eq!(nack.sequence_number(), sequence);
    // A submit_sm whose body ends in its third field.
    good.stream.write_all(b"\0\0\0\x13\0\0\0\x04\0\0\0\0\0\0\0\x63\0\x01\x01").expect("written");
    let nack = good.read().expect("an answer");
    assert_eq!((nack.id(), nack.status()), (CommandId::GenericNack, CommandStatus::EsmeRinvcmdlen));
    assert_eq!(nack.sequence_number(), 0x63);
    assert_eq!(good.call(Pdu::EnquireLink).id(), CommandId::EnquireLinkResp);
}

#[test]
fn the_sixty_fifth_link_is_turned_away() {
    let mut smsc = Smsc::start(&[]);
    let mut links: Vec<Esme> = (0..64).map(|_| Esme::transceiver(&smsc)).collect();
    let mut late = Esme::connect(&smsc);
    assert!(late.read().is_none());
    smsc.await_event("turned-away");
    assert_eq!(links[0].call(Pdu::EnquireLink).id(), CommandId::EnquireLinkResp);
    drop(links.pop());
    smsc.await_event("ended");
    Esme::transceiver(&smsc);
}

#[test]
fn sigterm_ends_it_with_an_unbind_to_those_who_are_bound() {
    let mut smsc = Smsc::start(&[]);
    let mut esme = Esme::transceiver(&smsc);
    smsc.terminate();
    assert_eq!(esme.read().expect("a farewell").id(), CommandId::Unbind);
    assert!(esme.read().is_none());
    assert!(smsc.child.wait().expect("it ends").success());
}

#[test]
fn an_address_that_is_taken_and_a_host_without_an_address_are_told() {
    let smsc = Smsc::start(&[]);
    let run = |args: &[&str]| {
        let output = Program::new(env!("CARGO_BIN_EXE_ltkmd")).args(["ue", "smsc"]).args(args).output();
        let output = output.expect("the program runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, told) = run(&["--listen", &smsc.address.to_string()]);
    assert!(code == Some(1) && told.contains("give another address with --listen"), "{told}");
    let (code, told) = run(&["--deliver", "49x=127.0.0.1"]);
    assert!(code == Some(2) && told.contains("MSISDN"), "{told}");
    let (code, told) = run(&["--deliver-all", "no-such-host.invalid"]);
    assert!(code == Some(2) && told.contains("has no address"), "{told}");
}
