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

const WIDTH: u32 = 1000;
const COLUMNS: usize = 2;
const BAR: i32 = 22;
const TITLE: i32 = 34;
const LABELS: i32 = 120;
const FIGURES: i32 = 120;
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

/// Writes all plots that the samples have something for; answers with their files and titles.
pub(crate) fn write(
    folder: &Path,
    groups: &[Group<'_>],
) -> Result<Vec<(&'static str, &'static str)>> {
    let mut written = Vec::new();
    let bars: [(&str, &str, Figure, Text); 3] = [
        ("throughput.svg", "Throughput, jobs per second", throughput, number),
        ("cpu.svg", "Server CPU per job, µs (dark: user, light: system)", cpu, number),
        ("memory.svg", "Peak memory of the server", memory, bytes),
    ];
    for (file, title, figure, text) in bars {
        let panels = panels(groups, figure);
        if !panels.is_empty() {
            draw_bars(&folder.join(file), title, &panels, text)
                .map_err(|error| anyhow!("{error}"))?;
            written.push((file, title));
        }
    }
    let lines: [(&str, &str, Vec<Chart>); 3] = [
        ("latency.svg", "Latency by percentile", latency_charts(groups)),
        ("depth.svg", "Cost against depth: server CPU per job, µs", depth_charts(groups)),
        ("cores.svg", "Jobs per second against cores of the server", cores_charts(groups)),
    ];
    for (file, title, charts) in lines {
        if !charts.is_empty() {
            draw_charts(&folder.join(file), title, &charts).map_err(|error| anyhow!("{error}"))?;
            written.push((file, title));
        }
    }
    Ok(written)
}

/// The two parts of a bar: in most plots, all of it is in the first.
type Figure = fn(&Group<'_>) -> Option<(Spread, f64)>;

fn throughput(group: &Group<'_>) -> Option<(Spread, f64)> {
    group.rate().map(|it| (it, it.median))
}

fn cpu(group: &Group<'_>) -> Option<(Spread, f64)> {
    let user = group.spread(|sample| sample.cpu_user_us_per_job).map(|it| it.median);
    group.cpu().map(|it| (it, user.unwrap_or(it.median)))
}

fn memory(group: &Group<'_>) -> Option<(Spread, f64)> {
    group.spread(|sample| sample.rss_peak_bytes).map(|it| (it, it.median))
}

struct Bar {
    contender: String,
    value: Spread,
    /// Where the dark part ends.
    dark: f64,
}

struct Panel {
    title: String,
    bars: Vec<Bar>,
}

/// One panel per scenario, or per point of one.
fn panels(groups: &[Group<'_>], figure: Figure) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for group in groups {
        let Some((value, dark)) = figure(group) else { continue };
        let title = panel_title(group);
        let bar = Bar { contender: group.contender.to_owned(), value, dark };
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
    let place = Contender::ALL.iter().position(|one| one.name == contender);
    place.and_then(|place| COLOURS.get(place)).copied().unwrap_or(BLACK)
}

fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX / 64)
}

fn draw_bars(
    path: &Path,
    title: &str,
    panels: &[Panel],
    text: Text,
) -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<&[Panel]> = panels.chunks(COLUMNS).collect();
    let height_of = |row: &[Panel]| {
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        TITLE + BAR * pixels(bars) + 14
    };
    let height: i32 = TITLE + 8 + rows.iter().map(|row| height_of(row)).sum::<i32>();
    let root = root(path, title, height)?;
    let mut top = TITLE + 8;
    let width = i32::try_from(WIDTH)? / pixels(COLUMNS);
    for row in rows {
        for (panel, column) in row.iter().zip(0..) {
            draw_panel(&root, (column * width, top), width, panel, text)?;
        }
        top += height_of(row);
    }
    root.present()?;
    Ok(())
}

fn root<'a>(
    path: &'a Path,
    title: &str,
    height: i32,
) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    root.fill(&WHITE)?;
    let style = (FONT, 20).into_font().style(FontStyle::Bold).color(&BLACK);
    root.draw_text(title, &style, (12, 10))?;
    Ok(root)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels within the picture")]
fn draw_panel(
    root: &Area<'_>,
    (left, top): (i32, i32),
    width: i32,
    panel: &Panel,
    text: Text,
) -> Result<(), Box<dyn std::error::Error>> {
    let bold = (FONT, 14).into_font().style(FontStyle::Bold).color(&BLACK);
    root.draw_text(&panel.title, &bold, (left + LABELS, top + 10))?;
    let longest = panel.bars.iter().map(|bar| bar.value.max).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(width - LABELS - FIGURES);
    let right_aligned = Pos::new(HPos::Right, VPos::Center);
    let left_aligned = Pos::new(HPos::Left, VPos::Center);
    let label = (FONT, 12).into_font().color(&BLACK);
    for (bar, place) in panel.bars.iter().zip(0..) {
        let y = top + TITLE + place * BAR;
        let middle = y + BAR / 2 - 2;
        let start = left + LABELS;
        let at = |value: f64| start + (value / longest * room).round() as i32;
        let colour = colour(&bar.contender);
        root.draw_text(&bar.contender, &label.pos(right_aligned), (start - 6, middle))?;
        let (dark, end) = (at(bar.dark), at(bar.value.median));
        let boxed = |from: i32, to: i32| [(from, y + 2), (to.max(from + 1), y + BAR - 5)];
        if dark < end {
            root.draw(&Rectangle::new(boxed(dark, end), colour.mix(0.45).filled()))?;
        }
        root.draw(&Rectangle::new(boxed(start, dark), colour.filled()))?;
        let (least, greatest) = (at(bar.value.min), at(bar.value.max));
        if least < greatest {
            let line = [(least, middle), (greatest, middle)];
            root.draw(&PathElement::new(line, BLACK.mix(0.7)))?;
            for x in [least, greatest] {
                root.draw(&PathElement::new([(x, middle - 4), (x, middle + 4)], BLACK.mix(0.7)))?;
            }
        }
        let figure = text(bar.value.median);
        root.draw_text(&figure, &label.pos(left_aligned), (end.max(greatest) + 6, middle))?;
    }
    Ok(())
}

struct Line {
    contender: String,
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: String,
    lines: Vec<Line>,
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
fn latency_charts(groups: &[Group<'_>]) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for group in groups {
        let spread = |&(_, figure): &Percentile| group.spread(figure);
        let values: Vec<f64> = PERCENTILES.iter().filter_map(spread).map(|it| it.median).collect();
        if values.len() < PERCENTILES.len() {
            continue;
        }
        let points = (0..).map(f64::from).zip(values).collect();
        let x_labels = || {
            (0..)
                .map(f64::from)
                .zip(PERCENTILES.iter().map(|(name, _)| (*name).to_owned()))
                .collect()
        };
        let title = panel_title(group);
        add_line(&mut charts, &title, group, points, x_labels, time);
    }
    charts
}

/// A chart for filling and one for draining.
fn depth_charts(groups: &[Group<'_>]) -> Vec<Chart> {
    let deep = groups.iter().filter(|group| group.scenario == "deep");
    let phase = |group: &Group<'_>| group.point.split(' ').next().unwrap_or_default().to_owned();
    charts_against_x(deep, phase, |sample| sample.cpu_us_per_job, number)
}

/// A chart for each load that was run on several numbers of cores.
fn cores_charts(groups: &[Group<'_>]) -> Vec<Chart> {
    let cores = groups.iter().filter(|group| Scenario::is_of_cores(group.scenario));
    let scenario = |group: &Group<'_>| group.scenario.to_owned();
    charts_against_x(cores, scenario, |sample| Some(sample.jobs_per_second), |x| x.to_string())
}

/// Charts with a title each, of a figure against what the scenario varies.
fn charts_against_x<'a>(
    groups: impl Iterator<Item = &'a Group<'a>>,
    title: impl Fn(&Group<'_>) -> String,
    figure: impl Fn(&Sample) -> Option<f64>,
    x_text: Text,
) -> Vec<Chart> {
    let mut charts: Vec<Chart> = Vec::new();
    for group in groups {
        let (Some(x), Some(y)) = (group.x(), group.spread(&figure)) else { continue };
        let title = title(group);
        let label = (x.log10(), x_text(x));
        let known = charts.iter_mut().find(|chart| chart.title == title);
        if let Some(chart) = known
            && !chart.x_labels.contains(&label)
        {
            chart.x_labels.push(label.clone());
        }
        add_line(&mut charts, &title, group, vec![(x.log10(), y.median)], || vec![label], number);
    }
    charts
}

fn add_line(
    charts: &mut Vec<Chart>,
    title: &str,
    group: &Group<'_>,
    points: Vec<(f64, f64)>,
    x_labels: impl FnOnce() -> Vec<(f64, String)>,
    y_text: Text,
) {
    let at = charts.iter().position(|chart| chart.title == title).unwrap_or_else(|| {
        let title = title.to_owned();
        charts.push(Chart { title, lines: Vec::new(), x_labels: x_labels(), y_text });
        charts.len() - 1
    });
    let lines = &mut charts[at].lines;
    match lines.iter_mut().find(|line| line.contender == group.contender) {
        Some(line) => line.points.extend(points),
        None => lines.push(Line { contender: group.contender.to_owned(), points }),
    }
}

const CHART_HEIGHT: i32 = 300;

fn draw_charts(
    path: &Path,
    title: &str,
    charts: &[Chart],
) -> Result<(), Box<dyn std::error::Error>> {
    let rows = pixels(charts.len().div_ceil(COLUMNS));
    let top = TITLE + 8;
    let legend = 2 * BAR;
    let root = root(path, title, top + legend + rows * CHART_HEIGHT)?;
    draw_legend(&root, top, charts)?;
    let width = i32::try_from(WIDTH)? / pixels(COLUMNS);
    for (chart, at) in charts.iter().zip(0..) {
        let (column, row) = (at % pixels(COLUMNS), at / pixels(COLUMNS));
        draw_chart(&root, (column * width, top + legend + row * CHART_HEIGHT), width, chart)?;
    }
    root.present()?;
    Ok(())
}

fn draw_legend(
    root: &Area<'_>,
    top: i32,
    charts: &[Chart],
) -> Result<(), Box<dyn std::error::Error>> {
    let is_drawn = |contender: &str| {
        charts.iter().any(|chart| chart.lines.iter().any(|line| line.contender == contender))
    };
    let names = Contender::ALL.into_iter().map(|it| it.name).filter(|name| is_drawn(name));
    let style = (FONT, 12).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for (name, at) in names.zip(0..) {
        let (x, y) = (20 + at % 7 * 138, top + 10 + at / 7 * 18);
        let swatch = [(x, y - 4), (x + 14, y + 4)];
        root.draw(&Rectangle::new(swatch, colour(name).filled()))?;
        root.draw_text(name, &style, (x + 20, y))?;
    }
    Ok(())
}

/// Some decades that hold all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let positive = values.filter(|&value| value > 0.0).map(f64::log10);
    let low = positive.clone().fold(f64::MAX, f64::min).floor();
    let high = positive.fold(f64::MIN, f64::max).ceil();
    if low > high { 0.0..1.0 } else { low..high.max(low + 1.0) }
}

#[expect(clippy::cast_possible_truncation, reason = "pixels within the picture, and decades")]
fn draw_chart(
    root: &Area<'_>,
    (left, top): (i32, i32),
    width: i32,
    chart: &Chart,
) -> Result<(), Box<dyn std::error::Error>> {
    let bold = (FONT, 14).into_font().style(FontStyle::Bold).color(&BLACK);
    let label = (FONT, 11).into_font().color(&BLACK);
    root.draw_text(&chart.title, &bold, (left + 80, top + 8))?;
    let points = chart.lines.iter().flat_map(|line| &line.points);
    let y_range = decades(points.clone().map(|point| point.1));
    let xs = || chart.x_labels.iter().map(|label| label.0);
    let (x_low, x_high) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
    let x_span = (x_high - x_low).max(1.0);
    let (x0, x1) = (left + 80, left + width - 30);
    let (y0, y1) = (top + CHART_HEIGHT - 40, top + 36);
    let x_at = |x: f64| x0 + ((x - x_low) / x_span * f64::from(x1 - x0)).round() as i32;
    let y_span = y_range.end - y_range.start;
    let y_at = |y: f64| {
        y0 - ((y.max(1e-9).log10() - y_range.start) / y_span * f64::from(y0 - y1)).round() as i32
    };
    for decade in y_range.start as i32..=y_range.end as i32 {
        let value = 10f64.powi(decade);
        let y = y_at(value);
        root.draw(&PathElement::new([(x0, y), (x1, y)], BLACK.mix(0.15)))?;
        let text = (chart.y_text)(value);
        root.draw_text(&text, &label.pos(Pos::new(HPos::Right, VPos::Center)), (x0 - 6, y))?;
    }
    for (x, text) in &chart.x_labels {
        let x = x_at(*x);
        root.draw(&PathElement::new([(x, y0), (x, y1)], BLACK.mix(0.15)))?;
        root.draw_text(text, &label.pos(Pos::new(HPos::Center, VPos::Top)), (x, y0 + 6))?;
    }
    for line in &chart.lines {
        let colour = colour(&line.contender);
        let points: Vec<(i32, i32)> =
            line.points.iter().map(|&(x, y)| (x_at(x), y_at(y))).collect();
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
