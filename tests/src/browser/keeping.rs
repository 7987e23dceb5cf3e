//! The page's kept pictures, as a person uses them, and what travels with a picture.

use serde_json::json;

use super::page::{Page, SHORT};

impl Page {
    /// Waits until the gallery says that it has so many pictures.
    pub async fn wait_for_kept(&self, pictures: usize) {
        let said = if pictures == 1 { "1 picture,".to_owned() } else { format!("{pictures} pictures,") };
        let size = "return document.querySelector('#gallery-size').textContent";
        let is_kept = || async { self.script(size, vec![]).await.as_str().unwrap_or_default().starts_with(&said) };
        self.wait_until(&said, SHORT, is_kept).await;
    }

    /// How many pictures of the gallery are shown.
    pub async fn tiles(&self) -> usize {
        self.script("return document.querySelectorAll('.kept').length", vec![]).await.as_u64().unwrap() as usize
    }

    /// Waits until so many pictures of the gallery are shown, after scrolling there.
    pub async fn wait_for_tiles(&self, tiles: usize) {
        self.script("document.querySelector('#gallery').scrollIntoView()", vec![]).await;
        self.wait_until(&format!("{tiles} tiles"), SHORT, || async { self.tiles().await == tiles }).await;
    }

    /// Opens a kept picture in large, counted from the newest.
    pub async fn open_kept(&self, number: usize) {
        self.script("document.querySelector('#gallery').scrollIntoView()", vec![]).await;
        let click = "const tile = document.querySelectorAll('.kept')[arguments[0]]; tile?.click(); return !!tile";
        let is_there = || async { self.script(click, vec![json!(number)]).await == json!(true) };
        self.wait_until("a tile", SHORT, is_there).await;
        let open = "return document.querySelector('#viewer').open";
        self.wait_until("the picture in large", SHORT, || async { self.script(open, vec![]).await == json!(true) })
            .await;
    }

    /// The bytes behind a link of the page, such as the one that saves the picture.
    pub async fn bytes_behind(&self, css: &str) -> Vec<u8> {
        let fetch = "const [css, done] = arguments;
            fetch(document.querySelector(css).href).then(answer => answer.arrayBuffer())
                .then(buffer => done([...new Uint8Array(buffer)]))";
        let bytes = self.driver.execute_async(fetch, vec![json!(css)]).await.unwrap();
        serde_json::from_value(bytes.json().clone()).unwrap()
    }

    /// Keeps the newest picture so often, in words numbered from the newest on.
    pub async fn multiply_kept(&self, pictures: usize) {
        let multiply = "const [count, done] = arguments;
            const answer = request => new Promise((resolve, reject) => {
                request.onsuccess = () => resolve(request.result);
                request.onerror = () => reject(request.error);
            });
            (async () => {
                const database = await answer(indexedDB.open((await indexedDB.databases())[0].name));
                const shelves = database.transaction(['entries', 'pictures'], 'readwrite');
                const [entries, pictures] = ['entries', 'pictures'].map(name => shelves.objectStore(name));
                const newest = JSON.parse((await answer(entries.getAll())).at(-1));
                const picture = await answer(pictures.get(newest.id));
                for (let number = 1; number <= count; number += 1) {
                    const id = newest.id - (number - 1) * 1000;
                    entries.put(JSON.stringify({ ...newest, id, words: `number ${number}` }), id);
                    pictures.put(picture, id);
                }
                shelves.oncomplete = () => { database.close(); done(); };
            })()";
        self.driver.execute_async(multiply, vec![json!(pictures)]).await.unwrap();
    }

    /// The zip file that an export saves.
    pub async fn exported(&self) -> Vec<u8> {
        let export = "const [done] = arguments;
            const click = HTMLAnchorElement.prototype.click;
            HTMLAnchorElement.prototype.click = function () {
                HTMLAnchorElement.prototype.click = click;
                fetch(this.href).then(answer => answer.arrayBuffer()).then(buffer => done([...new Uint8Array(buffer)]));
            };
            document.querySelector('#gallery-export').click()";
        let bytes = self.driver.execute_async(export, vec![]).await.unwrap();
        serde_json::from_value(bytes.json().clone()).unwrap()
    }

    /// Has the gallery take a file in.
    pub async fn import(&self, bytes: &[u8], name: &str) {
        let choose = "const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(arguments[0])], arguments[1]));
            const field = document.querySelector('#gallery-files');
            field.files = data.files;
            field.dispatchEvent(new Event('change'))";
        self.script(choose, vec![json!(bytes), json!(name)]).await;
    }

    /// The link that the page puts on the clipboard.
    pub async fn copied_link(&self) -> String {
        let copy = "const [done] = arguments;
            navigator.clipboard.writeText = async text => done(text);
            document.querySelector('#copy-link').click()";
        let link = self.driver.execute_async(copy, vec![]).await.unwrap();
        link.json().as_str().unwrap().to_owned()
    }

    /// Opens the page again, whatever it is at then.
    pub async fn reload_at_once(&self) {
        self.driver.refresh().await.unwrap();
        let started = "return 'kosmosg' in window";
        self.wait_until("the page again", SHORT, || async { self.script(started, vec![]).await == json!(true) }).await;
    }

    /// Opens this tab once more, as browsers duplicate one: the other remembers what this one does, and is seen from then on.
    pub async fn duplicate(&self) {
        self.script("window.open(location.href)", vec![]).await;
        let tab = self.driver.windows().await.unwrap().pop().unwrap();
        self.back_to(tab).await;
        let started = "return 'kosmosg' in window";
        self.wait_until("the other tab", SHORT, || async { self.script(started, vec![]).await == json!(true) }).await;
    }

    /// Closes this tab; the one that was opened last of the others is seen from then on.
    pub async fn close_tab(&self) {
        self.driver.close_window().await.unwrap();
        let tab = self.driver.windows().await.unwrap().pop().unwrap();
        self.back_to(tab).await;
    }

    /// The page's address.
    pub async fn address(&self) -> String {
        self.driver.current_url().await.unwrap().to_string()
    }
}
