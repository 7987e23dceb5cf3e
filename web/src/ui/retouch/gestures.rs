//! What happens on the picture itself: fingers, pen, mouse and keys.

use std::rc::Rc;

use web_sys::{Event, KeyboardEvent, PointerEvent, WheelEvent};

use super::super::dom;
use super::work::{Tool, Work, middle, tool};
use super::{RetouchDialog, Tab, tab};

/// How far an arrow key moves the square, as a share of it, and the brush, as a share of what is seen.
const STEP: f64 = 0.02;

impl RetouchDialog {
    pub(super) fn listen_to_view(self: &Rc<Self>) {
        let canvas = self.view.canvas();
        let dialog = self.clone();
        dom::on(canvas, "pointerdown", move |event: PointerEvent| {
            if event.button() == 0 {
                event.prevent_default();
                dialog.view.focus();
                dialog.view.capture(event.pointer_id());
                dialog.touch(&event);
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "pointermove", move |event: PointerEvent| dialog.moved(&event));
        for name in ["pointerup", "pointercancel"] {
            let dialog = self.clone();
            dom::on(canvas, name, move |event: PointerEvent| dialog.let_go(event.pointer_id()));
        }
        let dialog = self.clone();
        dom::on(canvas, "wheel", move |event: WheelEvent| {
            if tab() == Tab::Frame {
                event.prevent_default();
                let factor = (event.delta_y() * if event.delta_mode() == 0 { 0.002 } else { 0.05 }).exp();
                dialog.frame(move |frame, size| frame.with_side(frame.side * factor, size));
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "keydown", move |event: KeyboardEvent| {
            if !event.ctrl_key() && !event.meta_key() && !event.alt_key() && dialog.view_key(&event) {
                event.prevent_default();
            }
        });
        let dialog = self.clone();
        dom::on(canvas, "blur", move |_: Event| {
            dialog.change_work(|work| {
                work.brush = None;
                work.retouch.settle();
            });
        });
    }

    pub(super) fn change_work(&self, change: impl FnOnce(&mut Work)) {
        if let Some(work) = &mut *self.work.borrow_mut() {
            change(work);
        }
        self.show();
    }

    fn touch(&self, event: &PointerEvent) {
        let at = self.view.share_at(event.client_x(), event.client_y());
        let tab = tab();
        self.change_work(|work| {
            work.brush = None;
            work.pointers.push((event.pointer_id(), at));
            let is_first = work.pointers.len() == 1;
            if tab == Tab::Draw && is_first {
                work.retouch.settle();
                let at = self.view.place_of(at, work.retouch.frame(), false);
                work.apply(at, at);
            }
        });
    }

    fn moved(&self, event: &PointerEvent) {
        let at = self.view.share_at(event.client_x(), event.client_y());
        let tab = tab();
        let is_known = |work: &Work| work.pointers.iter().any(|&(pointer, _)| pointer == event.pointer_id());
        if !self.work.borrow().as_ref().is_some_and(is_known) {
            return;
        }
        self.change_work(|work| {
            let before = work.pointers.clone();
            for (pointer, place) in &mut work.pointers {
                if *pointer == event.pointer_id() {
                    *place = at;
                }
            }
            match tab {
                Tab::Frame => work.drag(&before, &self.view),
                Tab::Cut => {}
                Tab::Draw if before[0].0 == event.pointer_id() && tool() != Tool::Fill => {
                    let frame = work.retouch.frame();
                    let place = |share| self.view.place_of(share, frame, false);
                    let (from, to) = (place(before[0].1), place(at));
                    work.apply(from, to);
                }
                Tab::Draw => {}
            }
        });
    }

    fn let_go(&self, pointer: i32) {
        self.change_work(|work| {
            work.pointers.retain(|&(id, _)| id != pointer);
            if work.pointers.is_empty() {
                work.retouch.settle();
            }
        });
    }

    /// Does what a key says; `false` if it says nothing.
    fn view_key(&self, event: &KeyboardEvent) -> bool {
        let key = event.key();
        let step = if event.shift_key() { 5.0 * STEP } else { STEP };
        let by = match key.as_str() {
            "ArrowLeft" => Some((-step, 0.0)),
            "ArrowRight" => Some((step, 0.0)),
            "ArrowUp" => Some((0.0, -step)),
            "ArrowDown" => Some((0.0, step)),
            _ => None,
        };
        let zoom = |factor: f64| self.frame(|frame, size| frame.with_side(frame.side * factor, size));
        match (tab(), by, key.as_str()) {
            (Tab::Frame, Some((dx, dy)), _) => {
                self.frame(|frame, size| frame.moved(dx * frame.side, dy * frame.side, size));
            }
            (Tab::Frame, None, "+" | "=") => zoom(1.0 / 1.1),
            (Tab::Frame, None, "-") => zoom(1.1),
            (Tab::Draw, Some((dx, dy)), _) => self.change_work(|work| {
                let frame = work.retouch.frame();
                let (from, is_down) = work.brush.unwrap_or((middle(frame), false));
                let to = (
                    (from.0 + dx * frame.side).clamp(frame.x, frame.x + frame.side),
                    (from.1 + dy * frame.side).clamp(frame.y, frame.y + frame.side),
                );
                work.brush = Some((to, is_down));
                if is_down {
                    work.apply(from, to);
                }
            }),
            (Tab::Draw, None, " " | "Enter") => self.change_work(|work| {
                let (at, was_down) = work.brush.unwrap_or((middle(work.retouch.frame()), false));
                let is_down = !was_down && tool() != Tool::Fill;
                work.brush = Some((at, is_down));
                if was_down {
                    work.retouch.settle();
                } else {
                    work.apply(at, at);
                }
            }),
            _ => return false,
        }
        true
    }
}
