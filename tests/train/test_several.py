"""Several processes: the loss of one process at equal batch, files written once, shards joined, configurations read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from safetensors.torch import load_file

from stlite.data.egost import read_rows
from stlite.eval.evaluate import evaluate
from stlite.eval.records import join, read_records, shard

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "stlite" / "train" / "accelerate"
HOW = [
    "--no-four-bit",
    "gradient_accumulation_steps=1",
    "max_steps=3",
    "disable_tqdm=True",
    "learning_rate=1e-3",
]


def launch(command: str, processes: int, *arguments: str | Path) -> str:
    """Run one of the package's commands, plainly or under `accelerate launch`, with one thread each."""
    start = [sys.executable, "-m", "stlite"]
    if processes > 1:
        config = [
            "--config_file",
            CONFIGS / "ddp.yaml",
            "--num_processes",
            str(processes),
            "--main_process_port",
            "0",
        ]
        start = [sys.executable, "-m", "accelerate.commands.launch", *config, "-m", "stlite"]
    data = [
        "--data",
        ROOT / "sample_data/train/total_test_mcq_63.jsonl",
        "--videos",
        ROOT / "sample_data/videos",
    ]
    how = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*start, command, *arguments, *data], cwd=ROOT, env=how, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_give_the_loss_of_one(tmp_path):
    for processes, batch in ((1, 4), (2, 2)):
        out = tmp_path / str(processes)
        launch(
            "sft",
            processes,
            "--out",
            out,
            *HOW,
            f"per_device_train_batch_size={batch}",
        )
    one, two = (
        [
            row["loss"]
            for row in json.loads((tmp_path / n / "log.json").read_text())
            if "loss" in row
        ]
        for n in "12"
    )
    assert len(one) == 3 and len({round(loss, 3) for loss in one}) > 1
    assert two == pytest.approx(one, rel=1e-4)
    weights = [load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in "12"]
    assert all(abs(weights[0][name] - weights[1][name]).max() < 1e-4 for name in weights[0])


def test_grpo_on_two_processes_writes_its_files_once(tmp_path):
    launch("grpo", 2, "--out", tmp_path, *HOW, "per_device_train_batch_size=2", "num_generations=2",
           "max_completion_length=8", "temperature=1.5")  # fmt: skip
    files = sorted((tmp_path / "completions").iterdir())
    assert [f.name for f in files] == [f"completions_0000{step}.parquet" for step in (1, 2, 3)]
    assert all(
        len(pandas.read_parquet(f)) == 4 and pandas.read_parquet(f)["id"].nunique() == 2
        for f in files
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "adapter",
        "completions",
        "log.json",
        "run.json",
    ]


def test_shards_are_joined_once_all_have_answered(tmp_path):
    samples = list(read_rows(ROOT / "sample_data/train/total_test_mcq_63.jsonl"))[:7]

    def answer(samples, order):
        return [{"reply": f"<answer>{s.answer}</answer>", "tokens": 1} for s in samples]

    for rank in (2, 0):
        evaluate(samples[rank::3], answer, shard(tmp_path, rank, 3), progress=False)
        assert not join(samples, tmp_path, 3)
    evaluate(
        samples[1:2], answer, shard(tmp_path, 1, 3), progress=False
    )  # stopped before its second
    assert not join(samples, tmp_path, 3)
    assert not (tmp_path / "records.jsonl").exists()
    evaluate(samples[1::3], answer, shard(tmp_path, 1, 3), progress=False)
    assert join(samples, tmp_path, 3)
    assert [r["id"] for r in read_records(tmp_path)] == [s.id for s in samples]
    evaluate(
        samples, None, tmp_path, progress=False
    )  # a run like any other: nothing is asked again


def test_evaluate_on_two_processes_gives_the_records_of_one(tmp_path):
    for processes in (1, 2):
        how = ["--no-four-bit", "--limit", "5", "--tokens", "8", "--out", tmp_path / str(processes)]
        assert "written:" in launch("evaluate", processes, *how)
    one, two = ([{**r, "seconds": 0} for r in read_records(tmp_path / n)] for n in "12")
    assert one == two


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_takes_each_configuration(name):
    from accelerate.commands import launch as launcher

    parsed = launcher.launch_command_parser().parse_args(
        ["--config_file", str(CONFIGS / f"{name}.yaml"), "-m", "stlite"]
    )
    args, defaults, _ = launcher._validate_launch_command(parsed)
    assert (args.multi_gpu, args.use_fsdp, args.use_deepspeed) == (
        name == "ddp",
        name == "fsdp",
        name == "deepspeed",
    )
    assert defaults.num_processes == args.num_processes == 2
