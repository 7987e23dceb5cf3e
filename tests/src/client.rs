//! A client of the server's own interface.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use futures::{Stream, StreamExt};
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ApiError, GenerateSettings, JobCreated, JobEvent, JobRequest, PictureFile};
use kosmosg_models::sprites::{Creature, Split, portrait};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{RequestBuilder, Response, StatusCode};

/// The client.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
}

impl Client {
    /// Of the server at an address such as `http://127.0.0.1:8080`.
    pub fn of(server: impl Into<String>) -> Self {
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), server: server.into() }
    }

    /// The same, with a token.
    pub fn with_token(server: impl Into<String>, token: &str) -> Self {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Self { http, server: server.into() }
    }

    /// Sends a job; what the server says if it refuses.
    pub async fn submit(&self, job: &JobRequest) -> Result<JobCreated, (StatusCode, ApiError)> {
        self.submit_with(job, |request| request).await
    }

    /// The same with a request that is changed before.
    pub async fn submit_with(
        &self,
        job: &JobRequest,
        change: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<JobCreated, (StatusCode, ApiError)> {
        let request = self.http.post(format!("{}/api/jobs", self.server)).json(job);
        let response = change(request).send().await.unwrap();
        match response.status() {
            StatusCode::ACCEPTED => Ok(response.json().await.unwrap()),
            status => Err((status, response.json().await.unwrap())),
        }
    }

    /// What a path says.
    pub async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.server)).send().await.unwrap()
    }

    /// Cancels a job.
    pub async fn cancel(&self, id: &str) {
        self.http.delete(format!("{}/api/jobs/{id}", self.server)).send().await.unwrap();
    }

    /// The path with which a new device pairs itself and gets that role, as an administrator with that token gets it.
    pub async fn open_pairing(&self, token: &str, role: &str) -> String {
        let request = self.http.post(format!("{}/api/pairing", self.server)).bearer_auth(token);
        let opened: serde_json::Value =
            request.json(&serde_json::json!({ "role": role })).send().await.unwrap().json().await.unwrap();
        opened["path"].as_str().unwrap().to_owned()
    }

    /// The events of a job after the one with that number, as they come.
    pub async fn follow(&self, id: &str, after: u64) -> impl Stream<Item = (u64, JobEvent)> + Unpin + use<> {
        let path = format!("{}/api/jobs/{id}/events", self.server);
        let response = self.http.get(path).header("last-event-id", after).send().await.unwrap();
        let events = futures::stream::unfold((response, String::new()), async |(mut response, mut text)| {
            loop {
                if let Some(end) = text.find("\n\n") {
                    let block: String = text.drain(..end + 2).collect();
                    if let Some(event) = event(&block) {
                        return Some((event, (response, text)));
                    }
                    continue;
                }
                // A server that was killed ends the stream in its own way.
                text += std::str::from_utf8(&response.chunk().await.ok()??).unwrap();
            }
        });
        Box::pin(events)
    }

    /// Hears of a job until `is_far` of a step's number and of the seconds so far. Returns the number of the last event heard.
    pub async fn follow_until(&self, id: &str, is_far: impl Fn(usize, f64) -> bool) -> u64 {
        let mut events = self.follow(id, 0).await;
        while let Some((number, event)) = events.next().await {
            if matches!(event, JobEvent::Step { step, seconds, .. } if is_far(step, seconds)) {
                return number;
            }
        }
        panic!("the job ended before");
    }

    /// The last event of a job, once it has ended.
    pub async fn end(&self, id: &str) -> Option<JobEvent> {
        let last = self.follow(id, 0).await.map(|(_, event)| event);
        last.fold(None, async |_, event| Some(event)).await.filter(JobEvent::is_last)
    }

    /// The picture of a job that is done.
    pub async fn picture(&self, id: &str) -> Picture {
        let response = self.get(&format!("/api/jobs/{id}/result")).await;
        assert_eq!(response.status(), StatusCode::OK);
        Picture::decode(&response.bytes().await.unwrap()).unwrap()
    }
}

fn event(block: &str) -> Option<(u64, JobEvent)> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    Some((field("id: ")?.parse().unwrap(), serde_json::from_str(field("data: ")?).unwrap()))
}

/// A creature at the beach, in so many steps.
pub fn job(seed: u64, steps: usize) -> JobRequest {
    let creature = Creature::sample(&mut kosmosg::noise::Rng::new(seed, 0), Split::HeldOut);
    JobRequest::Generate {
        bundle: "tiny".into(),
        prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
        pictures: vec![PictureFile(portrait(&creature, 64).to_png(None))],
        negative: String::new(),
        settings: GenerateSettings { seed, steps: Some(steps), ..GenerateSettings::default() },
        loras: Vec::new(),
    }
}

/// The number of a step.
pub fn step(event: &JobEvent) -> Option<usize> {
    if let JobEvent::Step { step, .. } = event { Some(*step) } else { None }
}
