//! The keys of a TLS connection, and the records that are not for the application: alerts, key updates, tickets.

use super::record::{Key, Kind};
use rustls::{
    AlertDescription, Error, ExtractedSecrets, InvalidMessage, PeerMisbehaved, client::ClientConnectionData,
    kernel::KernelConnection, server::ServerConnectionData,
};

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// The longest message after the handshake, which is a ticket.
pub(super) const MAX_MESSAGE: usize = 1 << 16;
/// Key updates in a row, without a byte for the application.
const MAX_UPDATES: u8 = 32;
/// Records under one key: a third of what AES-GCM allows (RFC 8446 5.5).
const MAX_RECORDS: u64 = 1 << 23;

/// What rustls keeps of a connection, to derive the next keys.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

pub(crate) struct Control {
    kernel: Kernel,
    opener: Key,
    sealer: Key,
    /// The beginning of a handshake message whose end has not come.
    message: Vec<u8>,
    /// The peer wants this side's key replaced too, before the next data.
    update_due: bool,
    updates: u8,
    max_records: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The peer sends no more.
    Ended,
    Nothing,
}

impl Control {
    pub(super) fn new(kernel: Kernel, secrets: ExtractedSecrets) -> Result<Self, Error> {
        Ok(Self {
            kernel,
            opener: Key::new(secrets.rx)?,
            sealer: Key::new(secrets.tx)?,
            message: Vec::new(),
            update_due: false,
            updates: 0,
            max_records: MAX_RECORDS,
        })
    }

    #[cfg(test)]
    pub(super) fn wear_out_after(&mut self, records: u64) {
        self.max_records = records;
    }

    /// Bytes of a message that are kept until its end comes.
    #[cfg(feature = "fuzzing")]
    pub(super) fn waits_for_more(&self) -> usize {
        self.message.len()
    }

    pub(super) fn opener(&mut self) -> &mut Key {
        &mut self.opener
    }

    pub(super) fn sealer(&mut self) -> &mut Key {
        &mut self.sealer
    }

    /// Data may not come within a message. Empty records are no data: they do not excuse another key update.
    pub(super) fn data_received(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > 0 {
            self.updates = 0;
        }
        if self.message.is_empty() {
            Ok(())
        } else {
            Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into())
        }
    }

    /// Acts on a record that is not data.
    pub(super) fn received(&mut self, kind: u8, content: &[u8]) -> Result<Event, Error> {
        if kind == Kind::Alert as u8 {
            let [_level, description] = content else { return Err(InvalidMessage::MessageTooLarge.into()) };
            return match AlertDescription::from(*description) {
                AlertDescription::CloseNotify => Ok(Event::Ended),
                // Comes before close_notify, which says what matters.
                AlertDescription::UserCanceled => Ok(Event::Nothing),
                description => Err(Error::AlertReceived(description)),
            };
        }
        if kind != Kind::Handshake as u8 || content.is_empty() {
            return Err(InvalidMessage::InvalidContentType.into());
        }
        self.message.extend_from_slice(content);
        // Taken off once, however many there are: a record may hold thousands of empty tickets.
        let mut message = std::mem::take(&mut self.message);
        let mut rest = message.as_slice();
        while let Some(([kind, length @ ..], behind)) = rest.split_first_chunk::<4>() {
            let (kind, length) = (*kind, u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize);
            if length > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            match (kind, body, &self.kernel) {
                (KEY_UPDATE, [request @ (0 | 1)], _) => {
                    if !behind.is_empty() {
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    }
                    self.update_due |= *request == 1;
                    self.peer_updated()?;
                }
                // Nothing is resumed, so tickets are of no use.
                (NEW_SESSION_TICKET, _, Kernel::Client(_)) => {}
                _ => return Err(InvalidMessage::UnexpectedMessage("handshake message after the handshake").into()),
            }
            rest = behind;
        }
        let acted_on = message.len() - rest.len();
        if acted_on < message.len() {
            message.drain(..acted_on);
            self.message = message;
        }
        Ok(Event::Nothing)
    }

    fn peer_updated(&mut self) -> Result<(), Error> {
        self.updates += 1;
        if self.updates > MAX_UPDATES {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        let secrets = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_rx_secret()?,
            Kernel::Server(kernel) => kernel.update_rx_secret()?,
        };
        self.opener = Key::new(secrets)?;
        Ok(())
    }

    /// What must be sent before data: at most one key update. Says how long its record is.
    pub(super) fn before_data(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if !self.update_due && self.sealer.used() < self.max_records {
            return Ok(0);
        }
        self.update_due = false;
        let used = self.sealer.seal(Kind::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
        let secrets = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_tx_secret()?,
            Kernel::Server(kernel) => kernel.update_tx_secret()?,
        };
        self.sealer = Key::new(secrets)?;
        Ok(used)
    }

    pub(super) fn alert(&mut self, description: AlertDescription, out: &mut [u8]) -> Result<usize, Error> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let level = if description == AlertDescription::CloseNotify { WARNING } else { FATAL };
        self.sealer.seal(Kind::Alert, &[level, u8::from(description)], out)
    }
}
