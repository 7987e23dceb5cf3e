//! What the model reads of the sentence while it is being written.

use kosmosg::prompt::PromptDocument;

use super::{App, Effect, Processor, WorkerState};
use crate::messages::{Envelope, Reading, Request};

/// A prompt and a negative prompt.
type Words = (PromptDocument, String);

/// The question that is open, and the last answer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    wanted: Option<Words>,
    request: Option<u64>,
    known: Option<(Words, Reading)>,
}

impl App {
    /// What the model reads of the sentence as it was last, once that is known.
    pub fn reading(&self) -> Option<&Reading> {
        self.reader.known.as_ref().map(|(_, reading)| reading)
    }

    /// Whether it is known that the model cannot take a sentence.
    pub fn is_too_long(&self, prompt: &PromptDocument, negative: &str) -> bool {
        let known = self.reader.known.as_ref();
        known.is_some_and(|((of, not), reading)| (of, not.as_str()) == (prompt, negative) && reading.is_too_long())
    }

    /// Somebody has written something.
    pub(super) fn wrote(&mut self, prompt: PromptDocument, negative: String) {
        if prompt.items().is_empty() {
            self.reader = Reader::default();
            return;
        }
        let words = (prompt, negative);
        if self.reader.wanted.as_ref() != Some(&words) {
            self.reader.wanted = Some(words);
            self.ask_reader();
        }
    }

    /// Asks a worker that is ready; otherwise the first that will be is asked.
    pub(super) fn ask_reader(&mut self) {
        let ready = |processor: &Processor| matches!(self.workers[*processor as usize], WorkerState::Ready { .. });
        let (Some(processor), Some(words)) = (Processor::ALL.into_iter().find(ready), self.reader.wanted.clone())
        else {
            return;
        };
        let (prompt, negative) = words;
        let request = self.number();
        self.reader.request = Some(request);
        let message = Envelope { request, body: Request::Tokenize { prompt, negative } };
        self.effects.push(Effect::Send { processor, message, data: Vec::new() });
    }

    /// A worker has read something.
    pub(super) fn read(&mut self, request: u64, reading: Reading) {
        // A worker without a tokenizer has read nothing.
        if self.reader.request == Some(request)
            && let Some(words) = self.reader.wanted.clone().filter(|_| reading.longest > 0)
        {
            self.reader.known = Some((words, reading));
        }
    }

    /// Another model reads otherwise.
    pub(super) fn forget_reading(&mut self) {
        (self.reader.known, self.reader.request) = (None, None);
    }
}
