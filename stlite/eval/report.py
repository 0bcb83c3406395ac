"""Records → tables with intervals by recording, two runs compared, and reports to read or to keep.

task             way      n    recordings  accuracy  low   high  wilson_low  wilson_high  chance  adjusted  unread  ...
direction        forward  60   60          71.7      58.3  83.3  59.2        81.5         25.0    62.2      0.0
mean of choices           360  60          72.8      67.8  77.5                           25.0    63.7      1.2
"""

import argparse
import base64
import csv as csv_library
import html as html_library
import io
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from stlite.data.checks import format_table as format_table
from stlite.data.sample import TASKS, WAYS, Sample, write_text
from stlite.eval.evaluate import read_records
from stlite.eval.shortcuts import shortcuts as _shortcuts
from stlite.eval.statistics import MEAN, Records, by_cell, cluster_sums, intervals, task_means
from stlite.rewards.parse import parse

LARGE = (
    4000  # questions; shortcuts are tried on no more: their classifier takes a second for so many
)
NOT_SHARES = ("p", "holm", "mcnemar", "tau")  # numbers that are no shares
POWER = 2.8  # standard errors that 80 % of runs show at the 5 % level: 1.96 + 0.84
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HEADLINE = (
    "Mean of choices {accuracy} % [{low}, {high}] on {n} questions of {groups} recordings, chance {chance} %. Unread "
    "{unparsed} %, truncated {truncated} %, failed {failed} %, all counted as wrong. Another run of this size must differ by "
    "{min_detectable} points to be told apart."
)


def accuracy_table(records: Records) -> list[dict]:
    """Return a row per task and way, then the mean over choices: accuracy with intervals, chance, what went wrong.

    `detectable` is the difference from another run of this size that 80 % of such runs would show (5 % level).
    """
    from statsmodels.stats.proportion import proportion_confint

    rows, chances = [], []
    for (task, way), group, found in task_means(records):
        n, reasons, wilson, chance = (
            len(group),
            Counter(r["reason"] for r in group),
            (None, None),
            None,
        )
        if task == MEAN:
            chance = fmean(chances)
        elif task != "route":
            wilson = map(
                float, proportion_confint(sum(r["value"] for r in group), n, method="wilson")
            )
            chance = fmean(1 / len(r["options"]) for r in group)
            chances.append(chance)
        share, unread = (
            found["estimate"],
            sum(reasons[k] for k in ("ambiguous", "unreadable", "absent")),
        )
        row = {
            "task": task,
            "way": way,
            "n": n,
            "groups": found["groups"],
            "accuracy": share,
        }
        row |= {"low": found["low"], "high": found["high"]} | dict(
            zip(("wilson_low", "wilson_high"), wilson)
        )
        row |= {
            "chance": chance,
            "chance_adjusted": None if chance in (None, 1) else (share - chance) / (1 - chance),
        }
        row |= {"unparsed": unread / n} | {k: reasons[k] / n for k in ("truncated", "failed")}
        rows.append(row | {"min_detectable": POWER * 2**0.5 * found["se"]})
    return rows


def accuracy_by_task(records: Records) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Give each task and way its (accuracy, low, high), as the pictures take them."""
    return {
        (r["task"], r["way"]): (r["accuracy"], r["low"], r["high"])
        for r in accuracy_table(records)
        if r["way"]
    }


def forward_reverse_gap(records: Records) -> list[dict]:
    """Subtract reverse from forward accuracy, for each choice task and their mean, paired inside recordings."""
    choices = choices_of(records)
    tasks = [t for t in TASKS if {(t, way) for way in WAYS} <= {*by_cell(choices)}]
    if not tasks:
        return []
    cells, sums, counts = cluster_sums(choices)
    signs = [
        [(cell[0] == t) * (1 if cell[1] == "forward" else -1) for cell in cells] for t in tasks
    ]
    found = intervals(sums, counts, [*signs, [fmean(s) for s in zip(*signs)]])
    return [
        {"task": t, "gap": f["estimate"], "low": f["low"], "high": f["high"]}
        for t, f in zip([*tasks, MEAN], found)
    ]


def routes(records: Records) -> list[dict]:
    """Average what route scores are made of, by way: turns, landmarks, their order; a reply not read counts as 0."""
    rows = []
    for (task, way), group in by_cell(r for r in records if r["kind"] == "route").items():
        parts = {
            name: [v for r in group if (v := r["route"][name]) is not None]
            for name in group[0]["route"]
        }
        means = {name: fmean(values) if values else None for name, values in parts.items()}
        rows.append({"task": task, "way": way, "n": len(group)} | means)
    return rows


def thinking(records: Iterable[dict]) -> list[dict]:
    """Say, by the way that choices ask for, how many replies think the other way first (paper section 3), or the same."""
    rows, ways = [], defaultdict(list)
    for r in choices_of(records):
        ways[r["way"]].append(r["thought"] if "thought" in r else parse(r["reply"]).way)
    for way, thought in ways.items():
        same, none = (thought.count(found) / len(thought) for found in (way, ""))
        rows.append({"way": way, "n": len(thought), "other way": 1 - same - none, "same way": same})
    return rows


def shortcuts(records: Records) -> list[dict]:
    """Score answers that need no video on the questions of a run, or on whole recordings of a large one."""
    groups, chosen = defaultdict(list), []
    for r in choices_of(records):
        groups[r["group"]].append(r)
    for name in random.Random(0).sample(sorted(groups), len(groups)):
        chosen += groups[name] if len(chosen) < LARGE else []
    return _shortcuts(
        Sample(
            r["id"], r["video"], r["task"], r["way"], "-", r["gold"], r["options"], group=r["group"]
        )
        for r in chosen
    )


def choices_of(records: Iterable[dict]) -> list[dict]:
    """Keep the records of choice questions."""
    return [r for r in records if r["kind"] == "choice"]


def summary(
    records: Records, title: str = "run", others: Mapping[str, Records] | None = None
) -> dict:
    """Gather what a run shows as data, {"title", "notes": [text], "tables": {name: rows}}, `others` beside it."""
    tables = {
        "Accuracy": accuracy_table(records),
        "Forward minus reverse": forward_reverse_gap(records),
        "Routes": routes(records),
    }
    tables["Thinking first"] = thinking(records)
    tables["Without looking"] = shortcuts(records)
    tables["Beside it"] = compare_to_baseline({title: records, **others}) if others else []
    shown = {name: _cell(name, value) for name, value in tables["Accuracy"][-1].items()}
    notes = [HEADLINE.format(**shown)] if shown["task"] == MEAN else []
    return {
        "title": title,
        "notes": notes,
        "tables": {name: rows for name, rows in tables.items() if rows},
    }


def compare_runs(a: Records, b: Records, names: Sequence[str] = ("a", "b")) -> dict:
    """Pair two runs by question: difference with its interval, exact McNemar, Holm over tasks, and the flips.

    `p` is the larger of McNemar's, which knows no recordings, and that of the t-test over recordings. Runs without a
    common question, or with other answers or options under one id, raise ValueError.
    """
    pairs, flips = paired(a, b), []
    only = f"{len(a) - len(pairs)} only in {names[0]}, {len(b) - len(pairs)} only in {names[1]}"
    note = f"{names[1]} minus {names[0]}: {len(pairs)} questions in both, {only}."
    for x, y in pairs:
        if x["value"] != y["value"]:
            answers = {
                "before": x["answer"],
                "after": y["answer"],
                "change": f"{x['reason']} to {y['reason']}",
            }
            flips.append({k: x[k] for k in ("id", "task", "way", "gold")} | answers)
    tables = {"Difference": paired_differences(pairs), "Flips": flips}
    return {"title": " and ".join(names), "notes": [note], "tables": tables}


def paired(a: Records, b: Records) -> list[tuple[dict, dict]]:
    """Pair the records of the questions that both runs were asked."""
    second = {r["id"]: r for r in b}
    pairs = [(r, second[r["id"]]) for r in a if r["id"] in second]
    if not pairs:
        raise ValueError("compare: expected some id in both runs, found none")
    for x, y in pairs:
        if (x["gold"], [*x["options"]]) != (y["gold"], [*y["options"]]):
            raise ValueError(
                f"compare: expected one question under the id {x['id']!r}, found other answers or options"
            )
    return pairs


def paired_differences(pairs: Sequence[tuple[dict, dict]]) -> list[dict]:
    """Return a row per task and way, then the mean over choices, of second minus first in pairs of records."""
    from scipy.stats import t
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    rows, changes = [], [x | {"value": y["value"] - x["value"]} for x, y in pairs]
    for (task, way), group, found in task_means(changes, lowest=-1.0):
        gained, lost = (sum(sign * r["value"] > 0 for r in group) for sign in (1, -1))
        exact = (
            None if task == "route" else float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)
        )
        clustered = 2 * t.sf(
            abs(found["estimate"]) / max(found["se"], 1e-12), max(found["groups"] - 1, 1)
        )
        row = {"task": task, "way": way, "n": len(group), "groups": found["groups"]}
        row |= {
            "difference": found["estimate"],
            "low": found["low"],
            "high": found["high"],
            "gained": gained,
        }
        row |= {"lost": lost, "mcnemar": exact, "p": max(float(clustered), exact or 0.0)}
        rows.append(row | {"min_detectable": POWER * found["se"]})
    cells = [row for row in rows if row["task"] != MEAN]
    for row, holm in zip(cells, multipletests([row["p"] for row in cells], method="holm")[1]):
        row["holm"] = float(holm)
    return rows


def compare_to_baseline(runs: Mapping[str, Records]) -> list[dict]:
    """Set the mean of choices of several runs beside one another, with the paired difference from the first."""
    rows, first = [], choices_of(next(iter(runs.values())))
    names = {"paired": "n", "difference": "difference", "from": "low", "to": "high"}
    names |= {name: name for name in ("p", "min_detectable")}
    for name, records in runs.items():
        mean = accuracy_table(choices_of(records))[-1]
        row = {"run": name} | {
            k: mean[k] for k in ("n", "accuracy", "low", "high", "chance", "unparsed", "failed")
        }
        change = paired_differences(paired(first, records))[-1] if rows else {}
        rows.append(row | {new: change.get(old) for new, old in names.items()})
    return rows


def escape(value: object) -> str:
    """Make anything safe to stand in HTML; control and direction characters become visible.

    >>> escape('<b>"x"</b>\\x00')
    '&lt;b&gt;&quot;x&quot;&lt;/b&gt;\\\\u0000'
    """
    return html_library.escape(HIDDEN.sub(lambda m: f"\\u{ord(m[0]):04x}", str(value)), quote=True)


def _grids(report: dict, mark) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Write a report as texts that `mark` has made safe: title and notes, then each table's name and its grid."""
    tables = []
    for title, rows in report["tables"].items():
        names = list(dict.fromkeys(name for row in rows for name in row))
        grid = [names, *([_cell(name, row.get(name)) for name in names] for row in rows)]
        tables.append((mark(title), [[mark(cell) for cell in line] for line in grid]))
    return [mark(line) for line in (report["title"], *report["notes"])], tables


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):  # shares become per cent
        return f"{value:.3g}" if name in NOT_SHARES else f"{100 * value:z.1f}"
    return "" if value is None else str(value)


def text(report: dict) -> str:
    """Render a report as plain text with aligned columns."""
    parts, tables = _grids(report, lambda value: HIDDEN.sub("?", value.replace("\n", " ")))
    for title, (head, *body) in tables:
        parts += ["", title, format_table([dict(zip(head, line)) for line in body], hide=())]
    return "\n".join(parts) + "\n"


def markdown(report: dict) -> str:
    """Render a report as Markdown."""
    marked = re.compile(r"([|\\`*_\[\]])")
    (title, *parts), tables = _grids(
        report, lambda value: marked.sub(r"\\\1", escape(value)).replace("\n", " ")
    )
    for name, (head, *body) in tables:
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]
        parts += [f"## {name}", "\n".join(lines)]
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def html(report: dict, pictures: Sequence[tuple[str, bytes | str]] = ()) -> str:
    """Render a report as one self-contained page; a picture is a title and PNG bytes or SVG text."""
    (title, *notes), tables = _grids(report, escape)
    parts = [
        f"<h1>{title}</h1>",
        *(f"<p>{note}</p>" for note in notes),
        *(_figure(*some) for some in pictures),
    ]
    for name, (head, *body) in tables:
        lines = ["<tr><th>" + "<th>".join(head), *("<tr><td>" + "<td>".join(line) for line in body)]
        parts.append(f"<h2>{name}</h2>\n<table>\n" + "\n".join(lines) + "\n</table>")
    return page(report["title"], Path(__file__).with_name("report.css"), "\n".join(parts))


def _figure(title: str, picture: bytes | str) -> str:
    """Embed a picture as an img, in which the scripts of an SVG are dead."""
    kind, data = ("svg+xml", picture.encode()) if isinstance(picture, str) else ("png", picture)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><img src="{source}" alt="{escape(title)}"><figcaption>{escape(title)}</figcaption></figure>'


def page(title: str, style: Path, body: str, policy: str = POLICY) -> str:
    """Write a page that needs nothing else, `style` a file of rules; scripts run only as `policy` allows."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme"'
    head += f' content="light dark"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    rules = style.read_text("utf-8")
    return (
        f"<!doctype html>\n{head}\n<title>{escape(title)}</title><style>{rules}</style>\n{body}\n"
    )


def csv(report: dict) -> str:
    """Render a report as CSV, all tables in one, shares from 0 to 1."""
    return sheet(
        [{"table": title, **row} for title, rows in report["tables"].items() for row in rows]
    )


def sheet(rows: Sequence[Mapping]) -> str:
    """Write rows as CSV; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    names, file = dict.fromkeys(name for row in rows for name in row), io.StringIO()
    writer = csv_library.writer(file, lineterminator="\n")
    for line in (names, *([row.get(name) for name in names] for row in rows)):
        texts = [json.dumps(cell) if isinstance(cell, (list, tuple)) else cell for cell in line]
        writer.writerow(
            [
                f"'{t}" if isinstance(t, str) and t.startswith(tuple("=+-@\t\r")) else t
                for t in texts
            ]
        )
    return file.getvalue()


def data(report: dict) -> str:
    """Render a report as JSON."""
    return json.dumps(report, indent=1) + "\n"


RENDER = {".html": html, ".md": markdown, ".csv": csv, ".json": data, ".txt": text}


def save(
    report: dict, path: str | os.PathLike, pictures: Sequence[tuple[str, bytes | str]] = ()
) -> Path:
    """Write a report as the ending of `path` says: .html, .md, .csv, .json or .txt; only .html holds pictures."""
    if (ending := Path(path).suffix) not in RENDER:
        raise ValueError(f"{path}: expected a name ending in {', '.join(RENDER)}, found {ending!r}")
    return write_text(path, html(report, pictures) if ending == ".html" else RENDER[ending](report))


def report(runs: Mapping[str, Records]) -> dict:
    """Report on runs by name; of two or more, also on how each differs from the first."""
    (first, records), *others = runs.items()
    made = [summary(records, first, dict(others)), *(summary(rows, name) for name, rows in others)]
    made += [compare_runs(records, rows, (first, name)) for name, rows in others]
    return merge_reports(*made) if others else made[0]


def merge_reports(*reports: dict) -> dict:
    """Put several reports into one."""
    tables = {f"{r['title']}: {name}": rows for r in reports for name, rows in r["tables"].items()}
    notes = [f"{r['title']}: {note}" for r in reports for note in r["notes"]]
    return {"title": " · ".join(r["title"] for r in reports), "notes": notes, "tables": tables}


def main(argv: list[str] | None = None) -> None:
    """Report on run folders; of two or more, also on how each differs from the first."""
    parser = argparse.ArgumentParser(prog="python -m stlite.eval.report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a file of records")
    files = {"dest": "files", "action": "append", "default": [], "metavar": "FILE"}
    parser.add_argument(
        *(f"--{ending[1:]}" for ending in RENDER),
        **files,
        help="write the report as its ending says",
    )
    args = parser.parse_args(argv)
    names = [Path(run).name for run in args.runs]
    names = names if len({*names}) == len(names) else args.runs
    made = report({name: read_records(run) for name, run in zip(names, args.runs)})
    print(text(made))
    for path in args.files:
        print("written:", save(made, path))


if __name__ == "__main__":
    main()
