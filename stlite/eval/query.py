"""One batch put to the model: which errors are a sample's, and which are a broken program's.

A video that cannot be read, or a reply that takes too long, makes a record with reason "failed". An
error of the program (a wrong argument, a full disk) is raised: a record of it would score 0.
"""

import ctypes
import errno
import gc
import inspect
import operator
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from stlite.data.sample import Sample, SampleError
from stlite.data.video import ClipError
from stlite.eval.records import record

Generate = Callable[..., list[dict]]  # (samples, order=) -> {"reply", "tokens"} or {"error"} each
SAMPLE_ERRORS = (ClipError, SampleError, OSError)  # TimeoutError is an OSError
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EIO)


def sampling_of(generate: Generate) -> dict:
    """Return what decides the replies of `partial(generate, model, processor, temperature=1.0)`.

    That is what `generate.sampling`, where it has one, makes of these arguments, and the numbers
    among them.
    """
    function = getattr(generate, "func", generate)
    keywords = getattr(generate, "keywords", {})
    tells = hasattr(generate, "args") and hasattr(function, "sampling")
    known = inspect.signature(function.sampling).parameters if tells else ()
    sampling = {}
    chosen = {}
    for name, value in keywords.items():
        if name in known:
            chosen[name] = value
        elif isinstance(value, (bool, int, float)):
            sampling[name] = value
    if tells:
        sampling |= function.sampling(*generate.args, **chosen)
    return sampling


def adapter_of(generate: Generate) -> str | None:
    """Return the fingerprint of the adapter of `partial(generate, model, processor)`, where it tells it."""
    function = getattr(generate, "func", generate)
    if hasattr(generate, "args") and hasattr(function, "adapter"):
        return function.adapter(*generate.args)
    return None


class OutOfMemory(MemoryError):
    """A batch does not fit into memory."""


def query(
    samples: Sequence[Sample],
    generate: Generate,
    order: str = "forward",
    timeout: float | None = None,
) -> list[dict]:
    """Put one batch to the model and score what comes back; a bad video fails alone.

    Raises OutOfMemory where the batch does not fit, and whatever else is no sample's fault.
    """
    start = time.perf_counter()
    results, error = _results(samples, generate, order, timeout)
    if error and len(samples) > 1:
        rows = []
        for sample in samples:
            rows += query([sample], generate, order, timeout)
        return rows
    if error:
        results = [{"error": error}]
    seconds = (time.perf_counter() - start) / len(samples)
    return [record(s, result, order, seconds) for s, result in zip(samples, results)]


def _results(samples, generate: Generate, order: str, timeout: float | None) -> tuple[list, str]:
    """Return the results, and a sample's error, without its traceback, which holds the batch."""
    limit = time_limit(timeout * len(samples)) if timeout else nullcontext()
    try:
        with limit:
            results = generate(samples, order=order)
    except Exception as error:
        if is_out_of_memory(error):
            message = f"{type(error).__name__}: {error}"
        elif is_samples_fault(error):
            return [], f"{type(error).__name__}: {error}"
        else:
            error.add_note(f"raised by generate, asked for {', '.join(s.id for s in samples[:8])}")
            raise
    else:
        return checked(results, len(samples)), ""
    gc.collect()
    raise OutOfMemory(message)


def is_samples_fault(error: Exception) -> bool:
    """Tell an error of a clip or a sample from one of the program or the machine."""
    if isinstance(error, OSError) and error.errno in FULL + EXHAUSTED:
        return False
    return isinstance(error, SAMPLE_ERRORS)


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise running out of memory, torch's too, without importing torch.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    words = str(error).lower()
    said = "out of memory" in words or "can't allocate memory" in words
    return isinstance(error, RuntimeError) and said


def checked(results: object, count: int) -> list[dict]:
    """Return what `generate` gave, once it is a dictionary per sample with a reply or an error."""
    if not isinstance(results, (list, tuple)):
        raise TypeError(
            f"generate: expected a list of dictionaries, found {type(results).__name__}"
        )
    if len(results) != count:
        raise TypeError(f"generate: expected {count} results, one per sample, found {len(results)}")
    return [_checked(result) for result in results]


def _checked(result: object) -> dict:
    if not isinstance(result, dict) or not {"reply", "error"} & result.keys():
        raise TypeError(
            f"generate: expected a dictionary with 'reply' or 'error', found {str(result)[:200]!r}"
        )
    for name in ("reply", "error"):
        if not isinstance(result.get(name, ""), str):
            raise TypeError(f"generate: expected text as {name!r}, found {result[name]!r}")
    tokens = result.get("tokens", 0)
    try:
        return result | {"tokens": operator.index(tokens)}  # NumPy's and torch's become Python's
    except TypeError:
        raise TypeError(
            f"generate: expected a whole number as 'tokens', found {tokens!r}"
        ) from None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread after so many seconds.

    On the main thread of a Unix system a signal interrupts what waits, too; elsewhere the error
    comes with the next Python statement.
    """
    on_main = threading.current_thread() is threading.main_thread()
    with (_alarm if on_main and hasattr(signal, "SIGALRM") else _interruption)(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(*_):
        raise TimeoutError(f"no reply within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interruption(seconds: float) -> Iterator[None]:
    """Let a timer raise TimeoutError in this thread, as only the interpreter can."""
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, raise_in, (thread, ctypes.py_object(TimeoutError)))
    timer.start()
    try:
        yield
    except TimeoutError as error:
        raise error if error.args else TimeoutError(f"no reply within {seconds:g} s") from None
    finally:
        timer.cancel()
        timer.join()
        raise_in(thread, None)  # one that was raised too late
