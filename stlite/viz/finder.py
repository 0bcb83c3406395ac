"""What samples can be found by: the filters, the table's columns, and their text.

>>> from stlite.data.sample import Sample
>>> samples = [Sample("s", "a.mp4", "direction", "forward", "Where?", "A", ("left", "right"))]
>>> sample_table(samples, {}, {})["facets"]["outcome"]
[['no reply']]
"""

from collections.abc import Collection, Mapping, Sequence

from stlite.data.sample import Sample

UNPARSED = ("ambiguous", "unreadable", "absent", "truncated")
SAMPLE_FIELDS = ("id", "video", "task", "way", "part", "question", "answer")
Runs = Mapping[str, Mapping[str, dict]]  # {run: {sample id: record}}


def records_of(sample: Sample, runs: Runs) -> dict[str, dict]:
    """Return the records of a sample by run."""
    return {name: run[sample.id] for name, run in runs.items() if sample.id in run}


def sample_table(samples: Sequence[Sample], runs: Runs, findings: Mapping) -> dict:
    """Describe samples as the front end finds them, each list in the order of the samples.

    `facets` are what a filter chooses by: {name: [value or values]}. `columns` are the numbers that
    the table shows: {name: [number or None]}.
    """
    ids = []
    facets = []
    numbers = []
    for sample in samples:
        records = records_of(sample, runs)
        facets.append(sample_facets(sample, records, runs, findings.get(sample.id, ())))
        numbers.append(sample_numbers(sample, records, runs))
        ids.append(sample.id)
    return {"ids": ids, "facets": _by_name(facets), "columns": _by_name(numbers)}


def sample_facets(
    sample: Sample, records: Mapping[str, dict], runs: Collection[str], findings: Sequence[str]
) -> dict[str, str | list[str]]:
    """Return what each filter may choose a sample by."""
    facets = {"task": sample.task, "way": sample.way, "part": sample.part}
    facets["outcome"] = outcomes(sample, records)
    facets["finding"] = list(findings)
    if len(runs) > 1:
        for run in runs:
            facets[f"reply of {run}"] = outcome(records.get(run))
    return facets


def sample_numbers(
    sample: Sample, records: Mapping[str, dict], runs: Collection[str]
) -> dict[str, float | None]:
    """Return what the table shows of the replies to a sample."""
    numbers = {}
    for run in runs:
        numbers[f"value of {run}"] = records[run]["value"] if run in records else None
    if len(runs) > 1:
        numbers["different answers"] = different_answers(sample, records)
    lengths = [len(record.get("reply") or "") for record in records.values()]
    numbers["reply length"] = max(lengths, default=None)
    return numbers


def _by_name(rows: Sequence[Mapping]) -> dict[str, list]:
    """Turn rows with the same names into one list for each name."""
    columns = {}
    for name in rows[0] if rows else ():
        columns[name] = [row[name] for row in rows]
    return columns


def outcome(record: dict | None) -> str:
    """Return how a reply came out, as a reader asks for it."""
    if record is None:
        return "no reply"
    return "unreadable" if record["reason"] in UNPARSED else record["reason"]


def outcomes(sample: Sample, records: Mapping[str, dict]) -> list[str]:
    """List how the replies to one sample came out, and whether runs disagree."""
    names = set(map(outcome, records.values())) or {"no reply"}
    if different_answers(sample, records) > 1:
        names.add("runs disagree")
    return sorted(names)


def different_answers(sample: Sample, records: Mapping[str, dict]) -> int:
    """Count the different answers to a choice, or the different outcomes of a route."""
    key = "answer" if sample.kind == "choice" else "reason"
    return len({record[key] for record in records.values()})


def search_text(sample: Sample, records: Mapping[str, dict], more: Sequence[str]) -> str:
    """Join what the text filter looks through: the sample, its replies, and `more`."""
    fields = [sample.id, sample.video, sample.question, sample.answer, *sample.options, *more]
    replies = [record.get("reply") or "" for record in records.values()]
    return "\n".join(fields + replies).casefold()
