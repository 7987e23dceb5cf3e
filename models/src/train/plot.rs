//! Loss curves of a run.

use std::fs;
use std::path::Path;
use std::sync::Once;

use anyhow::Context as _;
use epaint_default_fonts::UBUNTU_LIGHT;
use kosmosg::picture::Picture;
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange as _;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::Stage;

/// What a stage's `log.csv` says about its loss.
#[derive(Debug, Clone, PartialEq)]
struct Curve {
    stage: Stage,
    /// Samples seen so far, and the loss of the step that they end with.
    points: Vec<(f64, f64)>,
}

/// Draws the loss of every stage of `run` over the samples it saw, one chart a stage, into an SVG or a PNG, as `output` ends.
///
/// # Errors
/// `output` ends otherwise, the run has no log, or a file cannot be read or written.
pub fn plot(run: &Path, output: &Path) -> anyhow::Result<()> {
    let is = |ending: &str| output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    anyhow::ensure!(is("svg") || is("png"), "{} must end in .svg or .png", output.display());
    let curves = Stage::ALL.into_iter().map(|stage| Curve::read(run, stage)).filter_map(Result::transpose);
    let curves: Vec<_> = curves.collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!curves.is_empty(), "{} has no stage with a log.csv", run.display());
    static FONT: Once = Once::new();
    FONT.call_once(|| drop(register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT)));

    let columns = curves.len().min(COLUMNS);
    let rows = curves.len().div_ceil(columns);
    let size = (columns as u32 * CHART.0, rows as u32 * CHART.1);
    let bytes = if is("png") {
        let mut pixels = vec![255; 3 * size.0 as usize * size.1 as usize];
        draw(&BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area(), (rows, columns), &curves)?;
        Picture::new(size.0, size.1, pixels).context("a picture of that size")?.to_png(None)
    } else {
        let mut svg = String::new();
        draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area(), (rows, columns), &curves)?;
        svg.into_bytes()
    };
    fs::write(output, bytes).with_context(|| format!("cannot write {}", output.display()))
}

/// Charts side by side.
const COLUMNS: usize = 3;
/// Width and height of one, in pixels.
const CHART: (u32, u32) = (420, 280);
/// Points of a drawn curve: means over as many parts of the log.
const POINTS: usize = 400;
/// Share of an older value in the smooth curve, for one of [`POINTS`].
const SMOOTHING: f64 = 0.9;

impl Curve {
    /// `None` if the stage has no log.
    fn read(run: &Path, stage: Stage) -> anyhow::Result<Option<Self>> {
        let path = run.join(stage.name()).join("log.csv");
        if !path.exists() {
            return Ok(None);
        }
        let log = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = log.lines();
        let names: Vec<_> = lines.next().unwrap_or_default().split(',').collect();
        let column = |name| names.iter().position(|&other| other == name);
        let (samples, loss) = column("samples")
            .zip(column("loss"))
            .with_context(|| format!("{} has no columns `samples` and `loss`", path.display()))?;
        let point = |line: &str| -> Option<(f64, f64)> {
            let cells: Vec<_> = line.split(',').collect();
            Some((cells.get(samples)?.parse().ok()?, cells.get(loss)?.parse().ok()?))
        };
        let points: Vec<_> = lines.filter_map(point).filter(|(_, loss)| loss.is_finite() && *loss > 0.0).collect();
        Ok((!points.is_empty()).then_some(Self { stage, points }))
    }

    /// At most [`POINTS`] points, each the mean of those that it stands for.
    fn thinned(&self) -> Vec<(f64, f64)> {
        let mean = |part: &[(f64, f64)]| {
            let (x, y) = part.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
            (x / part.len() as f64, y / part.len() as f64)
        };
        self.points.chunks(self.points.len().div_ceil(POINTS)).map(mean).collect()
    }
}

/// A moving average that begins with the first value.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut value = points.first().map_or(0.0, |point| point.1);
    let mut next = |&(x, y): &(f64, f64)| {
        value = SMOOTHING * value + (1.0 - SMOOTHING) * y;
        (x, value)
    };
    points.iter().map(&mut next).collect()
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (rows, columns): (usize, usize),
    curves: &[Curve],
) -> anyhow::Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    for (curve, area) in curves.iter().zip(area.split_evenly((rows, columns))) {
        let points = curve.thinned();
        let losses = || points.iter().map(|point| point.1);
        let (low, high) = (losses().fold(f64::MAX, f64::min), losses().fold(f64::MIN, f64::max));
        let last = points.last().map_or(1.0, |point| point.0).max(1.0);
        let mut chart = ChartBuilder::on(&area)
            .caption(curve.stage.name(), ("sans-serif", 18))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..last, (low * 0.9..high * 1.1).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(5)
            .y_labels(5)
            .x_desc("samples")
            .x_label_formatter(&|&x| thousands(x))
            .y_label_formatter(&|&y| number(y))
            .draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), BLUE.mix(0.25)))?;
        chart.draw_series(LineSeries::new(smooth(&points), BLUE.stroke_width(2)))?;
    }
    area.present()?;
    Ok(())
}

fn thousands(x: f64) -> String {
    if x >= 1e6 {
        format!("{:.1}M", x / 1e6)
    } else if x >= 1e3 {
        format!("{:.0}k", x / 1e3)
    } else {
        format!("{x:.0}")
    }
}

/// Two significant digits.
fn number(x: f64) -> String {
    let digits = (1.0 - x.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{x:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_a_picture_and_a_drawing() {
        let dir = tempfile::tempdir().unwrap();
        let error = plot(dir.path(), &dir.path().join("x.svg")).unwrap_err().to_string();
        assert!(error.contains("no stage with a log.csv"), "{error}");
        for (stage, steps) in [(Stage::Vae, 3), (Stage::Instruct, 2000)] {
            let folder = dir.path().join(stage.name());
            fs::create_dir_all(&folder).unwrap();
            let row = |step: u32| format!("{step},{},1.0,1e-3,0.5,{}\n", step * 8, 1.0 / f64::from(step));
            let rows: String = (1..=steps).map(row).collect();
            fs::write(folder.join("log.csv"), format!("step,samples,seconds,lr,norm,loss\n{rows}")).unwrap();
        }
        let (svg, png) = (dir.path().join("loss.svg"), dir.path().join("loss.png"));
        plot(dir.path(), &svg).unwrap();
        plot(dir.path(), &png).unwrap();
        let error = plot(dir.path(), &dir.path().join("loss.jpg")).unwrap_err().to_string();
        assert!(error.contains("loss.jpg must end in .svg or .png"), "{error}");
        let svg = fs::read_to_string(svg).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("instruct") && svg.contains("samples"), "{svg}");
        let picture = Picture::decode(&fs::read(png).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (2 * CHART.0, CHART.1));
        let blue = picture.rgb().chunks_exact(3).filter(|p| p[2] > 200 && p[0] < 100).count();
        assert!(blue > 200, "{blue} blue pixels");

        let curve = Curve::read(dir.path(), Stage::Instruct).unwrap().unwrap();
        assert_eq!((curve.points.len(), curve.thinned().len()), (2000, POINTS));
        assert!((curve.thinned()[0].0 - 24.0).abs() < 1e-9, "{:?}", curve.thinned()[0]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([thousands(12.0), thousands(3400.0), thousands(2.25e6)], ["12", "3k", "2.2M"]);
        assert_eq!([number(0.031), number(1.5), number(120.0)], ["0.031", "1.5", "120"]);
    }
}
