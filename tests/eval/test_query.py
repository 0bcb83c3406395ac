"""Which errors are a sample's, a record with value 0, and which a broken program's, raised at once."""

import errno
import threading
import time
from functools import partial

import pytest
from answers import questions

from stlite.data.sample import SampleError
from stlite.data.video import ClipError
from stlite.eval.evaluate import ask, evaluate, failures_allowed
from stlite.eval.query import checked, is_out_of_memory, query, sampling_of, time_limit
from stlite.eval.records import read_records


def answer(samples, order) -> list[dict]:
    return [{"reply": f"<answer>{s.answer}</answer>", "tokens": 1} for s in samples]


def failing(error, bad=("q3",)):
    """Make a model that raises when it meets a bad sample."""

    def generate(samples, order):
        if any(s.id in bad for s in samples):
            raise error
        return answer(samples, order)

    return generate


def run(samples, generate, out, **options) -> list[dict]:
    return evaluate(samples, generate, out, progress=False, **options)


SAMPLE_ERRORS = [
    ClipError("a.mp4", "pyav", "moov atom not found"),
    SampleError("rows.jsonl:1", "video", "a path", "/etc"),
    FileNotFoundError(errno.ENOENT, "no such file", "a.mp4"),
    PermissionError(errno.EACCES, "not yours", "a.mp4"),
    OSError("cannot decode"),
    TimeoutError("no reply within 5 s"),
]


@pytest.mark.parametrize("error", SAMPLE_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_one_sample_is_a_record_and_its_neighbours_are_answered(tmp_path, error):
    records = run(questions(12), failing(error), tmp_path, batch=6)
    assert [r["id"] for r in records if r["reason"] == "failed"] == ["q3"]
    assert records[3]["error"] == f"{type(error).__name__}: {error}" and records[3]["value"] == 0
    assert sum(r["value"] for r in records) == 11


PROGRAM_ERRORS = [
    KeyError("pixel_values"),
    TypeError("generate() got an unexpected keyword argument 'order'"),
    AttributeError("'NoneType' object has no attribute 'shape'"),
    NameError("name 'model' is not defined"),
    IndexError("index out of range"),
    ValueError("features and tokens do not match"),
    ZeroDivisionError("division by zero"),
    AssertionError(),
    NotImplementedError(),
    ImportError("no module named x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RecursionError(),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.EMFILE, "Too many open files"),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize(
    "error", PROGRAM_ERRORS, ids=lambda error: f"{type(error).__name__}-{error}"
)
def test_an_error_of_the_program_is_raised_and_what_was_answered_stays(tmp_path, error, batch):
    with pytest.raises(type(error)) as raised:
        run(questions(12), failing(error, ["q7"]), tmp_path, batch=batch)
    assert raised.value is error
    kept = read_records(tmp_path)
    assert [r["id"] for r in kept] == [f"q{i}" for i in range(7 if batch == 1 else 6)]
    assert all(r["reason"] == "right" for r in kept)
    if isinstance(error, Exception):
        assert "q7" in error.__notes__[-1]
        error.__notes__.clear()
    assert len(run(questions(12), answer, tmp_path)) == 12


def test_a_generate_without_order_is_raised(tmp_path):
    with pytest.raises(TypeError, match="order"):
        run(questions(4), lambda samples: answer(samples, ""), tmp_path)
    assert read_records(tmp_path) == []


WRONG = [
    (None, "a list of dictionaries, found NoneType"),
    ("text", "a list of dictionaries, found str"),
    ({"reply": "x"}, "a list of dictionaries, found dict"),
    ([], "expected 2 results, one per sample, found 0"),
    ([{"reply": "x"}], "expected 2 results, one per sample, found 1"),
    ([{"reply": "x"}] * 3, "expected 2 results, one per sample, found 3"),
    (["x", "y"], "a dictionary with 'reply' or 'error', found 'x'"),
    ([{"reply": "x"}, {"text": "y"}], "a dictionary with 'reply' or 'error'"),
    ([{"reply": None}, {"reply": "x"}], "text as 'reply', found None"),
    ([{"reply": 7}, {"reply": "x"}], "text as 'reply', found 7"),
    ([{"reply": "x"}, {"error": ClipError("a.mp4", "pyav", "x")}], "text as 'error'"),
    ([{"reply": "x", "tokens": 1.5}] * 2, "a whole number as 'tokens', found 1.5"),
    ([{"reply": "x", "tokens": float("nan")}] * 2, "a whole number as 'tokens', found nan"),
    ([{"reply": "x", "tokens": "many"}] * 2, "a whole number as 'tokens', found 'many'"),
    ([{"reply": "x", "tokens": None}] * 2, "a whole number as 'tokens', found None"),
]


@pytest.mark.parametrize(("results", "said"), WRONG, ids=[said for _, said in WRONG])
def test_results_of_another_shape_are_refused(tmp_path, results, said):
    with pytest.raises(TypeError, match="generate: expected ") as raised:
        run(questions(2), lambda samples, order: results, tmp_path)
    assert said in str(raised.value) and read_records(tmp_path) == []


def test_numbers_of_numpy_are_whole_numbers_too():
    import numpy as np

    (result,) = checked([{"reply": "x", "tokens": np.int64(3)}], 1)
    assert type(result["tokens"]) is int and result["tokens"] == 3
    assert checked(({"error": "gone"},), 1) == [{"error": "gone", "tokens": 0}]


def test_a_first_batch_that_fails_whole_stops_before_anything_is_written(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"first 4 questions failed.*the first: .*no card.*fail_on_error=False"
    ):
        run(
            questions(12),
            failing(OSError("no card"), [f"q{i}" for i in range(12)]),
            tmp_path,
            batch=4,
        )
    assert read_records(tmp_path) == []
    said = [{"error": "no such file"}] * 4
    with pytest.raises(RuntimeError, match="the first: no such file"):
        run(questions(4), lambda samples, order: said, tmp_path)
    assert len(run(questions(12), answer, tmp_path, settings={"other": 1})) == 12


def test_whoever_asks_for_it_gets_failures_only(tmp_path):
    records = run(
        questions(4),
        failing(OSError("gone"), ["q0", "q1", "q2", "q3"]),
        tmp_path,
        fail_on_error=False,
    )
    assert {r["error"] for r in records} == {"OSError: gone"}


def test_a_later_batch_may_fail_whole(tmp_path):
    bad = [f"q{i}" for i in range(4, 8)]
    records = run(questions(16), failing(OSError("gone"), bad), tmp_path, batch=4)
    assert [r["id"] for r in records if r["reason"] == "failed"] == bad
    again = run(questions(16), failing(OSError("gone"), ["q5"]), tmp_path, retry=True)
    assert [r["id"] for r in again if r["reason"] == "failed"] == ["q5"]


@pytest.mark.parametrize(("allowed", "stops"), [(0.5, False), (0.3, True), (True, True), (4, False), (3, True), (0, True), (False, False)])  # fmt: skip
def test_more_failures_than_allowed_stop_the_run_and_what_was_answered_is_kept(
    tmp_path, allowed, stops
):
    bad = ["q1", "q3", "q5", "q7"]
    how = {"batch": 2, "fail_on_error": allowed}
    if not stops:
        assert len(run(questions(12), failing(OSError("gone"), bad), tmp_path, **how)) == 12
        return
    with pytest.raises(
        RuntimeError, match="more than fail_on_error allows .*the last: OSError: gone.*retry=True"
    ):
        run(questions(12), failing(OSError("gone"), bad), tmp_path, **how)
    kept = read_records(tmp_path)
    assert all(r["reason"] == "right" for r in kept if r["id"] not in bad) and len(kept) < 12
    with pytest.raises(RuntimeError, match="more than fail_on_error allows"):
        run(questions(12), answer, tmp_path, **how)
    assert sum(r["value"] for r in run(questions(12), answer, tmp_path, retry=True, **how)) == 12


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_a_share_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="fail_on_error: expected a share, a count"):
        failures_allowed(wrong, 10)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


MEMORY_ERRORS = [
    MemoryError(),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
]


def fitting(error, room: int, asked: list):
    """Make a model that takes so many samples at once."""

    def generate(samples, order):
        asked.append(len(samples))
        if len(samples) > room:
            raise error
        return answer(samples, order)

    return generate


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=str)
def test_a_batch_that_does_not_fit_is_halved_once_for_all(tmp_path, error):
    asked = []
    with pytest.warns(RuntimeWarning) as warned:
        records = run(questions(20), fitting(error, 3, asked), tmp_path, batch=8)
    assert [str(w.message) for w in warned] == [
        "out of memory: 2 questions at a time from here on, not 8"
    ]
    assert asked == [8, 4] + [2] * 10
    assert all(r["reason"] == "right" for r in records)


def test_the_last_batch_is_halved_by_what_it_holds():
    asked = []
    with pytest.warns(RuntimeWarning, match="1 questions at a time"):
        rows, batch = ask(questions(3), 8, fitting(MemoryError(), 1, asked), "forward", None)
    assert asked == [3, 1] and len(rows) == batch == 1


def test_one_sample_that_does_not_fit_alone_is_a_failure(tmp_path):
    with pytest.warns(RuntimeWarning):
        records = run(questions(6), failing(MemoryError("too large"), ["q2"]), tmp_path, batch=4)
    assert [r["reason"] == "failed" for r in records] == [False, False, True, False, False, False]
    assert records[2]["error"] == "MemoryError: too large (one question alone does not fit)"


def test_a_model_that_never_fits_stops(tmp_path):
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(RuntimeError, match="all of the first 1 questions failed"),
    ):
        run(questions(6), fitting(MemoryError(), 0, []), tmp_path)


def test_other_errors_are_not_taken_for_memory():
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def hanging(samples, order):
    """Never answer the second question."""
    while any(s.id == "q1" for s in samples):
        time.sleep(0.01)
    return answer(samples, order)


@pytest.mark.parametrize("where", ["main", "other"])
def test_a_model_that_hangs_is_a_failure_in_every_thread(tmp_path, where):
    records = []

    def work():
        records.extend(run(questions(3), hanging, tmp_path, timeout=0.3))

    if where == "main":
        work()
    else:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert [r["reason"] for r in records] == ["right", "failed", "right"]
    assert records[1]["error"].startswith("TimeoutError: no reply within 0.3 s")


@pytest.mark.parametrize("where", ["main", "other"])
def test_a_limit_that_is_kept_changes_nothing(tmp_path, where):
    records = []
    threads = [
        threading.Thread(
            target=lambda: records.extend(run(questions(9), answer, tmp_path, timeout=60))
        )
    ]
    if where == "main":
        threads[0].run()
    else:
        threads[0].start()
        threads[0].join()
    assert [r["reason"] for r in records] == ["right"] * 9
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_an_error_inside_a_limit_is_itself():
    with pytest.raises(TimeoutError, match="of the server"), time_limit(60):
        raise TimeoutError("of the server")
    outcome = []

    def work():
        try:
            with time_limit(60):
                raise TimeoutError("of the server")
        except TimeoutError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcome == ["of the server"]


def test_one_record_a_sample_in_their_order():
    rows = query(questions(5), answer, "reversed")
    assert [r["id"] for r in rows] == [f"q{i}" for i in range(5)]
    assert {r["order"] for r in rows} == {"reversed"} and all(r["seconds"] >= 0 for r in rows)


def test_what_decides_the_replies_is_asked_of_generate():
    def generate(model, samples, order, videos=None, temperature=0.0, seed=0):
        return answer(samples, order)

    assert sampling_of(answer) == {}
    asking = partial(generate, "model", videos="folder", temperature=0.5, seed=3)
    assert sampling_of(asking) == {"temperature": 0.5, "seed": 3}
    generate.sampling = lambda model, temperature=0.0, top_p=1.0: {
        "temperature": temperature,
        "top_p": top_p,
    }
    assert sampling_of(asking) == {"temperature": 0.5, "top_p": 1.0, "seed": 3}


def test_other_sampling_is_refused(tmp_path):
    def generate(samples, order, temperature=0.0):
        return answer(samples, order)

    run(questions(2), partial(generate, temperature=0.5), tmp_path)
    with pytest.raises(ValueError, match="sampling temperature: asked for 1.0, found 0.5"):
        run(questions(2), partial(generate, temperature=1.0), tmp_path)
    run(questions(2), generate, tmp_path, settings={"sampling": {"temperature": 0.5}})
