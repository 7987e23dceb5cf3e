//! Requests for pictures in every interface, down to the work that the queue takes.
#![no_main]

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{Request, header};
use kosmosg_server::admission::admit;
use kosmosg_server::bundles::Bundles;
use kosmosg_server::error::Error;
use kosmosg_server::work::Work;
use kosmosg_server::{a1111, openai};
use libfuzzer_sys::fuzz_target;

#[path = "../../../server/tests/server/support/bundle.rs"]
#[allow(dead_code, reason = "the server's tests ask for more")]
mod bundle;

static BUNDLES: LazyLock<Bundles> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for the bundle");
    bundle::write_bundle(folder.path());
    Bundles::open(folder.path()).expect("the bundle was just written")
});

fuzz_target!(|bytes: &[u8]| {
    for work in [admit(bytes, &BUNDLES), generation(bytes), edit(bytes), automatic(bytes)].into_iter().flatten() {
        // The queue writes it down, and reads it again when the server starts again.
        let written = serde_json::to_vec(&work.request()).expect("a request is plain data");
        let request = serde_json::from_slice(&written).expect("it was just written");
        let again = Work::again(request, work.bundle.unet(), Some(work.state.clone()), &BUNDLES);
        let again = again.expect("it was admitted before");
        assert_eq!(again.state, work.state);
        assert_eq!(serde_json::to_vec(&again.request()).expect("a request is plain data"), written);
    }
});

fn generation(bytes: &[u8]) -> Result<Work, Error> {
    openai::Asked::read(bytes)?.wanted(Vec::new(), &BUNDLES)?.check(&BUNDLES)
}

fn edit(bytes: &[u8]) -> Result<Work, Error> {
    let request = Request::post("/").header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    let request = request.body(Body::from(bytes.to_vec())).expect("the header is one");
    let (asked, pictures) = pollster::block_on(openai::Asked::read_form(request, &()))?;
    asked.wanted(pictures, &BUNDLES)?.check(&BUNDLES)
}

fn automatic(bytes: &[u8]) -> Result<Work, Error> {
    a1111::Asked::read(bytes)?.wanted(None, &BUNDLES)?.check(&BUNDLES)
}
