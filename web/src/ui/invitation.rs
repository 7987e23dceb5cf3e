//! How an administrator of the server lets another device in.

use std::rc::Rc;

use kosmosg::protocol::PictureFile;
use serde::Deserialize;
use serde::de::IgnoredAny;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Event, HtmlAnchorElement, HtmlElement, HtmlImageElement};

use super::{Page, dom, server};

/// What lets one device in.
#[derive(Deserialize)]
struct Invitation {
    /// What to open there.
    address: String,
    /// The same for a camera, PNG.
    picture: PictureFile,
}

impl Page {
    /// Offers to let another device in, where the server asks for tokens and this device may give them.
    pub(super) fn listen_to_invitations(self: &Rc<Self>) {
        let (page, section) = (self.clone(), dom::by_id::<HtmlElement>("device"));
        dom::on(&section.clone(), "toggle", move |_: Event| {
            let has_server = page.app.borrow().places().server.is_some();
            if has_server && section.has_attribute("open") {
                spawn_local(async {
                    let tokens = server::get::<Vec<IgnoredAny>>("api/tokens").await;
                    dom::show("invite", tokens.is_ok_and(|tokens| !tokens.is_empty()));
                });
            }
        });
        self.on_click("invite", |_| spawn_local(invite()));
    }
}

async fn invite() {
    let answer = server::post::<Invitation>("api/pairing", "{}").await;
    let trouble = answer.as_ref().err().map(ToString::to_string);
    dom::show_line("invite-trouble", trouble.as_deref().unwrap_or_default());
    let Ok(Invitation { address, picture }) = answer else { return };
    let image: HtmlImageElement = dom::by_id("invite-picture");
    dom::revoke(&image.src());
    image.set_src(&dom::address_of(&picture.0, "image/png"));
    let link: HtmlAnchorElement = dom::by_id("invite-link");
    link.set_href(&address);
    dom::set_text(&link, &address);
    dom::show("invitation", true);
}
