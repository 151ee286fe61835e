#!/usr/bin/env python3
"""Draws measured.svg, the plot of the README's table, from the raw samples in results/.

Run it in the repository's root: python3 docs/measured.py. It also prints the table's medians. Each
row takes gearmand's better set of options; dots right of the line are in ringgear's favour.
"""
import csv
import math
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = {"io_uring": "ringgear-uring", "epoll": "ringgear-epoll"}
COLOURS = {"io_uring": "#007850", "epoll": "#e08000"}

# Label, folder, scenario, point, column, whether less is better.
ROWS = [
    ("50 clients × 8 workers, jobs/s", "2026-11-21-final", "steady", "", "jobs_per_second", False),
    ("5000 clients × 200 workers, memory", "2026-11-30-waits-vm2", "crowd", "", "rss_peak_bytes", True),
    ("1 M background jobs submitted, jobs/s", "2026-11-21-final", "flood", "", "jobs_per_second", False),
    ("1000 sleeping workers, jobs/s", "2026-11-21-final", "herd", "", "jobs_per_second", False),
    ("background jobs on disk, jobs/s", "2026-11-21-durable", "durable", "closed", "jobs_per_second", False),
    ("one function, 8 cores, jobs/s", "2026-11-28-cores16", "cores-one", "8", "jobs_per_second", False),
    ("open loop, 15 600 jobs/s, p99", "2026-11-30-waits-vm2", "latency", "", "p99_us", True),
    ("1 MiB there and back, jobs/s", "2026-11-30-waits-vm2", "large", "1 MiB", "jobs_per_second", False),
    ("a worker with Nagle's algorithm on, p50", "2026-11-30-waits-vm2", "nagle", "result and GRAB_JOB apart", "p50_us", True),
]

WIDTH, LEFT, RIGHT, TOP, STEP = 860, 290, 40, 60, 30
LEAST, MOST = 0.5, 400


def medians(folder, scenario, point, column):
    """The median of each contender's good samples."""
    with open(ROOT / "results" / folder / "samples.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    values = {}
    for row in rows:
        if row["scenario"] == scenario and row["point"] == point and row[column]:
            values.setdefault(row["contender"], []).append(float(row[column]))
    return {contender: statistics.median(of) for contender, of in values.items()}


def x(ratio):
    part = math.log(ratio / LEAST) / math.log(MOST / LEAST)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def text(at_x, at_y, words, anchor="start", more=""):
    return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" {more}>{words}</text>'


def main():
    bottom = TOP + STEP * len(ROWS)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 45}" '
        f'width="{WIDTH}" height="{bottom + 45}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(12, 24, "ringgear beside gearmand: how many times better", more='font-weight="bold"'),
    ]
    for tick in [0.5, 1, 2, 5, 10, 20, 50, 100, 200]:
        bold = ' stroke-width="2" stroke="#444444"' if tick == 1 else ' stroke="#dddddd"'
        out.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 12}" y2="{bottom}"{bold}/>')
        out.append(text(x(tick), bottom + 18, f"{tick} ×", "middle", 'fill="#444444"'))
    for at, (label, folder, scenario, point, column, less) in enumerate(ROWS):
        y = TOP + STEP * at + 8
        found = medians(folder, scenario, point, column)
        theirs = [value for name, value in found.items() if name.startswith("gearmand")]
        gearmand = min(theirs) if less else max(theirs)
        print(label, {"gearmand": gearmand} | {io: found[name] for io, name in CONTENDERS.items()})
        out.append(text(LEFT - 12, y + 4, label, "end"))
        for io, name in CONTENDERS.items():
            ratio = gearmand / found[name] if less else found[name] / gearmand
            out.append(
                f'<circle cx="{x(ratio):.1f}" cy="{y}" r="6" fill="{COLOURS[io]}" fill-opacity="0.8">'
                f"<title>{io}: {ratio:.2f} ×</title></circle>"
            )
    for at, (io, colour) in enumerate(COLOURS.items()):
        at_x = WIDTH - RIGHT - 160 + 100 * at
        out.append(f'<circle cx="{at_x}" cy="20" r="6" fill="{colour}" fill-opacity="0.8"/>')
        out.append(text(at_x + 12, 24, io))
    out.append(text(x(1), bottom + 36, "1 × = gearmand with its better options", "middle", 'fill="#444444"'))
    out.append("</svg>\n")
    (ROOT / "docs" / "measured.svg").write_text("\n".join(out), encoding="utf-8")


if __name__ == "__main__":
    main()
