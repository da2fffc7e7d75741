//! The first bytes of a connection, read until a question about them is answered.
//!
//! Both directions detect by it; what is asked, and what an answer means, is theirs. The bytes are kept: whoever goes on with
//! the connection puts them back.

use bytes::BytesMut;
use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, ReadBuf};
use weft_transport::detect::MAX_BYTES;

/// How reading ended.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    Answer(T),
    /// The peer has finished sending before there was an answer.
    Eof,
    Timeout,
}

/// Bytes of one read: a ClientHello with a post-quantum key share and most request heads fit.
const READ: usize = 4096;

/// Reads into `bytes` until `ask` knows. `ask` sees all bytes each time and answers at [`MAX_BYTES`] at the latest.
pub(crate) async fn read<S, T>(
    io: &mut S,
    bytes: &mut BytesMut,
    timeout: Duration,
    mut ask: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Seen<T>>
where
    S: AsyncRead + Unpin,
{
    let reading = async {
        loop {
            // Nothing can be said of no bytes.
            if !bytes.is_empty()
                && let Some(answer) = ask(bytes)
            {
                return Ok(Seen::Answer(answer));
            }
            if bytes.len() >= MAX_BYTES {
                return Ok(Seen::Eof);
            }
            if more(io, bytes).await? == 0 {
                return Ok(Seen::Eof);
            }
        }
    };
    // Dropping the read loses nothing: what was read is in `bytes`.
    tokio::time::timeout(timeout, reading).await.unwrap_or(Ok(Seen::Timeout))
}

/// Appends what one read brings. A connection that is silent holds no buffer meanwhile.
async fn more<S: AsyncRead + Unpin>(io: &mut S, bytes: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut read))?;
        bytes.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn bytes_are_kept_whatever_the_end() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"ab").await.unwrap();
        let mut bytes = BytesMut::new();
        let whole = |b: &[u8]| (b.len() >= 3).then_some(b.len());
        let seen = read(&mut ours, &mut bytes, Duration::from_millis(20), whole).await.unwrap();
        assert!(matches!(seen, Seen::Timeout));
        theirs.write_all(b"c").await.unwrap();
        assert!(matches!(read(&mut ours, &mut bytes, READ_TIME, whole).await.unwrap(), Seen::Answer(3)));
        drop(theirs);
        assert!(matches!(read(&mut ours, &mut bytes, READ_TIME, |_| None::<()>).await.unwrap(), Seen::Eof));
        assert_eq!(&bytes[..], b"abc");
    }

    const READ_TIME: Duration = Duration::from_secs(10);
}
