//! The context in a request's headers: W3C `traceparent`, else `grpc-trace-bin`, else B3 (data plane 7.3).

use super::Context;
use crate::decide::route::RequestView;

pub const TRACEPARENT: &str = "traceparent";
pub const GRPC_TRACE_BIN: &str = "grpc-trace-bin";
pub const B3_TRACE: &str = "x-b3-traceid";
pub const B3_SPAN: &str = "x-b3-spanid";
pub const B3_PARENT: &str = "x-b3-parentspanid";
pub const B3_SAMPLED: &str = "x-b3-sampled";
pub const B3_FLAGS: &str = "x-b3-flags";

/// In which headers a request carries its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its flags are passed on.
    W3c(u8),
    GrpcBin(u8),
    B3,
}

/// The context of a request that carries one. What is malformed is none.
pub fn find(request: &dyn RequestView) -> Option<(Context, Format)> {
    let header = |name: &str| {
        let mut text = None;
        request.header(name, &mut |value| {
            text = std::str::from_utf8(value).ok().map(|value| value.trim().to_owned());
            true
        });
        text
    };
    let w3c = || w3c(&header(TRACEPARENT)?);
    let grpc = || grpc_bin(&header(GRPC_TRACE_BIN)?);
    let b3 = || {
        let sampled =
            header(B3_FLAGS).as_deref() == Some("1") || matches!(header(B3_SAMPLED).as_deref(), Some("1" | "true"));
        b3(&header(B3_TRACE)?, &header(B3_SPAN)?, sampled)
    };
    w3c().or_else(grpc).or_else(b3)
}

/// The headers that say that `span`, whose parent is `parent`, now sends the request.
pub fn headers(context: &Context, format: Format, span: [u8; 8], parent: [u8; 8]) -> Vec<(&'static str, String)> {
    match format {
        Format::W3c(flags) => {
            vec![(TRACEPARENT, format!("00-{}-{}-{flags:02x}", hex(&context.trace), hex(&span)))]
        }
        Format::GrpcBin(flags) => {
            let bytes = [&[0, 0][..], &context.trace, &[1], &span, &[2, flags]].concat();
            vec![(GRPC_TRACE_BIN, base64(&bytes))]
        }
        Format::B3 => vec![(B3_SPAN, hex(&span)), (B3_PARENT, hex(&parent))],
    }
}

/// `version-trace-span-flags` in lower-case hexadecimal; versions to come may add to it.
fn w3c(text: &str) -> Option<(Context, Format)> {
    let mut parts = text.split('-');
    let [version]: [u8; 1] = unhex(parts.next()?)?;
    let (trace, parent): ([u8; 16], [u8; 8]) = (unhex(parts.next()?)?, unhex(parts.next()?)?);
    let [flags]: [u8; 1] = unhex(parts.next()?)?;
    if version == 0xff || (version == 0 && parts.next().is_some()) || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Some((context(trace, parent, flags & 1 == 1)?, Format::W3c(flags)))
}

/// A version, then numbered fields: 0 the trace, 1 the span, 2 the flags.
fn grpc_bin(text: &str) -> Option<(Context, Format)> {
    let bytes = unbase64(text)?;
    let rest = bytes.strip_prefix(&[0, 0])?;
    let (trace, rest) = rest.split_first_chunk::<16>()?;
    let (parent, rest) = rest.strip_prefix(&[1])?.split_first_chunk::<8>()?;
    let flags = *rest.strip_prefix(&[2])?.first()?;
    Some((context(*trace, *parent, flags & 1 == 1)?, Format::GrpcBin(flags)))
}

fn b3(trace: &str, span: &str, sampled: bool) -> Option<(Context, Format)> {
    let trace = unhex::<16>(trace).or_else(|| {
        let mut long = [0; 16];
        long.last_chunk_mut::<8>()?.copy_from_slice(&unhex::<8>(trace)?);
        Some(long)
    });
    Some((context(trace?, unhex(span)?, sampled)?, Format::B3))
}

/// Ids of zeros name nothing.
fn context(trace: [u8; 16], parent: [u8; 8], sampled: bool) -> Option<Context> {
    (trace != [0; 16] && parent != [0; 8]).then_some(Context { trace, parent, sampled })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Without padding, as gRPC sends it.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..=part.len() as u32 {
            let six = (bits >> (18 - 6 * place)) & 63;
            text.push(BASE64.get(six as usize).copied().map_or('A', char::from));
        }
    }
    text
}

/// With padding or without.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for part in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for (place, c) in part.iter().enumerate() {
            let six = BASE64.iter().position(|known| known == c)?;
            bits |= u32::try_from(six).ok()? << (18 - 6 * place);
        }
        let [_, all @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(all.get(..part.len().checked_sub(1).filter(|n| *n > 0)?)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Headers(Vec<(&'static str, String)>);

    impl RequestView for Headers {
        fn method(&self) -> &str {
            "GET"
        }
        fn authority(&self) -> Option<&str> {
            None
        }
        fn path(&self) -> &str {
            "/"
        }
        fn query(&self) -> Option<&str> {
            None
        }
        fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.iter().filter(|(n, _)| *n == name).any(|(_, value)| wanted(value.as_bytes()))
        }
        fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
    }

    fn of(headers: &[(&'static str, &str)]) -> Option<(Context, Format)> {
        find(&Headers(headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()))
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn expected(sampled: bool) -> Context {
        Context { trace: unhex(TRACE).unwrap(), parent: unhex(SPAN).unwrap(), sampled }
    }

    #[test]
    fn the_formats_in_their_order() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(of(&[(TRACEPARENT, &w3c)]), Some((expected(true), Format::W3c(1))));
        let unsampled = format!("00-{TRACE}-{SPAN}-00");
        let b3 = [(B3_TRACE, TRACE), (B3_SPAN, SPAN), (B3_SAMPLED, "1")];
        assert_eq!(of(&b3), Some((expected(true), Format::B3)));
        assert_eq!(of(&b3[..2]), Some((expected(false), Format::B3)));
        assert_eq!(of(&[&b3[..2], &[(B3_FLAGS, "1")]].concat()), Some((expected(true), Format::B3)));
        assert_eq!(of(&[&b3[..], &[(TRACEPARENT, &unsampled)]].concat()), Some((expected(false), Format::W3c(0))));
        let bin = &headers(&expected(true), Format::GrpcBin(1), expected(true).parent, [0; 8])[0].1;
        assert_eq!(bin, "AAAK92UZFs1D3YRI6yEcgDGcAbeta3FpIDMxAgE");
        assert_eq!(of(&[(GRPC_TRACE_BIN, bin)]), Some((expected(true), Format::GrpcBin(1))));
        assert_eq!(
            of(&[(GRPC_TRACE_BIN, &format!("{bin}=")), b3[0], b3[1]]),
            Some((expected(true), Format::GrpcBin(1)))
        );
        let short = of(&[(B3_TRACE, SPAN), (B3_SPAN, SPAN)]).unwrap().0;
        assert_eq!(short.trace, [&[0; 8][..], &expected(false).parent].concat()[..]);
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for bad in [
            String::new(),
            "00".into(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-1"),
        ] {
            assert_eq!(of(&[(TRACEPARENT, &bad)]), None, "{bad}");
        }
        assert!(of(&[(TRACEPARENT, &format!("01-{TRACE}-{SPAN}-01-x"))]).is_some(), "a version to come");
        for bad in ["", "A", "AAAA", "!!!!", "AAAK92UZFs1D3YRI6yEcgDGcAbetq3FpIDMx"] {
            assert_eq!(of(&[(GRPC_TRACE_BIN, bad)]), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (span, parent) = ([1, 2, 3, 4, 5, 6, 7, 8], [8; 8]);
        for format in [Format::W3c(1), Format::GrpcBin(1), Format::B3] {
            let mut all = headers(&expected(true), format, span, parent);
            if format == Format::B3 {
                assert_eq!(all[1], (B3_PARENT, "0808080808080808".to_owned()));
                all.extend([(B3_TRACE, TRACE.to_owned()), (B3_SAMPLED, "1".to_owned())]);
            }
            assert_eq!(find(&Headers(all)), Some((Context { parent: span, ..expected(true) }, format)));
        }
    }
}
