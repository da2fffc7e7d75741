//! Who may call: whatever the networks, exceptions, identities and suffixes, a client is let in by the first authorization that
//! holds it when addresses are compared bit by bit and names label by label; and what a refusal is explained by agrees.

use std::net::IpAddr;
use weft_model::{
    Identity, Meta,
    decide::{
        authorize::{Client, ClientTls, Unmet, may_enter, permit, unmet},
        cidr::Cidr,
    },
    policy::{
        inbound::{
            Authentication, Authorization, IdentitySuffix, InboundRule, NetworkMatch, ServerPolicy, ServerProtocol,
        },
        route::{HttpRoute, Rule},
    },
};

/// More lines are not read.
const MAX_AUTHORIZATIONS: usize = 16;

/// One authorization, as its line says it: `NETWORK !EXCEPTION … | PROOF …`. A proof is `*` (anybody), `tls`, or names: an identity,
/// and behind a `.` a suffix.
struct Line<'a> {
    networks: Vec<(Block, Vec<Block>)>,
    proof: Proof<'a>,
    read: Authorization,
}

enum Proof<'a> {
    Anybody,
    Tls,
    Names(Vec<&'a str>),
}

/// 128 bits, IPv4 as IPv6 maps it, and how many of them count.
#[derive(Clone, Copy)]
struct Block(u128, u32);

/// The client's address and proof (nothing, `tls`, or an identity), each on a line, and behind them the authorizations.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let (Some(addr), Some(proof)) = (lines.next().and_then(|line| line.parse::<IpAddr>().ok()), lines.next()) else {
        return;
    };
    let identity = proof.parse::<Identity>().ok();
    let tls = match (proof, &identity) {
        ("", _) => ClientTls::None,
        ("tls", _) => ClientTls::Unauthenticated,
        (_, Some(identity)) => ClientTls::Identity(identity),
        _ => return,
    };
    let client = Client { addr, tls };
    let all: Vec<_> = lines.take(MAX_AUTHORIZATIONS).enumerate().map(|(place, line)| Line::read(place, line)).collect();
    for line in &all {
        let missing = line.missing(&client);
        assert_eq!(unmet(&line.read, &client).count() == 0, missing == (false, false), "{:?} {client:?}", line.read);
        let Unmet { network, tls, identity } = unmet(&line.read, &client);
        assert_eq!((network, tls || identity), missing, "{:?} {client:?}", line.read);
    }
    let first = all.iter().position(|line| line.missing(&client) == (false, false)).map(|place| place.to_string());
    let wanted = first.or_else(|| loopback(addr).then(|| "localhost".to_owned()));
    let read: Vec<_> = all.into_iter().map(|line| line.read).collect();
    assert_eq!(permit(&read, &client).map(Meta::name), wanted.as_deref(), "{read:?} {client:?}");
    // Wherever a reason stands, in the server or in its route, it lets the client in.
    for cut in [0, read.len() / 2, read.len()] {
        let (own, of_route) = read.split_at(cut);
        let does = InboundRule { authorizations: of_route.to_vec() };
        let rules = vec![Rule { matches: vec![], filters: vec![], does }];
        let route = HttpRoute { meta: Meta::default_named("route"), hosts: vec![], rules };
        let policy = ServerPolicy {
            meta: Meta::default_named("server"),
            protocol: ServerProtocol::Http1 { routes: vec![route], rate_limit: None },
            authorizations: own.to_vec(),
        };
        assert_eq!(may_enter(&policy, &client), wanted.is_some(), "{policy:?} {client:?}");
    }
}

impl<'a> Line<'a> {
    /// What is no network is left out, as is what is no identity.
    fn read(place: usize, line: &'a str) -> Self {
        let (left, right) = line.split_once('|').unwrap_or((line, ""));
        let (mut networks, mut matches) = (Vec::<(Block, Vec<Block>)>::new(), Vec::<NetworkMatch>::new());
        for word in left.split_ascii_whitespace() {
            let (except, word) = word.strip_prefix('!').map_or((false, word), |word| (true, word));
            let (Ok(net), Some(block)) = (word.parse::<Cidr>(), Block::read(word)) else { continue };
            match (except, networks.last_mut(), matches.last_mut()) {
                (false, ..) => {
                    networks.push((block, vec![]));
                    matches.push(NetworkMatch { net, except: vec![] });
                }
                (true, Some((_, blocks)), Some(of)) => {
                    blocks.push(block);
                    of.except.push(net);
                }
                (true, ..) => {}
            }
        }
        let (proof, authentication) = match right.trim() {
            "*" => (Proof::Anybody, Authentication::Unauthenticated),
            "tls" => (Proof::Tls, Authentication::TlsUnauthenticated),
            names => {
                let known = |word: &&str| word.starts_with('.') || word.parse::<Identity>().is_ok();
                let names: Vec<_> = names.split_ascii_whitespace().filter(known).collect();
                let suffixes = names.iter().filter_map(|name| name.strip_prefix('.'));
                let authentication = Authentication::TlsAuthenticated {
                    identities: names.iter().filter_map(|name| name.parse().ok()).collect(),
                    suffixes: suffixes.map(|suffix| IdentitySuffix(suffix.to_owned())).collect(),
                };
                (Proof::Names(names), authentication)
            }
        };
        let meta = Meta::default_named(place.to_string());
        Self { networks, proof, read: Authorization { meta, networks: matches, authentication } }
    }

    /// Whether the client's address is not let in, and whether its proof is not.
    fn missing(&self, client: &Client<'_>) -> (bool, bool) {
        let addr = bits(client.addr);
        let within =
            |(net, except): &(Block, Vec<Block>)| net.holds(addr) && !except.iter().any(|block| block.holds(addr));
        let proves = match (&self.proof, client.tls) {
            (Proof::Anybody, _) | (Proof::Tls, ClientTls::Unauthenticated | ClientTls::Identity(_)) => true,
            (Proof::Names(names), ClientTls::Identity(identity)) => names.iter().any(|name| is(name, identity)),
            _ => false,
        };
        (!self.networks.iter().any(within), !proves)
    }
}

impl Block {
    fn read(text: &str) -> Option<Self> {
        let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
        let addr: IpAddr = addr.parse().ok()?;
        let len = len.map_or(Some(if addr.is_ipv4() { 32 } else { 128 }), |len| len.parse::<u8>().ok())?;
        Some(Self(bits(addr), u32::from(len) + if addr.is_ipv4() { 96 } else { 0 }))
    }

    /// Networks of IPv6 hold no address of IPv4, but those that are written in the block that maps it.
    fn holds(&self, addr: u128) -> bool {
        let mapped = |bits: u128| bits >> 32 == 0xffff;
        let same = |bit: u32| (self.0 >> (127 - bit)) & 1 == (addr >> (127 - bit)) & 1;
        mapped(addr) == (self.1 >= 96 && mapped(self.0)) && (0..self.1).all(same)
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn loopback(addr: IpAddr) -> bool {
    bits(addr) == 1 || Block(bits(IpAddr::from([127, 0, 0, 0])), 104).holds(bits(addr))
}

/// An identity is itself, in small letters if it is a DNS name; a suffix stands behind at least one label of a DNS name, and the
/// empty one behind everything.
fn is(name: &str, identity: &Identity) -> bool {
    let uri = identity.as_str().starts_with("spiffe://");
    let Some(suffix) = name.strip_prefix('.') else {
        let canonical = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        return if uri { identity.as_str() == name } else { identity.as_str() == canonical };
    };
    if suffix.is_empty() {
        return true;
    }
    let (labels, wanted): (Vec<_>, Vec<_>) = (identity.as_str().split('.').collect(), suffix.split('.').collect());
    !uri && labels.len() > wanted.len() && labels.ends_with(&wanted)
}
