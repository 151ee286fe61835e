//! Groups of samples in, SVG files out: one panel per scenario, each with its own scale.
//!
//! A contender has the same colour in every plot. Bars carry their figures, and a whisker from the
//! least to the greatest sample. Nothing is drawn of what wasn't measured.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::Contender;
use crate::format::{bytes, number, time};
use crate::sample::Sample;
use crate::scenario::Scenario;
use crate::stats::{Group, Spread};

type Text = fn(f64) -> String;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

const WIDTH: u32 = 1000;
const COLUMNS: usize = 2;
/// Of a panel or chart.
const COLUMN_WIDTH: i32 = 500;
const BAR: i32 = 22;
const TITLE: i32 = 34;
const LABELS: i32 = 120;
const FIGURES: i32 = 120;
const CHART_HEIGHT: i32 = 300;
const FONT: &str = "sans-serif";
/// Ours in greens, the C server in reds, the others each in a colour of its own, the floors in
/// greys.
const COLOURS: [RGBColor; 14] = [
    RGBColor(0, 120, 80),
    RGBColor(90, 180, 130),
    RGBColor(150, 200, 60),
    RGBColor(60, 170, 190),
    RGBColor(20, 70, 60),
    RGBColor(190, 50, 40),
    RGBColor(230, 130, 110),
    RGBColor(130, 20, 70),
    RGBColor(220, 120, 170),
    RGBColor(120, 90, 170),
    RGBColor(200, 150, 40),
    RGBColor(50, 110, 190),
    RGBColor(110, 110, 110),
    RGBColor(170, 170, 170),
];

/// The length of a bar, and where its dark part ends: in most plots, all of it is dark.
type Figure = fn(&Group<'_>) -> Option<(Spread, f64)>;

/// Writes all plots that the samples have something for; answers with their files and titles.
pub(crate) fn write(
    folder: &Path,
    groups: &[Group<'_>],
) -> Result<Vec<(&'static str, &'static str)>> {
    let bars: [(&str, &str, Figure, Text); 3] = [
        (
            "throughput.svg",
            "Throughput, jobs per second",
            |group| group.rate().map(|it| (it, it.median)),
            number,
        ),
        (
            "cpu.svg",
            "Server CPU per job, µs (dark: user, light: system)",
            |group| {
                let user = group.spread(|sample| sample.cpu_user_us_per_job);
                group.cpu().map(|it| (it, user.unwrap_or(it).median))
            },
            number,
        ),
        (
            "memory.svg",
            "Peak memory of the server",
            |group| group.spread(|sample| sample.rss_peak_bytes).map(|it| (it, it.median)),
            bytes,
        ),
    ];
    let lines: [(&str, &str, Vec<Chart<'_>>); 3] = [
        ("latency.svg", "Latency by percentile", latency_charts(groups)),
        ("depth.svg", "Cost against depth: server CPU per job, µs", depth_charts(groups)),
        ("cores.svg", "Jobs per second against cores of the server", cores_charts(groups)),
    ];
    let mut written = Vec::new();
    let mut add = |file, title, drawn: Drawn| {
        written.push((file, title));
        drawn.map_err(|error| anyhow!("{file}: {error}"))
    };
    for (file, title, figure, text) in bars {
        let panels = panels(groups, figure);
        if !panels.is_empty() {
            add(file, title, draw_bars(&folder.join(file), title, &panels, text))?;
        }
    }
    for (file, title, charts) in lines {
        if !charts.is_empty() {
            add(file, title, draw_charts(&folder.join(file), title, &charts))?;
        }
    }
    Ok(written)
}

/// A title, and bars with their dark parts.
struct Panel<'a> {
    title: String,
    bars: Vec<(&'a str, Spread, f64)>,
}

/// One panel per scenario, or per point of one.
fn panels<'a>(groups: &[Group<'a>], figure: Figure) -> Vec<Panel<'a>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for group in groups {
        let Some((value, dark)) = figure(group) else { continue };
        let title = panel_title(group);
        let bar = (group.contender, value, dark);
        match panels.iter_mut().find(|panel| panel.title == title) {
            Some(panel) => panel.bars.push(bar),
            None => panels.push(Panel { title, bars: vec![bar] }),
        }
    }
    panels
}

/// The scenario, and the point if there are several.
fn panel_title(group: &Group<'_>) -> String {
    format!("{} {}", group.scenario, group.point).trim_end().to_owned()
}

fn colour(contender: &str) -> RGBColor {
    let place = Contender::ALL.iter().position(|it| it.name == contender);
    place.and_then(|place| COLOURS.get(place)).copied().unwrap_or(BLACK)
}

fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX / 64)
}

/// Black text, bold or not.
fn style(size: u32, style: FontStyle) -> TextStyle<'static> {
    (FONT, size).into_font().style(style).color(&BLACK)
}

fn draw_bars(path: &Path, title: &str, panels: &[Panel<'_>], text: Text) -> Drawn {
    let rows: Vec<&[Panel<'_>]> = panels.chunks(COLUMNS).collect();
    let height_of = |row: &[Panel<'_>]| {
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        TITLE + BAR * pixels(bars) + 14
    };
    let mut top = TITLE + 8;
    let root = root(path, title, top + rows.iter().map(|row| height_of(row)).sum::<i32>())?;
    for row in rows {
        for (panel, column) in row.iter().zip(0..) {
            draw_panel(&root, (column * COLUMN_WIDTH, top), panel, text)?;
        }
        top += height_of(row);
    }
    Ok(root.present()?)
}

fn root<'a>(path: &'a Path, title: &str, height: i32) -> Drawn<Area<'a>> {
    let root = SVGBackend::new(path, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    root.fill(&WHITE)?;
    root.draw_text(title, &style(20, FontStyle::Bold), (12, 10))?;
    Ok(root)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels within the picture")]
fn draw_panel(root: &Area<'_>, (left, top): (i32, i32), panel: &Panel<'_>, text: Text) -> Drawn {
    root.draw_text(&panel.title, &style(14, FontStyle::Bold), (left + LABELS, top + 10))?;
    let longest = panel.bars.iter().map(|bar| bar.1.max).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(COLUMN_WIDTH - LABELS - FIGURES);
    let label = |side| style(12, FontStyle::Normal).pos(Pos::new(side, VPos::Center));
    for ((contender, value, dark), place) in panel.bars.iter().zip(0..) {
        let y = top + TITLE + place * BAR;
        let middle = y + BAR / 2 - 2;
        let start = left + LABELS;
        let at = |value: f64| start + (value / longest * room).round() as i32;
        let colour = colour(contender);
        root.draw_text(contender, &label(HPos::Right), (start - 6, middle))?;
        let (dark, end) = (at(*dark), at(value.median));
        let boxed = |from: i32, to: i32| [(from, y + 2), (to.max(from + 1), y + BAR - 5)];
        if dark < end {
            root.draw(&Rectangle::new(boxed(dark, end), colour.mix(0.45).filled()))?;
        }
        root.draw(&Rectangle::new(boxed(start, dark), colour.filled()))?;
        let (least, greatest) = (at(value.min), at(value.max));
        if least < greatest {
            let line = |from, to| PathElement::new([from, to], BLACK.mix(0.7));
            root.draw(&line((least, middle), (greatest, middle)))?;
            for x in [least, greatest] {
                root.draw(&line((x, middle - 4), (x, middle + 4)))?;
            }
        }
        let figure = text(value.median);
        root.draw_text(&figure, &label(HPos::Left), (end.max(greatest) + 6, middle))?;
    }
    Ok(())
}

/// Lines of contenders, in coordinates of which `x_labels` name some.
struct Chart<'a> {
    title: String,
    lines: Vec<(&'a str, Vec<(f64, f64)>)>,
    x_labels: Vec<(f64, String)>,
    y_text: Text,
}

type Percentile = (&'static str, fn(&Sample) -> Option<f64>);

const PERCENTILES: [Percentile; 5] = [
    ("p50", |sample| sample.p50_us),
    ("p90", |sample| sample.p90_us),
    ("p99", |sample| sample.p99_us),
    ("p99.9", |sample| sample.p999_us),
    ("max", |sample| sample.max_us),
];

/// A chart for each scenario or phase whose jobs' latencies were measured one by one.
fn latency_charts<'a>(groups: &[Group<'a>]) -> Vec<Chart<'a>> {
    let mut charts = Vec::new();
    for group in groups {
        let median = |&(_, figure): &Percentile| group.spread(figure).map(|it| it.median);
        let values: Option<Vec<f64>> = PERCENTILES.iter().map(median).collect();
        for (at, value) in values.into_iter().flatten().enumerate() {
            let label = (at as f64, PERCENTILES[at].0.to_owned());
            add_point(&mut charts, panel_title(group), group, label, value, time);
        }
    }
    charts
}

/// A chart for filling and one for draining.
fn depth_charts<'a>(groups: &[Group<'a>]) -> Vec<Chart<'a>> {
    let mut charts = Vec::new();
    for group in groups.iter().filter(|group| group.scenario == "deep") {
        let (Some(x), Some(y)) = (group.x(), group.cpu()) else { continue };
        let phase = group.point.split(' ').next().unwrap_or_default().to_owned();
        add_point(&mut charts, phase, group, (x.log10(), number(x)), y.median, number);
    }
    charts
}

/// A chart for each load that was run on several numbers of cores.
fn cores_charts<'a>(groups: &[Group<'a>]) -> Vec<Chart<'a>> {
    let mut charts = Vec::new();
    for group in groups.iter().filter(|group| Scenario::is_of_cores(group.scenario)) {
        let (Some(x), Some(y)) = (group.x(), group.rate()) else { continue };
        let title = group.scenario.to_owned();
        add_point(&mut charts, title, group, (x.log10(), x.to_string()), y.median, number);
    }
    charts
}

fn add_point<'a>(
    charts: &mut Vec<Chart<'a>>,
    title: String,
    group: &Group<'a>,
    label: (f64, String),
    y: f64,
    y_text: Text,
) {
    let at = charts.iter().position(|chart| chart.title == title).unwrap_or_else(|| {
        charts.push(Chart { title, lines: Vec::new(), x_labels: Vec::new(), y_text });
        charts.len() - 1
    });
    let Chart { lines, x_labels, .. } = &mut charts[at];
    let point = (label.0, y);
    if !x_labels.contains(&label) {
        x_labels.push(label);
    }
    match lines.iter_mut().find(|(contender, _)| *contender == group.contender) {
        Some((_, points)) => points.push(point),
        None => lines.push((group.contender, vec![point])),
    }
}

fn draw_charts(path: &Path, title: &str, charts: &[Chart<'_>]) -> Drawn {
    let top = TITLE + 8 + 2 * BAR;
    let root = root(path, title, top + pixels(charts.len().div_ceil(COLUMNS)) * CHART_HEIGHT)?;
    let is_drawn = |it: &Contender| {
        charts.iter().any(|chart| chart.lines.iter().any(|(contender, _)| *contender == it.name))
    };
    let label = style(12, FontStyle::Normal).pos(Pos::new(HPos::Left, VPos::Center));
    for (Contender { name, .. }, at) in Contender::ALL.into_iter().filter(is_drawn).zip(0..) {
        let (x, y) = (20 + at % 7 * 138, TITLE + 18 + at / 7 * 18);
        let swatch = [(x, y - 4), (x + 14, y + 4)];
        root.draw(&Rectangle::new(swatch, colour(name).filled()))?;
        root.draw_text(name, &label, (x + 20, y))?;
    }
    for (chart, at) in charts.iter().zip(0..) {
        let (column, row) = (at % pixels(COLUMNS), at / pixels(COLUMNS));
        draw_chart(&root, (column * COLUMN_WIDTH, top + row * CHART_HEIGHT), chart)?;
    }
    Ok(root.present()?)
}

/// Some decades that hold all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let positive = values.filter(|&value| value > 0.0).map(f64::log10);
    let low = positive.clone().fold(f64::MAX, f64::min).floor();
    let high = positive.fold(f64::MIN, f64::max).ceil();
    if low > high { 0.0..1.0 } else { low..high.max(low + 1.0) }
}

#[expect(clippy::cast_possible_truncation, reason = "pixels within the picture, and decades")]
fn draw_chart(root: &Area<'_>, (left, top): (i32, i32), chart: &Chart<'_>) -> Drawn {
    root.draw_text(&chart.title, &style(14, FontStyle::Bold), (left + 80, top + 8))?;
    let label = |x, y| style(11, FontStyle::Normal).pos(Pos::new(x, y));
    let y_range = decades(chart.lines.iter().flat_map(|(_, points)| points).map(|point| point.1));
    let xs = || chart.x_labels.iter().map(|label| label.0);
    let (x_low, x_high) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
    let x_span = (x_high - x_low).max(1.0);
    let (x0, x1) = (left + 80, left + COLUMN_WIDTH - 30);
    let (y0, y1) = (top + CHART_HEIGHT - 40, top + 36);
    let x_at = |x: f64| x0 + ((x - x_low) / x_span * f64::from(x1 - x0)).round() as i32;
    let y_span = y_range.end - y_range.start;
    let y_at = |y: f64| {
        y0 - ((y.max(1e-9).log10() - y_range.start) / y_span * f64::from(y0 - y1)).round() as i32
    };
    let grid = |from, to| PathElement::new([from, to], BLACK.mix(0.15));
    for decade in y_range.start as i32..=y_range.end as i32 {
        let value = 10f64.powi(decade);
        let y = y_at(value);
        root.draw(&grid((x0, y), (x1, y)))?;
        root.draw_text(&(chart.y_text)(value), &label(HPos::Right, VPos::Center), (x0 - 6, y))?;
    }
    for (x, text) in &chart.x_labels {
        let x = x_at(*x);
        root.draw(&grid((x, y0), (x, y1)))?;
        root.draw_text(text, &label(HPos::Center, VPos::Top), (x, y0 + 6))?;
    }
    for (contender, points) in &chart.lines {
        let points: Vec<(i32, i32)> = points.iter().map(|&(x, y)| (x_at(x), y_at(y))).collect();
        let colour = colour(contender);
        root.draw(&PathElement::new(points.clone(), colour.stroke_width(2)))?;
        for point in points {
            root.draw(&Circle::new(point, 3, colour.filled()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_all_values() {
        assert_eq!(decades([3.0, 250.0].into_iter()), 0.0..3.0);
        assert_eq!(decades([100.0].into_iter()), 2.0..3.0);
        assert_eq!(decades([].into_iter()), 0.0..1.0);
    }

    #[test]
    fn every_contender_has_a_colour_of_its_own() {
        let colours: Vec<RGBColor> = Contender::ALL.iter().map(|it| colour(it.name)).collect();
        for (at, one) in colours.iter().enumerate() {
            assert!(!colours[..at].contains(one) && *one != BLACK);
        }
    }
}
