"""The README's road, SFT and then GRPO, killed between and inside its stages: nothing trained twice, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 2  # of each stage
# where the process dies: the place, and which time it is reached (SFT's first, then GRPO's)
PLACES = [("before its first step", 1), ("adapter in place", 1), ("run.json written", 1), ("before its first step", 2),
          ("after a step", 3), ("adapter in place", 2), ("run.json written", 2)]  # fmt: skip


def reward(completions, **kwargs) -> list[float]:
    """Reward something that differs between rollouts."""
    return [sum(map(ord, c[-1]["content"])) % 7 / 7 for c in completions]


def road(out: Path) -> None:
    """Teach the tiny model, then reinforce it, noting every step that is taken."""
    from transformers import TrainerCallback

    from stlite.data.egost import read_rows
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.sft import sft

    class Note(TrainerCallback):
        """Add a line to a file for every step."""

        def __init__(self, stage: str):
            self.stage = stage

        def on_step_end(self, args, state, control, **kwargs):
            """Write the stage and the step."""
            with open(out / "steps.txt", "a") as file:
                file.write(f"{self.stage} {state.global_step}\n")

    rows = list(read_rows(ROOT / "sample_data" / "train" / "total_test_mcq_63.jsonl"))[:4]
    how = {"videos": ROOT / "sample_data" / "videos", "max_steps": STEPS, "save_steps": 1, "learning_rate": 1e-2,
           "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "disable_tqdm": True}  # fmt: skip
    group = {"num_generations": 2, "max_completion_length": 6, "temperature": 1.5, "parity": False}
    model, processor = load("tiny", four_bit=False)
    model = sft(model, processor, rows, out / "sft", callbacks=[Note("sft")], **how)
    model = grpo(
        model,
        processor,
        rows,
        out / "grpo",
        rewards=[reward],
        callbacks=[Note("grpo")],
        **group,
        **how,
    )


def die_at(place: str, time: int) -> None:
    """Let this process be killed where it reaches a place for the n-th time."""
    from stlite.train import runs
    from stlite.train.checkpoints import CheckpointCallback

    reached = []

    def dying(owner, name: str, before: bool, here=lambda *args: True):
        function = getattr(owner, name)

        def called(*args, **kwargs):
            value = None if before else function(*args, **kwargs)
            if here(*args):
                reached.append(place)
            if len(reached) == time:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs) if before else value

        setattr(owner, name, called)

    if place == "before its first step":
        dying(runs, "begin", before=False)
    elif place == "after a step":
        dying(CheckpointCallback, "on_step_end", before=False)
    elif place == "adapter in place":
        dying(os, "replace", False, lambda old, new: Path(new).name == "adapter")
    else:  # nothing is left to do but to remove the checkpoints
        dying(shutil, "rmtree", True, lambda path, *args: Path(path).name == "checkpoints")


def start(out: Path, *place) -> int:
    """Take the road in a child that has this process's imports; return how it ended."""
    out.mkdir(exist_ok=True)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if place:
            die_at(*place)
        road(out)
    except BaseException as error:
        os.write(2, f"{place}: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def compare(out: Path, whole: Path) -> dict:
    """Say what is equal to a road taken in one go."""
    equal = {}
    for stage in ("sft", "grpo"):
        name = Path(stage, "adapter", "adapter_model.safetensors")
        equal[stage] = (out / name).read_bytes() == (whole / name).read_bytes()
        equal[f"{stage} clean"] = not list((out / stage).glob("checkpoints")) + list(
            (out / stage).glob("*.part")
        )
    steps = (out / "steps.txt").read_text().splitlines()
    once = (whole / "steps.txt").read_text().splitlines()
    equal["steps"] = set(steps) == set(once)
    equal["repeated"] = len(steps) - len(once)
    return equal


def main(folder: Path) -> None:
    """Take the road in one go, then with a kill at each place; print what came of it."""
    import torch

    from stlite.train import grpo  # noqa: F401  once, for all children

    torch.set_num_threads(1)
    whole = folder / "whole"
    assert start(whole) == 0
    for number, place in enumerate(PLACES):
        out = folder / str(number)
        ends = [start(out, *place), start(out)]
        print(json.dumps({"place": place, "ends": ends, **compare(out, whole)}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_between_or_inside_stages_nothing_is_lost_or_trained_twice(tmp_path):
    how = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=how, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"place"')]
    assert len(rows) == len(PLACES)
    for row in rows:
        assert row["ends"] == [-signal.SIGKILL, 0], row
        assert row["sft"] and row["grpo"] and row["steps"], row
        assert row["sft clean"] and row["grpo clean"], row
        # a step is taken again only where it was not in a checkpoint yet
        assert row["repeated"] == (row["place"][0] == "after a step"), row


if __name__ == "__main__":
    main(Path(sys.argv[1]))
