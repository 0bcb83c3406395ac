"""Go through samples, frames, replies and marks in one notebook cell.

>>> inspect(samples, {"base": base, "ST-R1": st_r1}, videos="sample_data/videos")  # doctest: +SKIP

Every view is a plain dictionary; inspector.js draws it alike in a notebook and in an exported page.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import traitlets

from stlite.data.sample import Sample, SampleError, write_text
from stlite.data.video import read_clip
from stlite.eval import render
from stlite.viz import frontend, plots
from stlite.viz.finder import SAMPLE_FIELDS, Runs, records_of, sample_table, search_text
from stlite.viz.marks import MARKS, change_marks, read_marks
from stlite.viz.sample_view import (
    TINY,
    SampleView,
    keep,
    sample_view,
    valid_text,
)


def inspect(
    samples,
    records=None,
    videos=".",
    findings=(),
    annotations="annotations.jsonl",
    *,
    marks=MARKS,
    start="",
    **size,
):
    """Go through samples, frames, replies and marks.

    `records` are one run's, or {name: records} for several side by side. `videos` is the root of
    the video files. `findings` come from `checks.check`. Marks go to the JSONL file `annotations`;
    `marks` names those offered, and a reader may write others. It opens on the sample with the id
    `start`. `size` (frames, max_pixels, multiple) is the model's; without it, the tiny preset's.
    The key ? lists the keys.
    """
    codes = defaultdict(list)
    for finding in findings:
        for sample_id in finding["ids"]:
            codes[sample_id].append(finding["code"])
    clip_of = partial(read_clip, root=videos, **(TINY | size))
    runs = runs_of(records)
    inspector = Inspector(list(samples), runs, clip_of, codes, Path(annotations))
    inspector.mark_names = list(marks)
    inspector.open_on(start)
    return keep(inspector)


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


def _strangers(runs: Runs, samples: Sequence[Sample]) -> str:
    """Say how many replies belong to none of the samples, and so are not shown."""
    ids = {sample.id for sample in samples}
    texts = []
    for name, run in runs.items():
        count = len(run.keys() - ids)
        if count:
            texts.append(f"{name}: {count} replies are to samples that are not here.")
    return " ".join(texts)


class Inspector(SampleView):
    """Many samples, of which the front end asks for one after another.

    The front end filters and sorts `table`, and an export names the samples it wants: nothing that
    runs meanwhile can change them. JupyterLab runs a widget's handlers on a second thread, beside
    the cells, so whatever changes here changes under `lock`.
    """

    table = traitlets.Dict().tag(sync=True)
    marks = traitlets.Dict().tag(sync=True)  # {sample id: {"mark", "note"}}
    mark_names = traitlets.List(list(MARKS)).tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    start = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        samples: Sequence[Sample],
        runs: Runs,
        clip_of: Callable,
        findings: Mapping[str, Sequence[str]],
        annotations: Path,
    ):
        super().__init__(fixed=False, table=sample_table(samples, runs, findings))
        self.samples = samples
        self.runs = runs
        self.clip_of = clip_of
        self.findings = findings
        self.annotations = annotations
        self.figure = self.picture
        self.lock = threading.RLock()
        self.undone = []  # what marks and notes were before each change
        self._take(read_marks(annotations))
        self._say(_strangers(runs, samples))
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"Inspector({len(self.samples)} samples)"

    def open_on(self, sample_id: str):
        """Let the widget open on a sample; "" is the first."""
        if sample_id:
            self._sample(sample_id)
        self.start = sample_id

    def find(self, text: str = "", **facets: str) -> list[Sample]:
        """List the samples that pass filters: `find(task="direction", outcome="wrong")`.

        The filters are those of the widget: task, way, part, outcome, finding, mark, and a text.
        """
        chosen = []
        for number, sample in enumerate(self.samples):
            passed = all(value in self._facet(name, number) for name, value in facets.items())
            if passed and text.casefold() in self._search_text(sample):
                chosen.append(sample)
        return chosen

    def _facet(self, facet: str, number: int) -> Sequence[str]:
        """Return what a filter may choose a sample by."""
        if facet == "mark":
            return [self._note(self.samples[number])["mark"] or "no mark"]
        if facet not in self.table["facets"]:
            names = ", ".join([*self.table["facets"], "mark"])
            raise ValueError(f"find: expected a filter among {names}, found {facet!r}")
        value = self.table["facets"][facet][number]
        return value if isinstance(value, list) else [value]

    def _search_text(self, sample: Sample) -> str:
        more = [*self.findings.get(sample.id, ()), *self._note(sample).values()]
        return search_text(sample, records_of(sample, self.runs), more)

    def _note(self, sample: Sample) -> dict[str, str]:
        return self.marks.get(sample.id, {"mark": "", "note": ""})

    def sample_view(self, sample: Sample) -> dict:
        """Describe one sample as the front end draws it."""
        findings = list(self.findings.get(sample.id, ()))
        return sample_view(sample, records_of(sample, self.runs), self.clip_of, findings=findings)

    def picture(self, sample_id: str = ""):
        """Draw the sample with an id, or the first: its frames, and the first run's thinking."""
        sample = self._sample(sample_id or self.start)
        clip = self.clip_of(sample.video)
        replies = [row.get("reply") or "" for row in records_of(sample, self.runs).values()]
        if replies:
            return plots.chain(clip, sample, replies[0])
        return plots.frame_strip(clip, sample)

    def _sample(self, sample_id: str) -> Sample:
        for sample in self.samples:
            if sample_id in ("", sample.id):
                return sample
        raise ValueError(
            f"expected the id of one of {len(self.samples)} samples, found {sample_id!r}"
        )

    def _repr_mimebundle_(self, **kwargs):
        if self.samples:
            return super()._repr_mimebundle_(**kwargs)
        return super(SampleView, self)._repr_mimebundle_(**kwargs)

    def _on_message(self, widget, message: dict, buffers=None):
        """Do what the reader did in the front end, one thing after another."""
        acts = {
            "open": self._open,
            "search": self._search,
            "mark": self._mark,
            "undo": self._undo,
            "export": self._export,
        }
        with self.lock:
            acts[message["do"]](message)

    def _open(self, message: dict):
        number = message["index"]
        view = self.sample_view(self.samples[number])
        frames = view.pop("frames", [])
        self.send({"view": view, "index": number}, buffers=frames)

    def _search(self, message: dict):
        text = message["text"].casefold()
        found = [i for i, s in enumerate(self.samples) if text in self._search_text(s)]
        self.send({"found": found, "text": message["text"]})

    def _mark(self, message: dict):
        change = {key: str(message[key]) for key in ("mark", "note") if key in message}
        before = {}
        for number in message["indices"]:
            sample = self.samples[number]
            before[sample.id] = self._note(sample)
        if self._write(dict.fromkeys(before, change)):
            self.undone.append(before)
            count = "" if len(before) == 1 else f"{len(before)} samples "
            self._say(f"{count}saved in {self.annotations.name}")

    def _undo(self, message: dict):
        if not self.undone:
            self._say("There is nothing to undo.")
        elif self._write(self.undone[-1]):
            names = list(self.undone.pop())
            self._say(f"undone: {names[0]}" if len(names) == 1 else f"undone: {len(names)} samples")

    def _write(self, changes: Mapping[str, Mapping[str, str]]) -> bool:
        """Change marks on disk, then here; say why when that fails."""
        try:
            self._take(change_marks(self.annotations, changes))
        except (OSError, SampleError) as error:
            self._say(f"not saved: {error}")
            return False
        return True

    def _take(self, rows: Mapping[str, dict]):
        marks = {}
        for sample_id, row in rows.items():
            marks[sample_id] = {"mark": row["mark"], "note": row["note"]}
        self.marks = marks

    def _say(self, text: str):
        self.status = {"text": text, "count": self.status.get("count", 0) + 1}

    def _export(self, message: dict):
        samples = [self.samples[number] for number in message["indices"]]
        path = self.annotations.with_name(f"inspected.{message['ending']}")
        try:
            self.save(path, samples)
            self._say(f"{len(samples)} samples written to {path.name}")
        except OSError as error:
            self._say(f"not saved: {error}")

    def save(self, path, samples: Iterable[Sample] | None = None) -> Path:
        """Write samples, or all of them, with replies and marks, as .csv, .jsonl or .html."""
        chosen = self.samples if samples is None else list(samples)
        ending = Path(path).suffix
        if ending not in (".csv", ".jsonl", ".html"):
            raise ValueError(f"path: expected .csv, .jsonl or .html, found {Path(path).name!r}")
        with self.lock:
            if ending == ".html":
                return write_text(path, self._page(chosen))
            rows = [self._row(sample) for sample in chosen]
        if ending == ".csv":
            return write_text(path, render.sheet(rows))
        return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def _page(self, samples: Sequence[Sample]) -> str:
        content = {
            "table": sample_table(samples, self.runs, self.findings),
            "views": [self.sample_view(sample) for sample in samples],
            "marks": {s.id: self.marks[s.id] for s in samples if s.id in self.marks},
        }
        return frontend.page(content, f"{len(samples)} samples")

    def _row(self, sample: Sample) -> dict:
        row = {name: getattr(sample, name) for name in (*SAMPLE_FIELDS, "options")}
        row |= self._note(sample)
        for name, run in self.runs.items():
            record = run.get(sample.id, {})
            for key in ("reply", "answer", "reason", "value"):
                row[f"{name}: {key}"] = record.get(key, "")
        return row | {"findings": list(self.findings.get(sample.id, ()))}
