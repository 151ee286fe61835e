//! What a soak leaves: README.md with its verdict, the raw samples, and a picture of memory and
//! rate over time.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};
use loadgen::units::{count, time};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::checks::{Check, Row};
use super::workload::Outcome;
use crate::format::number;
use crate::sample;

/// The file of the raw samples.
pub(super) const SAMPLES: &str = "soak.csv";
const LOADS: &str = "loads.csv";
const PLOT: &str = "soak.svg";
const README: &str = "README.md";

const MIB: f64 = 1024.0 * 1024.0;
const SIZE: (u32, u32) = (1000, 640);
const FONT: &str = "sans-serif";

/// Writes all but the samples; `heading` says what ran, and where.
pub(super) fn write(
    folder: &Path,
    heading: &str,
    rows: &[Row],
    outcomes: &[Outcome],
    verdict: &str,
) -> Result<()> {
    sample::write(&folder.join(LOADS), outcomes)?;
    draw(&folder.join(PLOT), rows).map_err(|error| anyhow!("{error}"))?;
    let mut text = format!("{heading}\n## Verdict\n\n{verdict}\n## Loads\n\n{}", loads(outcomes));
    let _ = write!(text, "\n![Memory and jobs per second over time]({PLOT})\n");
    fs::write(folder.join(README), text)?;
    Ok(())
}

/// The checks as a list.
pub(super) fn verdict(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { holds, what } in checks {
        let _ = writeln!(text, "* {} {what}.", if *holds { "ok" } else { "**FAILED**" });
    }
    text
}

fn loads(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| load | what | jobs | p50 | p99 | slowest | rerun after a crash | connections replaced | \
         faults |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for it in outcomes {
        let Outcome { name, about, .. } = it;
        let [jobs, reruns, replaced] = [it.jobs, it.reruns, it.replaced].map(count);
        let [p50, p99, max] = [it.p50_us, it.p99_us, it.max_us].map(time);
        let faults = it.faults();
        let _ = writeln!(
            text,
            "| {name} | {about} | {jobs} | {p50} | {p99} | {max} | {reruns} | {replaced} | \
             {faults} |"
        );
    }
    text
}

type Error = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(path: &Path, rows: &[Row]) -> Result<(), Error> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(50.percent_height());
    let minutes = |row: &Row| row.seconds / 60.0;
    let memory: Vec<_> = rows.iter().map(|row| (minutes(row), row.rss_bytes / MIB)).collect();
    let end = memory.last().map_or(0.1, |point| point.0);
    panel(&upper, "Memory of the server, MiB", &memory, end, RGBColor(0, 120, 80))?;
    // Of the first row there is no rate yet, and behind the load there is none.
    let loaded = rows.iter().skip(1).filter(|row| row.loaded);
    let rate: Vec<_> = loaded.map(|row| (minutes(row), row.jobs_per_second)).collect();
    panel(&lower, "Jobs per second", &rate, end, RGBColor(50, 110, 190))?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Area<'_>,
    title: &str,
    points: &[(f64, f64)],
    x_most: f64,
    colour: RGBColor,
) -> Result<(), Error> {
    let y_most = points.iter().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..x_most, 0.0..y_most * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("minutes")
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
    Ok(())
}
