//! A line between a page and its server that can be slow and can break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that pass at once.
const PIECE: usize = 16 << 10;

/// The line; what is behind it is asked for at its own address.
pub struct Line {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What a path contains, after how many bytes its answers break, and how many more of them do.
    breaks: Option<(String, usize, usize)>,
    /// What a path contains, and the pause between two pieces of its answers.
    slow: Option<(String, Duration)>,
    /// First bytes that were asked for, by path.
    asked: BTreeMap<String, Vec<u64>>,
}

impl Line {
    /// A line to a server on this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = line.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A server that is gone answers nobody.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let path = Arc::new(Mutex::new(String::new()));
                tokio::spawn(ask(from_client, to_server, state.clone(), path.clone()));
                tokio::spawn(answer(from_server, to_client, state.clone(), path));
            }
        });
        line
    }

    /// The address of a path behind it.
    pub fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Breaks the next answers to paths with `name` in them, each after so many bytes.
    pub fn break_answers(&self, name: &str, after: usize, times: usize) {
        self.state.lock().unwrap().breaks = Some((name.to_owned(), after, times));
    }

    /// Slows answers to paths with `name` in them down to so many bytes a second; none is fast.
    pub fn slow_down(&self, slow: Option<(&str, usize)>) {
        let pause = |speed: usize| Duration::from_secs_f64(PIECE as f64 / speed as f64);
        self.state.lock().unwrap().slow = slow.map(|(name, speed)| (name.to_owned(), pause(speed)));
    }

    /// First bytes of what was asked for since the last call, by path.
    pub fn asked(&self) -> BTreeMap<String, Vec<u64>> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

/// Carries what the page asks, and notes which answer comes next.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<Mutex<State>>, path: Arc<Mutex<String>>) {
    let (mut buffer, mut head) = (vec![0; PIECE], Vec::new());
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        head.extend(&buffer[..read]);
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..end]).into_owned();
            head.clear();
            let asked = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let range = text
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.split('-').next()?.parse().ok());
            state.lock().unwrap().asked.entry(asked.clone()).or_default().push(range.unwrap_or(0));
            *path.lock().unwrap() = asked;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}

/// Carries the answers, unless it breaks.
async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<Mutex<State>>, path: Arc<Mutex<String>>) {
    let (mut buffer, mut passed, mut last) = (vec![0; PIECE], 0, String::new());
    while let Ok(read) = from.read(&mut buffer).await {
        let now = path.lock().unwrap().clone();
        if now != last {
            (passed, last) = (0, now.clone());
        }
        passed += read;
        let (pause, breaks) = {
            let mut state = state.lock().unwrap();
            let pause = state.slow.as_ref().filter(|(name, _)| now.contains(name)).map(|(_, pause)| *pause);
            let breaks = match &mut state.breaks {
                Some((name, after, times)) if *times > 0 && now.contains(&*name) && passed >= *after => {
                    *times -= 1;
                    true
                }
                _ => false,
            };
            (pause, breaks)
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        if read == 0 || breaks || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}
