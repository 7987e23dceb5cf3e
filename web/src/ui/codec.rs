//! What the browser packs and unpacks: deflate, and pictures in small.

use js_sys::{Array, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, ImageBitmap, ImageEncodeOptions, OffscreenCanvas, OffscreenCanvasRenderingContext2d, ReadableStream,
    ReadableStreamDefaultReader,
};

use super::dom;
use crate::js;

#[wasm_bindgen]
extern "C" {
    type CompressionStream;
    #[wasm_bindgen(constructor, catch)]
    fn new(format: &str) -> Result<CompressionStream, JsValue>;
    type DecompressionStream;
    #[wasm_bindgen(constructor, catch)]
    fn new(format: &str) -> Result<DecompressionStream, JsValue>;
}

const FORMAT: &str = "deflate-raw";
const WEBP: &str = "image/webp";

/// Packs bytes with deflate, if the browser can.
pub async fn deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    through(bytes, CompressionStream::new(FORMAT).ok()?.into(), usize::MAX).await
}

/// Unpacks them. `None` if they are none or would be more than `most`.
pub async fn inflate(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    through(bytes, DecompressionStream::new(FORMAT).ok()?.into(), most).await
}

/// A file as the browser holds it.
pub fn blob_of(bytes: &[u8]) -> Blob {
    let parts = Array::of1(&Uint8Array::from(bytes));
    Blob::new_with_u8_array_sequence(&parts).expect("bytes make a blob")
}

/// A part of a file.
pub async fn slice(file: &Blob, from: u64, length: u64) -> Option<Vec<u8>> {
    let part = file.slice_with_f64_and_f64(from as f64, (from + length) as f64).ok()?;
    let buffer = JsFuture::from(part.array_buffer()).await.ok()?;
    Some(Uint8Array::new(&buffer).to_vec())
}

/// A picture with at most `side` pixels in width and height, in a format that takes little. `None` if it is none that the
/// browser can read.
pub async fn shrink(file: &[u8], side: u32, quality: f64) -> Option<Vec<u8>> {
    try_shrink(file, side, quality).await.ok()?
}

async fn try_shrink(file: &[u8], side: u32, quality: f64) -> Result<Option<Vec<u8>>, JsValue> {
    let bitmap = JsFuture::from(dom::window().create_image_bitmap_with_blob(&blob_of(file))?).await?;
    let bitmap: ImageBitmap = bitmap.unchecked_into();
    let (width, height) = (f64::from(bitmap.width()), f64::from(bitmap.height()));
    let scale = (f64::from(side) / width.max(height)).min(1.0);
    let (width, height) = ((width * scale).round().max(1.0), (height * scale).round().max(1.0));
    let canvas = OffscreenCanvas::new(width as u32, height as u32)?;
    let Some(context) = canvas.get_context("2d")? else { return Ok(None) };
    let context: OffscreenCanvasRenderingContext2d = context.unchecked_into();
    let _ = Reflect::set(&context, &"imageSmoothingQuality".into(), &"high".into());
    context.draw_image_with_image_bitmap_and_dw_and_dh(&bitmap, 0.0, 0.0, width, height)?;
    bitmap.close();
    let encode = async |mime| {
        let options = ImageEncodeOptions::new();
        options.set_type(mime);
        options.set_quality(quality);
        JsFuture::from(canvas.convert_to_blob_with_options(&options)?).await.map(JsValue::unchecked_into::<Blob>)
    };
    let mut blob = encode(WEBP).await?;
    if blob.type_() != WEBP {
        // Safari cannot, and gives a PNG. A JPEG has no transparency: what would be black is white, as the model sees it.
        context.set_global_composite_operation("destination-over")?;
        context.set_fill_style_str("#fff");
        context.fill_rect(0.0, 0.0, width, height);
        blob = encode("image/jpeg").await?;
    }
    Ok(slice(&blob, 0, blob.size() as u64).await)
}

/// Whether the browser can read a picture.
pub async fn is_readable(file: &[u8]) -> bool {
    let Ok(promise) = dom::window().create_image_bitmap_with_blob(&blob_of(file)) else { return false };
    JsFuture::from(promise).await.is_ok()
}

async fn through(bytes: &[u8], transform: JsValue, most: usize) -> Option<Vec<u8>> {
    let stream: ReadableStream = blob_of(bytes).stream().pipe_through(transform.unchecked_ref());
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    let mut out = Vec::new();
    loop {
        let piece = match JsFuture::from(reader.read()).await {
            Ok(piece) => piece,
            Err(error) => {
                js::log_error(&js::text_of(&error));
                return None;
            }
        };
        if Reflect::get(&piece, &"done".into()).ok()?.is_truthy() {
            return Some(out);
        }
        let piece: Uint8Array = Reflect::get(&piece, &"value".into()).ok()?.unchecked_into();
        if out.len() + piece.length() as usize > most {
            // Whether it can still be told to stop does not matter.
            let _ = reader.cancel();
            return None;
        }
        let from = out.len();
        out.resize(from + piece.length() as usize, 0);
        piece.copy_to(&mut out[from..]);
    }
}
