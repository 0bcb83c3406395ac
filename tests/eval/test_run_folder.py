"""run.json: what is refused, what gives way, and where the records of each adapter stand."""

import json
import os

import pytest
from answers import drawn, questions, seeing

from stlite.eval.evaluate import evaluate
from stlite.eval.records import join, read_records, shard
from stlite.eval.run_folder import (
    digest,
    fingerprint,
    locked,
    open_run,
    origin,
    read_run,
    records_path,
)


def run(out, samples=None, generate=None, **settings) -> list[dict]:
    return evaluate(
        samples or questions(6), generate or seeing(), out, settings=settings, progress=False
    )


def broken(samples, order):
    raise KeyError("pixel_values")


def must_not_be_asked(samples, order):
    raise AssertionError("nothing was to be asked")


def test_settings_without_records_give_way(tmp_path):
    with pytest.raises(KeyError):
        run(tmp_path, generate=broken, frames=8)
    records = run(tmp_path, frames=16)
    written = read_run(tmp_path)["evaluation"]
    assert (
        written["settings"]["frames"] == 16 and len(written["sessions"]) == 1 and len(records) == 6
    )
    assert written["hash"] == digest({"frames": 16, "order": "forward", "seed": 0})


def test_a_torn_line_is_no_record(tmp_path):
    run(tmp_path, frames=8)
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text()[:20])
    assert len(run(tmp_path, frames=16)) == 6


def test_other_settings_are_refused_before_anything_is_asked(tmp_path):
    run(tmp_path, frames=8, sampling={"temperature": 0.0, "top_p": 1.0})
    before = (tmp_path / "run.json").read_text(), (tmp_path / "records.jsonl").read_text()
    with pytest.raises(
        ValueError, match="settings: sampling temperature: asked for 1.0, found 0.0$"
    ):
        run(
            tmp_path,
            generate=must_not_be_asked,
            frames=8,
            sampling={"temperature": 1.0, "top_p": 1.0},
        )
    with pytest.raises(
        ValueError, match="frames: asked for None, found 8; sampling: asked for None"
    ):
        run(tmp_path, generate=must_not_be_asked)
    assert before == ((tmp_path / "run.json").read_text(), (tmp_path / "records.jsonl").read_text())
    run(tmp_path, generate=must_not_be_asked, frames=8, sampling={"temperature": 0.0, "top_p": 1.0})
    assert len(read_run(tmp_path)["evaluation"]["sessions"]) == 2


def test_records_stand_under_the_fingerprint_of_the_adapter(tmp_path):
    plain = run(tmp_path, generate=seeing(skill=0.2), frames=8)
    first = run(tmp_path, generate=seeing(skill=0.5), frames=8, adapter="aa")
    second = run(tmp_path, generate=seeing(skill=0.9), frames=4, adapter="bb")
    assert sorted(path.name for path in tmp_path.glob("records*")) == [
        "records-aa.jsonl", "records-bb.jsonl", "records.jsonl"
    ]  # fmt: skip
    assert read_records(tmp_path) == second and records_path(tmp_path).name == "records-bb.jsonl"
    assert run(tmp_path, generate=must_not_be_asked, frames=8, adapter="aa") == first
    assert read_records(tmp_path) == first
    assert run(tmp_path, generate=must_not_be_asked, frames=8) == plain == read_records(tmp_path)
    with pytest.raises(ValueError, match="frames: asked for 8, found 4"):
        run(tmp_path, generate=must_not_be_asked, frames=8, adapter="bb")
    assert {*read_run(tmp_path)["other_adapters"]} == {"records-aa.jsonl", "records-bb.jsonl"}
    assert len(read_run(tmp_path)["evaluation"]["sessions"]) == 2


def test_records_of_unknown_settings_are_refused(tmp_path):
    run(tmp_path, frames=8)
    (tmp_path / "run.json").unlink()
    with pytest.raises(
        ValueError, match=r"records\.jsonl: no run\.json says how these records were made"
    ):
        run(tmp_path, generate=must_not_be_asked, frames=8)


@pytest.mark.parametrize("broken", ["", '{"name": "x", ', "[]]"])
def test_a_broken_run_json_is_named(tmp_path, broken):
    (tmp_path / "run.json").write_text(broken)
    with pytest.raises(ValueError, match=r"run\.json: expected JSON, found"):
        run(tmp_path, generate=must_not_be_asked)


def test_what_training_wrote_stays(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"name": "x", "training": {"made_by": {"seed": 7}}})
    )
    run(tmp_path, model="tiny", adapter="aa")
    assert read_run(tmp_path)["training"] == {"made_by": {"seed": 7}}
    said = origin(tmp_path)
    assert (
        "training seed 7" in said
        and "adapter aa" in said
        and "model tiny" in said
        and "order forward" in said
    )
    assert origin(records_path(tmp_path)) == said
    (tmp_path / "none").mkdir()
    assert "not recorded" in origin(tmp_path / "none")


def test_shards_of_an_adapter_are_joined_under_its_fingerprint(tmp_path):
    samples = questions(5)
    for rank in range(2):
        run(shard(tmp_path, rank, 2), samples[rank::2], adapter="aa")
    (tmp_path / "run.json").write_text('{"name": "x", "training": {}}')
    assert join(samples, tmp_path, 2)
    assert (tmp_path / "records-aa.jsonl").exists() and "training" in read_run(tmp_path)
    assert [r["id"] for r in read_records(tmp_path)] == [s.id for s in samples]
    assert len(run(tmp_path, samples, must_not_be_asked, adapter="aa")) == 5


def test_the_fingerprint_goes_by_the_weights(tmp_path):
    for name, weights in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(weights)
    names = [fingerprint(tmp_path / name) for name in "abc"]
    assert (
        names[0] == names[2] == "6b86b273ff34fce1" != names[1]
    )  # sha256 of "1", as sha256sum prints it
    with pytest.raises(FileNotFoundError):
        fingerprint(tmp_path)


def test_a_folder_is_one_processs(tmp_path):
    with locked(tmp_path / "new"):
        child = os.fork()
        if child == 0:
            try:
                with locked(tmp_path / "new"):
                    os._exit(1)
            except ValueError:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with locked(tmp_path / "new"):
        pass


def test_settings_are_compared_as_json_holds_them(tmp_path):
    keys = {r["id"]: "k" for r in drawn(1)}
    path = open_run(tmp_path, keys, 8, {"size": (1, 2), "order": "forward"})
    path.write_text("{}\n")
    assert open_run(tmp_path, keys, 4, {"order": "forward", "size": [1, 2]}) == path
    sessions = read_run(tmp_path)["evaluation"]["sessions"]
    assert [s["batch"] for s in sessions] == [8, 4] and sessions[0]["samples"] == 6
    assert sessions[0]["samples_hash"] == digest(keys) and "python" in sessions[0]["versions"]
