"""Evaluation: what is written, what is asked again, and what a kill -9 leaves behind."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stlite.__main__ import main
from stlite.data.sample import Sample, write_jsonl
from stlite.eval.evaluate import evaluate, questions
from stlite.eval.records import read_records

DATA = Path(__file__).parents[2] / "sample_data"
KILLS = int(os.environ.get("STLITE_KILLS", "5"))
HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
KEYS = {
    "id",
    "task",
    "way",
    "kind",
    "part",
    "video",
    "group",
    "gold",
    "options",
    "reply",
    "answer",
    "value",
}
KEYS |= {"reason", "explanation", "tokens", "seconds", "order", "error", "key"}


def sums(n: int) -> list[Sample]:
    """Questions that a function can answer from their text alone: which option is 3 + 4?"""
    made = []
    for i in range(n):
        rng = random.Random(i)
        a, b, places = rng.randint(1, 50), rng.randint(1, 50), rng.sample(range(4), 4)
        options = tuple(str(a + b + place) for place in places)
        task, way = ("direction", "landmark", "action")[i % 3], ("forward", "reverse")[i % 2]
        question = f"Which is {a} + {b}?"
        made.append(
            Sample(
                f"q{i}",
                f"w{i // 6}.mp4",
                task,
                way,
                question,
                "ABCD"[places.index(0)],
                options,
                group=f"w{i // 6}",
            )
        )
    return made


def add(samples: list[Sample], order: str) -> list[dict]:
    """Answer by adding, wrongly where the sum ends in 7, without an answer where it ends in 3."""
    replies = []
    for sample in samples:
        total = sum(map(int, re.findall(r"\d+", sample.question)))
        right = sample.options.index(str(total))
        letter = "ABCD"[right if total % 10 != 7 else right - 1]
        replies.append(
            f"<think>{total}</think> "
            + (f"<answer>{letter}</answer>" if total % 10 != 3 else "I stop.")
        )
    return [{"reply": reply, "tokens": len(reply.split())} for reply in replies]


def slowly(samples: list[Sample], order: str) -> list[dict]:
    time.sleep(0.004 * len(samples))
    return add(samples, order)


def run(samples, generate, out, **options) -> list[dict]:
    return evaluate(samples, generate, out, progress=False, **options)


def timeless(records: list[dict]) -> list[dict]:
    """Leave out the one field that is a measurement."""
    return sorted(
        ({k: v for k, v in r.items() if k != "seconds"} for r in records), key=lambda r: r["id"]
    )


def test_records_say_what_happened_in_the_order_of_the_samples(tmp_path):
    samples = sums(40)
    records = run(samples, add, tmp_path / "a", settings={"frames": 8}, batch=7)
    assert [r["id"] for r in records] == [s.id for s in samples]
    assert records == read_records(tmp_path / "a")
    assert set(records[0]) == KEYS
    for sample, r in zip(samples, records):
        last = int(re.search(r"\d+", r["reply"])[0]) % 10
        assert r["reason"] == {3: "absent", 7: "wrong"}.get(last, "right")
        assert r["value"] == (r["reason"] == "right") and r["gold"] == sample.answer
        assert (r["answer"] == r["gold"]) == (r["reason"] == "right") and r["tokens"] > 0


def test_run_json_keeps_what_training_wrote_and_notes_each_session(tmp_path):
    (tmp_path / "run.json").write_text('{"name": "x", "recipe": "st-r1"}')
    for _ in range(2):
        run(sums(5), add, tmp_path, settings={"frames": 8}, seed=3)
    written = json.loads((tmp_path / "run.json").read_text())
    evaluation = written["evaluation"]
    assert written["recipe"] == "st-r1" and evaluation["settings"] == {
        "frames": 8,
        "order": "forward",
        "seed": 3,
    }
    assert len(evaluation["sessions"]) == 2 and "numpy" in evaluation["sessions"][0]["versions"]


def test_resuming_asks_only_what_is_missing(tmp_path):
    asked = []

    def counting(samples, order):
        asked.extend(s.id for s in samples)
        return add(samples, order)

    first = run(sums(10), counting, tmp_path)
    more = run(sums(25), counting, tmp_path)
    assert asked == [s.id for s in sums(25)] and more[:10] == first
    assert run(sums(4), counting, tmp_path) == first[:4] and len(asked) == 25
    assert len(read_records(tmp_path)) == 25


def test_other_settings_are_refused_by_name(tmp_path):
    run(sums(3), add, tmp_path, settings={"frames": 8, "model": {"name": "tiny"}})
    with pytest.raises(ValueError, match="model name: asked for .big., found .tiny."):
        run(sums(3), add, tmp_path, settings={"frames": 8, "model": {"name": "big"}})
    with pytest.raises(ValueError, match="order: asked for 'blank', found 'forward'"):
        run(
            sums(3), add, tmp_path, settings={"frames": 8, "model": {"name": "tiny"}}, order="blank"
        )
    assert len(read_records(tmp_path)) == 3


def test_a_changed_sample_and_a_doubled_id_are_refused(tmp_path):
    samples = sums(3)
    run(samples, add, tmp_path)
    with pytest.raises(ValueError, match="sample 'q1' is not the one recorded"):
        run([samples[0], replace(samples[1], question="Which is 1 + 1?")], add, tmp_path)
    assert run([replace(s, origin="moved.jsonl:1") for s in samples], add, tmp_path)
    with pytest.raises(ValueError, match="'q0' again"):
        run([samples[0], samples[0]], add, tmp_path / "b")


def test_one_bad_video_does_not_fail_its_neighbours(tmp_path):
    def reading(samples, order):
        if bad := [s for s in samples if s.id in ("q3", "q9")]:
            raise OSError(f"{bad[0].video}: moov atom not found")
        return add(samples, order)

    records = run(sums(12), reading, tmp_path, batch=6)
    failed = [r for r in records if r["reason"] == "failed"]
    assert [r["id"] for r in failed] == ["q3", "q9"] and len(records) == 12
    assert failed[0]["error"] == "OSError: w0.mp4: moov atom not found" and failed[0]["value"] == 0
    whole = run(sums(12), add, tmp_path / "whole")
    assert timeless(r for r in records if r not in failed) == timeless(
        r for r in whole if r["id"] not in ("q3", "q9")
    )
    again = run(sums(12), add, tmp_path, retry=True)
    assert timeless(again) == timeless(whole) == timeless(read_records(tmp_path))


def test_a_line_torn_at_any_byte_is_asked_again(tmp_path):
    whole = run(sums(4), add, tmp_path)
    path = tmp_path / "records.jsonl"
    data = path.read_bytes()
    last = data[:-1].rfind(b"\n") + 1
    for cut in [
        last,
        last + 1,
        *random.Random(0).sample(range(last, len(data)), 10),
        len(data) - 1,
    ]:
        path.write_bytes(data[:cut])
        assert len(read_records(tmp_path)) == 3
        assert (
            timeless(run(sums(4), add, tmp_path))
            == timeless(whole)
            == timeless(read_records(tmp_path))
        )


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    run(sums(4), add, tmp_path)
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    for bad in ("{]\n", "[1]\n", "{}\n", lines[0], "[" * 100_000 + "\n"):
        (tmp_path / "records.jsonl").write_text("".join([lines[0], bad, *lines[2:]]))
        with pytest.raises(
            ValueError, match=r"records\.jsonl:2: expected a record with an id of its own"
        ):
            run(sums(4), add, tmp_path)


def test_any_text_survives_the_file(tmp_path):
    replies = ["half a pair \ud83d", "line\u2028end\r\n", "\0", "答案是B", "</script>"]
    records = run(
        sums(5), lambda samples, order: [{"reply": r, "tokens": 1} for r in replies], tmp_path
    )
    assert [r["reply"] for r in read_records(tmp_path)] == replies == [r["reply"] for r in records]


def test_two_processes_do_not_write_one_run(tmp_path):
    def meddling(samples, order):
        with pytest.raises(ValueError, match="another process is writing"):
            run(sums(2), add, tmp_path)
        return add(samples, order)

    assert [r["error"] for r in run(sums(2), meddling, tmp_path)] == ["", ""]


def test_the_bar_tells_the_running_accuracy(tmp_path, capsys):
    records = evaluate(sums(20), add, tmp_path, batch=5)
    accuracy = 100 * sum(r["value"] for r in records) / 20
    assert f"accuracy {accuracy:.1f} %, failed 0" in capsys.readouterr().err


def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path):
    total, rng = 40 * KILLS, random.Random(7)
    path, landed = tmp_path / "killed" / "records.jsonl", []
    for kill in range(KILLS):
        child = subprocess.Popen([sys.executable, __file__, str(path.parent), str(total)], env=HERE)
        least = total * kill // KILLS + rng.randint(1, 20)
        while child.poll() is None and (
            not path.exists() or path.read_bytes().count(b"\n") < least
        ):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        child.send_signal(signal.SIGKILL)
        landed.append(child.wait() == -signal.SIGKILL)
    assert all(landed) and len(read_records(path)) < total
    finished = run(sums(total), slowly, path.parent)
    assert len(read_records(path)) == total
    assert (
        timeless(read_records(path))
        == timeless(finished)
        == timeless(run(sums(total), add, tmp_path / "whole"))
    )


def test_routes_say_what_their_value_is_made_of(tmp_path):
    text = "Turn left at the gate, then turn right at the bridge."
    route = Sample("r", "part1/w0_preview_rgb_2.mp4", "route", "forward", "How?", text)
    samples = [route, replace(route, id="s"), replace(route, id="t")]
    replies = [
        f"<answer>{text}</answer>",
        "<answer>Turn right at the gate.</answer>",
        "<think>I am still",
    ]
    right, wrong, cut = run(
        samples, lambda samples, order: [{"reply": r, "tokens": 9} for r in replies], tmp_path
    )
    assert right["value"] == 1 == right["route"]["direction"] and right["group"] == "w0"
    assert 0 < wrong["route"]["landmark_recall"] < 1 and wrong["route"]["direction"] < 1
    assert cut["reason"] == "truncated" and cut["route"] == right["route"] | {
        k: 0.0 for k, v in right["route"].items() if v is not None
    }


def test_questions_of_every_format_are_read(tmp_path):
    folder, bad = questions(DATA / "benchmark", DATA / "videos")
    assert len(folder) > 100 and not bad
    write_jsonl(folder[:3], tmp_path / "samples.jsonl")
    assert [s.id for s in questions(tmp_path / "samples.jsonl")[0]] == [s.id for s in folder[:3]]
    rows, bad = questions(DATA / "train" / "total_test_mcq_63.jsonl", DATA / "videos")
    assert len(rows) == 63 and not bad
    (tmp_path / "rows.jsonl").write_text('{"problem": "Why?", "video": "a.mp4"}\n')
    assert "rows.jsonl:1" in str(questions(tmp_path / "rows.jsonl")[1][0])


def test_the_command_evaluates_the_tiny_model(tmp_path, capsys):
    samples, _ = questions(DATA / "benchmark", DATA / "videos")
    samples = [
        replace(samples[0], video="part1/gone.mp4", id="gone"),
        *(s for s in samples if s.kind == "choice"),
    ]
    data = write_jsonl(samples[:4], tmp_path / "samples.jsonl")
    command = [
        "evaluate",
        "--data",
        data,
        "--videos",
        DATA / "videos",
        "--out",
        tmp_path / "run",
        "--batch",
        4,
        "--tokens",
        64,
    ]
    main([str(word) for word in command])
    records, run_json = (
        read_records(tmp_path / "run"),
        json.loads((tmp_path / "run" / "run.json").read_text()),
    )
    assert [r["reason"] == "failed" for r in records] == [
        True,
        False,
        False,
        False,
    ] and "gone" in records[0]["error"]
    assert all(r["reply"] and 0 < r["tokens"] <= 64 for r in records[1:])
    assert (
        run_json["evaluation"]["settings"]["frames"] == 16
        and "stlite report" in capsys.readouterr().out
    )
    sampling = run_json["evaluation"]["settings"]["sampling"]
    plain = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "do_sample": False}
    assert (
        sampling.items() >= {**plain, "max_new_tokens": 64, "num_beams": 1, "direct": False}.items()
    )
    with pytest.raises(
        ValueError,
        match="sampling max_new_tokens: asked for 32, found 64",
    ):
        main([str(word) for word in [*command[:-1], 32]])
    with pytest.raises(SystemExit):
        main(
            [
                str(word)
                for word in [*command[:3], "--videos", tmp_path / "none", "--out", tmp_path / "b"]
            ]
        )


if __name__ == "__main__":
    evaluate(sums(int(sys.argv[2])), slowly, Path(sys.argv[1]), batch=3, progress=False)
