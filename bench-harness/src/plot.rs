//! Groups of samples in, SVG files out: one panel per scenario, each with its own scale.
//!
//! A contender has the same colour in every plot. Bars carry their figures, and a whisker from the
//! least to the greatest sample. Nothing is drawn of what wasn't measured.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use indexmap::{IndexMap, IndexSet};
use loadgen::units::{bytes, time};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::Contender;
use crate::format::number;
use crate::sample::Sample;
use crate::scenario::Scenario;
use crate::stats::{Group, Spread};

type Words = fn(f64) -> String;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

const COLUMNS: usize = 2;
/// Of a panel or chart.
const COLUMN_WIDTH: u32 = 500;
const CHART_HEIGHT: u32 = 300;
const BAR: u32 = 22;
/// Above the bars of a panel.
const CAPTION: u32 = 40;
const HEAD: u32 = 86;
const LABELS: u32 = 120;
const FIGURES: u32 = 110;
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
    let bars: [(&str, &str, Figure, Words); 3] = [
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
    let lines: [(&str, &str, Points, Words); 3] = [
        ("latency.svg", "Latency by percentile", latency, time),
        ("depth.svg", "Cost against depth: server CPU per job, µs", depth, number),
        ("cores.svg", "Jobs per second against cores of the server", cores, number),
    ];
    let mut written = Vec::new();
    for (file, title, figure, text) in bars {
        let panels = panels(groups, figure);
        let most = panels.values().map(Vec::len).max().unwrap_or(0);
        let height = CAPTION + BAR * u32::try_from(most)?;
        let draw = |area: &Area<'_>, panel: &str, bars: &Vec<Bar<'_>>| {
            draw_panel(area, panel, bars, most, text)
        };
        written.extend(draw_all(folder, (file, title), &[], &panels, height, draw)?);
    }
    for (file, title, points, text) in lines {
        let charts = charts(groups, points);
        let lines = charts.values().flat_map(|chart| chart.lines.keys().copied());
        let contenders: Vec<&str> = lines.collect();
        let draw =
            |area: &Area<'_>, name: &str, chart: &Chart<'_>| draw_chart(area, name, chart, text);
        written.extend(draw_all(folder, (file, title), &contenders, &charts, CHART_HEIGHT, draw)?);
    }
    Ok(written)
}

/// A contender's, with its dark part.
type Bar<'a> = (&'a str, Spread, f64);

/// One panel per scenario, or per point of one.
fn panels<'a>(groups: &[Group<'a>], figure: Figure) -> IndexMap<String, Vec<Bar<'a>>> {
    let mut panels: IndexMap<_, Vec<_>> = IndexMap::new();
    for group in groups {
        if let Some((value, dark)) = figure(group) {
            panels.entry(panel_title(group)).or_default().push((group.contender, value, dark));
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

/// Black text, bold or not.
fn style(size: u32, style: FontStyle) -> TextStyle<'static> {
    (FONT, size).into_font().style(style).color(&BLACK)
}

/// Writes a file with a title, the colours of some contenders, and all panels or charts, if there
/// are any; answers with the file and its title.
fn draw_all<T>(
    folder: &Path,
    (file, title): (&'static str, &'static str),
    contenders: &[&str],
    all: &IndexMap<String, T>,
    height: u32,
    draw: impl Fn(&Area<'_>, &str, &T) -> Drawn,
) -> Result<Option<(&'static str, &'static str)>> {
    if all.is_empty() {
        return Ok(None);
    }
    let rows = all.len().div_ceil(COLUMNS);
    let path = folder.join(file);
    let drawn = || -> Drawn {
        let size = (2 * COLUMN_WIDTH, HEAD + height * u32::try_from(rows)?);
        let root = SVGBackend::new(&path, size).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(HEAD);
        head.draw_text(title, &style(20, FontStyle::Bold), (12, 10))?;
        let is_drawn = |it: &Contender| contenders.contains(&it.name);
        let label = style(12, FontStyle::Normal).pos(Pos::new(HPos::Left, VPos::Center));
        for (Contender { name, .. }, at) in Contender::ALL.into_iter().filter(is_drawn).zip(0..) {
            let (x, y) = (20 + at % 7 * 138, 52 + at / 7 * 18);
            head.draw(&Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour(name).filled()))?;
            head.draw_text(name, &label, (x + 20, y))?;
        }
        for (area, (name, one)) in body.split_evenly((rows, COLUMNS)).iter().zip(all) {
            draw(area, name, one)?;
        }
        Ok(root.present()?)
    };
    drawn().map_err(|error| anyhow!("{file}: {error}"))?;
    Ok(Some((file, title)))
}

/// Bars, with room for `most`.
fn draw_panel(area: &Area<'_>, name: &str, bars: &[Bar<'_>], most: usize, text: Words) -> Drawn {
    let longest = bars.iter().map(|bar| bar.1.max).fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(name, style(14, FontStyle::Bold))
        .margin_left(LABELS)
        .margin_right(FIGURES)
        .build_cartesian_2d(0.0..longest, most as f64..0.0)?;
    let label = |side| style(12, FontStyle::Normal).pos(Pos::new(side, VPos::Center));
    for ((contender, value, dark), place) in bars.iter().zip(0..) {
        let y = f64::from(place) + 0.4;
        let colour = colour(contender);
        let bar = |from, to, style| Rectangle::new([(from, y - 0.35), (to, y + 0.35)], style);
        chart.draw_series([
            bar(*dark, value.median, colour.mix(0.45).filled()),
            bar(0.0, *dark, colour.filled()),
        ])?;
        if value.min < value.max {
            let line = |from, to| PathElement::new([from, to], BLACK.mix(0.7));
            let end = |x| line((x, y - 0.2), (x, y + 0.2));
            let whisker = line((value.min, y), (value.max, y));
            chart.draw_series([whisker, end(value.min), end(value.max)])?;
        }
        let name = Text::new(contender.to_string(), (-6, 0), label(HPos::Right));
        chart.draw_series([EmptyElement::at((0.0, y)) + name])?;
        let figure = Text::new(text(value.median), (6, 0), label(HPos::Left));
        chart.draw_series([EmptyElement::at((value.max, y)) + figure])?;
    }
    Ok(())
}

/// Lines of contenders through points that lie at the places of `x_labels`.
#[derive(Default)]
struct Chart<'a> {
    lines: IndexMap<&'a str, Vec<(i32, f64)>>,
    x_labels: IndexSet<String>,
}

/// A contender's points: of each the title of its chart, its label below the chart, and its height.
type Points = fn(&Group<'_>) -> Option<Vec<(String, String, f64)>>;

type Percentile = (&'static str, fn(&Sample) -> Option<f64>);

const PERCENTILES: [Percentile; 5] = [
    ("p50", |sample| sample.p50_us),
    ("p90", |sample| sample.p90_us),
    ("p99", |sample| sample.p99_us),
    ("p99.9", |sample| sample.p999_us),
    ("max", |sample| sample.max_us),
];

/// A chart for each scenario or phase whose jobs' latencies were measured one by one.
fn latency(group: &Group<'_>) -> Option<Vec<(String, String, f64)>> {
    let point = |&(name, figure): &Percentile| {
        Some((panel_title(group), name.to_owned(), group.spread(figure)?.median))
    };
    PERCENTILES.iter().map(point).collect()
}

/// A chart for filling and one for draining.
fn depth(group: &Group<'_>) -> Option<Vec<(String, String, f64)>> {
    let phase = group.point.split(' ').next().filter(|_| group.scenario == "deep")?;
    Some(vec![(phase.to_owned(), number(group.x()?), group.cpu()?.median)])
}

/// A chart for each load that was run on several numbers of cores.
fn cores(group: &Group<'_>) -> Option<Vec<(String, String, f64)>> {
    let load = Some(group.scenario).filter(|name| Scenario::is_of_cores(name))?;
    Some(vec![(load.to_owned(), group.x()?.to_string(), group.rate()?.median)])
}

fn charts<'a>(groups: &[Group<'a>], points: Points) -> IndexMap<String, Chart<'a>> {
    let mut charts: IndexMap<_, Chart<'_>> = IndexMap::new();
    for group in groups {
        for (title, label, y) in points(group).into_iter().flatten() {
            let Chart { lines, x_labels } = charts.entry(title).or_default();
            let (place, _) = x_labels.insert_full(label);
            let point = (i32::try_from(place).unwrap_or(i32::MAX), y);
            lines.entry(group.contender).or_default().push(point);
        }
    }
    charts
}

/// Some decades that hold all values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let positive = values.filter(|&value| value > 0.0).map(f64::log10);
    let low = positive.clone().fold(f64::MAX, f64::min).floor();
    let high = positive.fold(f64::MIN, f64::max).ceil();
    if low > high { 1.0..10.0 } else { 10f64.powf(low)..10f64.powf(high.max(low + 1.0)) }
}

fn draw_chart(area: &Area<'_>, name: &str, chart: &Chart<'_>, text: Words) -> Drawn {
    let ys = decades(chart.lines.values().flatten().map(|point| point.1));
    let x_last = i32::try_from(chart.x_labels.len())?.saturating_sub(1).max(1);
    let x_text = |x: &i32| {
        let place = usize::try_from(*x).ok();
        place.and_then(|place| chart.x_labels.get_index(place)).cloned().unwrap_or_default()
    };
    let mut drawn = ChartBuilder::on(area)
        .caption(name, style(14, FontStyle::Bold))
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0..x_last, ys.log_scale())?;
    drawn
        .configure_mesh()
        .bold_line_style(BLACK.mix(0.15))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&x_text)
        .y_label_formatter(&|y| text(*y))
        .draw()?;
    for (contender, points) in &chart.lines {
        let line = colour(contender).stroke_width(2);
        drawn.draw_series(LineSeries::new(points.iter().copied(), line).point_size(3))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_hold_all_values() {
        assert_eq!(decades([3.0, 250.0].into_iter()), 1.0..1000.0);
        assert_eq!(decades([100.0].into_iter()), 100.0..1000.0);
        assert_eq!(decades([].into_iter()), 1.0..10.0);
    }

    #[test]
    fn every_contender_has_a_colour_of_its_own() {
        let colours: Vec<RGBColor> = Contender::ALL.iter().map(|it| colour(it.name)).collect();
        for (at, one) in colours.iter().enumerate() {
            assert!(!colours[..at].contains(one) && *one != BLACK);
        }
    }
}
