"""stlite: teach a video language model to reason about where it has been, on one consumer GPU.

    from stlite import evaluate, generate, grpo, load, read_benchmark, report, sft

A name is imported when it is first used, and torch only with what needs it.
"""

from importlib import import_module

__version__ = "0.2.0"

PLACES = {  # name: the module it is defined in
    "Sample": "stlite.data.sample",
    "read_benchmark": "stlite.data.egost",
    "read_rows": "stlite.data.egost",
    "annotations": "stlite.data.annotations",
    "check": "stlite.data.checks",
    "load": "stlite.train.models",
    "generate": "stlite.train.generation",
    "sft": "stlite.train.sft",
    "grpo": "stlite.train.grpo",
    "push": "stlite.train.sharing",
    "evaluate": "stlite.eval.evaluate",
    "report": "stlite.eval.report",
    "export_lmms_eval": "stlite.eval.lmms_eval",
    "inspect": "stlite.viz.inspector",
    "play": "stlite.viz.player",
    "annotate": "stlite.viz.annotator",
    "ask": "stlite.viz.ask",
}


def __getattr__(name: str) -> object:
    """Import a name on its first use (PEP 562)."""
    if name not in PLACES:
        raise AttributeError(f"module 'stlite' has no attribute {name!r}")
    value = getattr(import_module(PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES})
