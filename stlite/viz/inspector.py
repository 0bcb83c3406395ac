"""Go through samples, frames, replies and marks in one notebook cell.

>>> inspect(samples, {"base": base, "ST-R1": st_r1}, videos="sample_data/videos")  # doctest: +SKIP

Every view is a plain dictionary; inspector.js draws it alike in a notebook and in an exported page.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import ipywidgets

from stlite.data.sample import Sample, SampleError, write_text
from stlite.data.video import read_clip
from stlite.eval import render
from stlite.viz import frontend, plots
from stlite.viz.marks import MARKS, mark, read_marks
from stlite.viz.sample_view import (
    REPLY_FIELDS,
    SAMPLE_FIELDS,
    TINY,
    SampleView,
    keep,
    sample_view,
    valid_text,
)

FILTERS = ("task", "way", "part", "outcome", "finding", "mark")
UNPARSED = ("ambiguous", "unreadable", "absent", "truncated")


def inspect(
    samples, records=None, videos=".", findings=(), annotations="annotations.jsonl", **size
):
    """Go through samples, frames, replies and marks.

    `records` are one run's, or {name: records} for several side by side. `videos` is the root of the
    video files. `size` (frames, max_pixels, multiple) is the model's; without it, the tiny preset's.
    `findings` come from `checks.check`. Marks go to the JSONL file `annotations`. The key ? lists the keys.
    """
    codes = defaultdict(list)
    for finding in findings:
        for sample_id in finding["ids"]:
            codes[sample_id].append(finding["code"])
    clip_of = partial(read_clip, root=videos, **(TINY | size))
    return keep(Inspector(list(samples), runs_of(records), clip_of, codes, Path(annotations)))


def runs_of(records) -> dict[str, dict[str, dict]]:
    """Sort records, or {name: records} of several runs, by run and sample id."""
    if not isinstance(records, Mapping):
        records = {"run": records or ()}
    runs = {}
    for name, rows in records.items():
        run = {}
        for row in rows:
            if row["id"] in run:
                raise ValueError(
                    f"run {name!r}: expected one record a sample, found two for {row['id']!r}"
                )
            run[row["id"]] = valid_text(row)
        if run:
            runs[name] = run
    return runs


class Inspector(ipywidgets.VBox):
    """Controls around one sample view; `shown` are the samples that pass the filters."""

    def __init__(
        self,
        samples: list[Sample],
        runs: dict,
        clip_of: Callable,
        findings: dict,
        annotations: Path,
    ):
        super().__init__()
        self.samples = samples
        self.runs = runs
        self.findings = findings
        self.clip_of = clip_of
        self.annotations = annotations
        self.marks = read_marks(annotations)
        self.facts = {s.id: self._facts(s) for s in samples}
        self.widget = SampleView(figure=self.picture)
        self.widget.on_msg(self._on_message)
        self.children = [self._controls(), self.widget]
        self._filter()

    def _controls(self) -> ipywidgets.HBox:
        self.filters = {name: self._dropdown(name) for name in FILTERS}
        self.text = ipywidgets.Text(
            placeholder="text", continuous_update=False, layout={"width": "150px"}
        )
        for widget in (*self.filters.values(), self.text):
            widget.observe(self._filter, "value")
        formats = ["csv", "jsonl", "html"]
        self.format = ipywidgets.Dropdown(options=formats, layout={"width": "80px"})
        export = ipywidgets.Button(description="Export", layout={"width": "auto"})
        export.on_click(self._export)
        bar = [*self.filters.values(), self.text, export, self.format]
        return ipywidgets.HBox(bar, layout={"flex_flow": "row wrap"})

    def _dropdown(self, name: str) -> ipywidgets.Dropdown:
        values = set()
        for facts in self.facts.values():
            values |= facts.get(name, set())
        values = MARKS if name == "mark" else sorted(values)
        options = [(f"any {name}", ""), *((value, value) for value in values)]
        return ipywidgets.Dropdown(options=options, tooltip=name, layout={"width": "130px"})

    def _facts(self, s: Sample) -> dict[str, set[str]]:
        """List what each filter but the mark's may choose this sample by."""
        records = self.records(s).values()
        outcomes = set()
        for row in records:
            outcomes.add("unreadable" if row["reason"] in UNPARSED else row["reason"])
        answers = {row["answer"] if s.kind == "choice" else row["reason"] for row in records}
        if len(answers) > 1:
            outcomes.add("runs disagree")
        facts = {name: {getattr(s, name)} - {""} for name in ("task", "way", "part")}
        facts["outcome"] = outcomes or {"no reply"}
        facts["finding"] = set(self.findings.get(s.id, ()))
        return facts

    def _note(self, s: Sample) -> dict[str, str]:
        return {key: self.marks.get(s.id, {}).get(key, "") for key in ("mark", "note")}

    def records(self, s: Sample) -> dict[str, dict]:
        """Return the records of a sample by run."""
        return {name: run[s.id] for name, run in self.runs.items() if s.id in run}

    def _filter(self, change=None):
        chosen = {name: widget.value for name, widget in self.filters.items() if widget.value}
        self.shown = [s for s in self.samples if self._passes(s, chosen)]
        self.prepared = {}
        self.show(0)

    def _passes(self, s: Sample, chosen: dict[str, str]) -> bool:
        facts = self.facts[s.id] | {"mark": {self._note(s)["mark"]}}
        if not all(value in facts[name] for name, value in chosen.items()):
            return False
        return self.text.value.casefold() in str([*self._row(s).values()]).casefold()

    def show(self, at: int):
        """Show one of the samples that pass the filters; no file stays open."""
        self.at = at
        with self.widget.hold_sync():
            self.widget.view = self.prepared.pop(at, None) or self._view(at)
            self._tell("")
        with suppress(RuntimeError):  # no event loop, so no reader who would wait
            asyncio.get_running_loop().call_soon(self._prepare, at + 1)

    def _prepare(self, at: int):
        """Read the frames of the next sample while this one is looked at."""
        self.prepared = {at: self._view(at)} if at < len(self.shown) else {}

    def _view(self, at: int) -> dict:
        if not self.shown:
            text = "No sample passes these filters." if self.samples else "There is no sample."
            return {"kind": "empty", "text": text}
        s = self.shown[at]
        more = {"at": at + 1, "of": len(self.shown), "total": len(self.samples)}
        more["findings"] = self.findings.get(s.id, [])
        return sample_view(s, self.records(s), self.clip_of, **more)

    def _tell(self, message: str):
        note = self._note(self.shown[self.at]) if self.shown else {}
        self.widget.said = note | {"message": message}

    def picture(self):
        """Draw the sample shown as a figure: its frames, and the thinking of the first run beside them."""
        s = self.shown[self.at]
        clip = self.clip_of(s.video)
        replies = [row.get("reply") or "" for row in self.records(s).values()]
        return plots.chain(clip, s, replies[0]) if replies else plots.frame_strip(clip, s)

    def _on_message(self, widget, message: dict, buffers=None):
        """Do what the reader did in the front end."""
        if message["do"] in ("mark", "note") and self.shown:
            self._mark(**{message["do"]: str(message["text"])})
        elif message["do"] == "wrong":
            self._go(self._next_wrong())
        elif message["do"] == "move":
            self._go(self.at + int(message["by"]))

    def _next_wrong(self) -> int:
        """Return the place of the next sample with a reply that is not right, round again; -1 without any."""
        wrong = []
        for place, s in enumerate(self.shown):
            if self.facts[s.id]["outcome"] - {"right", "no reply"}:
                wrong.append(place)
        later = [place for place in wrong if place > self.at]
        return (later or wrong or [-1])[0]

    def _go(self, to: int):
        if 0 <= to < len(self.shown) and to != self.at:
            self.show(to)
        else:
            self._tell("there is none further this way")

    def _mark(self, **change: str):
        try:
            self.marks = mark(self.annotations, self.shown[self.at].id, **change)
            self._tell(f"saved in {self.annotations.name}")
        except (OSError, SampleError) as error:
            self._tell(f"not saved: {error}")

    def _export(self, button):
        try:
            path = self.save(self.annotations.with_name(f"inspected.{self.format.value}"))
            self._tell(f"{len(self.shown)} samples written to {path.name}")
        except OSError as error:
            self._tell(f"not saved: {error}")

    def save(self, path) -> Path:
        """Write the samples that pass the filters, with replies and marks, as .csv, .jsonl or .html."""
        kind = Path(path).suffix
        if kind == ".html":
            views = [self._view(i) | self._note(s) for i, s in enumerate(self.shown)]
            return write_text(path, frontend.page("inspector", views or [self._view(0)], "samples"))
        rows = [self._row(s) for s in self.shown]
        if kind == ".csv":
            return write_text(path, render.sheet(rows))
        if kind == ".jsonl":
            return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        raise ValueError(f"path: expected .csv, .jsonl or .html, found {Path(path).name!r}")

    def _row(self, s: Sample) -> dict:
        row = {name: getattr(s, name) for name in (*SAMPLE_FIELDS, "options")} | self._note(s)
        for name, run in self.runs.items():
            record = run.get(s.id, {})
            row |= {f"{name}: {key}": record.get(key, "") for key in REPLY_FIELDS[:4]}
        return row | {"findings": self.findings.get(s.id, [])}
