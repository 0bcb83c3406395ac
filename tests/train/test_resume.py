"""Resume: kill -9 at random moments, half-written checkpoints, generations cut in two, other settings, the stop button."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("STLITE_KILLS", "5"))
HOW = {
    "videos": ROOT / "sample_data" / "videos",
    "save_steps": 1,
    "disable_tqdm": True,
    "learning_rate": 1e-2,
}
SFT = {
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "lora": "paper",
}
GRPO = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "steps_per_generation": 2,
        "num_generations": 2, "max_completion_length": 6, "temperature": 1.5}  # fmt: skip


def mixed(completions, **kwargs) -> list[float]:
    """Reward something that differs between rollouts."""
    return [sum(map(ord, c[-1]["content"])) % 7 / 7 for c in completions]


def run(stage: str, out: Path, **more) -> None:
    """Train the tiny model in float32 on four samples: SFT with dropout, over epochs; GRPO with two steps a generation."""
    from stlite.data.egost import read_rows
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.sft import sft

    rows = list(read_rows(ROOT / "sample_data" / "train" / "total_test_mcq_63.jsonl"))[:4]
    if stage == "sft":
        sft(*load("tiny", four_bit=False), rows, out, **HOW | SFT | more)
    else:
        grpo(
            *load("tiny", four_bit=False),
            rows,
            out,
            rewards=[mixed],
            parity=False,
            **HOW | GRPO | more,
        )


def start(stage: str, out: Path) -> int:
    """Train in a child that has this process's imports; return its id."""
    if child := os.fork():
        return child
    try:
        os.environ["STLITE_CACHE"] = str(
            out / "cache"
        )  # each run sees its videos for the first time
        run(stage, out)
    except BaseException as error:
        os.write(2, f"{stage}: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def kill(stage: str, out: Path, moment: float, writing: bool) -> tuple[bool, bool]:
    """Kill a run after `moment` seconds, or as soon after a new checkpoint is begun: (was it killed, is one torn)."""
    from stlite.train.checkpoints import is_whole

    folder = out / "checkpoints"
    before = {p.name for p in folder.glob("checkpoint-*")}
    child = start(stage, out)
    while writing and not {p.name for p in folder.glob("checkpoint-*")} - before:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False, False
        time.sleep(0.0005)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return killed, not all(is_whole(p) for p in folder.glob("checkpoint-*"))


def soak(stage: str, folder: Path) -> dict:
    """Kill runs KILLS times, five to a run; compare each run's end with an uninterrupted one's."""
    import torch

    from stlite.train import grpo  # noqa: F401  once, for all children

    torch.set_num_threads(1)
    rng, begun = random.Random(8), time.monotonic()
    assert os.waitpid(start(stage, folder / "whole"), 0)[1] == 0
    length, seen = (
        time.monotonic() - begun,
        {"killed": 0, "torn": 0, "runs": 0, "equal": 0, "files": []},
    )
    whole = (folder / "whole" / "adapter" / "adapter_model.safetensors").read_bytes()
    while seen["killed"] < KILLS:
        out = folder / f"run-{seen['runs']}"
        for turn in range(5):
            writing = turn % 2 == 1
            killed, torn = kill(stage, out, rng.random() * (0.03 if writing else length), writing)
            seen["killed"], seen["torn"] = seen["killed"] + killed, seen["torn"] + torn
            if not killed:
                break
        assert os.waitpid(start(stage, out), 0)[1] == 0
        seen["runs"] += 1
        seen["equal"] += (out / "adapter" / "adapter_model.safetensors").read_bytes() == whole
    seen["files"] = sorted(p.name for p in (out / "adapter").iterdir())
    return seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_kill_9_at_any_moment_changes_nothing_in_the_end(stage, tmp_path):
    how = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, stage, str(tmp_path)], env=how, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["killed"] >= KILLS
    assert seen["equal"] == seen["runs"]
    assert {"adapter_model.safetensors", "processor_config.json", "tokenizer.json"} <= set(
        seen["files"]
    )


class Stop:
    """Press the stop button in the middle of a step, and keep a copy of the checkpoints as they then are."""

    def __new__(cls, step: int):
        from transformers import TrainerCallback

        def press(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

        return type(
            "Stop", (TrainerCallback,), {"on_pre_optimizer_step": press, "on_step_begin": press}
        )()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Stop a GRPO run in its fourth step, the second of a generation, with a checkpoint asked for after every step."""
    out = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        run("grpo", out, callbacks=[Stop(5)])
    return out


def test_a_generation_is_never_cut_in_two(stopped):
    names = {p.name for p in (stopped / "checkpoints").glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-4"}
    for name in names:
        files = {p.name for p in (stopped / "checkpoints" / name).iterdir()}
        assert {"adapter_model.safetensors", "processor_config.json", "tokenizer.json"} <= files


@pytest.mark.parametrize("part", ["adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt",
                                  "trainer_state.json", "processor_config.json"])  # fmt: skip
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_half_written_checkpoint_is_passed_over(stopped, tmp_path, part, damage):
    from stlite.train.checkpoints import last_checkpoint

    shutil.copytree(stopped / "checkpoints", tmp_path / "checkpoints")
    assert last_checkpoint(tmp_path).endswith("checkpoint-4")
    torn = tmp_path / "checkpoints" / "checkpoint-4" / part
    if damage == "cut":
        os.truncate(torn, torn.stat().st_size // 2)
    else:
        torn.unlink()
    assert last_checkpoint(tmp_path).endswith("checkpoint-2")


def test_a_run_of_other_settings_is_not_gone_on_with(stopped):
    with pytest.raises(
        ValueError, match=r"begun with other learning_rate \(0.01 then, 0.001 now\); use another"
    ):
        run("grpo", stopped, learning_rate=1e-3)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_the_stop_button_saves_and_changes_nothing_in_the_end(stage, tmp_path):
    once, parted = tmp_path / "once", tmp_path / "parted"
    run(stage, once, save_strategy="no")
    with pytest.raises(KeyboardInterrupt):
        run(stage, parted, save_strategy="no", callbacks=[Stop(4)])
    assert [p.name for p in (parted / "checkpoints").glob("check*")] == ["checkpoint-4"]
    run(stage, parted, save_strategy="no")
    name = "adapter/adapter_model.safetensors"
    assert (once / name).read_bytes() == (parted / name).read_bytes()
    assert not (parted / "checkpoints").exists()


if __name__ == "__main__":
    print(json.dumps(soak(sys.argv[1], Path(sys.argv[2]))))
