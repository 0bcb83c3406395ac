"""Annotate films with the arrow keys: a key writes the step and its moment, on disk at once.

    >>> annotate("my_videos", "walks.csv")  # doctest: +SKIP

The key ? lists the keys. `annotations("walks.csv", videos="my_videos")` makes samples of the file.
"""

import copy
import threading
from collections import Counter

import traitlets

from stlite.data.annotation_cells import (
    LISTS,
    TEXTS,
    back_of,
    doubts,
    empty_walk,
    head_of,
    is_empty,
    undone,
    way_back,
)
from stlite.data.annotation_file import annotation_path, keys_of, read_walks, save_walk
from stlite.data.paths import list_films, video_finder
from stlite.data.sample import SampleError
from stlite.viz import frontend
from stlite.viz.player import FilmView
from stlite.viz.sample_view import keep

WORDS = 300  # labels offered for completion


def annotate(videos, path="walks.csv") -> "Annotator":
    """Annotate the films under a folder in one notebook cell; every key is written to `path`.

    `path` is a CSV or JSONL that may exist already: its rows are shown and can be mended. Films are
    those under `videos` and those the file names.
    """
    return keep(Annotator(videos, path))


class Annotator(FilmView):
    """The state behind the annotator's front end; `receive` takes what a key or a field says."""

    _esm = frontend.script("film", "annotator")
    _css = frontend.style("player", "annotator")
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, root, path):
        super().__init__(root)
        self.path = annotation_path(path)
        self.turn = threading.RLock()  # Jupyter may handle messages on several threads
        self.walks, rows, notes = read_walks(self.path)
        self.seen = dict(zip(keys_of(rows), rows))
        self.films, faults = list_films(root)
        notes += faults
        self.find = video_finder(root)
        named = {walk["video"].partition("#t=")[0] for walk in self.walks}
        self.walks += [empty_walk(video) for video in self.films if video not in named]
        self.walks.sort(key=lambda walk: walk["video"])
        self.row_keys = keys_of(self.walks)
        self.history = []
        self.unsaved = set()
        self.at = -1
        self.told = {"text": "; ".join(notes), "trouble": bool(notes)}
        self.done = 0
        self._start()
        self.draw()

    def _start(self):
        """Show the first film that nobody has annotated and that can be shown."""
        if not self.walks:
            self.film = {"key": 1, "error": f"there is no film under {self.root}"}
            return
        open_ones = [at for at, walk in enumerate(self.walks) if is_empty(walk)]
        for at in open_ones:
            self.go(at)
            if not self.film["error"]:
                return
        self.go(0)

    @property
    def walk(self) -> dict:
        """The walk of the film on screen."""
        return self.walks[self.at]

    def _on_message(self, widget, message: dict, buffers=None):
        if message.get("do") in ("piece", "still"):
            super()._on_message(widget, message, buffers)
        else:
            self.receive(message)

    def receive(self, message: dict):
        """Do what a key says: {"do": "add", "task": "landmark", "text": "lamp", "second": 2.5}."""
        with self.turn:
            self.told = {"text": "", "trouble": False}
            if self.walks:
                self._act(message)
            self.done = message.get("number", self.done)
            self.draw()

    def _act(self, message: dict):
        """Do one thing, and put a change on disk; what makes no sense changes nothing."""
        before = copy.deepcopy(self.walk)
        at = self.at
        act = ACTS.get(message.get("do"), Annotator.unknown)
        try:
            act(self, message)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            self.walks[at] = before
            return self._say(f"Not understood: {error}", trouble=True, refused=message)
        if act is not Annotator.undo and self.walks[at] != before:
            self.history.append((at, before))
            self._save()

    def unknown(self, message: dict):
        """Refuse a message of another kind."""
        raise ValueError(f"expected one of {', '.join(ACTS)}, found {message.get('do')!r}")

    def _say(self, text: str, trouble: bool = False, **more):
        self.told = {"text": text, "trouble": trouble, **more}

    # ---- films ----

    def go(self, at: int):
        """Show another film."""
        if self.walks and 0 <= at < len(self.walks):
            if at != self.at:
                self.at = at
                self.chosen = None
                self.show(self._file_of(self.walk["video"]))
        elif self.walks:
            self._say("There is no film further this way.")

    def _file_of(self, video: str) -> str:
        """Return the path of a row's video: as it says, else the one film of that name."""
        if video.partition("#t=")[0] in self.films:
            return video
        try:
            return self.find(video, self.path.name)
        except SampleError:
            return video

    def film_message(self, message: dict):
        """Go to the film at a place, or on by so many."""
        self.go(int(message["at"]) if "at" in message else self.at + int(message["by"]))

    # ---- steps ----

    def add(self, message: dict):
        """Write a step at its moment, after the steps that happen before it."""
        task = _one_of(message["task"], LISTS)
        text = _clean(message["text"])
        second = _second(message["second"])
        if not text:
            return self._say("Nothing was typed.")
        if self.film["error"]:
            return self._say("This film cannot be shown: nothing is written.", trouble=True)
        steps = self.walk["steps"][task]
        before = [i for i, s in enumerate(steps) if s["second"] is None or s["second"] <= second]
        place = before[-1] + 1 if before else 0
        steps.insert(place, {"text": text, "second": second, "back": None})
        self.chosen = (task, place)

    def edit(self, message: dict):
        """Change a step's text, moment or way back; an emptied way back is the rule's again."""
        task = _one_of(message["task"], LISTS)
        field = _one_of(message["field"], ("text", "second", "back"))
        step = self.walk["steps"][task][_index(message["index"])]
        read = _second if field == "second" else _clean
        value = read(message["value"])
        if field == "text" and not value:
            return self._say("A step needs a text; x removes it.", trouble=True)
        if field == "back":
            value = None if value in ("", undone(step["text"], task)) else value
        step[field] = value
        self._sort(task, step)

    def _sort(self, task: str, step: dict):
        """Keep the steps of a task in the order of their moments, where every one has one."""
        steps = self.walk["steps"][task]
        if all(s["second"] is not None for s in steps):
            steps.sort(key=lambda s: s["second"])
        self.chosen = (task, next(i for i, s in enumerate(steps) if s is step))

    def remove(self, message: dict):
        """Take a step out."""
        task = _one_of(message["task"], LISTS)
        index = _index(message["index"])
        del self.walk["steps"][task][index]
        self.chosen = (task, index - 1) if index else None

    def back(self, message: dict):
        """Change a step of a way back that matches no way there, or the turn that begins one."""
        text = _clean(message["text"])
        if message["task"] == "head":
            self.walk["head"] = text
        else:
            self._change_loose(_one_of(message["task"], LISTS), _index(message["index"]), text)

    def _change_loose(self, task: str, index: int, text: str):
        backs = self.walk["loose"][task]
        if text:
            backs[index : index + 1] = [text]
        else:
            del backs[index]

    def derive(self, message: dict):
        """Put the rule's way back in the place of one that does not match step by step."""
        self.walk["loose"].pop(_one_of(message["task"], LISTS), None)

    def describe(self, message: dict):
        """Set a text of the row: its group, part, source or route."""
        name = _one_of(message["name"], TEXTS[2:])
        text = _clean(message["text"])
        self.walk[name] = text

    def undo(self, message: dict):
        """Take back the last change, on whatever film it was made."""
        if not self.history:
            return self._say("There is nothing to undo.")
        at, walk = self.history.pop()
        self.walks[at] = walk
        self.go(at)
        self.chosen = None
        self._save()
        if not self.told["trouble"]:
            self._say("Undone.")

    def retry(self, message: dict):
        """Save what could not be saved before."""
        self._save()

    # ---- the file ----

    def _save(self):
        """Write this film's row, and those that could not be written before."""
        self.unsaved.add(self.at)
        try:
            for at in sorted(self.unsaved):
                key = self.row_keys[at]
                before = self.seen.get(key)
                cells, told = save_walk(self.path, key, self.walks[at], before, self.seen)
                self.seen[key] = cells
                if is_empty(self.walks[at]):
                    del self.seen[key]
                self.unsaved.discard(at)
                self._say(told or f"Saved in {self.path.name}.", trouble=bool(told))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            kept = "What you typed is kept here, and the next key tries again."
            self._say(f"Not saved: {reason}. {kept}", trouble=True)

    # ---- what the front end draws ----

    def draw(self):
        """Tell the front end what there is now."""
        state = {"told": self.told, "done": self.done, "unsaved": len(self.unsaved)}
        state |= {"of": len(self.walks), "at": self.at + 1}
        state["annotated"] = sum(not is_empty(walk) for walk in self.walks)
        if self.walks:
            state |= self._walk_state()
        self.state = state

    def _walk_state(self) -> dict:
        walk = self.walk
        rows = [row for task in LISTS for row in self._rows(task)]
        rows.sort(key=lambda row: row["place"])
        backs = {task: way_back(walk, task) for task in LISTS}
        return {
            "video": walk["video"],
            "rows": rows,
            "head": head_of(walk) if walk["steps"]["direction"] else None,
            "loose": walk["loose"],
            "texts": {name: walk[name] for name in TEXTS},
            "unsure": sum(back.count(None) for back in backs.values()),
            "doubts": doubts(walk),
            "words": {task: self._words(task) for task in LISTS},
        }

    def _rows(self, task: str) -> list[dict]:
        rows = []
        place = 0.0
        for index, step in enumerate(self.walk["steps"][task]):
            place = max(place, step["second"] or 0.0)
            back = back_of(step, task)
            row = {"task": task, "index": index, "place": place, "back": back or ""}
            row |= {"text": step["text"], "second": step["second"]}
            row |= {"by_rule": step["back"] is None, "unsure": back is None}
            row["chosen"] = self.chosen == (task, index)
            rows.append(row)
        return rows

    def _words(self, task: str) -> list[str]:
        """List the labels typed before, the most frequent first."""
        counts = Counter(step["text"] for walk in self.walks for step in walk["steps"][task])
        return [text for text, _ in counts.most_common(WORDS)]


ACTS = {
    "film": Annotator.film_message,
    "add": Annotator.add,
    "edit": Annotator.edit,
    "remove": Annotator.remove,
    "back": Annotator.back,
    "derive": Annotator.derive,
    "describe": Annotator.describe,
    "undo": Annotator.undo,
    "retry": Annotator.retry,
}


def _clean(text: object) -> str:
    """Return a text on one line, without characters that no file can hold. Raises ValueError.

    >>> _clean("  red   door\\n")
    'red door'
    """
    if not isinstance(text, str):
        raise ValueError(f"expected text, found {text!r}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text holds half a character") from None
    visible = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in text)
    return " ".join(visible.split())


def _second(value: object) -> float:
    second = float(value)
    if not 0 <= second < float("inf"):
        raise ValueError(f"expected seconds from the film's start, found {value!r}")
    return round(second, 3)


def _index(value: object) -> int:
    index = int(value)
    if index < 0:
        raise IndexError(f"expected the place of a step, found {index}")
    return index


def _one_of(value: object, allowed: tuple) -> str:
    if value not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}, found {value!r}")
    return str(value)
