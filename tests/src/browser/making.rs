//! Making several pictures, as a person does it.

use serde_json::json;
use thirtyfour::prelude::*;

use super::page::{Page, SHORT};

impl Page {
    /// Numbers of the visit's pictures as the strip shows them.
    pub async fn results(&self) -> Vec<u64> {
        let read = "return [...document.querySelectorAll('#results [data-number]')].map(tile => +tile.dataset.number)";
        serde_json::from_value(self.script(read, vec![]).await).unwrap()
    }

    /// Looks at one of them.
    pub async fn look_at(&self, number: u64) {
        self.click(&format!("#results [data-number='{number}']")).await;
    }

    /// The one that is looked at.
    pub async fn looked_at(&self) -> Option<u64> {
        let read = "return +(document.querySelector('#results [aria-current]')?.dataset.number ?? 0)";
        self.script(read, vec![]).await.as_u64().filter(|&number| number > 0)
    }

    /// How many orders wait.
    pub async fn orders_in_line(&self) -> u64 {
        let count = "return document.querySelectorAll('#queue-list li').length";
        self.script(count, vec![]).await.as_u64().unwrap()
    }

    /// Types at the sentence's end, as fast as somebody pastes.
    pub async fn type_on(&self, words: &str) {
        let prompt = self.driver.find(By::Css("#prompt")).await.unwrap();
        prompt.click().await.unwrap();
        let to_end = "getSelection().selectAllChildren(document.querySelector('#prompt'));
            getSelection().collapseToEnd();
            document.execCommand('insertText', false, arguments[0])";
        self.script(to_end, vec![json!(words)]).await;
        let has_come = "return document.querySelector('#prompt').textContent.endsWith(arguments[0].trimStart())";
        let is_there = || async { self.script(has_come, vec![json!(words)]).await == json!(true) };
        self.wait_until("the words", SHORT, is_there).await;
    }

    /// An element's attribute; `null` where it has none.
    pub async fn attribute(&self, css: &str, name: &str) -> String {
        let read = "return String(document.querySelector(arguments[0]).getAttribute(arguments[1]))";
        self.text_of(read, css, name).await
    }

    /// An element's property.
    pub async fn property(&self, css: &str, name: &str) -> String {
        let read = "return String(document.querySelector(arguments[0])[arguments[1]])";
        self.text_of(read, css, name).await
    }

    /// Presses a key where the focus is.
    pub async fn press_here(&self, key: Key) {
        self.driver.action_chain().send_keys(key.value().to_string()).perform().await.unwrap();
    }

    async fn text_of(&self, read: &str, css: &str, name: &str) -> String {
        self.script(read, vec![json!(css), json!(name)]).await.as_str().unwrap().to_owned()
    }
}
