"""Two people's annotation files made one.

merge_annotations("ana.csv", "ben.csv", "walks.csv")  # returns what they disagree on
"""

from pathlib import Path

from stlite.data.annotation_cells import CELLS, LISTS
from stlite.data.annotation_file import keys_of, read_table, write_table
from stlite.data.sample import SampleError


def merge_annotations(first, second, out) -> list[str]:
    """Merge two annotation files into a third.

    List what they disagree on: there the first's stands. A film that only one file has is taken
    from it; what one left empty is taken from the other. Steps, way back and moments of a task go
    together. Raises SampleError for a file with lines that cannot be read.
    """
    mine = _whole_table(first)
    theirs = _whole_table(second)
    conflicts = []
    for key, row in theirs.items():
        if key not in mine:
            mine[key] = row
            continue
        for column, ours, other in _merge_row(mine[key], row):
            conflicts.append(
                f"{row['video']}: {column}: {Path(first).name} has {ours!r} (kept), "
                f"{Path(second).name} has {other!r}"
            )
    write_table(out, list(mine.values()))
    return conflicts


def _whole_table(path) -> dict[str, dict]:
    rows, faults = read_table(path)
    if faults:
        raise SampleError(Path(path).name, "row", "a file that can be read whole", faults[0])
    return dict(zip(keys_of(rows), rows))


def _merge_row(mine: dict, theirs: dict) -> list[tuple[str, str, str]]:
    """Fill what one row lacks; return (column, mine, theirs) where both say something else."""
    differing = []
    for columns in _groups(theirs):
        steps = columns[0]
        empty = not any(map(mine.get, columns))
        same_steps = mine.get(steps) == theirs.get(steps)
        for column in columns:
            ours = mine.get(column, "")
            other = theirs.get(column, "")
            if empty or (same_steps and not ours):
                mine[column] = other
            elif other not in ("", ours):
                differing.append((column, ours, other))
    return differing


def _groups(row: dict) -> list[list[str]]:
    """List a row's columns, those of a task together."""
    groups = []
    for task in LISTS:
        groups.append([task + ending for ending in CELLS])
    for column in row:
        if column.partition("_")[0] not in LISTS:
            groups.append([column])
    return groups
