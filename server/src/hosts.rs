//! What the server is called, and whose pages may change something. A page of another site can give its own name this server's
//! address (DNS rebinding), and would then be of the same origin; but the name stays its own. Without that it can still send
//! forms, but a browser says where they come from.

use std::net::IpAddr;

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
    /// This computer's own name and the given ones.
    pub fn with(names: &[String]) -> Self {
        let own = gethostname::gethostname().to_string_lossy().to_ascii_lowercase();
        let own = [own.clone(), format!("{own}.local")];
        Self(names.iter().map(|name| name.to_ascii_lowercase()).chain(own).collect())
    }

    /// The names and all addresses of this computer that others reach it by.
    pub fn for_certificate(&self) -> Vec<String> {
        let fixed = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let others = interfaces.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
        let names = self.0.iter().filter(|name| name.is_ascii() && !name.is_empty()).cloned();
        fixed.into_iter().chain(names).chain(others.map(|interface| interface.ip().to_string())).collect()
    }

    /// Whether a `Host` header names this server.
    fn has(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
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
        return Some(Error::misdirected(host));
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
    fn addresses_and_own_names_are_this_server() {
        let hosts = Hosts::with(&["Pictures.example.org".into()]);
        for host in [
            "127.0.0.1:8080",
            "192.168.1.5",
            "[::1]:8080",
            "localhost:8080",
            "LOCALHOST",
            "pictures.example.org",
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
