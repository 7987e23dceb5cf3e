//! Grids: what they vary, and the table of their pictures.

use js_sys::Math;
use kosmosg::protocol::GenerateSettings;
use wasm_bindgen::prelude::*;
use web_sys::{
    Blob, CanvasRenderingContext2d, Element, Event, HtmlCanvasElement, HtmlElement, HtmlImageElement, HtmlInputElement,
    HtmlSelectElement,
};

use super::dom;
use super::results::Strip;
use crate::app::{App, Axis, AxisKind, Grid, Look, Sheet};
use crate::texts;

/// Sides of a picture in a saved grid, in pixels: small ones are enlarged a whole number of times.
const CELL: f64 = 256.0;
/// Browsers refuse larger canvases.
const MOST_PIXELS: f64 = 8192.0;
const FONT: &str = "22px system-ui, sans-serif";
const LINE: f64 = 40.0;
const PAPER: &str = "#fffdf9";
const INK: &str = "#2b2320";

/// One of the two settings that a grid varies.
struct Side {
    kind: HtmlSelectElement,
    values: HtmlInputElement,
}

/// The settings of the next grid.
pub struct GridForm {
    columns: Side,
    rows: Side,
}

impl GridForm {
    /// Takes the fields over; `settings` tells what is set now.
    pub fn new(settings: impl Fn() -> GenerateSettings + Clone + 'static) -> Self {
        let form = Self { columns: Side::new("columns"), rows: Side::new("rows") };
        for side in [&form.columns, &form.rows] {
            let (kind, values, settings) = (side.kind.clone(), side.values.clone(), settings.clone());
            dom::on(&side.kind, "change", move |_: Event| {
                let kind = AxisKind::from_name(&kind.value());
                values.set_value(&kind.map_or(String::new(), |kind| kind.suggestion(&settings())));
                values.set_disabled(kind.is_none());
            });
        }
        form
    }

    /// Suggests values, where there are none.
    pub fn suggest(&self, settings: &GenerateSettings) {
        for side in [&self.columns, &self.rows] {
            let kind = AxisKind::from_name(&side.kind.value());
            if side.values.value().is_empty() {
                side.values.set_value(&kind.map_or(String::new(), |kind| kind.suggestion(settings)));
            }
            side.values.set_disabled(kind.is_none());
        }
    }

    /// The grid that is asked for.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn grid(&self) -> Result<Grid, String> {
        let [columns, rows] = [&self.columns, &self.rows].map(Side::axis);
        match (columns?, rows?) {
            (Some(columns), rows) => Grid::new(columns, rows),
            (None, Some(rows)) => Grid::new(rows, None),
            (None, None) => Err(texts::no_values(texts::GRID)),
        }
    }
}

impl Side {
    fn new(id: &str) -> Self {
        let kind: HtmlSelectElement = dom::by_id(id);
        let names = AxisKind::ALL.map(|kind| (kind.name(), kind.label()));
        for (name, label) in [("", texts::GRID_NOTHING)].into_iter().chain(names) {
            let option: Element = dom::create("option", "");
            dom::set_attribute(&option, "value", name);
            option.set_text_content(Some(label));
            kind.append_child(&option).expect("a list takes options");
        }
        let first = if id == "columns" { AxisKind::Seed } else { AxisKind::Guidance };
        kind.set_value(first.name());
        Self { kind, values: dom::by_id(&format!("{id}-values")) }
    }

    fn axis(&self) -> Result<Option<Axis>, String> {
        AxisKind::from_name(&self.kind.value()).map(|kind| Axis::parse(kind, &self.values.value())).transpose()
    }
}

/// Says what is wrong with the grid that is asked for; an empty message takes it back.
pub fn notify(message: &str) {
    dom::tell_line("grid-notice", message);
}

/// Shows the last grid as a table.
pub fn show(app: &App, strip: &Strip, looks: impl Fn(Look) + Clone + 'static) {
    let sheet = app.results().sheet();
    dom::show("sheet", sheet.is_some());
    let table: HtmlElement = dom::by_id("sheet-table");
    let addresses: Vec<_> = sheet.iter().flat_map(|sheet| &sheet.cells).map(|cell| strip.address((*cell)?)).collect();
    let key = addresses.iter().map(|address| address.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ");
    let key = sheet.map_or(String::new(), |sheet| format!("{} {key}", sheet.sentence));
    let is_whole = addresses.iter().all(Option::is_some);
    dom::show("save-sheet", is_whole);
    if table.get_attribute("data-key").unwrap_or_default() != key {
        dom::set_attribute(&table, "data-key", &key);
        let focused = dom::document().active_element().and_then(|element| element.get_attribute("data-cell"));
        table.set_text_content(None);
        if let Some(sheet) = sheet {
            fill(&table, sheet, &addresses, looks);
        }
        let css = focused.map(|cell| format!("[data-cell=\"{cell}\"]"));
        if let Some(Ok(Some(cell))) = css.map(|css| table.query_selector(&css))
            && let Ok(cell) = cell.dyn_into::<HtmlElement>()
        {
            dom::focus(&cell);
        }
    }
    let shown = app.results().shown().map(|outcome| outcome.number).filter(|_| !app.is_live());
    for (at, &number) in sheet.iter().flat_map(|sheet| &sheet.cells).enumerate() {
        if let Ok(Some(cell)) = table.query_selector(&format!("[data-cell=\"{at}\"]")) {
            let is_shown = number.is_some() && number == shown;
            match is_shown {
                true => dom::set_attribute(&cell, "aria-current", "true"),
                false => dom::set_flag(&cell, "aria-current", false),
            }
        }
    }
}

fn fill(table: &HtmlElement, sheet: &Sheet, addresses: &[Option<String>], looks: impl Fn(Look) + Clone + 'static) {
    let append = |to: &HtmlElement, tag: &str| -> HtmlElement {
        let element: HtmlElement = dom::create(tag, "");
        to.append_child(&element).expect("an element of the page takes children");
        element
    };
    let heading = |row: &HtmlElement, scope: &str, text: &str| {
        let heading = append(row, "th");
        dom::set_attribute(&heading, "scope", scope);
        heading.set_text_content(Some(text));
    };
    let caption = append(table, "caption");
    caption.set_dir("auto");
    caption.set_text_content(Some(&sheet.sentence));
    let (columns, rows) = labels(&sheet.grid);
    let head = append(&append(table, "thead"), "tr");
    if !rows.is_empty() {
        append(&head, "td");
    }
    columns.iter().for_each(|label| heading(&head, "col", label));
    let body = append(table, "tbody");
    for (number, cells) in addresses.chunks(columns.len()).enumerate() {
        let row = append(&body, "tr");
        if let Some(label) = rows.get(number) {
            heading(&row, "row", label);
        }
        for (column, address) in cells.iter().enumerate() {
            let at = number * columns.len() + column;
            let place = [Some(&columns[column]), rows.get(number)].into_iter().flatten();
            let place = place.map(String::as_str).collect::<Vec<_>>().join(", ");
            let cell = append(&row, "td");
            let (Some(address), Some(Some(shown))) = (address, sheet.cells.get(at)) else {
                cell.set_class_name("to-come");
                if at < sheet.before {
                    cell.set_text_content(Some(texts::IN_GALLERY));
                }
                continue;
            };
            let button = dom::button("tile", "");
            dom::set_attribute(&button, "aria-label", &place);
            dom::set_attribute(&button, "data-cell", &at.to_string());
            let image: HtmlImageElement = dom::create("img", "");
            image.set_alt("");
            image.set_src(address);
            let (looks, shown) = (looks.clone(), *shown);
            dom::on(&button, "click", move |_: Event| looks(Look::At(shown)));
            button.append_child(&image).expect("a new element takes children");
            cell.append_child(&button).expect("a new element takes children");
        }
    }
}

/// What stands above the columns and before the rows.
fn labels(grid: &Grid) -> (Vec<String>, Vec<String>) {
    let label = |axis: &Axis| {
        let name = axis.label().to_ascii_lowercase();
        axis.values().iter().map(|value| format!("{name} {value}")).collect()
    };
    (label(&grid.columns), grid.rows.as_ref().map_or(Vec::new(), label))
}

/// Saves the grid that is shown as one picture with its labels.
///
/// # Errors
/// What the browser says.
pub fn save(sheet: &Sheet) -> Result<(), JsValue> {
    let table: HtmlElement = dom::by_id("sheet-table");
    let images = table.query_selector_all("img")?;
    let images: Vec<HtmlImageElement> =
        (0..images.length()).filter_map(|at| images.item(at)?.dyn_into().ok()).collect();
    let (columns, rows) = labels(&sheet.grid);
    let side = images.iter().map(|image| f64::from(image.natural_width())).fold(1.0, f64::max);
    let across = columns.len() as f64;
    let cell = (side * (CELL / side).ceil()).min((MOST_PIXELS - 4.0 * CELL) / across.max(rows.len() as f64)).floor();

    let canvas: HtmlCanvasElement = dom::create("canvas", "");
    let context = |canvas: &HtmlCanvasElement| -> Result<CanvasRenderingContext2d, JsValue> {
        let context = canvas.get_context("2d")?.ok_or("no canvas")?.unchecked_into::<CanvasRenderingContext2d>();
        context.set_font(FONT);
        Ok(context)
    };
    let measured = context(&canvas)?;
    let mut left = LINE / 2.0;
    for label in &rows {
        left = left.max(measured.measure_text(label)?.width() + LINE);
    }
    let top = 2.0 * LINE + LINE / 2.0;
    let down = (images.len() as f64 / across).ceil();
    canvas.set_width((left + across * cell + LINE / 2.0) as u32);
    canvas.set_height((top + down * cell + LINE / 2.0) as u32);
    // A canvas of another size forgets its font.
    let context = context(&canvas)?;
    let (width, height) = (f64::from(canvas.width()), f64::from(canvas.height()));
    context.set_fill_style_str(PAPER);
    context.fill_rect(0.0, 0.0, width, height);
    context.set_fill_style_str(INK);
    context.set_text_baseline("middle");
    context.fill_text_with_max_width(&sheet.sentence, LINE / 2.0, LINE, width - LINE)?;
    context.set_text_align("center");
    for (column, label) in columns.iter().enumerate() {
        context.fill_text_with_max_width(label, left + (column as f64 + 0.5) * cell, 2.0 * LINE, cell - 8.0)?;
    }
    context.set_text_align("left");
    for (row, label) in rows.iter().enumerate() {
        context.fill_text(label, LINE / 2.0, top + (row as f64 + 0.5) * cell)?;
    }
    context.set_image_smoothing_enabled(side >= cell);
    for (at, image) in images.iter().enumerate() {
        let (column, row) = ((at % columns.len()) as f64, (at / columns.len()) as f64);
        let (x, y, inner) = (left + column * cell + 2.0, top + row * cell + 2.0, cell - 4.0);
        context.draw_image_with_html_image_element_and_dw_and_dh(image, x, y, inner, inner)?;
    }
    let done = Closure::once_into_js(move |blob: Option<Blob>| {
        if let Some(blob) = blob {
            dom::save(&blob, &format!("kosmos-grid-{:.0}.png", Math::floor(js_sys::Date::now() / 1000.0)));
        }
    });
    canvas.to_blob(done.unchecked_ref())
}
