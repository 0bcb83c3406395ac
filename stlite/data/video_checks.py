"""What is wrong with the videos of a data set, in the words of the reader that reads them."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike

from stlite.data.sample import Sample, safe_path
from stlite.data.video import ClipError, ClipWarning, survey

MAX_GAP = 10.0  # seconds between two frames: a turn takes less, and is missed


def check_videos(samples: Sequence[Sample], root: str | PathLike, frames: int | None) -> list[dict]:
    """Read every video; return (code, severity, fix, ids) of what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipWarning)  # what they say stands in the findings
        read = survey(samples, root, frames=frames or 2)
    videos = defaultdict(set)  # (code, severity, fix) → videos
    for video, clip in read.items():
        for problem in _problems(video, clip, root, frames):
            videos[problem].add(video)
    findings = []
    for problem, affected in sorted(videos.items()):
        ids = [s.id for s in samples if s.video in affected]
        findings.append((*problem, ids))
    return findings + _few_frames(samples, read, frames)


def _problems(video: str, clip: dict | ClipError, root, frames: int | None):
    """List (code, severity, fix) of one video; the fix repeats the reader's own reason."""
    if isinstance(clip, ClipError):
        if not safe_path(video, root).is_file():
            return [("missing-video", "error", "put the file under the root")]
        return [("unreadable-video", "error", clip.reason)]
    problems = []
    for note in filter(None, clip["note"].split("; ")):
        if not note.startswith("only "):
            problems.append(("incomplete-video", "warning", note))
        elif frames:
            problems.append(("short-video", "error", "ask for fewer frames"))
    return problems


def _few_frames(samples: Sequence[Sample], read: dict, frames: int | None) -> list[tuple]:
    """Find videos so long, or of so many steps, that the frames asked for miss some of them."""
    if not frames:
        return []
    ids = []
    worst = (0.0, 0)
    for s in samples:
        clip = read[s.video]
        steps = max(len(s.steps_forward), len(s.steps_reverse))
        if isinstance(clip, ClipError) or not steps:
            continue
        gap = (clip["seconds"][-1] - clip["seconds"][0]) / (frames - 1)
        if gap > MAX_GAP or steps > frames:
            ids.append(s.id)
            worst = max(worst, (gap, steps))
    fix = (
        f"one frame every {worst[0]:.0f} s, {worst[1]} steps: ask for more frames, or cut the video"
    )
    return [("few-frames", "warning", fix, ids)] if ids else []
