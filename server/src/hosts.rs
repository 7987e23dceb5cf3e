//! What the server is called, and whose pages may change something. A page of another site can give its own name this server's
//! address (DNS rebinding), and would then be of the same origin; but the name stays its own. Without that it can still send
//! forms, but a browser says where they come from.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::Shared;
use crate::error::Error;

/// The names by which the server may be asked, besides any address and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// This computer's own name and the given ones, as [`parse_name`] reads them.
    pub fn with(names: &[String]) -> Self {
        let own = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
        let own = [own.clone(), format!("{own}.local")];
        Self(names.iter().cloned().chain(own).collect())
    }

    /// The names and all addresses of this computer that others reach it by.
    pub fn for_certificate(&self) -> Vec<String> {
        let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let names = self.0.iter().filter(|name| name.is_ascii() && !name.is_empty()).cloned();
        fixed.into_iter().chain(names).chain(own_addresses().iter().map(IpAddr::to_string)).collect()
    }

    /// Whether a `Host` header names this server.
    fn has(&self, host: &str) -> bool {
        let name = name_in(host);
        is_loopback(host) || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// The addresses by which others reach a server that listens on this one, the likeliest first. There is at least one.
pub fn reached_by(listening: IpAddr) -> Vec<IpAddr> {
    let found = if listening.is_unspecified() { among(own_addresses(), listening) } else { Vec::new() };
    if found.is_empty() { vec![listening] } else { found }
}

/// Those of its own addresses by which a computer is reached that listens on all, the likeliest first: at home, one that is
/// good only there.
fn among(mut own: Vec<IpAddr>, all: IpAddr) -> Vec<IpAddr> {
    own.retain(|address| address.is_ipv4() || all.is_ipv6());
    own.sort_by_key(|address| match address {
        IpAddr::V4(address) if address.is_private() => 0,
        IpAddr::V6(_) => 1,
        IpAddr::V4(_) => 2,
    });
    own
}

/// This computer's addresses beyond itself.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let others = interfaces.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    others.map(|interface| interface.ip()).collect()
}

/// A name of this server, which may come as a `Host` header has it.
///
/// # Errors
/// What is expected, if it is none.
pub fn parse_name(text: &str) -> Result<String, String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    let name = name_in(text);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if !name.is_empty() && text.chars().all(is_plain) {
        return Ok(name);
    }
    Err(format!("{text:?} is no name of a computer; expected something like pictures.example.org, no more"))
}

/// Whether a `Host` header leads from every device to itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = name_in(host);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name in a `Host` header: in small letters, without port and final dot.
fn name_in(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Refuses requests that were meant for a server of another name, and those that would change something and come from a page
/// of another site that is not allowed to.
pub(crate) async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match refusal(&shared, &request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(shared: &Shared, request: &Request) -> Option<Error> {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let (host, origin) = (text(header::HOST), text(header::ORIGIN));
    if let Some(host) = host.filter(|host| !shared.app.hosts.has(host)) {
        return Some(Error::misdirected(&name_in(host)));
    }
    let origin = origin.filter(|_| !request.method().is_safe())?;
    let is_own = origin.split_once("://").map(|(_, name)| name) == host;
    let may = is_own || shared.app.allowed_origins.iter().any(|allowed| *allowed == origin);
    (!may).then(|| Error::forbidden(format!("pages of {origin} may not use this server; --allow-origin lets them")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_address_comes_first() {
        let own = ["2001:db8::7", "203.0.113.7", "192.168.1.5", "10.0.0.2"].map(|address| address.parse().unwrap());
        let reached = |all: &str| {
            let found = among(own.to_vec(), all.parse().unwrap());
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        // What listens on IPv4 only is not reached by IPv6.
        assert_eq!(reached("0.0.0.0"), ["192.168.1.5", "10.0.0.2", "203.0.113.7"]);
        assert_eq!(reached("::"), ["192.168.1.5", "10.0.0.2", "2001:db8::7", "203.0.113.7"]);
        let one: IpAddr = "203.0.113.9".parse().unwrap();
        assert_eq!(reached_by(one), [one]);
    }

    #[test]
    fn names_are_read_as_hosts_have_them() {
        for (text, name) in [
            ("Box.Local:8095", "box.local"),
            ("box.local.", "box.local"),
            ("192.168.1.5:80", "192.168.1.5"),
            ("[2001:DB8::7]:80", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            assert_eq!(parse_name(text).unwrap(), name, "{text}");
        }
        for text in ["https://box.local", "http:box/", "box.local/page", "me@box.local", "*.box", "a b", ":80", ".", ""]
        {
            let error = parse_name(text).unwrap_err();
            assert!(error.contains("is no name of a computer; expected something like"), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_and_own_names_are_this_server() {
        let hosts = Hosts::with(&["pictures.example.org".into()]);
        for host in [
            "127.0.0.1:8080",
            "192.168.1.5",
            "[::1]:8080",
            "localhost:8080",
            "LOCALHOST",
            "Pictures.example.org",
            "pictures.example.org.:443",
        ] {
            assert!(hosts.has(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "", "[::1", "example.org"]
        {
            assert!(!hosts.has(host), "{host}");
        }
    }
}
