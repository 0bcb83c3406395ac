"""Records: what one holds, which belong to a sample, and what `retry` lets go."""

from dataclasses import replace

import pytest
from answers import questions, seeing

from stlite.data.sample import Sample
from stlite.eval.evaluate import evaluate, sample_keys
from stlite.eval.records import append, read_records, record, resume


def answer(samples, order) -> list[dict]:
    return [{"reply": f"<answer>{s.answer}</answer>", "tokens": 1} for s in samples]


def run(samples, out, generate=answer, **options) -> list[dict]:
    return evaluate(samples, generate, out, progress=False, **options)


CHANGES = [
    {"answer": "D"},
    {"options": ("gate", "bridge", "door", "sofa")},
    {"question": "Which one?"},
    {"video": "other.mp4"},
    {"way": "reverse"},
    {"task": "action"},
    {"group": "another"},
    {"steps_forward": ("turn left",)},
    {"part": "part1"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_whatever_is_asked_belongs_to_the_key(tmp_path, change):
    """A record of another gold answer or other options under the same id is another question's."""
    samples = [replace(questions(1)[0], options=("gate", "bridge", "door", "tree"))]
    run(samples, tmp_path)
    assert samples[0].answer == "A" and samples[0].way == "forward"
    with pytest.raises(ValueError, match="sample 'q0' is not the one recorded here"):
        run([replace(samples[0], **change)], tmp_path)
    assert run([replace(samples[0], origin="moved.jsonl:9")], tmp_path)


def test_an_id_comes_once():
    with pytest.raises(ValueError, match="expected each id once, found 'q1' again"):
        sample_keys([*questions(3), questions(2)[1]])


def test_retry_keeps_the_records_of_samples_that_are_not_asked_for(tmp_path):
    def reading(samples, order):
        return [
            {"error": "gone"} if s.id in ("q1", "q4") else r
            for s, r in zip(samples, answer(samples, order))
        ]

    run(questions(6), tmp_path, reading)
    run(questions(3), tmp_path, retry=True)
    kept = {r["id"]: r["reason"] for r in read_records(tmp_path)}
    assert kept == {
        "q0": "right",
        "q1": "right",
        "q2": "right",
        "q3": "right",
        "q4": "failed",
        "q5": "right",
    }
    run(questions(6), tmp_path)
    assert {r["id"]: r["reason"] for r in read_records(tmp_path)} == kept
    run(questions(6), tmp_path, retry=True)
    assert {r["reason"] for r in read_records(tmp_path)} == {"right"} and len(
        read_records(tmp_path)
    ) == 6


def test_resume_returns_what_was_asked_for_and_cuts_a_torn_line(tmp_path):
    path = tmp_path / "records.jsonl"
    assert resume(path, {"a": "1"}) == {} and path.exists()
    rows = [{"id": "a", "key": "1", "reason": "right"}, {"id": "b", "key": "2", "reason": "failed"}]
    append(path, rows)
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.write(b'{"id": "c"')
    assert resume(path, {"a": "1", "c": "3"}) == {"a": rows[0]}
    assert path.read_bytes() == whole
    assert resume(path, {"a": "1", "b": "2"}) == {"a": rows[0], "b": rows[1]}
    assert resume(path, {"a": "1", "b": "2"}, retry=True) == {"a": rows[0]}
    assert read_records(path) == rows[:1]


def test_a_record_of_a_choice_and_of_a_failure():
    (sample,) = questions(1)
    made = record(
        sample, {"reply": f"<answer>{sample.answer}</answer>", "tokens": 7}, "reversed", 0.12345678
    )
    assert (made["value"], made["reason"], made["answer"], made["gold"]) == (1.0, "right", "A", "A")
    assert (made["tokens"], made["order"], made["error"]) == (7, "reversed", "")
    assert made["seconds"] == pytest.approx(0.1235) and made["options"] == list(sample.options)
    assert made["group"] == "w0" and "route" not in made
    failed = record(sample, {"error": "gone"})
    assert (failed["value"], failed["reason"], failed["answer"], failed["error"]) == (
        0.0,
        "failed",
        "",
        "gone",
    )
    assert (failed["reply"], failed["tokens"]) == ("", 0)


def test_a_route_that_failed_scores_nothing_of_what_the_annotation_has():
    route = Sample("r", "a.mp4", "route", "forward", "How?", "Turn left at the gate.")
    right = record(route, {"reply": "<answer>Turn left at the gate.</answer>"})["route"]
    assert "value" not in right and right["direction"] == pytest.approx(1.0)
    failed = record(route, {"error": "gone"})["route"]
    assert failed == {name: None if value is None else 0.0 for name, value in right.items()}


def test_a_full_disk_is_raised_and_the_next_call_goes_on(tmp_path, monkeypatch):
    """The real write fails: the file may grow by so many bytes only."""
    import resource
    import signal

    run(questions(2), tmp_path)
    size = (tmp_path / "records.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size + 100, 2000), limits[1]))
    try:
        with pytest.raises(OSError):
            run(questions(40), tmp_path, batch=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert all(r["reason"] == "right" for r in read_records(tmp_path))
    assert len(run(questions(40), tmp_path)) == 40


def test_skill_is_seen(tmp_path):
    assert sum(r["value"] for r in run(questions(60), tmp_path, seeing(skill=1.0))) == 60
