"""Rendered first-person walks whose every turn, landmark and action is known exactly.

    >>> walk = draw(7, part=4)
    >>> [len(walk[name]) for name in ("directions", "landmarks", "actions")]
    [3, 3, 3]

A walk passes junctions. At each one it goes straight, left or right, past a landmark; in part 4 it stops there first to act.
Parts differ in look, in length, and in having actions. The junctions around the walker are laid
out anew as it goes, so that any list of turns is possible.
"""

import os
import random
import zlib
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from stlite.data.annotations import build
from stlite.data.sample import Sample, replace
from stlite.data.steps import AROUND, reverse_path, reverse_step

TURNS = {"go straight": 0, "turn left": 1, "turn right": -1}
COLOURS = {
    "red": (208, 40, 40),
    "blue": (40, 80, 220),
    "yellow": (240, 215, 40),
    "green": (40, 160, 60),
    "white": (240, 240, 240),
    "orange": (245, 140, 30),
    "purple": (140, 60, 180),
    "cyan": (60, 210, 220),
    "pink": (245, 130, 180),
    "brown": (130, 80, 40),
    "grey": (120, 120, 125),
    "black": (20, 20, 24),
}
SHAPES = (
    "ball",
    "cross",
    "star",
    "cone",
    "pillar",
    "ring",
    "diamond",
    "crate",
    "heart",
    "barrel",
    "arch",
    "hourglass",
)
LANDMARKS = tuple(map(" ".join, zip(COLOURS, SHAPES)))  # "red ball" and so on
ACTIONS = ("open the door", "pick up the box", "switch on the lamp", "raise the flag")
ALL_ACTIONS = ACTIONS + tuple(map(reverse_step, ACTIONS))
PARTS = {  # junctions, half-width of a junction's room, wall, mortar, floor, ceiling
    1: (2, 0, (176, 92, 70), (120, 62, 50), (110, 104, 98), (190, 186, 178)),
    2: (3, 1, (196, 166, 118), (150, 118, 76), (96, 66, 46), (226, 220, 204)),
    3: (4, 0, (96, 132, 176), (64, 92, 132), (70, 78, 92), (156, 170, 190)),
    4: (3, 0, (150, 156, 150), (98, 106, 100), (84, 96, 84), (206, 210, 206)),
}
SPAN = 4  # cells from one junction to the next
WALK = 1.2  # seconds for SPAN cells
TURN = 1.8  # seconds for 90 degrees
PAUSE = 1.5  # seconds for an action
FOV = 0.84  # tangent of half the view
FOG = 0.16  # darkening per cell
GRID = 32  # cells of a local map
ICON = 32  # pixels of an icon's side
FPS = 8
USES = {  # which eighths of all walks each use may draw
    "test": (0, 1),
    "train": (2,),
    "base": (3, 4, 5, 6, 7),
}
SEEDS = {"train": 0, "dev": 100_000, "test": 200_000, "final": 300_000, "base": 1_000_000}


def draw(seed: int, part: int, use: str = "") -> dict:
    """Draw one walk; `use` ("test", "train", "base") keeps to walks that no other use can ever draw.

    The division goes by a hash of what happens in the walk, so two seeds never put the same list of steps on both sides.
    """
    rng = random.Random(f"walk/{seed}/{part}")
    while True:
        walk = _draw(rng, seed, part)
        key = repr((walk["directions"], walk["landmarks"], walk["actions"]))
        if not use or zlib.crc32(key.encode()) % 8 in USES[use]:
            return walk


def _draw(rng: random.Random, seed: int, part: int) -> dict:
    """Draw a walk, whatever its use; the order of the draws decides what a seed gives."""
    junctions = PARTS[part][0]
    turns = rng.choices(list(TURNS), k=junctions)
    while set(turns) == {"go straight"}:
        turns = rng.choices(list(TURNS), k=junctions)
    actions = []
    if part == 4:
        for action in rng.sample(ACTIONS, junctions):
            actions.append(rng.choice((action, reverse_step(action))))
    ends = [part < 3 and rng.random() < 0.25 for _ in range(2)]  # turns around at start and end
    return {
        "id": f"w{seed:07d}",
        "seed": seed,
        "part": part,
        "turns": turns,
        "actions": actions,
        "directions": [AROUND] * ends[0] + turns + [AROUND] * ends[1],
        "landmarks": rng.sample(LANDMARKS, junctions),
        "ends": ends,
        "heading": rng.randrange(4),
        "pace": rng.uniform(0.9, 1.1),
        "swap": [rng.random() < 0.5 for _ in turns],
    }


def annotation(walk: dict) -> tuple[dict, dict]:
    """Return a walk's steps by task, forward and reverse: all its samples are made from it."""
    forward = {}
    for task in ("direction", "landmark", "action"):
        if walk[f"{task}s"]:
            forward[task] = walk[f"{task}s"]
    clauses = []
    for turn, landmark in zip(walk["turns"], walk["landmarks"]):
        place = "past" if turn == "go straight" else "at"
        clauses.append(f"{turn} {place} the {landmark}")
    forward["route"] = [AROUND] * walk["ends"][0] + clauses + [AROUND] * walk["ends"][1]
    reverse = {}
    for task, steps in forward.items():
        rule = "direction" if task == "route" else task
        reverse[task] = list(reverse_path(steps, rule))
    return forward, reverse


def samples(walk: dict, video: str, seed: int = 0) -> list[Sample]:
    """Make a walk's six to eight samples, with the moment (seconds) of each forward step."""
    forward, reverse = annotation(walk)
    built = build(
        video,
        forward,
        reverse,
        id=walk["id"],
        part=f"part{walk['part']}",
        source="walks",
        group=walk["id"],
        pool={"direction": list(TURNS), "landmark": LANDMARKS, "action": ALL_ACTIONS},
        seed=seed,
    )
    moments = timeline(walk)["moments"]
    return [replace(sample, moments=tuple(moments[sample.task])) for sample in built]


# ---- the way of the walker -------------------------------------------------------------------


def _unit(quarter: int) -> np.ndarray:
    """Return the unit vector of a heading (quarter turns from the x axis)."""
    return np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][quarter % 4])


def _junctions(walk: dict) -> tuple[list[np.ndarray], list[int]]:
    """Return every junction's cell and the heading (quarter turns) into each, and out of the last."""
    turns = (TURNS[turn] for turn in walk["turns"])
    headings = list(accumulate(turns, initial=walk["heading"]))
    legs = (SPAN * _unit(heading) for heading in headings[1:-1])
    return list(accumulate(legs, initial=np.zeros(2, int))), headings


class _Walker:
    """Goes through a walk and notes its poses (knots) and when each step happens."""

    def __init__(self, walk: dict):
        cells, headings = _junctions(walk)
        self.pace = walk["pace"]
        self.second = 0.0
        self.place = cells[0] - 2.4 * _unit(headings[0])
        self.angle = headings[0] * np.pi / 2 + np.pi * walk["ends"][0]
        self.knots = [(self.second, *self.place, self.angle, 0)]
        self.moments = {"direction": [], "landmark": [], "action": []}

    def move(self, seconds: float, junction: int, place=None, quarters: int = 0, task: str = ""):
        """Walk, turn or stay; a task's step happens half-way through."""
        if task:
            self.moments[task].append(round(self.second + seconds * self.pace / 2, 3))
        self.second += seconds * self.pace
        self.angle += quarters * (np.pi / 2)
        if place is not None:
            self.place = place
        self.knots.append((self.second, *self.place, self.angle, junction))

    def note(self, task: str, before: float = 0.0):
        """Note a step that happens now, or a little before (seconds)."""
        self.moments[task].append(round(self.second - before, 3))


def timeline(walk: dict) -> dict:
    """Return poses as knots (seconds, x, y, heading in radians, junction ahead), steps' moments."""
    cells, headings = _junctions(walk)
    walker = _Walker(walk)
    last = len(cells) - 1
    walker.move(0.5, 0)
    if walk["ends"][0]:
        walker.move(2 * TURN, 0, quarters=-2, task="direction")
    for k, cell in enumerate(cells):
        _pass_junction(walker, k, cell, headings[k], headings[k + 1], bool(walk["actions"]))
    if walk["ends"][1]:
        walker.move(2 * TURN, last, quarters=2, task="direction")
    walker.move(0.5, last)
    left = 8.2 - walker.second  # the tiny preset asks for half a second a frame
    walker.move(max(0.0, left) / walker.pace, last)
    moments = walker.moments | {"route": walker.moments["direction"]}
    return {"knots": np.array(walker.knots), "seconds": walker.second, "moments": moments}


def _pass_junction(walker: _Walker, k: int, cell, heading: int, out: int, acts: bool) -> None:
    """Walk up to a junction, act there if the part has actions, pass the landmark, turn, leave."""
    if acts:
        walker.move(WALK * 0.3, k, cell - 1.7 * _unit(heading))
        walker.move(PAUSE, k, task="action")
    walker.move(WALK * (0.4 if acts else 0.5), k, cell)
    walker.note("landmark", before=0.4)
    if out == heading:
        walker.note("direction")
    else:
        walker.move(TURN * abs(out - heading), k, quarters=out - heading, task="direction")
    walker.move(WALK * (0.3 if acts else 0.5), k, cell + SPAN / 2 * _unit(out))


def junctions_ahead(walk: dict, seconds: np.ndarray) -> np.ndarray:
    """Return the junction whose surroundings are laid out at each moment (T,)."""
    knots = timeline(walk)["knots"]
    after = np.searchsorted(knots[:, 0], seconds, side="left")
    return knots[np.clip(after, 0, len(knots) - 1), 4].astype(int)


def _poses(walk: dict, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate position (T,2) and heading (T,)."""
    knots = timeline(walk)["knots"]
    x, y, angle = (np.interp(seconds, knots[:, 0], knots[:, column]) for column in (1, 2, 3))
    return np.stack([x, y], 1), angle


def _map(walk: dict, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the junctions k-1, k, k+1: a grid of walls, x first, and the cell of its corner."""
    cells, headings = _junctions(walk)
    corner = cells[k] - GRID // 2
    room = PARTS[walk["part"]][1]
    wall = np.ones((GRID, GRID), bool)

    def carve(start, direction, length):
        for i in range(length + 1):
            wall[tuple(start + i * direction - corner)] = False

    for j in range(max(0, k - 1), min(len(cells), k + 2)):
        carve(cells[j], -_unit(headings[j]), SPAN - 1)
        for side in (-1, 0, 1):
            carve(cells[j], _unit(headings[j] + side), room + 1)
        x, y = cells[j] - corner
        wall[x - room : x + room + 1, y - room : y + room + 1] = False
        carve(cells[j], _unit(headings[j + 1]), SPAN - 1)
    return wall, corner


# ---- what stands there -----------------------------------------------------------------------


@cache
def _icon(name: str) -> np.ndarray:
    """Draw a landmark, or a thing in the state an action leaves it in: RGBA (32,32,4) floats."""
    y, x = np.mgrid[0:ICON, 0:ICON] / 16 - 1 + 1 / 32
    r = np.hypot(x, y)
    if name not in LANDMARKS:
        return _thing(name, x, y, r)
    colour, shape = name.split()
    paint = np.full((ICON, ICON, 3), COLOURS[colour], float)
    if shape == "barrel":
        paint[abs(abs(y) - 0.4) < 0.13] *= 0.4  # its hoops
    if shape == "crate":
        paint[abs(abs(x) - abs(y)) < 0.16] *= 0.4  # its cross
    if shape == "ball":
        paint[np.hypot(x + 0.3, y + 0.3) < 0.25] = 255  # its shine
    return np.dstack([paint, _shape(shape, x, y, r) * 1.0])


def _shape(shape: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return the mask of a shape over coordinates from -1 to 1, y downward (32,32)."""
    angle = np.arctan2(x, -y)
    hearts_lobe = (abs(x) - 0.4) ** 2 + (y + 0.3) ** 2 < 0.2
    hearts_tip = (abs(x) * 1.05 < 0.85 - y) & (y > -0.2)
    masks = {
        "ball": r < 0.85,
        "cross": (abs(x) < 0.28) | (abs(y) < 0.28),
        "cone": abs(x) < (y + 1) * 0.45,
        "star": r < 0.5 + 0.42 * np.cos(5 * angle) ** 3,
        "pillar": abs(x) < 0.32 + 0.2 * (abs(y) > 0.75),
        "ring": (r < 0.9) & (r > 0.5),
        "diamond": abs(x) + abs(y) < 0.95,
        "crate": (abs(x) < 0.8) & (abs(y) < 0.8),
        "heart": hearts_lobe | hearts_tip,
        "barrel": abs(x) < 0.75 - 0.25 * y**2,
        "arch": (abs(x) < 0.8) & ((abs(x) > 0.4) | (y < -0.45)),
        "hourglass": abs(x) < abs(y) * 0.8 + 0.05,
    }
    return masks[shape]


def _thing(state: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Draw a door, box, lamp or flag in the state an action leaves it in."""
    canvas = np.zeros((*x.shape, 4))

    def fill(mask, colour):
        canvas[mask] = (*colour, 1)

    if "door" in state:
        leaf = (abs(x) < 0.55) & (y > -0.85)
        knob = np.hypot(x - 0.35, y - 0.1) < 0.1
        fill(abs(x) < 0.7, (90, 50, 20))
        fill(leaf, (10, 10, 14) if state.startswith("open") else (220, 170, 90))
        fill((x < -0.3) & (x > -0.55) & (y > -0.85), (220, 170, 90))
        fill(knob & state.startswith("close"), (40, 30, 20))
    elif "box" in state:
        box = (abs(x) < 0.42) & (y < 0.45) & (y > -0.5)
        fill((abs(x) < 0.5) & (y > 0.45), (60, 60, 70))
        fill(box & state.startswith("put"), (250, 90, 200))
    elif "lamp" in state:
        lit = "on" in state.split()
        shade = (abs(x) < 0.35 - y * 0.3) & (y < 0.1) & (y > -0.7)
        fill(((abs(x) < 0.1) & (y > 0)) | ((abs(x) < 0.4) & (y > 0.8)), (40, 40, 40))
        fill((r < 0.95) & (y < 0.3) & lit, (255, 250, 150))
        fill(shade, (255, 255, 220) if lit else (70, 70, 60))
    else:
        height = -0.6 if state.startswith("raise") else 0.55
        fill(abs(x + 0.6) < 0.09, (230, 230, 230))
        fill((x > -0.55) & (x < 0.75) & (abs(y - height) < 0.35), (30, 200, 90))
    return canvas


def _sprites(walk: dict, k: int, second: float) -> list[tuple[np.ndarray, str, float]]:
    """List what stands at junctions k-1, k, k+1 at a moment: place, icon, size in cells."""
    cells, headings = _junctions(walk)
    moments = timeline(walk)["moments"]["action"]
    room = 0.5 * PARTS[walk["part"]][1]
    sprites = []
    for j in range(max(0, k - 1), min(len(cells), k + 2)):
        sides = [side for side in (1, -1, 0) if side != TURNS[walk["turns"][j]]]
        if walk["swap"][j]:
            sides.reverse()
        places = []
        for side in sides:
            away = (0.58 if side else 0.95) + room
            places.append(cells[j] + away * _unit(headings[j] + side))
        sprites.append((places[0], walk["landmarks"][j], 0.7))
        if walk["actions"]:
            action = walk["actions"][j]
            state = action if second >= moments[j] else reverse_step(action)
            sprites.append((places[1], state, 0.75))
    return sprites


# ---- rendering -------------------------------------------------------------------------------


def _cast(
    maps: np.ndarray, index: np.ndarray, start: np.ndarray, ray: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """March rays (T,W,2) through grids to the first wall.

    Returns (T,W) each: the distance, the side hit (0 x, 1 y), and 1 where that axis was gone up.
    """
    cell = np.floor(start).astype(int)[:, None].repeat(ray.shape[1], 1)
    ray = np.where(abs(ray) < 1e-9, 1e-9, ray)
    delta = abs(1 / ray)
    sign = np.sign(ray).astype(int)
    reach = np.where(ray > 0, cell + 1 - start[:, None], start[:, None] - cell) * delta
    side = np.zeros(ray.shape[:2], int)
    in_the_open = np.ones(ray.shape[:2], bool)
    for _ in range(GRID):
        nearest = np.argmin(reach, -1)
        for axis in (0, 1):
            going = in_the_open & (nearest == axis)
            cell[..., axis][going] += sign[..., axis][going]
            reach[..., axis][going] += delta[..., axis][going]
            side[going] = axis
        in_the_open &= ~maps[index[:, None], cell[..., 0], cell[..., 1]]
        if not in_the_open.any():
            break
    distance = np.take_along_axis(reach - delta, side[..., None], -1)[..., 0]
    went_up = np.take_along_axis(sign, side[..., None], -1)[..., 0] > 0
    return np.maximum(distance, 0.05), side, went_up * 1


def render(walk: dict, seconds: np.ndarray, size: int = 168) -> np.ndarray:
    """Render the view at given moments (seconds): uint8 frames (T,size,size,3).

    All arithmetic is in float64: float32 would round by the processor's vector instructions.
    """
    seconds = np.asarray(seconds, float)
    place, angle = _poses(walk, seconds)
    ahead = junctions_ahead(walk, seconds)
    layouts = [_map(walk, k) for k in range(len(walk["turns"]))]
    corners = np.stack([corner for _, corner in layouts])[ahead]
    start = place + 0.5 - corners
    look = np.stack([np.cos(angle), np.sin(angle)], 1)
    right = np.stack([look[:, 1], -look[:, 0]], 1) * FOV
    screen = (np.arange(size) + 0.5) / size * 2 - 1
    ray = look[:, None] + right[:, None] * screen[None, :, None]
    maps = np.stack([wall for wall, _ in layouts])
    distance, side, went_up = _cast(maps, ahead, start, ray)
    frames = np.empty((len(seconds), size, size, 3), np.uint8)
    for i, second in enumerate(seconds):
        view = _surfaces(walk["part"], start[i], ray[i], distance[i], side[i], went_up[i], size)
        sprites = []
        for point, icon, height in _sprites(walk, ahead[i], second):
            depth, across = _place(point + 0.5 - corners[i] - start[i], look[i], right[i])
            sprites.append((depth, across, icon, height))
        for depth, across, icon, height in sorted(sprites, key=lambda sprite: -sprite[0]):
            if depth > 0.15:
                _paint(view, distance[i], depth, across, icon, height)
        frames[i] = view.clip(0, 255)
    return frames


def _surfaces(part, start, ray, distance, side, went_up, size) -> np.ndarray:
    """Paint walls, floor and ceiling of one view: floats (size,size,3) from its columns' rays."""
    surfaces = np.array(PARTS[part][2:], float)  # wall, mortar, floor, ceiling
    rows = ((np.arange(size) + 0.5) / size * 2 - 1)[:, None]
    flat = abs(rows) * FOV > 0.5 / distance  # floor or ceiling rather than wall
    depth = np.where(flat, 0.5 / FOV / abs(rows), distance)
    x = start[0] + depth * ray[:, 0]
    y = start[1] + depth * ray[:, 1]
    on_wall = _pattern(part, np.where(side == 0, y, x), rows * FOV * distance + 0.5)
    surface = np.where(flat, np.where(rows > 0, 2, 3), on_wall)
    checker = ((np.floor(x * 2) + np.floor(y * 2)) % 2 > 0) & (rows > 0)
    wall_light = np.array([[1.0, 0.66], [0.9, 0.76]])[side, went_up]
    light = np.where(flat, np.where(checker, 0.8, 1.0), wall_light) * np.exp(-FOG * depth)
    return surfaces[surface] * light[..., None]


def _pattern(part: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tell mortar from wall: bricks, boards, tiles, or a band, by part."""
    if part == 1:
        joint = (u * 2.5 + np.floor(v * 5) * 0.5) % 1  # moved by half a brick from row to row
        return ((v * 5) % 1 < 0.16) | (joint < 0.08)
    if part == 2:
        return ((u * 4) % 1 < 0.12) | (v > 0.8)
    if part == 3:
        return ((u * 3) % 1 < 0.1) | ((v * 3) % 1 < 0.1)
    return (abs(v - 0.6) < 0.08) | (((u * 1) % 1) < 0.06)


def _place(offset: np.ndarray, look: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Project a point: depth in cells, and how far across the screen (-1 left, 1 right)."""
    depth = float(offset @ look)
    return depth, float(offset @ right) / FOV**2 / max(depth, 1e-6)


def _paint(
    frame: np.ndarray, distance: np.ndarray, depth: float, across: float, name: str, height: float
) -> None:
    """Paint one standing thing into a frame wherever no wall is nearer."""
    icon = _icon(name)
    size = len(frame)
    scale = height / depth / FOV * size / 2  # pixels
    left = (across + 1) * size / 2 - scale / 2
    top = size / 2 + (0.5 / depth / FOV) * size / 2 - scale * 1.02
    columns = _covered(left, scale, size)
    rows = _covered(top, scale, size)
    columns = columns[distance[columns] > depth]
    icon_rows = ((rows + 0.5 - top) / scale * ICON).astype(int).clip(0, ICON - 1)
    icon_columns = ((columns + 0.5 - left) / scale * ICON).astype(int).clip(0, ICON - 1)
    patch = icon[np.ix_(icon_rows, icon_columns)]
    alpha = patch[..., 3:]
    shade = np.exp(-FOG * 0.6 * depth)
    where = np.ix_(rows, columns)
    frame[where] = frame[where] * (1 - alpha) + patch[..., :3] * shade * alpha


def _covered(start: float, length: float, size: int) -> np.ndarray:
    """Return the pixels of a frame's side whose middle lies from `start` to `start + length`."""
    first = max(0, int(np.ceil(start - 0.5)))
    return np.arange(first, min(size, int(np.ceil(start + length - 0.5))))


def _yuv420p(frame: np.ndarray) -> np.ndarray:
    """Turn RGB (H,W,3) into planes (3H/2,W), in integers (BT.601).

    FFmpeg's own conversion rounds by the processor it runs on.
    """
    r, g, b = np.moveaxis(frame.astype(np.int32), -1, 0)
    y = ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16
    u = ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128
    v = ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128
    planes = [y.ravel()]
    for plane in (u, v):
        rows = plane[::2] + plane[1::2]
        planes.append(((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).ravel())
    return np.concatenate(planes).reshape(-1, frame.shape[1]).astype(np.uint8)


def write_video(walk: dict, path: str | Path, size: int = 168) -> Path:
    """Render a walk into an H.264 file, 8 frames a second; the same walk gives the same frames."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = render(walk, np.arange(0, timeline(walk)["seconds"], 1 / FPS), size)
    temporary = path.with_suffix(f".{os.getpid()}.mp4")  # another process may draw the same walk
    options = {
        "crf": "26",
        "preset": "slow",
        "x264-params": "open-gop=0:threads=1:keyint=48:cpu-independent=1",
    }
    with av.open(str(temporary), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            planes = av.VideoFrame.from_ndarray(_yuv420p(frame), format="yuv420p")
            out.mux(stream.encode(planes))
        out.mux(stream.encode())
    return temporary.replace(path)
