//! What follows from what happened: workers, the server, and what is shown.

use std::rc::Rc;

use kosmosg::bundle::{MANIFEST, Manifest};
use kosmosg::protocol::BundleEntry;
use wasm_bindgen_futures::spawn_local;

use super::link::Link;
use super::{Page, controls, dom, hooks, models, server};
use crate::app::{BUNDLE, Effect, Event, Offer, Processor, Refusal};
use crate::js;
use crate::messages::{Request, Supply};

/// Name of the worker that keeps the models.
const KEEPER: &str = "keeper";
/// Time before the server is asked what has become of a job, so that it is not asked without pause.
const PAUSE_MS: i32 = 1000;

impl Page {
    /// Carries an effect out.
    pub(super) fn perform(self: &Rc<Self>, effect: Effect) {
        let page = self.clone();
        match effect {
            Effect::Start(processor) => self.start_worker(processor),
            Effect::Stop(processor) => self.links.borrow_mut()[processor as usize] = None,
            Effect::Send { processor, message, data } => {
                if let Some(link) = &self.links.borrow()[processor as usize] {
                    link.send(&message, data, &[]);
                }
            }
            Effect::StartKeeper => self.start_keeper(),
            Effect::StopKeeper => *self.keeper.borrow_mut() = None,
            Effect::Keep(message) => {
                let files = match &message.body {
                    Request::Install { supply: Supply::Files, .. } => self.models.files(),
                    _ => Vec::new(),
                };
                if let Some(keeper) = &*self.keeper.borrow() {
                    keeper.send(&message, Vec::new(), &files);
                }
            }
            Effect::OpenBuiltIn => spawn_local(async move { page.open_built_in().await }),
            Effect::ShowDefaults(manifest) => {
                self.controls.set_defaults(&manifest);
                self.grid.suggest(&self.controls.settings());
            }
            Effect::RememberModel(key) => models::remember(key.as_deref()),
            Effect::MarkLoading(key) => models::mark_loading(key.as_deref()),
            Effect::ListModels => self.list_models(),
            Effect::Post { request, job } => spawn_local(async move {
                let answer = server::submit(&job).await;
                page.happened(Event::Posted { request, answer });
            }),
            Effect::Follow { id } => self.follow(id),
            Effect::Ask { id } => spawn_local(async move {
                js::sleep(PAUSE_MS).await;
                let answer = server::get(&format!("api/jobs/{id}")).await;
                page.happened(Event::Told { id, answer });
            }),
            Effect::Wait { request, milliseconds } => spawn_local(async move {
                js::sleep(milliseconds.ceil() as i32).await;
                page.happened(Event::Waited { request });
            }),
            Effect::FetchState { id } => spawn_local(async move {
                // If it cannot be had, the one before is still good.
                if let Ok(state) = server::get(&format!("api/jobs/{id}/state")).await {
                    page.happened(Event::RemoteState { id, state: Box::new(state) });
                }
            }),
            Effect::FetchPicture { id } => spawn_local(async move {
                let event = match server::file(&format!("api/jobs/{id}/result")).await {
                    Ok(png) => Event::RemotePicture { id, png },
                    Err(refusal) => Event::Told { id, answer: Err(refusal) },
                };
                page.happened(event);
            }),
            Effect::Delete { id } => spawn_local(async move { server::delete(&id).await }),
            Effect::Preview(png) => self.stage.show_preview(&png),
            Effect::Picture(made) => {
                let (number, png) = (made.number, self.keep_picture(*made));
                self.stage.add(number, &png);
            }
            Effect::Forget(number) => self.stage.strip.forget(number),
            Effect::Remember(choice) => controls::remember_choice(choice),
        }
    }

    fn start_worker(self: &Rc<Self>, processor: Processor) {
        let (page, dead) = (self.clone(), self.clone());
        let heard = move |message, data: Vec<_>| {
            if !hooks::heard(&message, &data) {
                page.happened(Event::Worker { processor, message: Box::new(message), data });
            }
        };
        let died = move |why| dead.happened(Event::WorkerDied { processor, why });
        match Link::start(&self.assets, processor.name(), heard, died) {
            Ok(link) => self.links.borrow_mut()[processor as usize] = Some(link),
            Err(why) => self.later(Event::WorkerDied { processor, why }),
        }
    }

    fn start_keeper(self: &Rc<Self>) {
        let (page, dead) = (self.clone(), self.clone());
        let heard = move |message, _| page.happened(Event::Keeper(Box::new(message)));
        let died = move |why| dead.happened(Event::KeeperDied { why });
        match Link::start(&self.assets, KEEPER, heard, died) {
            Ok(link) => *self.keeper.borrow_mut() = Some(link),
            Err(why) => self.later(Event::KeeperDied { why }),
        }
    }

    fn follow(self: &Rc<Self>, id: String) {
        let page = self.clone();
        match server::Events::follow(&id, move |event| page.happened(event)) {
            Ok(events) => *self.following.borrow_mut() = Some((id, events)),
            Err(why) => self.later(Event::Told { id, answer: Err(Refusal::Other(why)) }),
        }
    }

    pub(super) fn list_models(self: &Rc<Self>) {
        let page = self.clone();
        spawn_local(async move {
            let offer = |entry: BundleEntry| Offer { address: address_of_model(&entry.id), entry };
            let answer = server::bundles().await.map(|entries| entries.into_iter().map(offer).collect());
            page.happened(Event::Offered(answer));
        });
    }

    async fn open_built_in(self: &Rc<Self>) {
        let base = address_of_model(BUNDLE);
        let manifest = server::file(&format!("{base}{MANIFEST}")).await;
        let read = |json: Vec<u8>| Manifest::from_json(&json).map_err(|error| Refusal::Other(error.to_string()));
        let manifest = manifest.and_then(read);
        match manifest {
            Ok(manifest) => self.happened(Event::Manifest { base, manifest: Box::new(manifest) }),
            Err(why) => self.happened(Event::NoManifest { why }),
        }
    }

    /// Takes an event when the present one is done with.
    fn later(self: &Rc<Self>, event: Event) {
        let page = self.clone();
        spawn_local(async move { page.happened(event) });
    }
}

/// The absolute address of a model's folder on the page's own server.
fn address_of_model(id: &str) -> String {
    let page = dom::document().base_uri().ok().flatten().unwrap_or_default();
    web_sys::Url::new_with_base(&format!("models/{id}/"), &page).map_or(String::new(), |url| url.href())
}
