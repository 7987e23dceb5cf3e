//! The jobs of all servers, in Redis: who waits, how far each is, what came of it.
//!
//! Every change of a job is one script, and so happens whole or not at all. A worker's changes carry the number of its
//! claim: when a job was given to another worker in the meantime, because this one was not heard of for long, they are
//! refused.
//!
//! Who comes next is a matter of the [`Line`]. That a job is in it twice, or that a place in it is lost, does no harm:
//! a job is given to one worker at a time, and one that nobody has is [put in line again](Ledger::tidy).

use std::fmt::Display;
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{JobEvent, JobRequest};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::streams::StreamReadReply;
use redis::{AsyncCommands, Client, Expiry, FromRedisValue, RedisError, Script, ScriptInvocation, Value, pipe};

use super::line::{Line, PATIENCE, TIMEOUT, Ticket};
use crate::error;
use crate::jobs::store::StoreError;
use crate::jobs::{JobId, Key, Limits, MAX_BEGINNINGS, Owner};

/// What every key begins with.
const PREFIX: &str = "kosmosg:";
/// How long a server may take from writing a job down to putting it in line.
const SENDING: Duration = Duration::from_secs(5);
/// How much of the time from one tidying up to the next counts at most, where Redis' clock says more, as multiple of
/// what should have passed. A clock that jumps makes no worker seem lost that was heard of a moment ago.
const AT_MOST: f64 = 1.5;

/// The connection to Redis, and how much is kept there.
pub struct Ledger {
    connection: ConnectionManager,
    line: Line,
    scripts: Scripts,
    limits: Limits,
}

struct Scripts {
    submit: Script,
    claim: Script,
    hold: Script,
    give_back: Script,
    report: Script,
    cancel: Script,
    tidy: Script,
}

/// What became of a request to take a job in.
pub enum Submitted {
    /// It waits.
    New,
    /// The same request was sent before; this is its job.
    Again(JobId),
    /// Another request was sent under its key.
    KeyTaken,
    /// As many wait as may.
    Full,
    /// As many of its owner's wait as may of one.
    Enough,
}

/// What became of a worker's claim to a job.
pub enum Claimed {
    /// The job is its own.
    Ours(Box<Claim>),
    /// Another worker has it.
    Held,
    /// It was over before, or ended now with that event.
    Over(Option<JobEvent>),
}

/// A job that a worker has.
pub struct Claim {
    /// Counts the workers that have had it.
    pub number: u64,
    /// How long ago it came, of the time in which servers ran.
    pub waited: Duration,
    /// Whose it is.
    pub owner: Owner,
    /// The U-Net that it was begun with.
    pub unet: String,
    /// How far it came.
    pub state: Option<DenoiseState>,
}

/// What a job has become, in short.
pub struct Head {
    /// Whose it is.
    pub owner: Owner,
    /// The number of its last event.
    pub number: u64,
    /// The event, if it has ended.
    pub end: Option<JobEvent>,
}

/// What a worker tells of a job.
#[derive(Clone, Copy)]
pub struct Report<'a> {
    /// What happened.
    pub event: &'a JobEvent,
    /// How far it is.
    pub state: Option<&'a DenoiseState>,
    /// The picture, PNG.
    pub picture: Option<&'a [u8]>,
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(include_str!("common.lua"), include_str!($name)))
    };
}

impl Ledger {
    /// Connects to `redis://[:password@]host[:port][/database]`.
    ///
    /// # Errors
    /// [`StoreError`] if it is no such address, or nobody answers there.
    pub async fn open(address: &str, limits: Limits) -> Result<Self, StoreError> {
        let client = Client::open(address)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = ConnectionManager::new_with_config(client.clone(), config).await?;
        let scripts = Scripts {
            submit: script!("submit.lua"),
            claim: script!("claim.lua"),
            hold: script!("hold.lua"),
            give_back: script!("give_back.lua"),
            report: script!("report.lua"),
            cancel: script!("cancel.lua"),
            tidy: script!("tidy.lua"),
        };
        let line = Line::open(client, connection.clone()).await?;
        Ok(Self { connection, line, scripts, limits })
    }

    /// The jobs that wait for a worker.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Takes a job in. It waits once it is [sent](Self::send).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn submit(
        &self,
        id: JobId,
        owner: &Owner,
        key: Option<&Key>,
        request: &JobRequest,
        unet: &str,
    ) -> Result<Submitted, StoreError> {
        let (name, digest) = key.map_or(("", [].as_slice()), |key| (key.name.as_str(), key.digest.as_slice()));
        let mut script = self.call(&self.scripts.submit);
        script.arg(id.to_string()).arg(self.limits.waiting).arg(self.limits.waiting_of_one);
        script.arg(owner.name()).arg(serde_json::to_vec(request)?).arg(unet).arg(name).arg(digest);
        let (outcome, job): (String, String) = script.invoke_async(&mut self.connection.clone()).await?;
        Ok(match outcome.as_str() {
            "new" => Submitted::New,
            "again" => Submitted::Again(job.parse().unwrap_or(id)),
            "taken" => Submitted::KeyTaken,
            "enough" => Submitted::Enough,
            _ => Submitted::Full,
        })
    }

    /// Puts a job in line.
    ///
    /// # Errors
    /// [`StoreError`]; then [`tidy`](Self::tidy) of some server does it later.
    pub async fn send(&self, id: JobId, owner: &Owner) -> Result<(), StoreError> {
        self.line.join(id, owner).await?;
        Ok(self.connection.clone().hset(of("job", id), "sent", 1).await?)
    }

    /// The job that was sent under that key, and whether it was of the same request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn by_key(&self, owner: &Owner, key: &Key) -> Result<Option<(JobId, bool)>, StoreError> {
        let address = of("key", format_args!("{} {}", owner.name(), key.name));
        let (id, digest): (Option<String>, Option<Vec<u8>>) =
            self.connection.clone().hmget(address, &["id", "digest"]).await?;
        Ok(id.and_then(|id| Some((id.parse().ok()?, digest.as_deref() == Some(&key.digest)))))
    }

    /// What a job asks for; none if it is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn request(&self, id: JobId) -> Result<Option<JobRequest>, StoreError> {
        let request: Option<Vec<u8>> = self.connection.clone().hget(of("job", id), "request").await?;
        Ok(request.map(|request| serde_json::from_slice(&request)).transpose()?)
    }

    /// Makes a job the caller's for [`PATIENCE`], and longer if it [holds](Self::hold) it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, id: JobId) -> Result<Claimed, StoreError> {
        let mut script = self.call(&self.scripts.claim);
        script.arg(id.to_string()).arg(milliseconds(self.limits.deadline));
        script.arg(self.late()?).arg(serde_json::to_vec(&JobEvent::Cancelled)?);
        script.arg(MAX_BEGINNINGS).arg(serde_json::to_vec(&JobEvent::Failed { error: error::fatal() })?);
        let (outcome, fields): (String, Value) = script.invoke_async(&mut self.connection.clone()).await?;
        Ok(match outcome.as_str() {
            "ours" => {
                type Fields = (u64, u64, String, String, Vec<u8>);
                let (number, waited, owner, unet, state) =
                    Fields::from_redis_value(fields).map_err(RedisError::from)?;
                Claimed::Ours(Box::new(Claim {
                    number,
                    waited: Duration::from_millis(waited),
                    owner: Owner::of_name(owner),
                    unet,
                    state: if state.is_empty() { None } else { Some(serde_json::from_slice(&state)?) },
                }))
            }
            "held" => Claimed::Held,
            "ended" => {
                let (event,) = <(Vec<u8>,)>::from_redis_value(fields).map_err(RedisError::from)?;
                Claimed::Over(Some(serde_json::from_slice(&event)?))
            }
            _ => Claimed::Over(None),
        })
    }

    /// Keeps a job that is claimed under that number, and its ticket, from others for another [`PATIENCE`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold(&self, ticket: &Ticket, claim: u64) -> Result<(), StoreError> {
        let mut script = self.call(&self.scripts.hold);
        script.arg(ticket.job.to_string()).arg(claim);
        if script.invoke_async(&mut self.connection.clone()).await? {
            self.line.hide(ticket, PATIENCE).await?;
        }
        Ok(())
    }

    /// Leaves a job that is claimed under that number, and is that far, to others.
    ///
    /// # Errors
    /// [`StoreError`]; then they have it when they miss this worker.
    pub async fn give_back(&self, ticket: &Ticket, claim: u64, state: Option<&DenoiseState>) -> Result<(), StoreError> {
        let mut script = self.call(&self.scripts.give_back);
        script.arg(ticket.job.to_string()).arg(claim).arg(state.map_or(Ok(vec![]), serde_json::to_vec)?);
        if script.invoke_async(&mut self.connection.clone()).await? {
            self.line.hide(ticket, Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Tells what happened to a job that is claimed under that number. Returns whether it still is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn report(&self, id: JobId, claim: u64, report: Report<'_>) -> Result<bool, StoreError> {
        let Report { event, state, picture } = report;
        let mut script = self.call(&self.scripts.report);
        script.arg(id.to_string()).arg(claim).arg(serde_json::to_vec(event)?).arg(u8::from(event.is_last()));
        script.arg(state.map_or(Ok(vec![]), serde_json::to_vec)?).arg(picture.unwrap_or_default());
        Ok(script.invoke_async(&mut self.connection.clone()).await?)
    }

    /// Cancels a job. Returns whether that ended it, as no worker has it; else it is found among the
    /// [cancelled](Self::cancelled).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, id: JobId) -> Result<bool, StoreError> {
        let mut script = self.call(&self.scripts.cancel);
        script.arg(id.to_string()).arg(serde_json::to_vec(&JobEvent::Cancelled)?);
        Ok(script.invoke_async(&mut self.connection.clone()).await?)
    }

    /// Those that are to stop.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancelled(&self) -> Result<Vec<JobId>, StoreError> {
        let names: Vec<String> = self.connection.clone().smembers(at("cancelled")).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Lets the jobs wait again whose workers are not heard of any more, ends those that wait and were cancelled or
    /// whose time is over, forgets the oldest of too many, and puts those in line that are not. Returns the events with
    /// which jobs ended. To be called every now and then, so long after the last time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tidy(&self, passed: Duration) -> Result<Vec<JobEvent>, StoreError> {
        let mut script = self.call(&self.scripts.tidy);
        script.arg(milliseconds(passed.mul_f64(AT_MOST))).arg(milliseconds(self.limits.deadline));
        script.arg(self.late()?).arg(serde_json::to_vec(&JobEvent::Cancelled)?);
        script.arg(self.limits.finished).arg(milliseconds(SENDING));
        let (ended, unsent): (Vec<Vec<u8>>, Vec<(String, String)>) =
            script.invoke_async(&mut self.connection.clone()).await?;
        for (id, owner) in unsent {
            if let Ok(id) = id.parse() {
                self.send(id, &Owner::of_name(owner)).await?;
            }
        }
        self.line.tidy().await?;
        Ok(ended.iter().map(|event| serde_json::from_slice(event)).collect::<Result<_, _>>()?)
    }

    /// A job in short, unless it is unknown or forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn head(&self, id: JobId) -> Result<Option<Head>, StoreError> {
        type Fields = (Option<String>, Option<u64>, Option<Vec<u8>>);
        let (owner, number, end): Fields =
            self.connection.clone().hmget(of("job", id), &["owner", "number", "end"]).await?;
        let Some(owner) = owner else { return Ok(None) };
        let end = end.map(|event| serde_json::from_slice(&event)).transpose()?;
        Ok(Some(Head { owner: Owner::of_name(owner), number: number.unwrap_or(0), end }))
    }

    /// What happened to each job after the event of that number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events(&self, seen: &[(JobId, u64)]) -> Result<Vec<(JobId, u64, JobEvent)>, StoreError> {
        let keys: Vec<String> = seen.iter().map(|(id, _)| of("events", id)).collect();
        let after: Vec<String> = seen.iter().map(|(_, number)| format!("{number}-1")).collect();
        let reply: Option<StreamReadReply> = self.connection.clone().xread(&keys, &after).await?;
        let mut events = Vec::new();
        for stream in reply.into_iter().flat_map(|reply| reply.keys) {
            let Some(&(id, _)) = keys.iter().position(|key| *key == stream.key).and_then(|index| seen.get(index))
            else {
                continue;
            };
            for entry in stream.ids {
                let number = entry.id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
                let event: Vec<u8> = entry.get("event").unwrap_or_default();
                events.push((id, number, serde_json::from_slice(&event)?));
            }
        }
        Ok(events)
    }

    /// How many jobs come before each; none for one that does not wait.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn positions(&self, ids: &[JobId]) -> Result<Vec<Option<usize>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut ranks = pipe();
        for id in ids {
            ranks.zrank(at("waiting"), id.to_string());
        }
        Ok(ranks.query_async(&mut self.connection.clone()).await?)
    }

    /// Time from one job's turn to the next one's, of late; none where no line has moved.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pace(&self) -> Result<Option<Duration>, StoreError> {
        let begun = at("begun");
        let mut turns = pipe();
        turns.lindex(&begun, 0).lindex(&begun, -1).llen(&begun);
        let (first, last, turns): (Option<u64>, Option<u64>, u32) =
            turns.query_async(&mut self.connection.clone()).await?;
        let (Some(first), Some(last), 2..) = (first, last, turns) else { return Ok(None) };
        Ok(Some(Duration::from_millis(last.saturating_sub(first)) / (turns - 1)))
    }

    /// The picture of a job, PNG, once there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn picture(&self, id: JobId) -> Result<Option<Bytes>, StoreError> {
        let png: Option<Vec<u8>> = self.connection.clone().hget(of("job", id), "picture").await?;
        Ok(png.map(Bytes::from))
    }

    /// How far a job is; none before it was begun and after its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn state(&self, id: JobId) -> Result<Option<DenoiseState>, StoreError> {
        let state: Option<Vec<u8>> = self.connection.clone().hget(of("job", id), "state").await?;
        Ok(state.map(|state| serde_json::from_slice(&state)).transpose()?)
    }

    /// The jobs of an owner that have not ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_jobs(&self, owner: &Owner) -> Result<Vec<JobId>, StoreError> {
        let names: Vec<String> = self.connection.clone().smembers(of("owner", owner.name())).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The model that an owner has chosen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chosen(&self, owner: &Owner) -> Result<Option<String>, StoreError> {
        let kept = Expiry::PX(milliseconds(self.limits.keep_for));
        Ok(self.connection.clone().get_ex(of("choice", owner.name()), kept).await?)
    }

    /// Keeps an owner's choice of a model, as long as results after it was last asked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn choose(&self, owner: &Owner, bundle: &str) -> Result<(), StoreError> {
        let kept = milliseconds(self.limits.keep_for);
        Ok(self.connection.clone().pset_ex(of("choice", owner.name()), bundle, kept).await?)
    }

    /// How many jobs wait, and how many run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn counts(&self) -> Result<(usize, usize), StoreError> {
        let cards = pipe().zcard(at("waiting")).zcard(at("open")).query_async(&mut self.connection.clone()).await?;
        let (waiting, open): (usize, usize) = cards;
        Ok((waiting, open.saturating_sub(waiting)))
    }

    /// A script with what all are given.
    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.key(PREFIX);
        call.arg(milliseconds(self.limits.keep_for)).arg(milliseconds(PATIENCE));
        call
    }

    /// The last event of a job whose time is over.
    fn late(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&JobEvent::Failed { error: error::timed_out(self.limits.deadline) })
    }
}

fn at(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn of(kind: &str, name: impl Display) -> String {
    format!("{PREFIX}{kind}:{name}")
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
