"""Paths of videos in data files: the name of a recording, and the file under a root."""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from stlite.data.sample import SampleError, safe_path

PREVIEW = re.compile(r"_preview_rgb(_\d+)?$")  # "…_rec2_preview_rgb": how the file was exported
WEARER = re.compile(r"(_seq\d+)_(M?\d+|rec\d+)$")  # "…_seq4_rec2": one of those who filmed it


def file_stem(video: str) -> str:
    """Name a video without its folders, its time range and its extension."""
    name = re.split(r"[/\\]", video.partition("#t=")[0])[-1]
    return name.rpartition(".")[0] or name


def group_name(video: str) -> str:
    """Name the recording a video was cut from, as its file name tells it: all its clips agree.

    >>> group_name("part1/AriaEverydayActivities_1.0.0_loc2_script3_seq4_rec2_preview_rgb.mp4#t=1,2")
    'AriaEverydayActivities_1.0.0_loc2_script3_seq4'
    """
    return WEARER.sub(r"\1", PREVIEW.sub("", file_stem(video)))


def video_finder(root: str | os.PathLike | None) -> Callable[[str, str], str]:
    """Return a function (video, where) → the video's path under the root; without a root, as it is."""
    found: dict[str, str] = {}
    locate = partial(_locate, root=root, same_name=_files_by_name(root))

    def find(video: str, where: str) -> str:
        if video not in found:
            found[video] = locate(video, where)
        return found[video]

    return find


def _files_by_name(root: str | os.PathLike | None) -> dict[str, list[str]]:
    files = defaultdict(list)
    if root is not None:
        for folder, _, names in os.walk(root):
            for name in names:
                files[name].append(Path(folder, name).relative_to(root).as_posix())
    return files


def _locate(video: str, where: str, root, same_name: dict[str, list[str]]) -> str:
    """Look where the path says, else for its file name alone: the path may be another machine's."""
    if root is None:
        safe_path(video, where=where)
        return video
    safe_path(video.lstrip("/"), where=where)  # absolute is forgiven here, nothing else
    path, sign, span = video.partition("#t=")
    name = path.rpartition("/")[2]
    places = same_name.get(name, [])
    if path not in places:
        if len(places) > 1:
            raise SampleError(where, "video", "one file of this name under the root", places)
        if places:
            path = places[0]
        elif path.startswith("/"):
            path = name
    safe_path(path + sign + span, root, where)
    return path + sign + span
