"""Paths of videos in data files: the name of a recording, and the file under a root."""

import difflib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from stlite.data.sample import SampleError, safe_path

PREVIEW = re.compile(r"_preview_rgb(_\d+)?$")  # "…_rec2_preview_rgb": how the file was exported
WEARER = re.compile(r"(_seq\d+)_(M?\d+|rec\d+)$")  # "…_seq4_rec2": one of those who filmed it
DRIVE = re.compile(r"^[A-Za-z]:/*")  # "C:/"
SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts")


def file_stem(video: str) -> str:
    """Name a video without its folders, its time range and its extension."""
    name = re.split(r"[/\\]", video.partition("#t=")[0])[-1]
    return name.rpartition(".")[0] or name


def group_name(video: str) -> str:
    """Name the recording a video was cut from, as its file name tells it: all its clips agree.

    >>> group_name("part1/Aria_1.0.0_loc2_script3_seq4_rec2_preview_rgb.mp4#t=1,2")
    'Aria_1.0.0_loc2_script3_seq4'
    """
    return WEARER.sub(r"\1", PREVIEW.sub("", file_stem(video)))


def distinct_names(files: Iterable[str]) -> dict[str, str]:
    """Name each file by its stem, and by as many folders as tell it from the others.

    >>> distinct_names(["a/rgb.mp4", "b/rgb.mp4", "b/depth.mp4"]).values()
    dict_values(['a/rgb', 'b/rgb', 'depth'])
    """
    names = {file: file_stem(file) for file in files}
    depth = 0
    while True:
        shared = _shared(names)
        if not shared:
            return names
        depth += 1
        for file in shared:
            names[file] = _with_folders(file, depth)


def distinct_groups(files: Iterable[str]) -> dict[str, str]:
    """Name each file's recording: clips of one take agree, equal names in other folders do not.

    >>> distinct_groups(["a/x_seq4_rec1.mp4", "a/x_seq4_rec2.mp4"]).values()
    dict_values(['x_seq4', 'x_seq4'])
    """
    takes = defaultdict(list)
    for file in files:
        takes[group_name(file)].append(file)
    groups = {}
    for name, together in takes.items():
        groups |= _groups_of_take(name, together)
    return groups


def _groups_of_take(name: str, files: list[str]) -> dict[str, str]:
    """Part files that a name puts together, where two of them have the same name, by folder."""
    names = distinct_names(files)
    extra = [distinct.rpartition("/")[0] for distinct in names.values()]
    depth = max(folders.count("/") + 1 if folders else 0 for folders in extra)
    groups = {}
    for file in files:
        folders = _with_folders(file, depth).split("/")[:-1][-depth:] if depth else []
        groups[file] = "/".join([*folders, name])
    return groups


def _shared(names: dict[str, str]) -> list[str]:
    counts = Counter(names.values())
    return [file for file, name in names.items() if counts[name] > 1]


def _with_folders(file: str, depth: int) -> str:
    """Name a file with its last folders; where they do not suffice, with its extension too.

    >>> _with_folders("a/b/c.mp4", 1), _with_folders("a/b/c.mp4", 3), _with_folders("a/b/c.mp4", 4)
    ('b/c', 'a/b/c', 'a/b/c.mp4')
    """
    folders = file.split("/")[:-1]
    if depth > len(folders) + 1:
        return file
    return "/".join([*folders[max(0, len(folders) - depth) :], file_stem(file)])


# ---- files under a root


def list_films(root) -> tuple[list[str], list[str]]:
    """List the films under a folder, as paths relative to it, and say which a table cannot name."""
    root = Path(root)
    films = []
    faults = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.lower().endswith(SUFFIXES) or name.startswith("."):
                continue
            film = Path(folder, name).relative_to(root).as_posix()
            if _can_be_written(film):
                films.append(film)
            else:
                shown = film.encode("utf-8", "backslashreplace").decode()
                faults.append(
                    f"{shown!r} is left out: a table cannot hold this name, rename the file"
                )
    return films, faults


def _can_be_written(video: str) -> bool:
    """Tell whether a film's path under its root can stand in a table and be read from it again.

    >>> _can_be_written("walks/a.mp4"), _can_be_written(" a.mp4"), _can_be_written("a#t=1.mp4")
    (True, False, False)
    """
    try:
        video.encode("utf-8")
        safe_path(video)
    except (UnicodeEncodeError, SampleError):
        return False
    return video == video.strip() and "#t=" not in video


def video_finder(root: str | os.PathLike | None, strict: bool = False) -> Callable[[str, str], str]:
    """Return a function (video, where) → the video's path under the root; without a root, as it is.

    With `strict`, a video that is not there raises SampleError; other users may lack the videos.
    """
    found: dict[str, str] = {}
    locate = partial(_locate, root=root, files=_files_by_name(root), strict=strict)

    def find(video: str, where: str) -> str:
        if video not in found:
            found[video] = locate(video, where)
        return found[video]

    return find


def _files_by_name(root: str | os.PathLike | None) -> dict[str, list[str]]:
    """List the files under a root by their name without regard to case and Unicode form."""
    files = defaultdict(list)
    if root is not None:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name).relative_to(root).as_posix()
                files[_folded(name)].append(path)
    return files


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _locate(video: str, where: str, root, files: dict[str, list[str]], strict: bool) -> str:
    """Look where the path says, else for its file name alone: the path may be another machine's."""
    path, mark, span = video.partition("#t=")
    if root is None:
        plain = _plain_path(path) if strict else path
        safe_path(plain, where=where)
        return plain + mark + span
    plain = _plain_path(path)
    drive = DRIVE.match(plain)
    relative = DRIVE.sub("", plain).lstrip("/")  # absolute is forgiven here, nothing else
    safe_path(relative, where=where)
    place = _choose(path, relative, files, where)
    if not place and (strict or drive):
        near = _nearest(relative, files)
        raise SampleError(where, "video", f"a video under {Path(root).name}{near}", video)
    if not place:
        place = relative.rpartition("/")[2] if plain.startswith("/") else plain
    safe_path(place + mark + span, root, where)
    return place + mark + span


def _plain_path(path: str) -> str:
    """Write a path of any system with slashes, without "./" before it."""
    plain = path.strip().replace("\\", "/")
    return re.sub(r"^(?:\./+)+", "", plain)


def _choose(path: str, relative: str, files: dict[str, list[str]], where: str) -> str:
    """Choose the file a path means: itself, else of this case, else the only one of this name."""
    places = files.get(_folded(relative.rpartition("/")[2]), [])
    if path in places:
        return path
    for same in (str, _folded):
        name = same(relative.rpartition("/")[2])
        matching = [place for place in places if same(place) == same(relative)]
        if len(matching) == 1:
            return matching[0]
        named = [place for place in places if same(place.rpartition("/")[2]) == name]
        if len(named) > 1:
            raise SampleError(where, "video", "one file of this name under the root", named)
        if named:
            return named[0]
    return ""


def _nearest(relative: str, files: dict[str, list[str]]) -> str:
    """Suggest a file whose name is nearly the one looked for."""
    name = _folded(relative.rpartition("/")[2])
    close = difflib.get_close_matches(name, files, 1) if len(files) < 10_000 else []
    return f" (did you mean {files[close[0]][0]}?)" if close else ""
