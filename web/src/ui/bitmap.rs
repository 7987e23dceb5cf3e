//! Picture files and pixels: the browser decodes, scales and encodes.

use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{Clamped, JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, BlobPropertyBag, CanvasRenderingContext2d, HtmlCanvasElement, ImageBitmap, ImageData};

use super::dom;
use crate::picture_file::{self, Format};
use crate::retouch::{Area, Sheet};
use crate::texts;

/// Longest side of a picture of the sentence: many times what a model sees, and still little to show and to send.
const LONGEST: u32 = 2048;
/// Longest side of a picture that is worked upon.
pub const LONGEST_SHEET: u32 = 1536;
/// Largest file that is read.
const LARGEST_BYTES: f64 = 100e6;
/// Most pixels for which a photograph of another format becomes a PNG file rather than a JPEG file.
const SMALL: u32 = 1 << 20;

/// A picture file that the model can read.
pub struct PictureFile {
    /// PNG, JPEG or WebP.
    pub mime: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A file as it goes into the sentence: as it is, if the model reads it and it is not too large; otherwise as the browser
/// sees it, made smaller.
///
/// # Errors
/// Why not, for people.
pub async fn admit(file: &Blob, name: &str) -> Result<PictureFile, String> {
    if file.size() > LARGEST_BYTES {
        return Err(texts::too_large_a_picture(name));
    }
    let buffer = JsFuture::from(file.array_buffer()).await.map_err(|_| texts::not_a_picture(name))?;
    admit_bytes(Uint8Array::new(&buffer).to_vec(), name).await
}

/// The same for a file's bytes.
///
/// # Errors
/// Why not, for people.
pub async fn admit_bytes(bytes: Vec<u8>, name: &str) -> Result<PictureFile, String> {
    let format = Format::of(&bytes);
    if picture_file::is_too_large(&bytes) {
        return Err(texts::too_large_a_picture(name));
    }
    let Some(bitmap) = decode(&bytes, format.map_or("", Format::mime)).await else {
        return Err(if format.is_some() { texts::damaged_picture(name) } else { texts::not_a_picture(name) });
    };
    let (width, height) = (bitmap.width(), bitmap.height());
    if let Some(format) = format.filter(|_| width.max(height) <= LONGEST) {
        bitmap.close();
        return Ok(PictureFile { mime: format.mime(), bytes });
    }
    let mime = if width * height <= SMALL { Format::Png.mime() } else { Format::Jpeg.mime() };
    let smaller = draw(&bitmap, LONGEST);
    bitmap.close();
    let bytes = match smaller {
        Some((canvas, _)) => encode(&canvas, mime).await,
        None => None,
    };
    bytes.map(|bytes| PictureFile { mime, bytes }).ok_or_else(|| texts::too_large_a_picture(name))
}

/// The pixels of a file of the sentence, not more than one can work with.
pub async fn sheet_of(bytes: &[u8], mime: &str) -> Option<Sheet> {
    let bitmap = decode(bytes, mime).await?;
    let drawn = draw(&bitmap, LONGEST_SHEET);
    bitmap.close();
    let (canvas, context) = drawn?;
    read(&canvas, &context)
}

/// A canvas with those pixels.
pub fn canvas_of(sheet: &Sheet) -> Option<(HtmlCanvasElement, CanvasRenderingContext2d)> {
    let (canvas, context) = canvas(sheet.size().0, sheet.size().1)?;
    put(&context, sheet, sheet.area());
    Some((canvas, context))
}

/// Puts the pixels of an area into a canvas of the same size.
pub fn put(context: &CanvasRenderingContext2d, sheet: &Sheet, area: Area) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let pixels = sheet.part(area);
    let data = ImageData::new_with_u8_clamped_array_and_sh(Clamped(&pixels), area.width, area.height);
    // Bytes and size belong together, and a canvas of one's own can be written.
    if let Ok(data) = data {
        let _ = context.put_image_data(&data, f64::from(area.x), f64::from(area.y));
    }
}

/// A square of a canvas, with white where it has no pixels, so many pixels wide and high.
pub fn square_of(from: &HtmlCanvasElement, frame: crate::retouch::Frame, side: u32) -> Option<HtmlCanvasElement> {
    let (square, context) = canvas(side, side)?;
    let scale = f64::from(side) / frame.side;
    let (width, height) = (f64::from(from.width()) * scale, f64::from(from.height()) * scale);
    context
        .draw_image_with_html_canvas_element_and_dw_and_dh(from, -frame.x * scale, -frame.y * scale, width, height)
        .ok()?;
    Some(square)
}

/// The same picture with so many times as many pixels in both directions, which look the same.
pub fn enlarged(sheet: &Sheet, times: u32) -> Option<Sheet> {
    let (small, _) = canvas_of(sheet)?;
    let (width, height) = (sheet.size().0 * times, sheet.size().1 * times);
    let (large, context) = canvas(width, height)?;
    let (width, height) = (f64::from(width), f64::from(height));
    context.set_image_smoothing_enabled(false);
    context.draw_image_with_html_canvas_element_and_dw_and_dh(&small, 0.0, 0.0, width, height).ok()?;
    read(&large, &context)
}

/// A canvas as a file. `None` if there is no memory for it.
pub async fn encode(canvas: &HtmlCanvasElement, mime: &str) -> Option<Vec<u8>> {
    let promise = Promise::new(&mut |resolve, _| {
        // It only fails for canvases with pictures of other pages in them; then nothing comes.
        if canvas.to_blob_with_type(&resolve, mime).is_err() {
            let _ = Function::call0(&resolve, &JsValue::NULL);
        }
    });
    let blob: Blob = JsFuture::from(promise).await.ok()?.dyn_into().ok()?;
    let buffer = JsFuture::from(blob.array_buffer()).await.ok()?;
    Some(Uint8Array::new(&buffer).to_vec())
}

/// A file's picture, turned as its EXIF says. Browsers decode away from the page's thread. `None` if it is none.
async fn decode(bytes: &[u8], mime: &str) -> Option<ImageBitmap> {
    let options = BlobPropertyBag::new();
    options.set_type(mime);
    let parts = Array::of1(&Uint8Array::from(bytes));
    let blob = Blob::new_with_u8_array_sequence_and_options(&parts, &options).ok()?;
    let promise = dom::window().create_image_bitmap_with_blob(&blob).ok()?;
    JsFuture::from(promise).await.ok()?.dyn_into().ok()
}

/// A canvas with a picture on white, made smaller if a side is longer than that.
fn draw(bitmap: &ImageBitmap, longest: u32) -> Option<(HtmlCanvasElement, CanvasRenderingContext2d)> {
    let scale = (f64::from(longest) / f64::from(bitmap.width().max(bitmap.height()))).min(1.0);
    let side = |length: u32| (f64::from(length) * scale).round().max(1.0);
    let (width, height) = (side(bitmap.width()), side(bitmap.height()));
    let (canvas, context) = canvas(width as u32, height as u32)?;
    context.draw_image_with_image_bitmap_and_dw_and_dh(bitmap, 0.0, 0.0, width, height).ok()?;
    Some((canvas, context))
}

/// White, of that size. `None` if the browser has no memory for it.
fn canvas(width: u32, height: u32) -> Option<(HtmlCanvasElement, CanvasRenderingContext2d)> {
    let canvas: HtmlCanvasElement = dom::create("canvas", "");
    canvas.set_width(width);
    canvas.set_height(height);
    let options = Object::new();
    // Setting a property of a fresh object does not fail.
    let _ = Reflect::set(&options, &"willReadFrequently".into(), &true.into());
    let context = canvas.get_context_with_context_options("2d", &options).ok()??;
    let context: CanvasRenderingContext2d = context.dyn_into().ok()?;
    context.set_fill_style_str("#fff");
    context.fill_rect(0.0, 0.0, f64::from(width), f64::from(height));
    // Not every browser knows better and worse.
    let _ = Reflect::set(&context, &"imageSmoothingQuality".into(), &"high".into());
    Some((canvas, context))
}

fn read(canvas: &HtmlCanvasElement, context: &CanvasRenderingContext2d) -> Option<Sheet> {
    let (width, height) = (canvas.width(), canvas.height());
    let data = context.get_image_data(0.0, 0.0, f64::from(width), f64::from(height)).ok()?;
    Sheet::on_white(width, height, data.data().0)
}
