"""Rendered first-person walks whose every turn, landmark and action is known exactly.

    >>> walk = draw(7, part=4)
    >>> [len(walk[name]) for name in ("directions", "landmarks", "actions")]
    [3, 3, 3]

A walk passes junctions. At each one it goes straight, left or right, past a landmark; in part 4 it stops there first to act.
Parts differ in look, in length, and in having actions. The junctions around the walker are laid out anew as it goes,
so that any list of turns is possible.
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
    "red": (208, 40, 40), "blue": (40, 80, 220), "yellow": (240, 215, 40), "green": (40, 160, 60),
    "white": (240, 240, 240), "orange": (245, 140, 30), "purple": (140, 60, 180), "cyan": (60, 210, 220),
    "pink": (245, 130, 180), "brown": (130, 80, 40), "grey": (120, 120, 125), "black": (20, 20, 24),
}  # fmt: skip
SHAPES = [
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
]
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
WALK, TURN, PAUSE = 1.2, 1.8, 1.5  # seconds for SPAN cells, for 90 degrees, for an action
FOV, FOG, GRID = (
    0.84,
    0.16,
    32,
)  # tangent of half the view, darkening per cell, cells of a local map
USES = {
    "test": (0, 1),
    "train": (2,),
    "base": (3, 4, 5, 6, 7),
}  # which eighths of all walks each use may draw
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
    n = PARTS[part][0]
    turns = rng.choices(list(TURNS), k=n)
    while set(turns) == {"go straight"}:
        turns = rng.choices(list(TURNS), k=n)
    actions = (
        [rng.choice((a, reverse_step(a))) for a in rng.sample(ACTIONS, n)] if part == 4 else []
    )
    ends = [part < 3 and rng.random() < 0.25 for _ in range(2)]
    return {
        "id": f"w{seed:07d}", "seed": seed, "part": part, "turns": turns, "actions": actions,
        "directions": [AROUND] * ends[0] + turns + [AROUND] * ends[1],
        "landmarks": rng.sample(LANDMARKS, n), "ends": ends,
        "heading": rng.randrange(4), "pace": rng.uniform(0.9, 1.1), "swap": [rng.random() < 0.5 for _ in turns],
    }  # fmt: skip


def annotation(walk: dict) -> tuple[dict, dict]:
    """Return a walk's steps by task, forward and reverse: the one annotation all its samples are made from."""
    around, seen = [AROUND], zip(walk["turns"], walk["landmarks"])
    clauses = [
        f"{t} {'past' if t == 'go straight' else 'at'} the {landmark}" for t, landmark in seen
    ]
    forward = {
        task: walk[f"{task}s"] for task in ("direction", "landmark", "action") if walk[f"{task}s"]
    }
    forward["route"] = around * walk["ends"][0] + clauses + around * walk["ends"][1]
    rules = {task: "direction" if task == "route" else task for task in forward}
    return forward, {task: list(reverse_path(forward[task], rule)) for task, rule in rules.items()}


def samples(walk: dict, video: str, seed: int = 0) -> list[Sample]:
    """Make a walk's six to eight samples, with the moment (seconds) of each forward step."""
    forward, reverse = annotation(walk)
    pool = {"direction": list(TURNS), "landmark": LANDMARKS, "action": ALL_ACTIONS}
    made = build(
        video, forward, reverse, id=walk["id"], part=f"part{walk['part']}", source="walks", group=walk["id"],
        pool=pool, seed=seed,
    )  # fmt: skip
    moments = timeline(walk)["moments"]
    return [replace(s, moments=tuple(moments[s.task])) for s in made]


def _unit(quarter: int) -> np.ndarray:
    return np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][quarter % 4])


def _junctions(walk: dict) -> tuple[list[np.ndarray], list[int]]:
    """Return the cell of every junction and the heading (quarter turns) into each, the way out of the last included."""
    headings = list(accumulate((TURNS[turn] for turn in walk["turns"]), initial=walk["heading"]))
    legs = (SPAN * _unit(heading) for heading in headings[1:-1])
    return list(accumulate(legs, initial=np.zeros(2, int))), headings


def timeline(walk: dict) -> dict:
    """Return the walker's poses as knots (seconds, x, y, heading in radians, junction ahead) and each step's moment."""
    cells, headings = _junctions(walk)
    pace, quarter, acts, last = walk["pace"], np.pi / 2, bool(walk["actions"]), len(cells) - 1
    t, where, angle = (
        0.0,
        cells[0] - 2.4 * _unit(headings[0]),
        headings[0] * quarter + np.pi * walk["ends"][0],
    )
    knots, moments = [(t, *where, angle, 0)], {"direction": [], "landmark": [], "action": []}

    def move(
        seconds: float, at: int, place: np.ndarray | None = None, quarters: int = 0, task: str = ""
    ):
        """Walk, turn or stay; a task's step happens half-way through."""
        nonlocal t, where, angle
        if task:
            moments[task].append(round(t + seconds * pace / 2, 3))
        t, where, angle = (
            t + seconds * pace,
            where if place is None else place,
            angle + quarters * quarter,
        )
        knots.append((t, *where, angle, at))

    move(0.5, 0)
    if walk["ends"][0]:
        move(2 * TURN, 0, quarters=-2, task="direction")
    for k, (cell, heading, out) in enumerate(zip(cells, headings, headings[1:])):
        if acts:
            move(WALK * 0.3, k, cell - 1.7 * _unit(heading))
            move(PAUSE, k, task="action")
        move(WALK * (0.4 if acts else 0.5), k, cell)
        moments["landmark"].append(round(t - 0.4, 3))
        if out == heading:
            moments["direction"].append(round(t, 3))
        else:
            move(TURN * abs(out - heading), k, quarters=out - heading, task="direction")
        move(WALK * (0.3 if acts else 0.5), k, cell + SPAN / 2 * _unit(out))
    if walk["ends"][1]:
        move(2 * TURN, last, quarters=2, task="direction")
    move(0.5, last)
    move(max(0.0, 8.2 - t) / pace, last)  # the tiny preset asks for half a second a frame
    return {
        "knots": np.array(knots),
        "seconds": t,
        "moments": moments | {"route": moments["direction"]},
    }


def _poses(walk: dict, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interpolate position (T,2), heading (T,) and the junction whose surroundings are laid out (T,)."""
    knots = timeline(walk)["knots"]
    x, y, angle = (np.interp(seconds, knots[:, 0], knots[:, i]) for i in (1, 2, 3))
    ahead = knots[np.clip(np.searchsorted(knots[:, 0], seconds, side="left"), 0, len(knots) - 1), 4]
    return np.stack([x, y], 1), angle, ahead.astype(int)


def _map(walk: dict, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the junctions k-1, k, k+1: a grid of walls (GRID, GRID), x first, and the cell of its corner."""
    cells, headings = _junctions(walk)
    corner, room = cells[k] - GRID // 2, PARTS[walk["part"]][1]
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


@cache
def _icon(name: str) -> np.ndarray:
    """Draw a landmark or a thing to act on: RGBA (32, 32, 4) floats; `name` is a landmark or an action just done."""
    y, x = np.mgrid[0:32, 0:32] / 16 - 1 + 1 / 32
    r, angle = np.hypot(x, y), np.arctan2(x, -y)
    shapes = {
        "ball": r < 0.85, "cross": (abs(x) < 0.28) | (abs(y) < 0.28), "cone": abs(x) < (y + 1) * 0.45,
        "star": r < 0.5 + 0.42 * np.cos(5 * angle) ** 3, "pillar": abs(x) < 0.32 + 0.2 * (abs(y) > 0.75),
        "ring": (r < 0.9) & (r > 0.5), "diamond": abs(x) + abs(y) < 0.95, "crate": (abs(x) < 0.8) & (abs(y) < 0.8),
        "heart": ((abs(x) - 0.4) ** 2 + (y + 0.3) ** 2 < 0.2) | ((abs(x) * 1.05 < 0.85 - y) & (y > -0.2)),
        "barrel": abs(x) < 0.75 - 0.25 * y**2, "arch": (abs(x) < 0.8) & ((abs(x) > 0.4) | (y < -0.45)),
        "hourglass": abs(x) < abs(y) * 0.8 + 0.05,
    }  # fmt: skip
    if name not in LANDMARKS:
        return _thing(name, x, y, r)
    colour, shape = name.split()
    paint = np.full((32, 32, 3), COLOURS[colour], float)
    dark = {"barrel": abs(abs(y) - 0.4) < 0.13, "crate": abs(abs(x) - abs(y)) < 0.16}
    paint[dark.get(shape, np.zeros_like(r, bool))] *= 0.4
    paint[(shape == "ball") & (np.hypot(x + 0.3, y + 0.3) < 0.25)] = 255
    return np.dstack([paint, shapes[shape] * 1.0])


def _thing(state: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Draw a door, box, lamp or flag in the state an action leaves it in."""
    paint, alpha = np.zeros((*x.shape, 3)), np.zeros(x.shape)

    def fill(mask, colour):
        paint[mask], alpha[mask] = colour, 1

    if "door" in state:
        fill((abs(x) < 0.7), (90, 50, 20))
        fill(
            (abs(x) < 0.55) & (y > -0.85),
            (10, 10, 14) if state.startswith("open") else (220, 170, 90),
        )
        fill((x < -0.3) & (x > -0.55) & (y > -0.85), (220, 170, 90))
        fill((np.hypot(x - 0.35, y - 0.1) < 0.1) & state.startswith("close"), (40, 30, 20))
    elif "box" in state:
        fill((abs(x) < 0.5) & (y > 0.45), (60, 60, 70))
        fill((abs(x) < 0.42) & (y < 0.45) & (y > -0.5) & state.startswith("put"), (250, 90, 200))
    elif "lamp" in state:
        lit = "on" in state.split()
        fill(((abs(x) < 0.1) & (y > 0)) | ((abs(x) < 0.4) & (y > 0.8)), (40, 40, 40))
        fill((r < 0.95) & (y < 0.3) & lit, (255, 250, 150))
        fill(
            (abs(x) < 0.35 - y * 0.3) & (y < 0.1) & (y > -0.7),
            (255, 255, 220) if lit else (70, 70, 60),
        )
    else:
        fill((abs(x + 0.6) < 0.09), (230, 230, 230))
        height = -0.6 if state.startswith("raise") else 0.55
        fill((x > -0.55) & (x < 0.75) & (abs(y - height) < 0.35), (30, 200, 90))
    return np.dstack([paint, alpha])


def _sprites(walk: dict, k: int, second: float) -> list[tuple[np.ndarray, str, float]]:
    """List what stands at junctions k-1, k, k+1 at a moment: place, icon, size in cells."""
    cells, headings = _junctions(walk)
    moments, room, found = timeline(walk)["moments"]["action"], 0.5 * PARTS[walk["part"]][1], []
    for j in range(max(0, k - 1), min(len(cells), k + 2)):
        free = [s for s in (1, -1, 0) if s != TURNS[walk["turns"][j]]]
        sides = free[::-1] if walk["swap"][j] else free
        places = [cells[j] + ((0.58 if s else 0.95) + room) * _unit(headings[j] + s) for s in sides]
        found.append((places[0], walk["landmarks"][j], 0.7))
        if walk["actions"]:
            done = walk["actions"][j] if second >= moments[j] else reverse_step(walk["actions"][j])
            found.append((places[1], done, 0.75))
    return found


def _cast(
    maps: np.ndarray, index: np.ndarray, start: np.ndarray, ray: np.ndarray
) -> tuple[np.ndarray, ...]:
    """March rays (T,W,2) through grids to the first wall: distance, side hit (0 x, 1 y), and whether it was met going up that axis."""
    cell = np.floor(start).astype(int)[:, None].repeat(ray.shape[1], 1)
    ray = np.where(abs(ray) < 1e-9, 1e-9, ray)
    delta, sign = abs(1 / ray), np.sign(ray).astype(int)
    reach = np.where(ray > 0, cell + 1 - start[:, None], start[:, None] - cell) * delta
    side, open_ = np.zeros(ray.shape[:2], int), np.ones(ray.shape[:2], bool)
    for _ in range(GRID):
        step = np.argmin(reach, -1)
        for axis in (0, 1):
            go = open_ & (step == axis)
            cell[..., axis][go] += sign[..., axis][go]
            reach[..., axis][go] += delta[..., axis][go]
            side[go] = axis
        open_ &= ~maps[index[:, None], cell[..., 0], cell[..., 1]]
        if not open_.any():
            break
    distance = np.take_along_axis(reach - delta, side[..., None], -1)[..., 0]
    return (
        np.maximum(distance, 0.05),
        side,
        (np.take_along_axis(sign, side[..., None], -1)[..., 0] > 0) * 1,
    )


def render(walk: dict, seconds: np.ndarray, size: int = 168) -> np.ndarray:
    """Render the view at given moments (seconds): uint8 frames (T, size, size, 3)."""
    seconds = np.asarray(seconds, float)
    where, angle, ahead = _poses(walk, seconds)
    layouts = [_map(walk, k) for k in range(len(walk["turns"]))]
    start = where + 0.5 - np.stack([c for _, c in layouts])[ahead]
    look = np.stack([np.cos(angle), np.sin(angle)], 1)
    right = np.stack([look[:, 1], -look[:, 0]], 1) * FOV
    screen = (np.arange(size) + 0.5) / size * 2 - 1
    ray = look[:, None] + right[:, None] * screen[None, :, None]
    distance, side, positive = _cast(np.stack([m for m, _ in layouts]), ahead, start, ray)
    frames = np.empty((len(seconds), size, size, 3), np.uint8)
    for i, second in enumerate(seconds):
        view = _surfaces(
            walk["part"], *(a[i] for a in (start, ray, distance)), side[i], positive[i], size
        )
        seen = [(_place(p + 0.5 - layouts[ahead[i]][1] - start[i], look[i], right[i]), icon, height)
                for p, icon, height in _sprites(walk, ahead[i], second)]  # fmt: skip
        for (depth, across), icon, height in sorted(seen, key=lambda s: -s[0][0]):
            if depth > 0.15:
                _paint(view, distance[i], depth, across, icon, height)
        frames[i] = view.clip(0, 255)
    return frames


def _surfaces(part, start, ray, distance, side, positive, size) -> np.ndarray:
    """Paint walls, floor and ceiling of one view: floats (size, size, 3) from the rays of its columns."""
    _, _, *colours = PARTS[part]
    wall, mortar, floor, ceiling = np.array(colours, float)
    rows = ((np.arange(size) + 0.5) / size * 2 - 1)[:, None]
    flat = abs(rows) * FOV > 0.5 / distance  # floor or ceiling rather than wall
    depth = np.where(flat, 0.5 / FOV / abs(rows), distance)
    x, y = start[0] + depth * ray[:, 0], start[1] + depth * ray[:, 1]
    line = _pattern(part, np.where(side == 0, y, x), rows * FOV * distance + 0.5)
    light = np.array([[1.0, 0.66], [0.9, 0.76]])[side, positive]
    checker = ((np.floor(x * 2) + np.floor(y * 2)) % 2 > 0) & (rows > 0)
    light = np.where(flat, np.where(checker, 0.8, 1.0), light) * np.exp(-FOG * depth)
    surfaces = np.array([wall, mortar, floor, ceiling])
    return surfaces[np.where(flat, np.where(rows > 0, 2, 3), line)] * light[..., None]


def _pattern(part: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tell mortar from wall: bricks, boards, tiles, or a band, by part."""
    if part == 1:
        return ((v * 5) % 1 < 0.16) | (((u * 2.5 + np.floor(v * 5) * 0.5) % 1) < 0.08)
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
):
    """Paint one standing thing into a frame wherever no wall is nearer."""
    icon, size = _icon(name), len(frame)
    scale = height / depth / FOV * size / 2  # pixels
    left, top = (
        (across + 1) * size / 2 - scale / 2,
        size / 2 + (0.5 / depth / FOV) * size / 2 - scale * 1.02,
    )
    xs = np.arange(max(0, int(np.ceil(left - 0.5))), min(size, int(np.ceil(left + scale - 0.5))))
    ys = np.arange(max(0, int(np.ceil(top - 0.5))), min(size, int(np.ceil(top + scale - 0.5))))
    xs = xs[distance[xs] > depth]
    rows, columns = (
        ((a + 0.5 - o) / scale * len(icon)).astype(int) for a, o in ((ys, top), (xs, left))
    )
    patch = icon[np.ix_(rows.clip(0, len(icon) - 1), columns.clip(0, len(icon) - 1))]
    alpha, shade = patch[..., 3:], np.exp(-FOG * 0.6 * depth)
    frame[np.ix_(ys, xs)] = frame[np.ix_(ys, xs)] * (1 - alpha) + patch[..., :3] * shade * alpha


def _yuv420p(frame: np.ndarray) -> np.ndarray:
    """Turn RGB (H,W,3) into planes (3H/2,W), in integers (BT.601): FFmpeg's own way rounds by the processor it runs on."""
    r, g, b = np.moveaxis(frame.astype(np.int32), -1, 0)
    y = ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16
    u, v = (
        ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128,
        ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128,
    )
    small = [(c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2] + 2) >> 2 for c in (u, v)]
    return (
        np.concatenate([y.ravel(), *(c.ravel() for c in small)])
        .reshape(-1, frame.shape[1])
        .astype(np.uint8)
    )


def write_video(walk: dict, path: str | Path, size: int = 168) -> Path:
    """Render a walk into an H.264 file (8 frames a second, yuv420p, closed GOP); the same walk gives the same frames."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = render(walk, np.arange(0, timeline(walk)["seconds"], 1 / 8), size)
    temporary = path.with_suffix(f".{os.getpid()}.mp4")  # another process may draw the same walk
    options = {
        "crf": "26",
        "preset": "slow",
        "x264-params": "open-gop=0:threads=1:keyint=48:cpu-independent=1",
    }
    with av.open(str(temporary), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=8, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(_yuv420p(frame), format="yuv420p")))
        out.mux(stream.encode())
    return temporary.replace(path)
