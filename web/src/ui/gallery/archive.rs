//! How kept pictures leave the browser and come back: as a zip file, or as single ones.

use std::rc::Rc;

use js_sys::{Array, Date};
use web_sys::{Blob, File, HtmlAnchorElement, Url};

use super::super::{Page, codec, dom};
use super::shelf::chance;
use crate::gallery::{LIST, Packed};
use crate::zip::{self, Method, ZipError};
use crate::{js, picture_file, recipe_file, texts};

impl Page {
    /// Saves pictures as a zip file.
    pub(super) async fn export(self: &Rc<Self>) {
        let wanted = self.keeping.gallery.borrow().wanted();
        if wanted.is_empty() {
            return self.say(texts::NOTHING_TO_EXPORT);
        }
        self.say(texts::EXPORTING);
        let (parts, mut zip, mut list) = (Array::new(), zip::Writer::default(), Vec::new());
        let mut push = |name: &str, bytes: &[u8], time: zip::Time| {
            let header = zip.header(name, bytes, time)?;
            parts.push(&codec::blob_of(&header));
            parts.push(&codec::blob_of(bytes));
            Some(())
        };
        for entry in &wanted {
            let Some(png) = self.kept_file(entry.id).await else { continue };
            let packed = Packed::of(entry, list.len());
            if push(&packed.file, &png, time_of(entry.made_ms)).is_none() {
                return self.say(texts::EXPORT_TOO_LARGE);
            }
            list.push(packed);
        }
        let json = serde_json::to_vec(&list).unwrap_or_default();
        if push(LIST, &json, time_of(Date::now())).is_none() {
            return self.say(texts::EXPORT_TOO_LARGE);
        }
        parts.push(&codec::blob_of(&zip.end()));
        let Ok(blob) = Blob::new_with_blob_sequence(&parts) else { return };
        let Ok(address) = Url::create_object_url_with_blob(&blob) else { return };
        let link: HtmlAnchorElement = dom::create("a", "");
        link.set_href(&address);
        let date = String::from(Date::new_0().to_iso_string());
        link.set_download(&texts::export_name(date.split('T').next().unwrap_or_default(), list.len()));
        link.click();
        self.say("");
        // The browser reads it while it saves it.
        js::sleep(60_000).await;
        dom::revoke(&address);
    }

    /// Takes pictures in that were exported.
    pub(super) async fn import(self: &Rc<Self>, files: Vec<File>) {
        self.say(texts::IMPORTING);
        let mut counts = [0; 3];
        let mut refused = Vec::new();
        for file in files {
            let read = if !is_png(&file.name()) {
                self.import_zip(&file, &mut counts).await
            } else if file.size() > zip::MAX_ENTRY_BYTES.into() {
                Err(ZipError::TooMuch)
            } else {
                let png = codec::slice(&file, 0, file.size() as u64).await.unwrap_or_default();
                self.take_in(&file.name(), &png, &[], &mut counts).await;
                Ok(())
            };
            if let Err(why) = read {
                refused.push(texts::not_imported(&file.name(), &why.to_string()));
            }
        }
        let [new, known, without] = counts;
        if refused.is_empty() || new + known + without > 0 {
            refused.push(texts::imported(new, known, without));
        }
        self.say(&refused.join(" "));
    }

    async fn import_zip(self: &Rc<Self>, file: &File, counts: &mut [usize; 3]) -> Result<(), ZipError> {
        let length = file.size() as u64;
        let slice = async |from: u64, length: u64| codec::slice(file, from, length).await.ok_or(ZipError::NoZip);
        let from = length.saturating_sub(zip::TAIL as u64);
        let (start, bytes) = zip::find_list(&slice(from, length - from).await?, length)?;
        let listed = zip::read_list(&slice(start, bytes as u64).await?, start)?;
        let read = async |listed: &zip::Listed| {
            let header = slice(listed.offset, zip::HEADER as u64).await?;
            let packed = slice(listed.offset + zip::bytes_behind(&header)?, listed.packed.into()).await?;
            let bytes = match listed.method {
                Method::Stored => packed,
                Method::Deflated => codec::inflate(&packed, listed.size as usize).await.ok_or(ZipError::Overlapping)?,
            };
            if listed.is(&bytes) { Ok(bytes) } else { Err(ZipError::NoZip) }
        };
        let list = match listed.iter().find(|listed| listed.name == LIST) {
            Some(listed) => Packed::list(&read(listed).await?),
            None => Vec::new(),
        };
        for listed in listed.iter().filter(|listed| is_png(&listed.name)) {
            let png = read(listed).await?;
            self.take_in(&listed.name, &png, &list, counts).await;
        }
        Ok(())
    }

    /// Takes one picture in, and counts it as new, known or without a recipe.
    async fn take_in(self: &Rc<Self>, name: &str, png: &[u8], list: &[Packed], counts: &mut [usize; 3]) {
        let carried = recipe_file::read(png).ok().flatten();
        let composed = carried.and_then(|carried| Some((carried.composition().ok()?.pictures, carried.recipe)));
        let Some((pictures, recipe)) = composed else { return counts[2] += 1 };
        if picture_file::is_too_large(png) || !codec::is_readable(png).await {
            return counts[2] += 1;
        }
        let bare = recipe_file::without_pictures(png);
        let entry = Packed::entry(list, name, (&recipe, &bare), Date::now(), chance());
        if self.keeping.gallery.borrow().has(&entry) {
            return counts[1] += 1;
        }
        counts[0] += usize::from(self.add(entry, &bare, &pictures).await);
    }
}

fn is_png(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".png")
}

fn time_of(ms: f64) -> zip::Time {
    let date = Date::new(&ms.into());
    let [year, month] = [date.get_full_year(), date.get_month() + 1];
    [year, month, date.get_date(), date.get_hours(), date.get_minutes(), date.get_seconds()].map(|number| number as u16)
}
