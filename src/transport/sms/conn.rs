//! One connection to a centre: opened, bound, read and written without either waiting for the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::SmsSettings;
use super::pdu::{self, BadLength, CommandId, Pdu, Received};
use super::status::{ROK, after_bind, shown};
use crate::config::Smsc;
use crate::metrics::SmscFault;

/// Octets that wait to be sent, at most; beyond, nothing more is read or submitted.
pub(super) const MAX_OUT: usize = 64 << 10;

/// How long a connection that ends may take to send what is left.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a link ended, or never was: the end of a sentence that the centre begins.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// No connection: network, name or port.
    #[error("cannot be reached: {0}")]
    Connect(io::Error),
    /// No TLS: the certificate, or no TLS over there.
    #[error("cannot be trusted or speaks no TLS: {0}; check sms.tls_ca and the port")]
    Tls(io::Error),
    /// The centre does not want this bind.
    #[error("refuses the bind with {}: {}", shown(*.0), after_bind(*.0))]
    Refused(u32),
    /// The centre answers nothing.
    #[error("did not answer {what} within {timeout:?}")]
    Silent {
        /// What was to be answered.
        what: &'static str,
        /// `sms.response_timeout`.
        timeout: Duration,
    },
    /// The centre closed the connection.
    #[error("closed the connection")]
    Closed,
    /// The connection broke.
    #[error("was lost: {0}")]
    Lost(io::Error),
    /// The centre does not keep to SMPP 3.4.
    #[error("sends nonsense: {0}")]
    Nonsense(String),
    /// The centre ends the session.
    #[error("unbinds")]
    Unbound,
    /// The centre answers submissions as if the bind did not hold.
    #[error("takes no messages on this bind: {}", shown(*.0))]
    Unusable(u32),
}

impl LinkError {
    /// What metrics call it.
    pub(super) fn fault(&self) -> SmscFault {
        match self {
            Self::Connect(_) => SmscFault::Connect,
            Self::Tls(_) => SmscFault::Tls,
            Self::Refused(_) | Self::Unusable(_) => SmscFault::Refused,
            Self::Silent { .. } => SmscFault::Timeout,
            Self::Closed | Self::Lost(_) => SmscFault::Closed,
            Self::Nonsense(_) => SmscFault::Nonsense,
            Self::Unbound => SmscFault::Unbound,
        }
    }
}

impl From<BadLength> for LinkError {
    fn from(BadLength(length): BadLength) -> Self {
        Self::Nonsense(format!("a PDU of {length} octets"))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(super) struct Conn {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    received: BytesMut,
    /// What is to be sent.
    pub(super) out: BytesMut,
    /// Whether something was written that may still be inside TLS.
    unflushed: bool,
    sequence: u32,
    heard: Instant,
    /// An enquire_link without an answer, and when it was sent.
    enquiry: Option<(u32, Instant)>,
    enquire_link: Duration,
    response_timeout: Duration,
}

impl Conn {
    /// Connects, with TLS if the centre wants it. Name resolution, TCP and TLS share one response timeout.
    pub(super) async fn open(smsc: &Smsc, settings: &SmsSettings) -> Result<Self, LinkError> {
        let silent = LinkError::Silent { what: "the connection", timeout: settings.response_timeout };
        let connecting = connect(smsc, settings);
        let stream = timeout(settings.response_timeout, connecting).await.map_err(|_| silent)??;
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self {
            reader,
            writer,
            received: BytesMut::new(),
            out: BytesMut::new(),
            unflushed: false,
            sequence: 0,
            heard: Instant::now(),
            enquiry: None,
            enquire_link: settings.enquire_link,
            response_timeout: settings.response_timeout,
        })
    }

    /// Binds; gives the centre's `system_id`.
    pub(super) async fn bind(
        &mut self,
        kind: CommandId,
        settings: &SmsSettings,
    ) -> Result<String, LinkError> {
        let sequence = self.next_sequence();
        let request = pdu::bind(kind, sequence, &settings.system_id, settings.password.as_ref());
        let silent = LinkError::Silent { what: "the bind", timeout: self.response_timeout };
        let binding = async {
            self.writer.write_all(&request).await.map_err(LinkError::Lost)?;
            self.writer.flush().await.map_err(LinkError::Lost)?;
            loop {
                let received = self.next().await?;
                let answers = received.sequence == sequence;
                match received.id {
                    id if answers && id == kind.matching_response() => {
                        return match received.status {
                            ROK => Ok(received.system_id().to_owned()),
                            status => Err(LinkError::Refused(status)),
                        };
                    }
                    CommandId::GenericNack => return Err(LinkError::Refused(received.status)),
                    CommandId::EnquireLink => self.answer(&received, ROK, Pdu::EnquireLinkResp),
                    CommandId::Unbind => return Err(LinkError::Unbound),
                    id => {
                        return Err(LinkError::Nonsense(format!("{id:?} where a bind is to be answered")));
                    }
                }
            }
        };
        timeout(settings.response_timeout, binding).await.map_err(|_| silent)?
    }

    /// A sequence number of the daemon's own requests: 1 to 0x7FFFFFFF, then again (SMPP 3.4 §5.1.4).
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence % 0x7FFF_FFFF + 1;
        self.sequence
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, request: &Received, status: u32, pdu: Pdu) {
        pdu::put(&mut self.out, status, request.sequence, pdu);
    }

    /// Sends a request without a body; gives its sequence number.
    pub(super) fn ask(&mut self, pdu: Pdu) -> u32 {
        let sequence = self.next_sequence();
        pdu::put(&mut self.out, ROK, sequence, pdu);
        sequence
    }

    /// The next PDU. Sends what is to be sent meanwhile, and reads nothing while too much of it waits. Dropping the
    /// future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Received, LinkError> {
        loop {
            if let Some(received) = pdu::take(&mut self.received)? {
                self.heard = Instant::now();
                return Ok(received);
            }
            let reads = self.out.len() < MAX_OUT;
            let writes = !self.out.is_empty() || self.unflushed;
            self.received.reserve(4096);
            tokio::select! {
                read = self.reader.read_buf(&mut self.received), if reads => {
                    if read.map_err(LinkError::Lost)? == 0 {
                        return Err(LinkError::Closed);
                    }
                }
                written = write(&mut self.writer, &mut self.out, &mut self.unflushed), if writes => {
                    written.map_err(LinkError::Lost)?;
                }
            }
        }
    }

    /// Asks a centre that was silent for too long whether it is there.
    ///
    /// # Errors
    /// It was asked and is silent still.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), LinkError> {
        match self.enquiry {
            Some(_) if now >= self.wake() => {
                Err(LinkError::Silent { what: "enquire_link", timeout: self.response_timeout })
            }
            None if now >= self.wake() => {
                let sequence = self.ask(Pdu::EnquireLink);
                self.enquiry = Some((sequence, now));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// When to [`Self::tick`] again.
    pub(super) fn wake(&self) -> Instant {
        match self.enquiry {
            Some((_, asked)) => asked.max(self.heard) + self.response_timeout,
            None => self.heard + self.enquire_link,
        }
    }

    /// Whether this is the answer to the enquire_link.
    pub(super) fn answers_enquiry(&mut self, received: &Received) -> bool {
        let answers = self.enquiry.is_some_and(|(sequence, _)| sequence == received.sequence);
        if answers {
            self.enquiry = None;
        }
        answers
    }

    /// Sends what is left, not for long, and closes.
    pub(super) async fn close(mut self) {
        let closing = async {
            self.writer.write_all(&self.out).await?;
            self.writer.shutdown().await
        };
        // Whoever is not there any more hears no farewell.
        let _ = timeout(LAST_WORDS, closing).await;
    }
}

async fn connect(smsc: &Smsc, settings: &SmsSettings) -> Result<Box<dyn Stream>, LinkError> {
    let tcp = TcpStream::connect((smsc.host.as_str(), smsc.port)).await.map_err(LinkError::Connect)?;
    // A PDU that waits for the next one would cost a round trip each.
    tcp.set_nodelay(true).map_err(LinkError::Connect)?;
    if !smsc.tls {
        return Ok(Box::new(tcp));
    }
    let no_tls = |what: &str| LinkError::Tls(io::Error::other(what.to_owned()));
    let authorities = settings.authorities.as_ref().ok_or_else(|| no_tls("no authorities are configured"))?;
    let name = ServerName::try_from(smsc.host.clone()).map_err(|_| no_tls("the host has no valid name"))?;
    let connector = TlsConnector::from(Arc::clone(&authorities.client));
    Ok(Box::new(connector.connect(name, tcp).await.map_err(LinkError::Tls)?))
}

async fn write(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    out: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if out.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    } else if writer.write_buf(out).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    } else {
        *unflushed = true;
    }
    Ok(())
}
