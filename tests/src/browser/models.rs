//! The page's section of models, as a person uses it, and what happens to the browser's storage.

use std::time::Duration;

use serde_json::json;

use super::page::{Page, SHORT};

/// Finds a model's row.
const ROW: &str = "const row = [...document.querySelectorAll('#model-list li')]
        .find(row => row.querySelector('b').textContent === arguments[0]); ";

/// Finds a button in it, in the section that one opens for it.
const BUTTON: &str = "document.querySelector('#models').open = true; window.confirm = () => true;
    const button = [...row?.querySelectorAll('button') ?? []]
        .find(button => button.textContent.startsWith(arguments[1])); ";

impl Page {
    /// Does something with a model: the button of its row whose words begin so, once it is there.
    pub async fn deed(&self, model: &str, label: &str) {
        self.wait_for_deed(model, label).await;
        let click = [ROW, BUTTON, "button.click()"].concat();
        self.script(&click, vec![json!(model), json!(label)]).await;
    }

    /// Waits until something can be done with a model.
    pub async fn wait_for_deed(&self, model: &str, label: &str) {
        self.wait_for_deed_within(model, label, SHORT).await;
    }

    /// The same, longer.
    pub async fn wait_for_deed_within(&self, model: &str, label: &str, patience: Duration) {
        let find = [ROW, BUTTON, "return button !== undefined"].concat();
        let arguments = || vec![json!(model), json!(label)];
        let is_there = || async { self.script(&find, arguments()).await == json!(true) };
        self.wait_until(label, patience, is_there).await;
    }

    /// Waits until the browser keeps all of a model.
    pub async fn wait_until_whole(&self, model: &str) {
        let whole = "const text = row?.textContent ?? '';
            return text.includes('in this browser') && !text.includes('MB of ')";
        let find = [ROW, whole].concat();
        let is_whole = || async { self.script(&find, vec![json!(model)]).await == json!(true) };
        self.wait_until("the whole model", SHORT, is_whole).await;
    }

    /// Flips a bit in the first file of that name that the browser keeps.
    pub async fn spoil(&self, name: &str) {
        let spoil = "const [name, done] = arguments;
            (async () => {
                const models = await (await navigator.storage.getDirectory()).getDirectoryHandle('models');
                for await (const folder of models.values()) {
                    const file = await folder.getFileHandle(name);
                    const at = (await file.getFile()).size - 1;
                    const last = new Uint8Array(await (await file.getFile()).slice(at).arrayBuffer());
                    const writing = await file.createWritable({ keepExistingData: true });
                    await writing.write({ type: 'write', position: at, data: new Uint8Array([last[0] ^ 1]) });
                    await writing.close();
                }
                done();
            })()";
        self.driver.execute_async(spoil, vec![json!(name)]).await.unwrap();
    }

    /// Gives the pages of an origin so many bytes of storage; none is what the browser thinks right.
    pub async fn limit_storage(&self, origin: &str, bytes: Option<u64>) {
        let limit = match bytes {
            Some(bytes) => json!({ "origin": origin, "quotaSize": bytes }),
            None => json!({ "origin": origin }),
        };
        self.driver.cdp().send_raw("Storage.overrideQuotaForOrigin", limit).await.unwrap();
    }

    /// Removes all files that the browser keeps for the page.
    pub async fn empty_storage(&self) {
        let empty = "const [done] = arguments;
            navigator.storage.getDirectory().then(root => root.removeEntry('models', { recursive: true })).then(done)";
        self.driver.execute_async(empty, vec![]).await.unwrap();
    }

    /// Chooses a folder of a model in the file dialog: these files from below an address.
    pub async fn choose_folder(&self, address: &str, names: &[String]) {
        let choose = "const [address, names, done] = arguments;
            document.querySelector('#models').open = true;
            (async () => {
                const data = new DataTransfer();
                for (const name of names) {
                    data.items.add(new File([await (await fetch(address + name)).arrayBuffer()], name));
                }
                const field = document.querySelector('#model-files');
                field.files = data.files;
                field.dispatchEvent(new Event('change'));
                done();
            })()";
        self.driver.execute_async(choose, vec![json!(address), json!(names)]).await.unwrap();
    }
}
