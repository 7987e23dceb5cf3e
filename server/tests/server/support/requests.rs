//! Bytes as a request for a picture in every interface, down to the work that the queue takes.

use axum::body::Body;
use axum::http::{Request, header};
use kosmosg_server::admission::admit;
use kosmosg_server::bundles::Bundles;
use kosmosg_server::error::Error;
use kosmosg_server::work::Work;
use kosmosg_server::{a1111, openai};

/// Returns in how many of the interfaces these bytes are a request.
///
/// # Panics
/// What the queue writes down is not what it reads when the server starts again.
pub fn read_in_every_interface(bytes: &[u8], bundles: &Bundles) -> usize {
    let interfaces = [admit, generation, edit, automatic];
    let works = interfaces.into_iter().filter_map(|read| read(bytes, bundles).ok());
    works.map(|work| outlives_the_server(&work, bundles)).count()
}

fn outlives_the_server(work: &Work, bundles: &Bundles) {
    let written = serde_json::to_vec(&work.request()).expect("a request is plain data");
    let request = serde_json::from_slice(&written).expect("it was just written");
    let again = Work::again(request, &work.model.unet(), Some(work.state.clone()), bundles);
    let again = again.expect("it was admitted before");
    assert_eq!(again.state, work.state);
    assert_eq!(again.model, work.model);
    assert_eq!(serde_json::to_vec(&again.request()).expect("a request is plain data"), written);
}

fn generation(bytes: &[u8], bundles: &Bundles) -> Result<Work, Error> {
    openai::Asked::read(bytes)?.wanted(Vec::new(), bundles)?.check(bundles)
}

fn edit(bytes: &[u8], bundles: &Bundles) -> Result<Work, Error> {
    let request = Request::post("/").header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    let request = request.body(Body::from(bytes.to_vec())).expect("the header is one");
    let (asked, pictures) = pollster::block_on(openai::Asked::read_form(request, &()))?;
    asked.wanted(pictures, bundles)?.check(bundles)
}

fn automatic(bytes: &[u8], bundles: &Bundles) -> Result<Work, Error> {
    a1111::Asked::read(bytes)?.wanted(None, bundles)?.check(bundles)
}
