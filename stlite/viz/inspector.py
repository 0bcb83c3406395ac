"""Look at it: questions, frames, replies and rewards in one cell; chains, groups of rollouts, and a run in training.

    >>> inspect(samples, {"base": base, "ST-R1": st_r1}, videos="sample_data/videos")  # doctest: +SKIP

Every view is a plain dictionary; inspector.js draws it alike in a notebook and in an exported page.
"""

import asyncio
import base64
import hashlib
import io
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from stlite.data.sample import Sample, SampleError, decode, read_lines, write_text
from stlite.data.video import ClipError, read_clip
from stlite.eval import report
from stlite.eval.evaluate import record
from stlite.rewards.rewards import PRESETS
from stlite.viz import alignment as chains
from stlite.viz import plots

HERE = Path(__file__).parent
SAMPLE_FIELDS = ("id", "video", "task", "way", "part", "question", "answer")
REPLY_FIELDS = ("reply", "answer", "reason", "value", "rewards", "explanation", "error")
FILTERS = ("task", "way", "part", "outcome", "finding", "mark")
MARKS = ("good", "wrong gold", "bad video")
UNREAD = ("ambiguous", "unreadable", "absent", "truncated")
SIZES = (
    (256, 85),
    (256, 60),
    (192, 50),
    (128, 40),
    (64, 30),
)  # longest side and JPEG quality, tried in this order
TINY = {"frames": 16, "max_pixels": 84 * 84, "multiple": 28}  # the frames the tiny model sees
LIMIT = 270_000  # bytes of pictures sent for one sample


def jpegs(frames) -> list[bytes]:
    """Encode frames (T, H, W, 3) as JPEG, at most 256 pixels a side, small enough to stay under LIMIT bytes in all."""
    from PIL import Image

    for side, quality in SIZES:
        files = [io.BytesIO() for _ in frames]
        for frame, file in zip(frames, files):
            image = Image.fromarray(frame)
            image.thumbnail((side, side))
            image.save(file, "JPEG", quality=quality)
        if sum(file.tell() for file in files) <= LIMIT:
            break
    return [file.getvalue() for file in files]


def runs_of(records) -> dict[str, dict[str, dict]]:
    """Sort records, or {name: records} of several runs, by run and sample id."""
    runs: dict[str, dict] = {}
    for name, rows in (records if isinstance(records, Mapping) else {"run": records or ()}).items():
        for row in rows:
            run = runs.setdefault(name, {})
            if row["id"] in run:
                raise ValueError(
                    f"run {name!r}: expected one record a sample, found two for {row['id']!r}"
                )
            texts = {
                k: v.encode("utf-8", "backslashreplace").decode()
                for k, v in row.items()
                if isinstance(v, str)
            }
            run[row["id"]] = row | texts  # UTF-8 carries no lone surrogates
    return runs


def sample_view(sample: Sample, records: Mapping[str, dict], clip_of: Callable, **more) -> dict:
    """Describe a sample and its records by run as the front end draws them; an unreadable video is an error in it."""
    view = {name: getattr(sample, name) for name in SAMPLE_FIELDS} | {
        "kind": "sample",
        "error": "",
        "duration": 0.0,
    }
    view |= more | {
        "options": [
            [x, text, x == sample.answer] for x, text in zip(sample.letters, sample.options)
        ]
    }
    view["runs"] = [
        {"name": name} | {key: r.get(key) for key in REPLY_FIELDS} for name, r in records.items()
    ]
    order = next((r["order"] for r in records.values() if r.get("order")), "forward")
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # what a clip lacks is shown beside its frames
            clip = clip_of(sample.video, order=order)
        view |= {
            "duration": clip.duration,
            "notice": getattr(clip, "note", ""),
            "frames": jpegs(clip.frames),
        }
        view |= {"seconds": clip.seconds.tolist(), "indices": clip.indices.tolist()}
    except (ClipError, SampleError, OSError) as error:
        view["error"] = str(error)
    replies = {name: r.get("reply") or "" for name, r in records.items()}
    return view | {"lanes": chains.tracks(sample, replies, view["duration"])}


def page(views: Sequence[Mapping], title: str) -> str:
    """Write views as one HTML file that needs nothing else; its policy forbids every script but the inspector."""
    data = json.dumps(views, default=lambda frame: base64.b64encode(frame).decode()).replace(
        "<", "\\u003c"
    )
    code = (
        (HERE / "inspector.js")
        .read_text("utf-8")
        .replace("export default { render };", "openPage();")
    )
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    body = '<main lang="en"></main><noscript>Scripts are off: nothing is drawn.</noscript>'
    body += f'<script type="application/json" id="views">{data}</script><script type="module">{code}</script>'
    policy = f"{report.POLICY}; script-src 'sha256-{digest}'"
    return report.page(title, HERE / "inspector.css", body, policy)


class SampleView(anywidget.AnyWidget):
    """The front end: draws `view`; `figure()` makes the same picture without a browser, for GitHub and for print."""

    _esm, _css = HERE / "inspector.js", HERE / "inspector.css"
    view = traitlets.Dict().tag(sync=True)
    said = traitlets.Dict().tag(
        sync=True
    )  # mark, note and message: small, so that a mark sends no frame again
    figure = traitlets.Any()

    def __repr__(self) -> str:  # the inherited one would write out every frame
        return f"SampleView({self.view.get('kind', '')} {self.view.get('id', '')})"

    def _repr_mimebundle_(self, **kwargs):
        data, more = super()._repr_mimebundle_(**kwargs)
        # the view says what is wrong with the video
        with warnings.catch_warnings(action="ignore"), suppress(ClipError, SampleError, OSError):
            drawn = self.figure()
            data["image/png"] = base64.b64encode(plots.png(drawn, dpi=80)).decode()
            drawn.clear()  # a figure is a cycle of references: twenty of them waiting for the collector are 20 MB
        return data, more

    def save(self, path) -> Path:
        """Write the view as .html, .png or .svg."""
        if Path(path).suffix == ".html":
            return write_text(path, page([self.view], self.view.get("id", self.view["kind"])))
        return plots.save(self.figure(), path)


_OPEN: dict[
    str, tuple[int, list]
] = {}  # by notebook cell: its execution count, the widgets made then


def _keep(widget):
    """Close what an earlier run of this notebook cell made: neither ipywidgets nor IPython's Out would let go of it."""
    from IPython import get_ipython

    shell = get_ipython()
    if parent := getattr(shell, "get_parent", dict)():
        cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code", "")
        count, kept = _OPEN.get(cell, (0, []))
        if count != shell.execution_count:
            _close(*kept)
            kept = []
        _OPEN[cell] = shell.execution_count, [*kept, widget]
    return widget


def _close(*widgets):
    for widget in widgets:
        _close(
            *getattr(widget, "children", ()),
            *(getattr(widget, n) for n in ("layout", "style") if widget.has_trait(n)),
        )
        widget.close()
        widget.unobserve_all()
        if isinstance(widget, SampleView):
            widget.view = {}


def inspect(
    samples, records=None, videos=".", findings=(), annotations="annotations.jsonl", **size
):
    """Go through samples, frames, replies and marks; `records` are one run's, or {name: records} for several side by side.

    `videos` is the root of the video files; `size` (frames, max_pixels, multiple) is the model's, else the tiny preset's.
    `findings` come from the doctor. Marks go to the JSONL file `annotations`. The key ? lists the keys.
    """
    found = defaultdict(list)
    for finding in findings:
        for name in finding["ids"]:
            found[name].append(finding["code"])
    clip_of = partial(read_clip, root=videos, **(TINY | size))
    return _keep(Inspector(list(samples), runs_of(records), clip_of, found, Path(annotations)))


def read_marks(path) -> dict[str, dict]:
    """Read marks and notes by sample id; a bad line raises SampleError with file:line."""
    found = {}
    for where, line in read_lines(path) if Path(path).exists() else ():
        row = decode(line, where)
        if not isinstance(row, dict) or not all(
            isinstance(row.get(key), str) for key in ("id", "mark", "note")
        ):
            raise SampleError(
                where, "annotation", "an object with the texts id, mark and note", row
            )
        found[row["id"]] = row
    return found


def mark(path, name: str, **change: str) -> dict[str, dict]:
    """Change the mark or the note of a sample on disk, atomically; what others wrote meanwhile is kept."""
    rows = read_marks(path)
    row = rows.get(name, {"id": name, "mark": "", "note": ""}) | change
    rows[name] = row | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    write_text(path, "".join(json.dumps(r) + "\n" for r in rows.values() if r["mark"] or r["note"]))
    return rows


class Inspector(ipywidgets.VBox):
    """Controls around one frame strip; `shown` are the samples that pass the filters."""

    def __init__(
        self,
        samples: list[Sample],
        runs: dict,
        clip_of: Callable,
        findings: dict,
        annotations: Path,
    ):
        super().__init__()
        self.samples, self.runs, self.findings, self.clip_of = samples, runs, findings, clip_of
        self.annotations, self.marks = annotations, read_marks(annotations)
        self.facts = {s.id: self._facts(s) for s in samples}
        self.strip = SampleView(figure=self.picture)
        self.strip.on_msg(self._on_message)
        self.filters = {name: self._dropdown(name) for name in FILTERS}
        self.text = ipywidgets.Text(
            placeholder="text", continuous_update=False, layout={"width": "150px"}
        )
        for widget in (*self.filters.values(), self.text):
            widget.observe(self._filter, "value")
        self.format = ipywidgets.Dropdown(
            options=["csv", "jsonl", "html"], layout={"width": "80px"}
        )
        export = ipywidgets.Button(description="Export", layout={"width": "auto"})
        export.on_click(self._export)
        bar = [*self.filters.values(), self.text, export, self.format]
        self.children = [ipywidgets.HBox(bar, layout={"flex_flow": "row wrap"}), self.strip]
        self._filter()

    def _dropdown(self, name: str) -> ipywidgets.Dropdown:
        values = (
            MARKS
            if name == "mark"
            else sorted(set().union(*(facts[name] for facts in self.facts.values())))
        )
        options = [(f"any {name}", ""), *((value, value) for value in values)]
        return ipywidgets.Dropdown(options=options, tooltip=name, layout={"width": "130px"})

    def _facts(self, s: Sample) -> dict[str, set[str]]:
        """List what each filter but the mark's may choose this sample by."""
        records = self.records(s).values()
        outcomes = {"unreadable" if r["reason"] in UNREAD else r["reason"] for r in records} or {
            "no reply"
        }
        if len({r["answer"] if s.kind == "choice" else r["reason"] for r in records}) > 1:
            outcomes.add("runs disagree")
        own = {name: {getattr(s, name)} - {""} for name in ("task", "way", "part")}
        return own | {"outcome": outcomes, "finding": {*self.findings.get(s.id, ())}}

    def _note(self, s: Sample) -> dict[str, str]:
        return {key: self.marks.get(s.id, {}).get(key, "") for key in ("mark", "note")}

    def records(self, s: Sample) -> dict[str, dict]:
        """Return the records of a sample by run."""
        return {name: run[s.id] for name, run in self.runs.items() if s.id in run}

    def _filter(self, change=None):
        chosen = {name: widget.value for name, widget in self.filters.items() if widget.value}
        self.shown, self.prepared = [s for s in self.samples if self._passes(s, chosen)], {}
        self.show(0)

    def _passes(self, s: Sample, chosen: dict[str, str]) -> bool:
        facts = self.facts[s.id] | {"mark": {self._note(s)["mark"]}}
        named = all(value in facts[name] for name, value in chosen.items())
        return named and self.text.value.casefold() in str([*self._row(s).values()]).casefold()

    def show(self, at: int):
        """Show one of the samples that pass the filters; no file stays open."""
        self.at = at
        with self.strip.hold_sync():
            self.strip.view = self.prepared.pop(at, None) or self._view(at)
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
        s, place = self.shown[at], {"at": at + 1, "of": len(self.shown), "total": len(self.samples)}
        return sample_view(
            s, self.records(s), self.clip_of, findings=self.findings.get(s.id, []), **place
        )

    def _tell(self, message: str):
        self.strip.said = (self._note(self.shown[self.at]) if self.shown else {}) | {
            "message": message
        }

    def picture(self):
        """Draw the sample shown as a figure: its frames, and the thinking of the first run beside them."""
        s = self.shown[self.at]
        clip, replies = (
            self.clip_of(s.video),
            [r.get("reply") or "" for r in self.records(s).values()],
        )
        return plots.chain(clip, s, replies[0]) if replies else plots.frame_strip(clip, s)

    def _on_message(self, strip, message: dict, buffers=None):
        """Do what the reader did in the front end."""
        if message["do"] in ("mark", "note") and self.shown:
            self._mark(**{message["do"]: str(message["text"])})
        elif message["do"] == "wrong":
            wrong = [
                i
                for i, s in enumerate(self.shown)
                if self.facts[s.id]["outcome"] - {"right", "no reply"}
            ]
            self._go(next((i for i in wrong if i > self.at), wrong[0] if wrong else -1))
        elif message["do"] == "move":
            self._go(self.at + int(message["by"]))

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
        kind, rows = Path(path).suffix, [self._row(s) for s in self.shown]
        if kind == ".html":
            views = [self._view(i) | self._note(s) for i, s in enumerate(self.shown)]
            return write_text(path, page(views or [self._view(0)], "samples"))
        if kind not in (".csv", ".jsonl"):
            raise ValueError(f"path: expected .csv, .jsonl or .html, found {Path(path).name!r}")
        return write_text(
            path,
            report.sheet(rows) if kind == ".csv" else "".join(json.dumps(r) + "\n" for r in rows),
        )

    def _row(self, s: Sample) -> dict:
        row = {name: getattr(s, name) for name in (*SAMPLE_FIELDS, "options")} | self._note(s)
        for name, run in self.runs.items():
            row |= {f"{name}: {key}": run.get(s.id, {}).get(key, "") for key in REPLY_FIELDS[:4]}
        return row | {"findings": self.findings.get(s.id, [])}


def show_chain(sample: Sample, reply: str, videos=".", **size) -> SampleView:
    """Show a reply's thinking beside the frames and the annotated paths, with what each reward pays for it."""
    clip_of, paid = partial(read_clip, root=videos, **(TINY | size)), rewards_of(sample, reply)
    runs = runs_of({"reply": [record(sample, {"reply": reply}) | {"rewards": paid}]})
    view = sample_view(sample, {"reply": runs["reply"][sample.id]}, clip_of, alone=True, fixed=True)
    return _keep(
        SampleView(
            view=view, figure=lambda: plots.chain(clip_of(sample.video), sample, reply, paid)
        )
    )


def rewards_of(
    sample: Sample, reply: str, preset: str = "st-r1-reverse"
) -> dict[str, float | None]:
    """Return what each reward of a preset pays for a reply."""
    names = ("task", "way", "kind", "options", "answer", "steps_forward", "steps_reverse")
    columns = {name: [getattr(sample, name)] for name in names}
    return {f.__name__.removesuffix("_reward"): f([reply], **columns)[0] for f in PRESETS[preset]}


def show_group(rollouts: Sequence[Mapping], prompt: str = "") -> SampleView:
    """Show the rollouts of one prompt, as `chains.group_tokens` takes them: rewards, advantages, what differs from the best."""
    return _keep(
        SampleView(view=group_view(rollouts, prompt), figure=lambda: plots.group(rollouts))
    )


def group_view(rollouts: Sequence[Mapping], prompt: str = "") -> dict:
    """Describe a group as the front end draws it."""
    rows, prompt = (
        chains.group_tokens(rollouts),
        prompt or next((str(r["prompt"]) for r in rollouts if "prompt" in r), ""),
    )
    names = list(dict.fromkeys(name for row in rows for name in row["rewards"]))
    note = (
        ""
        if len({row["total"] for row in rows}) > 1
        else "; all earn the same, so the group teaches nothing"
    )
    return {
        "kind": "group",
        "prompt": prompt,
        "names": names,
        "rows": rows,
        "caption": f"{len(rows)} rollouts{note}",
    }


class TrainingView:
    """The curves and the latest group of a run folder, from disk or, as a callback of `grpo` or `sft`, in training."""

    def __init__(self, folder):
        self.folder, self.log = Path(folder), read_log(folder)
        self.strip = _keep(SampleView(figure=lambda: plots.curves(self.log)))
        self.draw()

    def on_log(self, args, state, control, **kwargs):
        """Take the trainer's log; drawing takes at most a twentieth of the training's time."""
        self.log = list(state.log_history)
        if time.monotonic() > self.next:
            self.draw()

    def __getattr__(self, name: str):
        if name.startswith(
            "on_"
        ):  # the other events of a transformers TrainerCallback, which needs torch
            return lambda *args, **kwargs: self.draw() if name == "on_train_end" else None
        return getattr(self.strip, name)

    def draw(self):
        """Draw what is known now."""
        started, rollouts = time.monotonic(), read_rollouts(self.folder)
        view = {"kind": "training", "caption": f"training, {len(self.log)} entries"}
        view |= {"frames": [plots.png(plots.curves(self.log), 90)]} if self.log else {}
        self.strip.view = view | ({"group": group_view(rollouts)} if rollouts else {})
        self.next = time.monotonic() + 20 * (time.monotonic() - started)


def read_log(folder) -> list[dict]:
    """Read the log of a run: log.json once it has ended, else its newest checkpoint's; an empty list without either."""
    if (path := Path(folder) / "log.json").exists():
        return json.loads(path.read_text("utf-8"))
    states = [
        json.loads(path.read_text("utf-8")) for path in Path(folder).rglob("trainer_state.json")
    ]
    return max(states, key=lambda state: state["global_step"], default={"log_history": []})[
        "log_history"
    ]


def read_rollouts(folder, step: int | None = None) -> list[dict]:
    """Read one group of rollouts, the latest or the last of a step, from the completions of a run folder."""
    files = sorted(
        Path(folder, "completions").glob(
            f"completions_{'*' if step is None else f'{step:05d}'}.parquet"
        )
    )
    if not files:
        return []
    import pandas

    rows = pandas.read_parquet(files[-1]).to_dict("records")
    sizes = [
        len(list(same)) for _, same in groupby(rows, key=lambda row: row.get("id", row["prompt"]))
    ]
    return rows[-min(sizes) :]  # a question may be drawn twice, one time after the other
