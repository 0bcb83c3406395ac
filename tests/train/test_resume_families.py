"""Resume in every family, plain and in 4 bits: a run killed after a step ends at the very weights of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = ("qwen2", "qwen2.5", "qwen3", "qwen3.5")
RUNS = [("sft", "plain"), ("grpo", "packed")]
if os.environ.get("STLITE_SEARCH"):  # `make soak`
    RUNS += [("sft", "packed"), ("grpo", "plain")]
COMMON = {"max_steps": 3, "save_steps": 1, "disable_tqdm": True, "learning_rate": 1e-2, "lora": "paper",
          "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}  # fmt: skip
GROUP = {"num_generations": 2, "max_completion_length": 4, "temperature": 1.5, "parity": False}


def mixed(completions, **kwargs) -> list[float]:
    """Reward something that differs between rollouts."""
    return [sum(map(ord, c[-1]["content"])) % 7 / 7 for c in completions]


def run(stage: str, source: Path, four_bit: bool, out: Path, dies: bool) -> None:
    """Take three steps of a stage with small clips and dropout; killed before the third."""
    from transformers import TrainerCallback

    from stlite.data.egost import read_rows
    from stlite.train.grpo import grpo
    from stlite.train.models import load
    from stlite.train.sft import sft

    class Die(TrainerCallback):
        """Kill this process once two steps are saved."""

        def on_step_begin(self, args, state, control, **kwargs):
            """Send SIGKILL."""
            if dies and state.global_step == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    rows = list(read_rows(ROOT / "sample_data" / "train" / "total_test_mcq_63.jsonl"))[:4]
    how = {"videos": ROOT / "sample_data" / "videos", "callbacks": [Die()], **COMMON}
    if stage == "grpo":
        how |= {"rewards": [mixed], **GROUP}
    model, processor = load(str(source), four_bit=four_bit, frames=4, max_pixels=64 * 64)
    {"sft": sft, "grpo": grpo}[stage](model, processor, rows, out, **how)


def start(*arguments) -> int:
    """Run in a child that has this process's imports; return how it ended, as `os.waitpid` says."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        run(*arguments)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def kill_and_resume(kind: str, folder: Path) -> dict:
    """Return, of stages with plain and packed weights, how their three runs ended and whether their weights are equal."""
    import torch
    from random_models import architecture

    from stlite.train import grpo, sft  # noqa: F401  once, for all children

    torch.set_num_threads(1)
    source = architecture(kind, folder)
    results = {}
    for stage, weights in RUNS:
        name = f"{stage}-{weights}"
        four_bit = weights == "packed"
        whole, parted = folder / name / "whole", folder / name / "parted"
        ends = [start(stage, source, four_bit, whole, False)]
        ends.append(start(stage, source, four_bit, parted, True))
        left = sorted(path.name for path in (parted / "checkpoints").glob("checkpoint-*"))
        ends.append(start(stage, source, four_bit, parted, False))
        saved = "adapter/adapter_model.safetensors"
        equal = (whole / saved).read_bytes() == (parted / saved).read_bytes()
        results[name] = {"ends": ends, "left": left, "equal": equal}
    return results


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_at_the_same_weights(kind, tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    how = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "STLITE_CACHE": str(tmp_path / "cache")}  # fmt: skip
    command = [sys.executable, __file__, kind, str(tmp_path)]
    done = subprocess.run(command, env=how, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == len(RUNS)
    for name, result in results.items():
        assert result["ends"] == [0, signal.SIGKILL, 0], (name, done.stderr[-3000:])
        assert result["left"] == ["checkpoint-1", "checkpoint-2"], name
        assert result["equal"], name


if __name__ == "__main__":
    print(json.dumps(kill_and_resume(sys.argv[1], Path(sys.argv[2]))))
