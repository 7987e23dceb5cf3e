//! Jobs that outlive the server: an SQLite file, written by a thread of its own in the order of what happened.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use kosmosg::denoise::DenoiseState;
use kosmosg::protocol::{JobEvent, JobRequest};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use super::{Hold, JobId, Key, Owner};
use crate::access::private;

/// Form of the file. A server that finds a newer one leaves the file alone.
const VERSION: i64 = 2;
/// Says in the file's header that it is one of these: "KGjs".
const APPLICATION: i64 = 0x4b47_6a73;
/// How long another server that is just ending may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE jobs (
        -- In the order of their coming.
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        -- The client's name for the request, and the digest of its body.
        key TEXT, digest BLOB,
        -- Until it has ended: what to do, with which U-Net, and how far it is.
        request BLOB, unet TEXT, state BLOB,
        -- Once it has ended: how, and with which picture.
        last_number INTEGER, last_event BLOB, picture BLOB,
        -- Whether it ends with its client.
        ordered INTEGER NOT NULL DEFAULT 0,
        -- How many servers began it and wrote no state down.
        begun INTEGER NOT NULL DEFAULT 0,
        -- By the clock below: when it came, and when it ended.
        came REAL NOT NULL DEFAULT 0, ended REAL
    ) STRICT;
    CREATE UNIQUE INDEX keys ON jobs (owner, key);
    -- How often a server began with this file.
    CREATE TABLE beginnings (count INTEGER NOT NULL) STRICT;
    INSERT INTO beginnings VALUES (0);";

/// From the first form, which counted how long each job had been kept, to the second; [`CLOCK`] is still to come.
const UPGRADE: &str = "
    ALTER TABLE jobs ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN came REAL NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN ended REAL;
    UPDATE jobs SET ended = -age WHERE age IS NOT NULL;
    ALTER TABLE jobs DROP COLUMN age;";

const CLOCK: &str = "
    -- Looking for what to forget would otherwise read all pictures.
    CREATE INDEX ended ON jobs (ended) WHERE ended IS NOT NULL;
    -- For how many seconds servers have run with this file. The computer's clock can jump.
    CREATE TABLE clock (seconds REAL NOT NULL) STRICT;
    INSERT INTO clock VALUES (0);";

/// The jobs on disk.
#[derive(Debug, Clone)]
pub struct Store {
    tasks: Sender<Task>,
}

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// Why jobs cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another server has the file.
    #[error("another server uses it; give this one a file of its own with --store")]
    InUse,
    /// It is something else, or damaged.
    #[error("it is no file of jobs, or damaged; move it away, or give another with --store")]
    NotAStore,
    /// A newer server wrote it.
    #[error("a server of another version wrote it; give this one another file with --store")]
    Version,
    /// Under this key, its owner has sent another request.
    #[error("this idempotency key belongs to another request")]
    KeyTaken,
    /// The system or SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What is stored cannot be read.
    #[error("a stored job cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Redis, or the way to it.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The line of jobs in Redis.
    #[error("Redis: {0}")]
    Line(#[from] rsmq_async::RsmqError),
    /// What Redis knew a moment ago, it has forgotten.
    #[error("Redis has just forgotten this job")]
    Forgotten,
    /// The thread is gone.
    #[error("the thread that writes jobs down has ended")]
    Gone,
}

/// A job that had not ended when its server did.
#[derive(Debug)]
pub struct Unfinished {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub owner: Owner,
    /// What it asks for.
    pub request: JobRequest,
    /// [`Part::sha256`](kosmosg::bundle::Part::sha256) of the U-Net that it was begun with.
    pub unet: String,
    /// How far it came, if it had begun.
    pub state: Option<DenoiseState>,
    /// Whether it ends with its client.
    pub ordered: bool,
    /// How many servers began it and got no further.
    pub begun: u32,
    /// How long ago it came, of the time in which a server ran.
    pub waited: Duration,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    /// Whose it was.
    pub owner: Owner,
    /// The number of its last event.
    pub number: u64,
    /// The event.
    pub event: JobEvent,
}

impl Store {
    /// Opens or makes the file; without one, jobs are kept in memory. Returns how often it was opened before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: Option<&Path>) -> Result<(Self, u64), StoreError> {
        let mut connection = match path {
            Some(path) => {
                // People's sentences and pictures. SQLite lets as many read its other files, and tells what does not work.
                let _ = private(OpenOptions::new().append(true).create(true)).open(path);
                Connection::open(path)?
            }
            None => Connection::open_in_memory()?,
        };
        let beginnings = prepare(&mut connection)?;
        let (tasks, receiver) = channel::<Task>();
        let thread = thread::Builder::new().name("jobs".into());
        let work_off = move || receiver.into_iter().for_each(|task| task(&mut connection));
        thread.spawn(work_off).map_err(|_| StoreError::Gone)?;
        Ok((Self { tasks }, beginnings))
    }

    /// Writes a new job down, with its [`JobRequest`] as JSON. What it returns resolves when that is done.
    pub fn insert(
        &self,
        id: JobId,
        owner: Owner,
        hold: Hold,
        request: Vec<u8>,
        unet: String,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        self.call(move |connection| {
            let ordered = hold == Hold::Waiting;
            let (key, digest) = hold.key().map(|Key { name, digest }| (name, digest)).unzip();
            let sql = "INSERT INTO jobs (id, owner, key, digest, request, unet, ordered, came)
                       VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT seconds FROM clock))";
            match connection.execute(sql, params![id, owner, key, digest, request, unet, ordered]) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    Err(StoreError::KeyTaken)
                }
                result => Ok(result.map(drop)?),
            }
        })
    }

    /// The job that `owner` sent under that key, and whether it was of the same request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn by_key(&self, owner: Owner, key: Key) -> Result<Option<(JobId, bool)>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT id, digest = ? FROM jobs WHERE owner = ? AND key = ?";
            let found = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            Ok(connection.query_row(sql, params![key.digest, owner, key.name], found).optional()?)
        })
        .await
    }

    /// Writes down that a server begins a job.
    pub fn begin(&self, id: JobId) {
        self.post(move |connection| {
            connection.execute("UPDATE jobs SET begun = begun + 1 WHERE id = ?", [id]).map(drop)
        });
    }

    /// Writes down how far a job is. If that fails, the log says so, and it goes on from an earlier state one day.
    pub fn save(&self, id: JobId, state: &DenoiseState) {
        let state = serde_json::to_vec(state).expect("a state is plain data");
        self.post(move |connection| {
            let sql = "UPDATE jobs SET state = ?, begun = 0 WHERE id = ?";
            connection.execute(sql, params![state, id]).map(drop)
        });
    }

    /// Writes down how a job ended, and tells `written` once that has worked.
    pub fn end(
        &self,
        id: JobId,
        number: u64,
        event: &JobEvent,
        picture: Option<Bytes>,
        written: impl FnOnce() + Send + 'static,
    ) {
        let event = serde_json::to_vec(event).expect("an event is plain data");
        self.post(move |connection| {
            let sql = "UPDATE jobs SET last_number = ?, last_event = ?, picture = ?,
                           ended = coalesce(ended, (SELECT seconds FROM clock)),
                           request = NULL, unet = NULL, state = NULL
                       WHERE id = ?";
            connection.execute(sql, params![number.cast_signed(), event, picture.as_deref(), id])?;
            written();
            Ok(())
        });
    }

    /// A job that has ended, while it is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ended(&self, id: JobId) -> Result<Option<Ended>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT owner, last_number, last_event FROM jobs WHERE id = ? AND last_event IS NOT NULL";
            let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?));
            let found = connection.query_row(sql, [id], columns).optional()?;
            let ended = |(owner, number, event): (_, i64, Vec<u8>)| {
                Ok(Ended { owner, number: number.cast_unsigned(), event: serde_json::from_slice(&event)? })
            };
            found.map(ended).transpose()
        })
        .await
    }

    /// The picture of a job that has ended, PNG.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn picture(&self, id: JobId) -> Result<Option<Bytes>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT picture FROM jobs WHERE id = ?";
            let found: Option<Option<Vec<u8>>> = connection.query_row(sql, [id], |row| row.get(0)).optional()?;
            Ok(found.flatten().map(Bytes::from))
        })
        .await
    }

    /// All that had not ended when the last server did, in the order of their coming. One that cannot be read is an error of
    /// its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unfinished(&self) -> Result<Vec<Result<Unfinished, (JobId, StoreError)>>, StoreError> {
        self.call(|connection| {
            let sql = "SELECT id, owner, request, unet, state, ordered, begun, (SELECT seconds FROM clock) - came
                       FROM jobs WHERE last_event IS NULL ORDER BY number";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            let mut unfinished = Vec::new();
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                unfinished.push(Unfinished::read(id, row).map_err(|error| (id, error)));
            }
            Ok(unfinished)
        })
        .await
    }

    /// Lets `passed` go by, and forgets those that ended longer ago than `keep_for` or are more than `keep`, the oldest
    /// first.
    pub fn forget(&self, passed: Duration, keep_for: Duration, keep: usize) {
        self.post(move |connection| {
            let forget = connection.transaction()?;
            forget.execute("UPDATE clock SET seconds = seconds + ?", [passed.as_secs_f64()])?;
            let sql = "DELETE FROM jobs WHERE ended < (SELECT seconds FROM clock) - ?";
            forget.execute(sql, [keep_for.as_secs_f64()])?;
            let sql = "DELETE FROM jobs WHERE number IN (
                           SELECT number FROM jobs WHERE ended IS NOT NULL
                           ORDER BY ended DESC, number DESC LIMIT -1 OFFSET ?)";
            forget.execute(sql, [i64::try_from(keep).unwrap_or(i64::MAX)])?;
            forget.commit()
        });
    }

    /// Resolves when everything so far is written.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.call(|_| Ok(())).await
    }

    /// The same, and in the file itself: until then SQLite keeps what is new beside it. If that fails, it stays there, and the
    /// log says so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.post(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        self.flush().await
    }

    fn post(&self, task: impl FnOnce(&mut Connection) -> rusqlite::Result<()> + Send + 'static) {
        let task = move |connection: &mut Connection| {
            if let Err(error) = task(connection) {
                tracing::error!("jobs cannot be written down: {error}");
            }
        };
        if self.tasks.send(Box::new(task)).is_err() {
            tracing::error!("{}", StoreError::Gone);
        }
    }

    fn call<T: Send + 'static, F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static>(
        &self,
        task: F,
    ) -> impl Future<Output = Result<T, StoreError>> + use<T, F> {
        let (answer, answered) = oneshot::channel();
        let task = move |connection: &mut Connection| {
            // Who asked may be gone.
            answer.send(task(connection)).ok();
        };
        let sent = self.tasks.send(Box::new(task));
        async move {
            sent.map_err(|_| StoreError::Gone)?;
            answered.await.map_err(|_| StoreError::Gone)?
        }
    }
}

impl Unfinished {
    fn read(id: JobId, row: &Row<'_>) -> Result<Self, StoreError> {
        let state: Option<Vec<u8>> = row.get(4)?;
        Ok(Self {
            id,
            owner: row.get(1)?,
            request: serde_json::from_slice(&row.get::<_, Vec<u8>>(2)?)?,
            unet: row.get(3)?,
            state: state.map(|state| serde_json::from_slice(&state)).transpose()?,
            ordered: row.get(5)?,
            begun: row.get(6)?,
            waited: Duration::try_from_secs_f64(row.get(7)?).unwrap_or_default(),
        })
    }
}

fn prepare(connection: &mut Connection) -> Result<u64, StoreError> {
    connection.busy_timeout(PATIENCE)?;
    let in_use = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::NotAStore,
        _ => error.into(),
    };
    // Exclusive, so that no other server takes the same jobs up. In this mode a killed program loses nothing.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(in_use)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(in_use)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(in_use)?;
    let begin = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive).map_err(in_use)?;
    let number = |name: &str| begin.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, VERSION) => {}
        (APPLICATION, 1) => begin.execute_batch(&[UPGRADE, CLOCK].concat())?,
        (APPLICATION, _) => return Err(StoreError::Version),
        (0, 0) if begin.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? == 0 => {
            begin.execute_batch(&[SCHEMA, CLOCK].concat())?;
            begin.pragma_update(None, "application_id", APPLICATION)?;
        }
        _ => return Err(StoreError::NotAStore),
    }
    begin.pragma_update(None, "user_version", VERSION)?;
    let before: i64 = begin.query_row("SELECT count FROM beginnings", [], |row| row.get(0))?;
    begin.execute("UPDATE beginnings SET count = count + 1", [])?;
    begin.commit()?;
    Ok(before.cast_unsigned())
}

impl ToSql for JobId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for JobId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|()| rusqlite::types::FromSqlError::InvalidType)
    }
}

impl ToSql for Owner {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for Owner {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(value.as_str()?.to_owned()))
    }
}
