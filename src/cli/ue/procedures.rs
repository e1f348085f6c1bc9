//! `ue register`, `ue deregister`, `ue msk-request`: one request, its LTKMs, and what comes by UDP after it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::Trouble;
use super::ask::{Answer, Ask};
use super::credential::CredentialArgs;
use super::http::{Client, DigestChoice, Proof, Reply};
use super::link::{LTKM_PORT, Link, http_source, resolve_bsm};
use super::report::{self, LtkmRecord};
use super::session::{Session, seconds};
use super::state::StateFile;
use super::target::{self, Url};
use super::terminal::Effect;
use crate::digest::{Algorithm, Qop};
use crate::document::{BodyForm, ContainerChildren, MskItem, Style};
use crate::id::{KeyDomainId, Method, MskId, ServiceId};
use crate::procedure::Procedure;

/// How long LTKMs by UDP are awaited when there is a port for them and no `--wait`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// How requests are made.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The BM-SC")]
pub(super) struct ServerArgs {
    /// The key management URL, such as http://127.0.0.1:8080/keymanagement
    #[arg(long, value_name = "URL")]
    pub(super) url: Url,
    #[command(flatten)]
    pub(super) dialect: DialectArgs,
}

/// How requests are written and authenticated.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The BM-SC")]
pub(super) struct DialectArgs {
    /// With https: a PEM file of the authority's certificates
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// What the digest covers
    #[arg(long, value_name = "auth|auth-int", default_value = "auth-int", value_parser = qop)]
    pub(super) qop: Qop,
    /// The digest algorithm, SHA-256 or MD5 [default: the strongest offered]
    #[arg(long, value_name = "NAME")]
    pub(super) algorithm: Option<Algorithm>,
    /// Documents as they are or in base64
    #[arg(long, value_name = "plain|base64", default_value = "plain", value_parser = form)]
    pub(super) form: BodyForm,
    /// How the children of containers are written: qualified or default-namespace
    #[arg(long, value_name = "DIALECT", default_value = "qualified")]
    pub(super) children: ContainerChildren,
}

impl DialectArgs {
    pub(super) fn style(&self) -> Style {
        Style { children: self.children, form: self.form }
    }

    pub(super) fn choice(&self) -> DigestChoice {
        DigestChoice { qop: self.qop, algorithm: self.algorithm }
    }

    /// A client of the BM-SC at `url`, from the address `source`, if any.
    pub(super) fn client(&self, url: &Url, source: Option<IpAddr>) -> Result<Client, Trouble> {
        let client = target::client(url, source, self.ca.as_deref()).map_err(Trouble::Usage)?;
        Ok(Client::new(client, url.path(), self.choice()))
    }
}

/// Where LTKMs arrive by UDP and answers go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "LTKMs by UDP")]
pub(super) struct LinkArgs {
    /// Receive LTKMs here; HTTP requests come from the same address [default with --wait: 0.0.0.0:4359]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Where verification messages go [default: the host of the URL, port 4359]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) bsm: Option<String>,
    /// Wait so many seconds at most for keys by UDP [default: 5 with --listen, else 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) wait: Option<Duration>,
}

/// What is kept and told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is kept and told")]
pub(super) struct KeepArgs {
    /// Keep the replay counter and the keys in this file from run to run
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
    /// Print the keys themselves
    #[arg(long)]
    pub(super) show_keys: bool,
}

/// Which services, and which delivery types are declared.
#[derive(Debug, Clone, Args)]
pub(super) struct DeclareArgs {
    /// Declare these delivery methods: udp, http, sms [default: declare nothing]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = method)]
    pub(super) methods: Vec<Method>,
    /// Declare this type number too, behind the methods; may be given more than once
    #[arg(long = "type", value_name = "N")]
    pub(super) types: Vec<u8>,
}

impl DeclareArgs {
    /// The types to declare; none at all when neither option was given.
    pub(super) fn declared(&self) -> Option<Vec<u8>> {
        let methods = self.methods.iter().map(|method| *method as u8);
        let types: Vec<u8> = methods.chain(self.types.iter().copied()).collect();
        (!types.is_empty()).then_some(types)
    }
}

/// What all three procedures take.
#[derive(Debug, Clone, Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    link: LinkArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

/// `ue register`
#[derive(Debug, Clone, Args)]
pub(super) struct RegisterArgs {
    /// A service to register for; may be given more than once
    #[arg(long = "service", value_name = "ID", required = true)]
    services: Vec<ServiceId>,
    #[command(flatten)]
    declare: DeclareArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// `ue deregister`
#[derive(Debug, Clone, Args)]
pub(super) struct DeregisterArgs {
    /// A service to leave; may be given more than once
    #[arg(long = "service", value_name = "ID", required = true)]
    services: Vec<ServiceId>,
    #[command(flatten)]
    common: CommonArgs,
}

/// `ue msk-request`
#[derive(Debug, Clone, Args)]
pub(super) struct MskRequestArgs {
    /// A key in hex, such as b8709d:68c90001; Key Number 0000 asks for the current one; may be given more than once
    #[arg(long = "key", value_name = "DOMAIN:MSKID", required = true, value_parser = msk)]
    keys: Vec<MskItem>,
    #[command(flatten)]
    common: CommonArgs,
}

fn qop(text: &str) -> Result<Qop, &'static str> {
    [Qop::Auth, Qop::AuthInt].into_iter().find(|qop| qop.as_str() == text).ok_or("must be auth or auth-int")
}

fn form(text: &str) -> Result<BodyForm, &'static str> {
    match text {
        "plain" => Ok(BodyForm::Plain),
        "base64" => Ok(BodyForm::Base64),
        _ => Err("must be plain or base64"),
    }
}

pub(super) fn method(text: &str) -> Result<Method, &'static str> {
    Method::ALL.into_iter().find(|m| m.as_str() == text).ok_or("must be udp, http or sms")
}

fn msk(text: &str) -> Result<MskItem, &'static str> {
    let wrong = "must be 6 and 8 hex digits, such as b8709d:68c90001";
    let (domain, id) = text.split_once(':').ok_or(wrong)?;
    let key_domain: KeyDomainId = domain.parse().map_err(|_| wrong)?;
    let msk_id: MskId = id.parse().map_err(|_| wrong)?;
    Ok(MskItem { key_domain, msk_id })
}

pub(super) async fn register(args: RegisterArgs) -> Result<(), Trouble> {
    let types = args.declare.declared();
    let ask = Ask::register(args.services, types);
    run(ask, args.common).await
}

pub(super) async fn deregister(args: DeregisterArgs) -> Result<(), Trouble> {
    run(Ask::deregister(args.services), args.common).await
}

pub(super) async fn msk_request(args: MskRequestArgs) -> Result<(), Trouble> {
    run(Ask::msk_request(args.keys), args.common).await
}

/// Opens the port, for commands with and without a URL.
pub(super) async fn open_link(
    listen: Option<SocketAddr>,
    bsm: Option<&str>,
    url: Option<&Url>,
) -> Result<Link, Trouble> {
    let bsm = resolve_bsm(bsm, url).await.map_err(Trouble::Usage)?;
    Link::open(listen, bsm).await.map_err(|e| {
        let listen = listen.map_or_else(|| "a port".to_owned(), |address| address.to_string());
        Trouble::Failed(format!("{listen} cannot be bound: {e}: give another address with --listen"))
    })
}

async fn run(ask: Ask, args: CommonArgs) -> Result<(), Trouble> {
    let credential = args.credential.read().map_err(Trouble::usage)?;
    let wait =
        args.link.wait.unwrap_or(if args.link.listen.is_some() { DEFAULT_WAIT } else { Duration::ZERO });
    let any = SocketAddr::from(([0, 0, 0, 0], LTKM_PORT));
    let listen = args.link.listen.or((!wait.is_zero()).then_some(any));
    let ServerArgs { url, dialect } = args.server;
    let client = dialect.client(&url, http_source(listen))?;
    let link = open_link(listen, args.link.bsm.as_deref(), Some(&url)).await?;
    let state = StateFile::new(args.keep.state.clone());
    let mut session = Session::new(credential, state, Some(client), link).map_err(Trouble::failed)?;
    session.style = dialect.style();
    session.show_keys = args.keep.show_keys;
    if let Ask::Register(request) = &ask {
        session.services = request.services.clone();
        session.types = request.ltkm_delivery.clone();
    }

    let (exchange, mut records) = session.ask(&ask).await.map_err(Trouble::failed)?;
    let procedure = ask.procedure();
    if !args.keep.json {
        print_reply(procedure, &exchange.reply, exchange.answer.as_ref());
    }
    let wanted = exchange.answer.as_ref().map_or(0, Answer::granted);
    let inside = records.iter().filter(|record| record.is_accepted()).count();
    let mut arrived = inside;
    let deadline = Instant::now() + wait;
    while arrived < wanted && !wait.is_zero() {
        let Some((record, effect)) = session.receive(Some(deadline)).await.map_err(Trouble::failed)? else {
            break;
        };
        arrived += usize::from(counts(procedure, effect.as_ref()));
        records.push(record);
        follow(&mut session, &mut records, &mut arrived).await?;
    }

    if arrived < wanted && wait.is_zero() && procedure != Procedure::Deregister {
        eprintln!("ltkmd ue: keys that come by UDP were not awaited: give --listen to receive them");
    }
    let complete = arrived >= wanted || wait.is_zero() || procedure == Procedure::Deregister;
    tell(procedure, &exchange.reply, exchange.answer.as_ref(), &records, &args.keep, complete);
    verdict(&exchange.reply, exchange.answer.as_ref())?;
    if complete {
        return Ok(());
    }
    Err(Trouble::Failed(format!(
        "{arrived} of {wanted} keys arrived within {} s: look at the delivery with ltkmd ctl, or wait longer",
        wait.as_secs_f64()
    )))
}

/// Whether an LTKM is one that the request lets expect.
fn counts(procedure: Procedure, effect: Option<&Effect>) -> bool {
    match (procedure, effect) {
        (Procedure::Deregister, Some(Effect::Invalidated { .. })) => true,
        (Procedure::Register | Procedure::MskRequest, Some(effect)) => effect.is_key(),
        _ => false,
    }
}

/// Makes the requests that triggers asked for.
async fn follow(
    session: &mut Session,
    records: &mut Vec<LtkmRecord>,
    arrived: &mut usize,
) -> Result<(), Trouble> {
    while let Some(pull) = session.next_pull() {
        match pull {
            Ok(ask) => {
                let (_, mut more) = session.ask(&ask).await.map_err(Trouble::failed)?;
                *arrived += more.iter().filter(|record| record.is_accepted()).count();
                records.append(&mut more);
            }
            Err(why) => eprintln!("ltkmd ue: {why}"),
        }
    }
    Ok(())
}

pub(super) fn print_reply(procedure: Procedure, reply: &Reply, answer: Option<&Answer>) {
    println!("{}", report::status_line(reply));
    if let Some(answer) = answer {
        if let Some(methods) = &answer.delivery {
            let names: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
            println!("delivery: {}", names.join(", "));
        }
        println!("\n{}", report::item_table(procedure, &answer.items));
    }
}

fn tell(
    procedure: Procedure,
    reply: &Reply,
    answer: Option<&Answer>,
    records: &[LtkmRecord],
    keep: &KeepArgs,
    complete: bool,
) {
    if keep.json {
        let mut told = report::reply_json(procedure, reply, answer);
        told["received"] = serde_json::json!(records);
        told["complete"] = serde_json::json!(complete);
        println!("{told}");
        return;
    }
    if records.iter().any(LtkmRecord::is_accepted) {
        println!("\n{}", report::ltkm_table(records, keep.show_keys));
    }
    report::refusals(records).for_each(|line| println!("{line}"));
}

/// Whether the answer is what was asked for.
fn verdict(reply: &Reply, answer: Option<&Answer>) -> Result<(), Trouble> {
    let Some(answer) = answer else {
        let what = match reply.status.as_u16() {
            401 => "the credential is not accepted: look at B-TID and MRK, or bootstrap again".to_owned(),
            _ => match String::from_utf8_lossy(&reply.body).lines().next() {
                Some(line) if line.len() <= 200 && !line.contains(char::is_control) => line.to_owned(),
                _ => "the request was refused".to_owned(),
            },
        };
        return Err(Trouble::Failed(format!("{}: {what}", reply.status)));
    };
    if reply.proof == Proof::Missing {
        eprintln!("ltkmd ue: the server sent no Authentication-Info: it did not prove that it knows the MRK");
    }
    match answer.items.iter().filter(|item| !item.code.is_ok()).count() {
        0 => Ok(()),
        n => Err(Trouble::Failed(format!("{n} of {} items were refused", answer.items.len()))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::UeArgs;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ue: UeArgs,
    }

    fn parse(line: &str) -> Result<UeArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("ue").chain(line.split_whitespace())).map(|line| line.ue)
    }

    fn refused(line: &str) -> String {
        parse(line).map(|args| format!("accepted {args:?}")).unwrap_err().to_string()
    }

    const URL: &str = "--url http://127.0.0.1:8080/keymanagement";

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Line::command().debug_assert();
    }

    #[test]
    fn methods_and_types_become_the_declared_types_in_order() {
        for (options, types) in [
            ("", None),
            ("--methods http,udp", Some(vec![2, 0])),
            ("--methods sms --type 200 --type 3", Some(vec![1, 200, 3])),
            ("--type 0", Some(vec![0])),
        ] {
            let line = parse(&format!("register {URL} --service urn:a {options}")).unwrap();
            let super::super::Command::Register(args) = line.command else { panic!("{options}") };
            assert_eq!(args.declare.declared(), types, "{options}");
        }
    }

    #[test]
    fn a_key_is_named_by_domain_and_id_in_hex() {
        let item = msk("b8709d:68c90000").unwrap();
        assert_eq!((item.key_domain.to_string(), item.msk_id.number()), ("b8709d".to_owned(), 0));
        for wrong in ["", "b8709d", "b8709d:68c9", "b8709d:68c900001", "x8709d:68c90000"] {
            assert!(msk(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_what_to_give() {
        for (line, told) in [
            (format!("register {URL}"), "--service"),
            ("register --service urn:a".to_owned(), "--url"),
            (format!("register {URL} --service urn:a --methods pigeon"), "udp, http or sms"),
            (format!("register {URL} --service urn:a --type 256"), "256"),
            (format!("register {URL} --service urn:a --qop none"), "auth or auth-int"),
            (format!("register {URL} --service urn:a --algorithm SHA-1"), "SHA-256"),
            (format!("register {URL} --service urn:a --form xml"), "plain or base64"),
            (format!("register {URL} --service urn:a --children other"), "default-namespace"),
            (format!("register {URL} --service urn:a --wait=-1"), "86400"),
            (format!("register {URL} --service urn:a --wait=1e9"), "86400"),
            (format!("msk-request {URL} --key 1:2"), "hex digits"),
            ("register --url ftp://a --service urn:a".to_owned(), "http://"),
            (format!("register {URL} --service urn:a --credential a --mrk-file b"), "cannot be used with"),
        ] {
            let error = refused(&line);
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn what_a_request_lets_expect_is_counted_and_nothing_else() {
        let stored = Effect::Stored(super::super::Validity::Always);
        let ended = Effect::Invalidated { held: true };
        assert!(counts(Procedure::Register, Some(&stored)) && counts(Procedure::MskRequest, Some(&stored)));
        assert!(counts(Procedure::Deregister, Some(&ended)));
        assert!(!counts(Procedure::Register, Some(&ended)) && !counts(Procedure::Deregister, Some(&stored)));
        assert!(!counts(Procedure::Register, Some(&Effect::Nothing)) && !counts(Procedure::Register, None));
    }
}
