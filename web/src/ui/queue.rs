//! The orders that wait.

use web_sys::{Event, HtmlElement};

use super::dom;
use crate::app::{App, Phase};
use crate::texts;

/// Shows what waits; `withdraw` hears which order the person does not want any more.
pub fn show(app: &App, withdraw: impl Fn(u64) + Clone + 'static) {
    let list: HtmlElement = dom::by_id("queue-list");
    let count = app.waiting().len();
    let tickets: Vec<_> = app.waiting().map(|waiting| waiting.ticket.to_string()).collect();
    let tickets = tickets.join(" ");
    if list.get_attribute("data-tickets").unwrap_or_default() == tickets {
        return;
    }
    dom::set_attribute(&list, "data-tickets", &tickets);
    let had_focus = dom::has_focus(&dom::by_id::<HtmlElement>("queue"));
    list.set_text_content(None);
    for waiting in app.waiting() {
        let entry: HtmlElement = dom::create("li", "");
        let words: HtmlElement = dom::create("span", "");
        words.set_dir("auto");
        let sentence = waiting.order.sentence();
        let pictures = waiting.order.series.takes(&waiting.order.settings).len();
        words.set_text_content(Some(&texts::waiting(&sentence, pictures)));
        let remove = dom::button("icon", "×");
        dom::set_attribute(&remove, "aria-label", &texts::withdraw_label(&sentence));
        dom::set_attribute(&remove, "title", texts::WITHDRAW);
        let (withdraw, ticket) = (withdraw.clone(), waiting.ticket);
        dom::on(&remove, "click", move |_: Event| withdraw(ticket));
        for part in [&words, &remove] {
            entry.append_child(part).expect("a new element takes children");
        }
        list.append_child(&entry).expect("an element of the page takes children");
    }
    dom::show("queue", count > 0);
    dom::tell("told", &texts::in_line(count));
    if had_focus {
        // What had the focus is gone: the next entry's button has it, or where another order comes from.
        let button = list.query_selector("button").ok().flatten();
        let next = button.and_then(|button| wasm_bindgen::JsCast::dyn_into(button).ok());
        dom::focus(&next.unwrap_or_else(|| dom::by_id("generate")));
    }
}

/// Whether what failed can be left out for those that wait.
pub fn can_leave_out(app: &App) -> bool {
    matches!(app.phase(), Phase::Failed { .. }) && app.waiting().len() > 0
}
