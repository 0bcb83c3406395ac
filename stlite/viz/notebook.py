"""How every notebook of this project begins and ends: where the files are, what runs here, how long it took.

>>> here = setup(tokens=128)  # doctest: +SKIP
CPU (2 threads) | python 3.11 | torch 2.14.1 ...
tiny: 16 frames of at most 7056 pixels | tokens=128 | files in ../runs/demo
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from stlite.data.egost import read_benchmark
from stlite.data.prompts import reply, trace
from stlite.data.sample import Sample
from stlite.eval.records import read_records, record
from stlite.eval.render import text
from stlite.eval.run_folder import fingerprint, records_path
from stlite.viz.sample_view import rewards_of

EXAMPLE = "w0200054/direction/reverse"  # the test question that all notebooks follow
SMOKE_STRIDE = 14  # with STLITE_SMOKE set, one test question in 14 is asked: one batch
SMOKE = {"rows_used": 16, "steps": 2}  # and choices of these names have these values


class Notebook:
    """The folders, choices and saved results that the cells of one notebook share."""

    def __init__(self, model: str, choices: dict):
        self.began = time.monotonic()
        self.model = model
        self.example = EXAMPLE
        self.smoke = "STLITE_SMOKE" in os.environ
        self.data = Path(os.environ.get("STLITE_DATA", "../sample_data"))
        self.videos = self.data / "videos"
        self.runs = Path(os.environ.get("STLITE_RUNS", "../runs/demo"))
        self.rewards = self._saved_rewards()
        if self.smoke:
            choices = {name: SMOKE.get(name, value) for name, value in choices.items()}
        self.choices = choices
        for name, value in choices.items():
            setattr(self, name, value)

    def _saved_rewards(self) -> str:
        """Return the rewards that notebook 02 saved, or those of ST-R1."""
        path = self.runs / "rewards.json"
        return json.loads(path.read_text())["rewards"] if path.exists() else "st-r1"

    @property
    def rows(self) -> Path:
        """The training rows that notebook 01 saved, or the shipped ones."""
        saved = self.runs / "train.jsonl"
        return saved if saved.exists() else self.data / "train" / "total_test_mcq_630.jsonl"

    def test_samples(self) -> list[Sample]:
        """Read the test questions; with STLITE_SMOKE set, a few of them and the example."""
        samples = read_benchmark(self.data / "benchmark", videos=self.videos)
        if not self.smoke:
            return samples
        kept = []
        for place, sample in enumerate(samples):
            if place % SMOKE_STRIDE == 0 or sample.id == self.example:
                kept.append(sample)
        return kept

    def records(self, *names: str) -> dict[str, list[dict]]:
        """Read the records of earlier notebooks, as many of the named runs as there are."""
        return {name: read_records(folder) for name, folder in self.folders(*names).items()}

    def folders(self, *names: str) -> dict[str, Path]:
        """Return the run folders of those names in which questions were answered."""
        folders = {}
        for name in names:
            if records_path(self.runs / name).exists():
                folders[name] = self.runs / name
            else:
                print(f"{name}: not run yet")
        return folders

    def settings_of(self, name: str) -> dict:
        """Return what records of a run depend on: the model, and the adapter by its fingerprint."""
        adapter = self.runs / name / "adapter"
        trained = fingerprint(adapter) if adapter.exists() else None
        return {"model": self.model, "adapter": trained}

    def show(self, report: dict, *names: str) -> None:
        """Print the first sentence of a report and those of its tables, or its first table."""
        tables = {name: rows for name, rows in report["tables"].items() if name in names}
        if not tables:
            tables = dict(list(report["tables"].items())[:1])
        headline = report.get("headline") or report["notes"][0]
        print(text({"title": headline, "notes": [], "tables": tables}))

    def stand_in(self, samples: Sequence[Sample]) -> dict[str, list[dict]]:
        """Answer A to every choice, after the annotated chain: what is shown before anything has run."""
        choices = [sample for sample in samples if sample.kind == "choice"]
        replies = [{"reply": reply(trace(sample), "A")} for sample in choices]
        return {"always A": [record(*pair) for pair in zip(choices, replies)]}

    def stand_in_group(self, sample: Sample) -> list[dict]:
        """Answer one choice question by each letter in turn, after the annotated chain."""
        rollouts = []
        for letter in sample.letters:
            words = reply(trace(sample), letter)
            rollouts.append({"reply": words, "rewards": rewards_of(sample, words)})
        return rollouts

    def minutes(self) -> None:
        """Print how long the notebook has run."""
        print(f"{(time.monotonic() - self.began) / 60:.1f} minutes")


def setup(model: str = "tiny", **choices) -> Notebook:
    """Print what runs here and the choices made, and return the folders and choices of a notebook.

    `STLITE_DATA`, `STLITE_RUNS` (folders) and `STLITE_SMOKE` (few questions) are read from the
    environment.
    """
    from stlite.train.backend import versions  # torch
    from stlite.train.presets import READING, settings

    here = Notebook(model, choices)
    here.reading = {name: settings(model)[name] for name in READING}
    print(versions())
    shown = [f"{name}={value!r}" for name, value in here.choices.items()]
    size = f"{here.reading['frames']} frames of at most {here.reading['max_pixels']} pixels"
    print(" | ".join([f"{model}: {size}", *shown, f"files in {os.path.relpath(here.runs)}"]))
    return here
