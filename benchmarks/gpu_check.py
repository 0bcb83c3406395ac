"""The first thirty minutes on a card: does all of it work there, how long does it take, and what fits?

    python benchmarks/gpu_check.py                                # the smallest preset whole, then what else fits
    python benchmarks/gpu_check.py --models /models/my-qwen3-vl   # presets, local folders or hub ids
    python benchmarks/gpu_check.py --checks                       # without the table of what fits
    python benchmarks/gpu_check.py --cpu                          # the tiny preset, to try the script itself

Every measurement has a process of its own. Writes gpu_check.json and gpu_check.md: please send us either. The peak
includes a dry run with replies of full length; steps are timed with replies as long as the model writes them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stlite.train import durations
from stlite.train.memory import plan
from stlite.train.shapes import CONFIGS, count_weights, shape

DATA = Path(__file__).resolve().parent.parent / "sample_data"
STEPS = 3
QUESTIONS = 60  # of the accuracy; as many fit on a card in a minute or two
COLUMNS = {
    "checks": ("check", "verdict", "found", "beside", "seconds"),
    "fits": (
        "preset",
        "stage",
        "frames",
        "G",
        "peak GB",
        "plan GB",
        "s/step",
        "predicted s",
        "note",
    ),
}


def lengths(completions, **kwargs) -> list[float]:
    """Reward length, so that there is a gradient."""
    return [float(len(c[-1]["content"])) for c in completions]


def training_rows(count: int) -> list:
    """Read the first shipped training samples."""
    from stlite.data.egost import read_rows

    return list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl"))[:count]


def settings(group: int, tokens: int, **more) -> dict:
    """Return what a run of a few steps over one prompt at a time is called with; a group of 0 is SFT."""
    how = {"videos": DATA / "videos", "max_steps": STEPS, "gradient_accumulation_steps": max(group, 1),
           "per_device_train_batch_size": 1, "disable_tqdm": True, "save_strategy": "no"}  # fmt: skip
    if group:
        how |= {"rewards": [lengths], "num_generations": group, "max_completion_length": tokens}
    return how | more


def stage(group: int):
    """Return the function of a stage."""
    from stlite.train.grpo import grpo
    from stlite.train.sft import sft

    return grpo if group else sft


# ---- the checks: each gives a verdict, what was found, and what to hold it against ---------------


def check_versions(model: str, tokens: int, questions: int) -> dict:
    """Name versions, number format and kernels that will be used; known-bad combinations fail."""
    from stlite.train.backend import compute_dtype, versions

    line = versions()
    kernels = [name for name in ("flash", "mem_efficient", "math") if _sdp(name)]
    found = f"{line}; {compute_dtype()}; attention: {', '.join(kernels)}"
    return {"verdict": "WARNING" not in line, "found": found}


def _sdp(name: str) -> bool:
    return getattr(torch.backends.cuda, f"{name}_sdp_enabled")()


def check_parity(model: str, tokens: int, questions: int) -> dict:
    """Compare training's log-probs with a direct forward's, in the number format of this card."""
    from stlite.rewards.rewards import PRESETS
    from stlite.train import preflight
    from stlite.train.grpo import GRPO, make_trainer
    from stlite.train.models import load

    group = {
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": tokens,
    }
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(
            *load(model),
            training_rows(2),
            out,
            PRESETS["st-r1"],
            settings=GRPO | group,
            videos=DATA / "videos",
        )
        found = preflight.check_parity(trainer)
    rounded = {name: f"{value:.1e}" for name, value in found.items()}
    return {"verdict": True, "found": rounded["max"] + " at most, " + rounded["mean"] + " on average",
            "beside": rounded["no_pixels_delta"] + " without pixels"}  # fmt: skip


def check_batch(model: str, tokens: int, questions: int) -> dict:
    """Ask four questions one by one and at once: greedy replies should be equal, but for ties in 16 bits."""
    from stlite.train.backend import compute_dtype
    from stlite.train.generation import generate
    from stlite.train.models import load

    loaded = load(model)
    samples = training_rows(4)
    how = {"videos": DATA / "videos", "max_new_tokens": tokens}
    at_once = [row["reply"] for row in generate(*loaded, samples, **how)]
    alone = [generate(*loaded, [sample], **how)[0]["reply"] for sample in samples]
    same = sum(reply == other for reply, other in zip(at_once, alone))
    least = 4 if compute_dtype() == torch.float32 else 2
    return {
        "verdict": same >= least,
        "found": f"{same} of 4 replies equal",
        "beside": f"at least {least}",
    }


def check_static(model: str, tokens: int, questions: int) -> dict:
    """Draw eight greedy replies in compiled steps and without: the seconds, and whether they are equal."""
    from stlite.train.generation import generate
    from stlite.train.models import load

    loaded = load(model)
    how = {"videos": DATA / "videos", "max_new_tokens": tokens}
    replies, seconds = {}, {}
    for cache in (None, "static"):
        for _ in range(3):  # the first compiles, the second may record
            began = time.perf_counter()
            rows = generate(*loaded, training_rows(8), cache_implementation=cache, **how)
            seconds[cache] = time.perf_counter() - began
        replies[cache] = [row["reply"] for row in rows]
    same = sum(a == b for a, b in zip(replies[None], replies["static"]))
    return {
        "verdict": same >= 4,
        "found": f"{seconds['static'] / seconds[None]:.2f} of the time",
        "beside": f"{same} of 8 replies equal",
    }


def check_resume(model: str, tokens: int, questions: int) -> dict:
    """Kill a GRPO run after its second step and start it again: the adapter of an uninterrupted run."""
    from safetensors.torch import load_file

    adapters = []
    with tempfile.TemporaryDirectory() as folder:
        for name, ends in (("whole", [0]), ("killed", [-signal.SIGKILL, 0])):
            for end in ends:
                arguments = [model, tokens, str(Path(folder, name)), end != 0]
                done = _run("--steps", json.dumps(arguments))
                if done.returncode != end:
                    return {"verdict": False, "found": _last_line(done)}
            adapters.append(load_file(Path(folder, name, "adapter", "adapter_model.safetensors")))
    whole, killed = adapters
    difference = max((whole[name] - killed[name]).abs().max().item() for name in whole)
    moved = max(weight.abs().max().item() for name, weight in whole.items() if "lora_B" in name)
    return {"verdict": difference <= 0.1 * moved, "found": f"adapters differ by {difference:.1e} at most",
            "beside": f"training moved them by {moved:.1e}"}  # fmt: skip


def take_steps(model: str, tokens: int, out: str, die: bool) -> None:
    """Take three GRPO steps with a checkpoint at each; killed after the second."""
    from transformers import TrainerCallback

    from stlite.train.models import load

    class Die(TrainerCallback):
        """Kill this process once two steps are saved."""

        def on_step_begin(self, args, state, control, **kwargs):
            """Send SIGKILL."""
            if state.global_step == 2 and die:
                os.kill(os.getpid(), signal.SIGKILL)

    more = {"save_strategy": "steps", "save_steps": 1, "callbacks": [Die()], "learning_rate": 1e-4, "dry": False,
            "parity": False}  # fmt: skip
    stage(2)(*load(model), training_rows(STEPS), out, **settings(2, tokens, **more))


def check_packed(model: str, tokens: int, questions: int) -> dict:
    """Time log-probs and backward over eight replies to one prompt: packed, and with the prompt read for each."""
    from stlite.train import shared_prefix
    from stlite.train.generation import encode
    from stlite.train.models import add_lora, load

    loaded, processor = load(model)
    core = add_lora(loaded).train().get_base_model()
    if torch.cuda.is_available():
        loaded.gradient_checkpointing_enable()
        loaded.enable_input_require_grads()
    sample = training_rows(1)[0]
    from stlite.data import prompts

    inputs = encode(processor, [prompts.messages(sample)], DATA / "videos").to(loaded.device)
    clip = shared_prefix.split_clips(inputs, 1)[0]
    torch.manual_seed(0)
    replies = list(torch.randint(0, 200, (8, tokens), device=loaded.device))
    results = {}
    for name in ("separate", "packed"):
        log_probs_of = getattr(shared_prefix, f"{name}_log_probs")
        results[name] = _time_backward(core, log_probs_of, inputs["input_ids"][0], replies, clip)
    difference = (results["packed"][0] - results["separate"][0]).abs().mean().item()
    ratio = results["packed"][1] / results["separate"][1]
    return {"verdict": difference < 0.05, "found": f"{ratio:.2f} of the seconds, {results['packed'][2]:.2f} GB",
            "beside": f"{results['separate'][2]:.2f} GB unpacked; log-probs differ by {difference:.1e}"}  # fmt: skip


def _time_backward(core, log_probs_of, prompt, replies: list, clip: dict) -> tuple:
    """Return log-probs, the seconds of the second of two passes, and the peak (GB)."""
    from stlite.train import dry_run

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        began = time.perf_counter()
        log_probs, _ = log_probs_of(core, prompt, replies, clip, 1.0)
        log_probs.sum().backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        core.zero_grad(set_to_none=True)
    return log_probs.detach(), time.perf_counter() - began, dry_run.peak() / 1e9


def check_accuracy(model: str, tokens: int, questions: int) -> dict:
    """Ask the base a few sample questions; the verdict is that it answers, whether rightly or not."""
    records = _ask_base(model, tokens, questions)
    reasons = [record["reason"] for record in records]
    return {"verdict": reasons.count("failed") == 0, "found": _count_right(records),
            "beside": f"{reasons.count('unreadable')} unreadable, {reasons.count('failed')} failed; chance 25 %"}  # fmt: skip


def check_timestamps(model: str, tokens: int, questions: int) -> dict:
    """Ask the base the same questions with the times of frames bare, as it was trained, and wrapped.

    The verdict is that bare is not worse by more than one question in ten.
    """
    from stlite.train.presets import TIMESTAMPS
    from stlite.train.presets import settings as preset_settings

    if "timestamps" not in preset_settings(model):
        return {"verdict": True, "found": "the prompts of this model hold no times"}
    found = {form: _ask_base(model, tokens, questions, timestamps=form) for form in TIMESTAMPS}
    right = {form: sum(row["value"] for row in rows) for form, rows in found.items()}
    same = sum(a["reply"] == b["reply"] for a, b in zip(found["bare"], found["wrapped"]))
    return {
        "verdict": right["bare"] >= right["wrapped"] - len(found["bare"]) / 10,
        "found": f"bare: {_count_right(found['bare'])}",
        "beside": f"wrapped: {_count_right(found['wrapped'])}; {same} replies are the same",
    }


def _count_right(records: list[dict]) -> str:
    return f"{sum(record['value'] for record in records):.0f} of {len(records)} right"


def _ask_base(model: str, tokens: int, questions: int, **how) -> list[dict]:
    """Ask a model, loaded with `how`, some questions of the sample benchmark; return their records."""
    from functools import partial

    from stlite.data.egost import read_benchmark
    from stlite.eval.evaluate import evaluate
    from stlite.train.generation import generate
    from stlite.train.models import load

    samples = [
        s for s in read_benchmark(DATA / "benchmark", videos=DATA / "videos") if s.kind == "choice"
    ]
    samples = samples[:: max(len(samples) // questions, 1)][:questions]
    ask = partial(generate, *load(model, **how), videos=DATA / "videos", max_new_tokens=tokens)
    with tempfile.TemporaryDirectory() as out:
        return evaluate(samples, ask, out, settings={"model": model}, batch=8, progress=False)


CHECKS = {
    "versions and kernels": check_versions,
    "parity in this number format": check_parity,
    "a reply alone is the reply in a batch": check_batch,
    "drawing in compiled steps": check_static,
    "killed and gone on with": check_resume,
    "each prompt once": check_packed,
    "base accuracy on sample questions": check_accuracy,
    "times of frames bare and wrapped": check_timestamps,
}


# ---- what fits -----------------------------------------------------------------------------------


def measure(preset: str, frames: int, group: int, tokens: int) -> dict:
    """Take three steps of one prompt; a group of 0 is SFT. Returns the peak (GB) and the seconds of a later step."""
    from transformers import TrainerCallback

    from stlite.train import dry_run, models

    moments = []

    class Clock(TrainerCallback):
        """Note when each step ends."""

        def on_step_end(self, args, state, control, **kwargs):
            """Read the clock."""
            moments.append(time.perf_counter())

    model, processor = models.load(preset, frames=frames)
    how = settings(group, tokens, dry=True, callbacks=[Clock()])
    with tempfile.TemporaryDirectory() as out:
        stage(group)(model, processor, training_rows(STEPS), out, **how)
    return {
        "peak GB": round(dry_run.peak() / 1e9, 2),
        "s/step": round((moments[-1] - moments[0]) / (STEPS - 1), 2),
    }


def line(preset: str, frames: int, group: int, tokens: int, card: float) -> dict:
    """Measure one setting in its own process, unless the plan says that it does not fit."""
    row = {
        "preset": preset,
        "stage": "GRPO" if group else "SFT",
        "frames": frames,
        "G": group or "",
    }
    if preset in CONFIGS:
        row["plan GB"] = plan(
            preset, frames, generations=group, completion=tokens, batch=1, prompts=1
        )["total"]
        name = durations.find_card(_card_name())
        if name:
            step = durations.seconds(
                preset, name, frames, generations=group, completion=tokens, rows=max(group, 1)
            )
            row["predicted s"] = step["total"]
        if row["plan GB"] + 1 > card:
            return row | {"note": "not tried: predicted not to fit"}
    done = _run("--one", json.dumps([preset, frames, group, tokens]))
    if done.returncode:
        return row | {"note": _last_line(done)}
    return row | json.loads(done.stdout.splitlines()[-1])


# ---- the report ----------------------------------------------------------------------------------


def _card_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _run(*arguments: str) -> subprocess.CompletedProcess:
    """Run this script in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def _last_line(done: subprocess.CompletedProcess) -> str:
    lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
    return lines[-1][:300]


def check(name: str, *how) -> dict:
    """Do one check in its own process."""
    began = time.perf_counter()
    done = _run("--check", json.dumps([name, *how]))
    row = {"check": name, "verdict": False, "found": _last_line(done)}
    if done.returncode == 0:
        row |= json.loads(done.stdout.splitlines()[-1])
    verdict = "as expected" if row["verdict"] else "LOOK HERE"
    return {**row, "verdict": verdict, "seconds": round(time.perf_counter() - began)}


def table(rows: list[dict], columns: tuple[str, ...]) -> str:
    """Write rows as Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [str(row.get(column, "")).replace("|", "/") for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def save(out: Path, report: dict) -> None:
    """Write the report as JSON and as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu_check.json").write_text(json.dumps(report, indent=1))
    text = f"Measured on {report['device']}, checks with {report['model']}:\n"
    for name, columns in COLUMNS.items():
        if report[name]:
            text += f"\n{table(report[name], columns)}\n"
    (out / "gpu_check.md").write_text(text)


def smallest() -> str:
    """Return the preset of fewest weights."""
    return min(CONFIGS, key=lambda preset: sum(count_weights(shape(preset)).values()))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="*", help="presets, local folders or hub ids; checks take the first"
    )
    parser.add_argument("--frames", nargs="*", type=int, default=[8, 16])
    parser.add_argument(
        "--groups", nargs="*", type=int, default=[0, 4, 8], help="sizes of a group; 0 is SFT"
    )
    parser.add_argument("--tokens", type=int, default=256, help="the longest reply")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of the base's accuracy")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--checks", action="store_true", help="leave out the table of what fits")
    parser.add_argument(
        "--cpu", action="store_true", help="try it on the tiny preset; peaks are the process's"
    )
    parser.add_argument("--out", type=Path, default=Path())
    for hidden in ("--one", "--check", "--steps"):
        parser.add_argument(hidden, type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Do the checks with the first model, then measure what fits."""
    args = arguments()
    if args.one:
        return print(json.dumps(measure(*args.one)))
    if args.check:
        name, *how = args.check
        return print(json.dumps(CHECKS[name](*how)))
    if args.steps:
        return take_steps(*args.steps)
    if not (torch.cuda.is_available() or args.cpu):
        sys.exit("gpu_check: no CUDA card was found; --cpu tries the script on the tiny preset")
    from stlite.train.backend import versions

    models = args.models or (
        ["tiny"] if args.cpu else sorted(CONFIGS, key=lambda p: p != smallest())
    )
    card = torch.cuda.mem_get_info()[1] / 1e9 if torch.cuda.is_available() else float("inf")
    report = {"device": versions(), "model": models[0], "checks": [], "fits": []}
    for name in args.only:
        report["checks"].append(check(name, models[0], args.tokens, args.questions))
        save(args.out, report)
        print(table(report["checks"][-1:], COLUMNS["checks"]).splitlines()[-1], flush=True)
    for model in models if not args.checks else ():
        for frames in args.frames:
            for group in args.groups:
                report["fits"].append(line(model, frames, group, args.tokens, card))
                save(args.out, report)
                print(table(report["fits"][-1:], COLUMNS["fits"]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
