//! Who may use the server: tokens, how a new device gets one, and how much each may ask for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::app::Shared;
use crate::desk::Desk;
use crate::error::Error;
use crate::jobs::{Job, Owner};

pub use tokens::{Role, Token, TokenError, Tokens, private, private_file};

mod codes;
mod tokens;

/// Name of the cookie that a paired browser has.
pub const COOKIE: &str = "kosmosg";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Whose jobs theirs are.
    pub owner: Owner,
    /// What they may do.
    pub role: Role,
    /// Whether jobs are theirs alone: without tokens, whoever knows a job's name may look at it.
    pub is_known: bool,
}

impl Visitor {
    /// Whether a job is theirs, or anyone's.
    pub fn may_see(&self, job: &Job) -> bool {
        !self.is_known || *job.owner() == self.owner
    }
}

/// Who may use the server.
#[derive(Debug)]
pub struct Access {
    whom: Whom,
    tokens: Mutex<Tokens>,
    limiter: DefaultKeyedRateLimiter<Owner>,
}

/// Whom it lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Everybody.
    All,
    /// Everybody on this computer; not who comes through a proxy on it.
    Here,
    /// Who has a token.
    Known,
}

impl Access {
    /// Everybody may use the server; `per_minute` requests of each.
    pub fn open(per_minute: NonZeroU32) -> Self {
        Self::new(Whom::All, Tokens::default(), per_minute)
    }

    /// The same on an address that leads nowhere but here, where a proxy that others come through is a mistake.
    pub fn here(per_minute: NonZeroU32) -> Self {
        Self::new(Whom::Here, Tokens::default(), per_minute)
    }

    /// Who has one of the tokens may.
    pub fn with_tokens(tokens: Tokens, per_minute: NonZeroU32) -> Self {
        Self::new(Whom::Known, tokens, per_minute)
    }

    fn new(whom: Whom, tokens: Tokens, per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::keyed(Quota::per_minute(per_minute));
        Self { whom, tokens: Mutex::new(tokens), limiter }
    }

    /// Whether only who has a token may use the server.
    pub fn is_closed(&self) -> bool {
        self.whom == Whom::Known
    }

    /// The tokens, as the file has them now.
    pub fn tokens(&self) -> MutexGuard<'_, Tokens> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let was_stale = tokens.is_stale();
        if let Err(error) = tokens.refresh()
            && !was_stale
        {
            tracing::error!("{error}; the tokens stay as they were");
        }
        tokens
    }

    /// Cancels the jobs of those whose tokens were taken back, here or in the file. To be called every now and then.
    pub async fn dismiss_removed(&self, jobs: &Desk) {
        let removed = self.tokens().take_removed();
        for token in removed {
            tracing::info!("the token {:?} was removed", token.name);
            jobs.dismiss(&Owner::with_token(token.id())).await;
        }
    }

    /// Whoever a request comes from.
    ///
    /// # Errors
    /// 401 without a token that is known, or from elsewhere through a proxy.
    fn visitor(&self, headers: &HeaderMap, address: Option<SocketAddr>) -> Result<Visitor, Error> {
        let is_here = address.is_none_or(|address| address.ip().is_loopback());
        if self.whom == Whom::Here && is_forwarded(headers) {
            return Err(Error::unauthorized(
                "this request came through a proxy, and the server is for its own computer alone; started with --access \
                 token, it gives tokens to others",
            ));
        }
        if !self.is_closed() {
            let owner = address.filter(|_| !is_here).map_or_else(Owner::here, |address| Owner::at(address.ip()));
            return Ok(Visitor { owner, role: if is_here { Role::Admin } else { Role::Use }, is_known: false });
        }
        let shown = shown(headers).ok_or_else(|| {
            Error::unauthorized("this server asks for a token: `Authorization: Bearer …`, or a browser that was paired")
        })?;
        let tokens = self.tokens();
        let token = tokens.find(&shown).ok_or_else(|| Error::unauthorized("this token is not known here"))?;
        Ok(Visitor { owner: Owner::with_token(token.id()), role: token.role, is_known: true })
    }

    /// Counts a request that makes work.
    ///
    /// # Errors
    /// 429.
    fn count(&self, owner: &Owner) -> Result<(), Error> {
        self.limiter
            .check_key(owner)
            .map_err(|until| Error::too_often(until.wait_time_from(self.limiter.clock().now()).as_secs() + 1))
    }

    /// Forgets who has not asked for a while. To be called every now and then.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
    }
}

/// Lets only those in who may, and says who they are.
pub(crate) async fn admit(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    let access = &shared.app.access;
    let admitted = access.visitor(request.headers(), address).and_then(|visitor| {
        if request.method() == Method::POST {
            access.count(&visitor.owner)?;
        }
        Ok(visitor)
    });
    match admitted {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Whether a proxy says that the request comes from somebody else. Not every proxy says so.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let says = |name: &str| matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-");
    headers.keys().any(|name| says(name.as_str()))
}

/// The token that a request shows: as a bearer's, as the password of older programs, or in the cookie of a paired browser.
fn shown(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, value) = value.to_str().ok()?.split_once(' ')?;
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(value.trim().to_owned()),
            "basic" => {
                let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
                Some(pair.split_once(':')?.1.to_owned())
            }
            _ => None,
        };
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(name, _)| *name == COOKIE).map(|(_, token)| token.to_owned())
}
