//! The few things that the interface needs from the document.

use js_sys::{Array, Function, Reflect, Uint8Array};
use wasm_bindgen::convert::FromWasmAbi;
use wasm_bindgen::prelude::*;
use web_sys::{
    Blob, BlobPropertyBag, Document, Element, Event, EventTarget, FocusOptions, HtmlAnchorElement, HtmlElement,
    MutationObserver, MutationObserverInit, Node, Url, Window,
};

/// The window.
pub fn window() -> Window {
    web_sys::window().expect("the interface runs in a window")
}

/// The document.
pub fn document() -> Document {
    window().document().expect("a window has a document")
}

/// An element of `index.html`.
///
/// # Panics
/// If the shell has no such element: shell and program come from the same build.
pub fn by_id<T: JsCast>(id: &str) -> T {
    let element = document().get_element_by_id(id).unwrap_or_else(|| panic!("index.html has no #{id}"));
    element.dyn_into().unwrap_or_else(|_| panic!("#{id} in index.html is of another kind"))
}

/// A new element.
pub fn create<T: JsCast>(tag: &str, class: &str) -> T {
    let element = document().create_element(tag).expect("a tag's name is valid");
    element.set_class_name(class);
    element.dyn_into().unwrap_or_else(|_| panic!("<{tag}> is of another kind"))
}

/// A new button that says `text`.
pub fn button(class: &str, text: &str) -> HtmlElement {
    let button: HtmlElement = create("button", class);
    set_attribute(&button, "type", "button");
    button.set_text_content(Some(text));
    button
}

/// Calls `handler` at every event of that name, for as long as the page lives.
pub fn on<E: FromWasmAbi + 'static>(target: &EventTarget, name: &str, handler: impl FnMut(E) + 'static) {
    let closure = Closure::<dyn FnMut(E)>::new(handler);
    // Only a target or handler of the wrong kind fails here.
    let _ = target.add_event_listener_with_callback(name, closure.as_ref().unchecked_ref());
    closure.forget();
}

/// Calls `handler` whenever the nodes or texts within an element have changed, for as long as the page lives.
pub fn on_change_within(element: &HtmlElement, handler: impl FnMut() + 'static) {
    let closure = Closure::<dyn FnMut()>::new(handler);
    let options = MutationObserverInit::new();
    options.set_child_list(true);
    options.set_character_data(true);
    options.set_subtree(true);
    let observer = MutationObserver::new(closure.as_ref().unchecked_ref()).expect("a function can observe");
    observer.observe_with_options(element, &options).expect("the options say what is observed");
    closure.forget();
}

/// Sets an attribute.
pub fn set_attribute(element: &Element, name: &str, value: &str) {
    if element.get_attribute(name).as_deref() != Some(value) {
        element.set_attribute(name, value).expect("an attribute's name is valid");
    }
}

/// Sets or removes an attribute without value.
pub fn set_flag(element: &Element, name: &str, is_set: bool) {
    if element.has_attribute(name) != is_set {
        element.toggle_attribute_with_force(name, is_set).expect("an attribute's name is valid");
    }
}

/// Shows an element of `index.html`, or hides it.
pub fn show(id: &str, is_shown: bool) {
    set_flag(&by_id::<HtmlElement>(id), "hidden", !is_shown);
}

/// Shows a line of `index.html` with a text, or hides it where there is none.
pub fn show_line(id: &str, text: &str) {
    show(id, !text.is_empty());
    set_text(&by_id::<HtmlElement>(id), text);
}

/// The same of a live region. Also what it says already is read out, which was to be told again.
pub fn tell_line(id: &str, text: &str) {
    show(id, !text.is_empty());
    tell(id, text);
}

/// Sets the text of a live region, also of one that has it already.
pub fn tell(id: &str, text: &str) {
    let region: HtmlElement = by_id(id);
    // Only a change is read out.
    region.set_text_content(None);
    region.set_text_content(Some(text));
}

/// Shows whether a button is pressed in.
pub fn set_pressed(button: &Element, is_pressed: bool) {
    set_attribute(button, "aria-pressed", if is_pressed { "true" } else { "false" });
}

/// Whether a dialog lies over the page, which takes keys and what is pasted.
pub fn has_dialog() -> bool {
    document().query_selector("dialog[open]").is_ok_and(|dialog| dialog.is_some())
}

/// The element within which something happened that a selector finds, if there is one.
pub fn closest(event: &Event, css: &str) -> Option<Element> {
    event.target()?.dyn_into::<Element>().ok()?.closest(css).ok()?
}

/// Brings the focus to an element.
pub fn focus(element: &HtmlElement) {
    // It cannot fail on an element of the page.
    let _ = element.focus();
}

/// The same, and leaves the page where it is scrolled to.
pub fn focus_in_place(element: &HtmlElement) {
    let options = FocusOptions::new();
    options.set_prevent_scroll(true);
    let _ = element.focus_with_options(&options);
}

/// Whether an element, or one within it, has the focus.
pub fn has_focus(element: &Element) -> bool {
    element.matches(":focus-within").unwrap_or(false)
}

/// Sets a text, if it is another one: a live region reads out whatever is set. See [`tell`].
pub fn set_text(node: &Node, text: &str) {
    if node.text_content().as_deref() != Some(text) {
        node.set_text_content(Some(text));
    }
}

/// A property that not every browser's object has.
pub fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(object, &name.into()).ok().filter(|value| !value.is_undefined())
}

/// A method that not every browser's object has.
pub fn method(object: &JsValue, name: &str) -> Option<Function> {
    get(object, name)?.dyn_into().ok()
}

/// Whether lines are read from right to left there.
pub fn is_right_to_left(element: &Element) -> bool {
    let style = window().get_computed_style(element).ok().flatten();
    style.and_then(|style| style.get_property_value("direction").ok()).is_some_and(|direction| direction == "rtl")
}

/// An address for bytes; it holds them until [`revoke`].
pub fn address_of(bytes: &[u8], mime: &str) -> String {
    let options = BlobPropertyBag::new();
    options.set_type(mime);
    let parts = Array::of1(&Uint8Array::from(bytes));
    let blob = Blob::new_with_u8_array_sequence_and_options(&parts, &options).expect("bytes make a blob");
    Url::create_object_url_with_blob(&blob).expect("a blob has an address")
}

/// Saves a file as a download of that name.
pub fn save(file: &Blob, name: &str) {
    let Ok(address) = Url::create_object_url_with_blob(file) else { return };
    let link: HtmlAnchorElement = create("a", "");
    link.set_href(&address);
    link.set_download(name);
    link.click();
    wasm_bindgen_futures::spawn_local(async move {
        // The browser reads it when it comes to it.
        crate::js::sleep(60_000).await;
        revoke(&address);
    });
}

/// Lets go of the bytes behind an address.
pub fn revoke(address: &str) {
    // An address that is none is nothing to let go of.
    let _ = Url::revoke_object_url(address);
}

/// A value that the browser remembers for this page, if it remembers anything.
pub fn remembered(key: &str) -> Option<String> {
    window().local_storage().ok()??.get_item(key).ok()?
}

/// Has the browser remember a value.
pub fn remember(key: &str, value: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        // A full or forbidden storage only means that nothing is remembered.
        let _ = storage.set_item(key, value);
    }
}
