//! Who comes next: queues by `rsmq_async` in Redis, one for each lane. An owner's jobs all are in one lane, and lanes take
//! turns, so that many jobs of one owner do not keep another waiting (stochastic fairness queueing, McKenney 1990).

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, SortedSetAddOptions};
use rsmq_async::{Rsmq, RsmqConnection, RsmqError};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::jobs::store::StoreError;
use crate::jobs::{JobId, Owner};

/// What the keys of the queues begin with.
const QUEUES: &str = "kosmosg:line";
/// The lanes that somebody is in, by their turns.
const TURNS: &str = "kosmosg:lanes";
/// Lanes of the line.
const LANES: u8 = 64;
/// How long a worker may not be heard of before its jobs go to others: longer than from one tidying up to the next.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer from Redis may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The line of jobs.
pub struct Line {
    client: Client,
    connection: ConnectionManager,
    /// Its connection does not come back by itself; none after it has failed.
    queue: Mutex<Option<Rsmq>>,
}

/// A job's place in line; who has it may claim the job, and [hides](Line::hide) it from others.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The job.
    pub job: JobId,
    lane: String,
    message: String,
}

impl Line {
    /// The line of the Redis that this connection leads to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(client: Client, connection: ConnectionManager) -> Result<Self, StoreError> {
        let line = Self { client, connection, queue: Mutex::default() };
        line.queue().await?;
        Ok(line)
    }

    /// Puts a job at the end of its owner's lane.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn join(&self, id: JobId, owner: &Owner) -> Result<(), StoreError> {
        let lane = lane(owner);
        self.queued(async |mut queue| queue.send_message(&lane, id.to_string(), None).await.map(drop)).await?;
        self.wake(&lane).await
    }

    /// Who comes next, if anybody waits. The ticket is the caller's for [`PATIENCE`], and longer if it [hides](Self::hide) it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take(&self) -> Result<Option<Ticket>, StoreError> {
        let mut connection = self.connection.clone();
        let lanes: Vec<String> = connection.zrange(TURNS, 0, -1).await?;
        for lane in lanes {
            let next =
                self.queued(async |mut queue| queue.receive_message::<String>(&lane, Some(PATIENCE)).await).await?;
            if let Some(next) = next {
                let turn = now(&mut connection).await?;
                let _: () = connection.zadd(TURNS, &lane, turn).await?;
                match next.message.parse() {
                    Ok(job) => return Ok(Some(Ticket { job, lane, message: next.id })),
                    Err(()) => {
                        self.queued(async |mut queue| queue.delete_message(&lane, &next.id).await.map(drop)).await?
                    }
                }
            } else if self.queued(async |mut queue| queue.get_queue_attributes(&lane).await).await?.msgs == 0 {
                // If somebody joins just now, a server that tidies up brings the lane back.
                let _: () = connection.zrem(TURNS, &lane).await?;
            }
        }
        Ok(None)
    }

    /// Nobody else takes the ticket for that long: [`PATIENCE`] keeps it, no time at all puts it back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hide(&self, Ticket { lane, message, .. }: &Ticket, time: Duration) -> Result<(), StoreError> {
        self.queued(async |mut queue| queue.change_message_visibility(lane, message, time).await).await
    }

    /// Ends a ticket, whose job has ended.
    ///
    /// # Errors
    /// [`StoreError`]; then who takes it finds that the job is over.
    pub async fn tear_up(&self, Ticket { lane, message, .. }: &Ticket) -> Result<(), StoreError> {
        self.queued(async |mut queue| queue.delete_message(lane, message).await.map(drop)).await
    }

    /// Gives every lane a turn that somebody is in, unless it has one. To be called every now and then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tidy(&self) -> Result<(), StoreError> {
        for lane in (0..LANES).map(lane_name) {
            if self.queued(async |mut queue| queue.get_queue_attributes(&lane).await).await?.msgs > 0 {
                self.wake(&lane).await?;
            }
        }
        Ok(())
    }

    /// Gives a lane a turn after all others, unless it has one.
    async fn wake(&self, lane: &str) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let turn = now(&mut connection).await?;
        let options = SortedSetAddOptions::add_only();
        Ok(connection.zadd_options(TURNS, lane, turn, &options).await?)
    }

    /// Works with the queues.
    async fn queued<T>(&self, work: impl AsyncFnOnce(Rsmq) -> Result<T, RsmqError>) -> Result<T, StoreError> {
        let result = work(self.queue().await?).await;
        if matches!(result, Err(RsmqError::RedisError(_))) {
            *self.queue.lock().await = None;
        }
        Ok(result?)
    }

    async fn queue(&self) -> Result<Rsmq, StoreError> {
        let mut slot = self.queue.lock().await;
        if let Some(queue) = &*slot {
            return Ok(queue.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut queue = Rsmq::new_with_connection(connection, false, Some(QUEUES)).await?;
        for lane in (0..LANES).map(lane_name) {
            match queue.create_queue(&lane, Some(PATIENCE), None, None).await {
                Ok(()) | Err(RsmqError::QueueExists) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(slot.insert(queue).clone())
    }
}

/// The lane of an owner's jobs.
fn lane(owner: &Owner) -> String {
    lane_name(Sha256::digest(owner.name())[0] % LANES)
}

fn lane_name(number: u8) -> String {
    format!("lane-{number}")
}

/// Seconds by Redis' clock, the only one that all servers share.
async fn now(connection: &mut ConnectionManager) -> Result<f64, StoreError> {
    let (seconds, micros): (u64, u32) = redis::cmd("TIME").query_async(connection).await?;
    Ok(seconds as f64 + f64::from(micros) * 1e-6)
}
