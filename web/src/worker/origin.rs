//! Where a model's files come from: an address, or files that the person chose.

use futures::future::{Either, select};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{File, ReadableStreamDefaultReader, Request, RequestCache, RequestInit, Response};

use super::storage::bytes_of;
use crate::install::{Origin, Stream, Trouble};
use crate::{js, texts};

/// A line that brings nothing for so long is broken.
const SILENCE_MS: i32 = 30_000;
/// Bytes that are read of a file at once.
const CHUNK: f64 = (4 << 20) as f64;

/// Files below an address that ends in a slash.
pub struct Web(pub String);

impl Origin for Web {
    type Stream = Body;

    async fn open(&self, name: &str, at: u64) -> Result<(u64, Body), Trouble> {
        let init = RequestInit::new();
        // What is written down once is not to be kept twice.
        init.set_cache(RequestCache::NoStore);
        let request = Request::new_with_str_and_init(&format!("{}{name}", self.0), &init);
        let request = request.map_err(|error| Trouble::Refused(js::text_of(&error)))?;
        let range = format!("bytes={at}-");
        request.headers().set("Range", &range).map_err(|error| Trouble::Refused(js::text_of(&error)))?;
        let answer = in_time(JsFuture::from(super::scope().fetch_with_request(&request))).await?;
        let response: Response = answer.map_err(|_| Trouble::Line(texts::LINE_BROKE.into()))?.unchecked_into();
        let told = || format!("{name}: {} {}", response.status(), response.status_text());
        let begins = match response.status() {
            200 => 0,
            206 => {
                // A server elsewhere may not let the page see it; then it is what was asked for.
                let range = response.headers().get("Content-Range").ok().flatten();
                let begin = |range: &str| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
                range.as_deref().and_then(begin).unwrap_or(at)
            }
            401 => return Err(Trouble::Refused(texts::NOT_PAIRED.into())),
            408 | 429 | 500.. => return Err(Trouble::Line(told())),
            _ => return Err(Trouble::Refused(told())),
        };
        let body = response.body().ok_or_else(|| Trouble::Line(told()))?;
        let reader = ReadableStreamDefaultReader::new(&body).map_err(|error| Trouble::Line(js::text_of(&error)))?;
        Ok((begins, Body(reader)))
    }

    async fn pause(&self, milliseconds: i32) {
        js::sleep(milliseconds).await;
    }
}

/// What comes over the line, until this is dropped.
pub struct Body(ReadableStreamDefaultReader);

impl Stream for Body {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let read = in_time(JsFuture::from(self.0.read())).await?;
        let read = read.map_err(|_| Trouble::Line(texts::LINE_BROKE.into()))?;
        let get = |name: &str| js_sys::Reflect::get(&read, &name.into()).unwrap_or(JsValue::UNDEFINED);
        if get("done").is_truthy() {
            return Ok(None);
        }
        Ok(Some(get("value").unchecked_into::<js_sys::Uint8Array>().to_vec()))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let closing = JsFuture::from(self.0.cancel());
        // Whatever a line says that is no longer wanted.
        wasm_bindgen_futures::spawn_local(async move { drop(closing.await) });
    }
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Trouble> {
    match select(std::pin::pin!(answer), std::pin::pin!(js::sleep(SILENCE_MS))).await {
        Either::Left((answer, _)) => Ok(answer),
        Either::Right(_) => Err(Trouble::Line(texts::LINE_SILENT.into())),
    }
}

/// Files that the person chose.
pub struct Chosen(pub Vec<File>);

impl Chosen {
    /// The file of that name.
    ///
    /// # Errors
    /// [`Trouble::Refused`].
    pub fn file(&self, name: &str) -> Result<File, Trouble> {
        let file = self.0.iter().find(|file| file.name() == name).cloned();
        file.ok_or_else(|| Trouble::Refused(texts::not_chosen(name)))
    }
}

impl Origin for Chosen {
    type Stream = Slices;

    async fn open(&self, name: &str, at: u64) -> Result<(u64, Slices), Trouble> {
        Ok((at, Slices { file: self.file(name)?, at: at as f64 }))
    }

    async fn pause(&self, milliseconds: i32) {
        js::sleep(milliseconds).await;
    }
}

/// A file, piece by piece.
pub struct Slices {
    file: File,
    at: f64,
}

impl Slices {
    /// From the beginning.
    pub fn of(file: File) -> Self {
        Self { file, at: 0.0 }
    }
}

impl Stream for Slices {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        if self.at >= self.file.size() {
            return Ok(None);
        }
        let end = (self.at + CHUNK).min(self.file.size());
        let slice = self.file.slice_with_f64_and_f64(self.at, end).map_err(|error| js::text_of(&error));
        let slice = slice.map_err(Trouble::Refused)?;
        self.at = end;
        bytes_of(&slice).await.map(Some).map_err(Trouble::Refused)
    }
}
