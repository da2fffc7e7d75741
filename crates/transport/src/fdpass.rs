//! Messages with file descriptors between processes, over a Unix stream socket.
//!
//! How a process that may not enter a namespace gets a socket made inside it. A message is its length (4 bytes, big-endian)
//! and its bytes; descriptors travel with the length, so that they never belong to the wrong message. It must not know
//! what messages mean.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tokio::{io::Interest, net::UnixStream};

/// The longest message.
pub const MAX_BYTES: usize = 1 << 20;
/// The most descriptors in one message.
pub const MAX_FDS: usize = 16;

const LENGTH: usize = 4;

/// A received message.
#[derive(Debug, Default)]
pub struct Message {
    pub bytes: Vec<u8>,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends a message on a blocking socket.
///
/// # Errors
/// It is over a bound, or the peer is gone.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = frame(bytes, fds)?;
    let mut sent = 0;
    while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += send_part(socket.as_fd(), rest, if sent == 0 { fds } else { &[] })?;
    }
    Ok(())
}

/// Receives a message on a blocking socket; `None` when the peer has closed.
///
/// # Errors
/// The message is over a bound or cut off, or the socket fails.
pub fn recv(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut incoming = Incoming::default();
    while !incoming.complete() {
        if incoming.read(socket.as_fd())? == 0 {
            return incoming.end();
        }
    }
    Ok(Some(incoming.message))
}

/// As [`send`], on a tokio socket. Not cancel-safe: a dropped future may leave half a message behind.
///
/// # Errors
/// As [`send`].
pub async fn send_async(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let frame = frame(bytes, fds)?;
    let mut sent = 0;
    while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
        let fds = if sent == 0 { fds } else { &[] };
        sent += socket.async_io(Interest::WRITABLE, || send_part(socket.as_fd(), rest, fds)).await?;
    }
    Ok(())
}

/// As [`recv`], on a tokio socket. Not cancel-safe: a dropped future may have taken half a message.
///
/// # Errors
/// As [`recv`].
pub async fn recv_async(socket: &UnixStream) -> io::Result<Option<Message>> {
    let mut incoming = Incoming::default();
    while !incoming.complete() {
        if socket.async_io(Interest::READABLE, || incoming.read(socket.as_fd())).await? == 0 {
            return incoming.end();
        }
    }
    Ok(Some(incoming.message))
}

fn frame(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Vec<u8>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    if bytes.len() > MAX_BYTES {
        return Err(invalid("the message is longer than 1 MiB"));
    }
    if fds.len() > MAX_FDS {
        return Err(invalid("the message has more than 16 descriptors"));
    }
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("the message is longer than 1 MiB"))?;
    let mut frame = Vec::with_capacity(LENGTH + bytes.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    Ok(frame)
}

fn send_part(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptors do not fit"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// A message on its way in.
#[derive(Debug, Default)]
struct Incoming {
    length: [u8; LENGTH],
    read: usize,
    message: Message,
}

impl Incoming {
    fn complete(&self) -> bool {
        self.read >= LENGTH && self.read - LENGTH == self.message.bytes.len()
    }

    /// Reads once, never beyond this message. Zero is the end.
    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let into = match self.read.checked_sub(LENGTH) {
            None => self.length.get_mut(self.read..),
            Some(at) => self.message.bytes.get_mut(at..),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(into.unwrap_or_default())];
        let received = loop {
            match rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.message.fds.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.message.fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors of the message were lost"));
        }
        self.read += received.bytes;
        if self.read == LENGTH && self.message.bytes.is_empty() {
            let length = u32::from_be_bytes(self.length) as usize;
            if length > MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is longer than 1 MiB"));
            }
            self.message.bytes.resize(length, 0);
        }
        Ok(received.bytes)
    }

    fn end(self) -> io::Result<Option<Message>> {
        if self.read == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Std;

    /// A descriptor is known by what can be read from it.
    fn pipe(text: &[u8]) -> OwnedFd {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text).unwrap();
        reader.into()
    }

    fn text(fd: OwnedFd) -> String {
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_stay_with_their_message() {
        let (a, b) = Std::pair().unwrap();
        let (one, two, three) = (pipe(b"1"), pipe(b"2"), pipe(b"3"));
        send(&a, b"none", &[]).unwrap();
        send(&a, b"", &[one.as_fd()]).unwrap();
        send(&a, b"none again", &[]).unwrap();
        send(&a, b"two", &[two.as_fd(), three.as_fd()]).unwrap();
        drop(a);
        let mut seen = Vec::new();
        while let Some(message) = recv(&b).unwrap() {
            seen.push((
                String::from_utf8(message.bytes).unwrap(),
                message.fds.into_iter().map(text).collect::<Vec<_>>(),
            ));
        }
        let expected = [("none", vec![]), ("", vec!["1"]), ("none again", vec![]), ("two", vec!["2", "3"])];
        assert_eq!(seen, expected.map(|(m, f)| (m.to_owned(), f.into_iter().map(str::to_owned).collect::<Vec<_>>())));
    }

    #[test]
    fn bounds_and_cuts_are_errors() {
        let (a, b) = Std::pair().unwrap();
        assert_eq!(send(&a, &vec![0; MAX_BYTES + 1], &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let fd = pipe(b"");
        assert_eq!(send(&a, b"", &[fd.as_fd(); MAX_FDS + 1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        (&a).write_all(&[0, 0, 0, 9, b'x']).unwrap();
        drop(a);
        assert_eq!(recv(&b).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (a, b) = Std::pair().unwrap();
        (&a).write_all(&[255; 4]).unwrap();
        assert_eq!(recv(&b).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_long_message_passes_a_small_buffer() {
        let (a, b) = UnixStream::pair().unwrap();
        let fd = pipe(b"fd");
        let bytes: Vec<u8> = (0..MAX_BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let (sent, received) = tokio::join!(send_async(&a, &bytes, &[]), recv_async(&b));
        sent.unwrap();
        assert!(received.unwrap().unwrap().bytes == bytes);
        let fds = [fd.as_fd()];
        let (sent, received) = tokio::join!(send_async(&a, b"x", &fds), recv_async(&b));
        sent.unwrap();
        assert_eq!(text(received.unwrap().unwrap().fds.remove(0)), "fd");
    }
}
