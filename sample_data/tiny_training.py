"""Training of the tiny model: batches, the loss with its throw-away readers, and the stages.

Readers are linear heads on middle layers, for training alone. They ask for what the network should
know there: what has happened by each pair of frames, which list of steps an option holds, which
letter it has, and which list is due at the end of a chain. Without them letters stay at chance.
"""

import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sample_data import tiny_lessons, tiny_parts, walks
from sample_data.tiny_lessons import TASKS, Pool
from sample_data.tiny_parts import FRAMES, HENCE, MERGE, PATCH, SIZE, STEPS, TEXT_WALK, token_id

GRID = SIZE // (PATCH * MERGE)  # tokens a side of a frame
PAIRS = FRAMES // 2  # two frames make one step in time
TOKENS = PAIRS * GRID**2  # tokens of a video
EARLY = 2  # the layer that should know what has happened so far
MIDDLE = 3  # the layer that should have read a list
LONGEST = 6  # steps in the longest list
LETTERS = "ABCDEFGH"
STATES = (len(walks.LANDMARKS), 5, 1 + len(walks.ALL_ACTIONS))  # landmark, turn made, action done
OPTION, CHAIN = 0, 1  # the two places a list is read at
LETTER_WEIGHT = 8.0
ATTENTION_WEIGHT = 0.5


def autocast_type() -> torch.dtype | None:
    """Return bfloat16 where the processor has it; without, its products take 8 times as long."""
    found = torch.cpu.get_capabilities()
    has_bfloat16 = found.get("avx512_bf16") or found.get("amx_bf16")
    return torch.bfloat16 if has_bfloat16 else None


# ---- batches ---------------------------------------------------------------------------------


def encode(tok, chats: list[list[dict]]) -> dict:
    """Tokenize chats, right-padded: ids, labels on the assistant's tokens (B,L), weights of labels."""
    texts = []
    for chat in chats:
        text = tok.apply_chat_template(chat, tokenize=False).rstrip("\n")
        texts.append(text.replace("<|video_pad|>", "<|video_pad|>" * TOKENS))
    batch = tok(texts, padding=True, padding_side="right", return_tensors="pt")
    ids = batch["input_ids"]
    begins = (ids == tok.convert_tokens_to_ids("assistant\u010a")).int()
    in_reply = (begins.cumsum(1) - begins > 0) & batch["attention_mask"].bool()
    labels = torch.where(in_reply, ids, -100)
    labels[_guessed(tok, ids)] = -100
    letters = [token_id(tok, f" {x}") for x in "ABCD"] + [token_id(tok, x) for x in "ABCD"]
    letters = torch.tensor(letters)
    weight = 1.0 + (LETTER_WEIGHT - 1) * torch.isin(labels, letters).float()
    return {"input_ids": ids, "labels": labels, "weight": weight, "letters": letters}


def _guessed(tok, ids: torch.Tensor) -> torch.Tensor:
    """Mark the chains over nothing, which nobody can know: no video, no steps as text (B,L)."""
    shown = torch.tensor([token_id(tok, TEXT_WALK), tok.convert_tokens_to_ids("<|video_pad|>")])
    nothing_shown = ~torch.isin(ids, shown).any(1)
    before_the_letter = (ids == token_id(tok, HENCE)).int().cumsum(1) == 0
    return nothing_shown[:, None] & before_the_letter


def find_lists(tok, ids: torch.Tensor) -> list[dict]:
    """Find the places at which a list of steps should have been read, with the list.

    An option's list is read at its end; the list of the chain's own letter is due at "Hence".
    Each is {"row", "at", "kind", "list", "letter"}, and for a chain "option_end".
    """
    step_of = {token_id(tok, f" {step}"): i for i, step in enumerate(STEPS)}
    opening = {token_id(tok, f" {x}."): x for x in LETTERS}
    answer_of = {token_id(tok, f" {x}"): x for x in LETTERS}
    hence = token_id(tok, HENCE)
    places = []
    for row, tokens in enumerate(ids.tolist()):
        options = {}
        ends = {}
        current = None
        for at, token in enumerate(tokens):
            if token in opening:
                current = opening[token]
                options[current] = []
            elif current and token in step_of:
                options[current].append(step_of[token])
            elif current:
                ends[current] = at - 1
                place = {"row": row, "at": at - 1, "kind": OPTION, "letter": LETTERS.index(current)}
                places.append({**place, "list": options[current]})
                current = None
            if token == hence:
                gold = answer_of[tokens[at + 1]]
                place = {"row": row, "at": at, "kind": CHAIN, "letter": LETTERS.index(gold)}
                places.append({**place, "list": options[gold], "option_end": ends[gold]})
    return places


def patches(processor, frames: np.ndarray) -> torch.Tensor:
    """Cut frames (B,T,H,W,3) into the processor's rows (B*T/2*H/14*W/14, 1176), normalised."""
    video = processor.video_processor
    mean = torch.tensor(video.image_mean)
    std = torch.tensor(video.image_std)
    pixels = (torch.from_numpy(np.ascontiguousarray(frames)).float() / 255 - mean) / std
    pixels = pixels.permute(0, 1, 4, 2, 3)
    pixels = pixels.reshape(-1, PAIRS, 2, 3, GRID, MERGE, PATCH, GRID, MERGE, PATCH)
    return pixels.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 2 * 3 * PATCH**2)


def positions(tok, ids: torch.Tensor, video: bool) -> torch.Tensor:
    """Lay out Qwen2-VL's three position axes (3,B,L) for one video a row, or plain text.

    As transformers 5.17 does, text goes on after the video's height, not after its time.
    """
    batch, length = ids.shape
    place = torch.arange(length).repeat(3, batch, 1)
    if not video:
        return place
    axes = torch.meshgrid(*map(torch.arange, (PAIRS, GRID, GRID)), indexing="ij")
    grid = torch.stack(axes).reshape(3, -1)
    for row, start in enumerate(_video_starts(tok, ids).tolist()):
        place[:, row, start : start + TOKENS] = start + grid
        place[:, row, start + TOKENS :] += GRID - TOKENS
    return place


def _video_starts(tok, ids: torch.Tensor) -> torch.Tensor:
    """Return where the first video token of each row stands (B,)."""
    return (ids == tok.convert_tokens_to_ids("<|video_pad|>")).int().argmax(1)


def states(walk: dict) -> torch.Tensor:
    """Tell for each pair of frames the landmark ahead, the turn made there, the action done there."""
    seconds = tiny_lessons.frame_times(walk)[1::2]
    moments = walks.timeline(walk)["moments"]
    first = int(walk["ends"][0])
    rows = []
    for second, junction in zip(seconds, walks.junctions_ahead(walk, seconds)):
        landmark = walks.LANDMARKS.index(walk["landmarks"][junction])
        turn = 0
        if second >= moments["direction"][first + junction]:
            turn = 1 + list(walks.TURNS).index(walk["turns"][junction])
        if _turned_around(walk, second, junction, moments["direction"]):
            turn = 4
        action = 0
        if walk["actions"] and second >= moments["action"][junction]:
            action = 1 + walks.ALL_ACTIONS.index(walk["actions"][junction])
        rows.append((landmark, turn, action))
    return torch.tensor(rows)


def _turned_around(walk: dict, second: float, junction: int, turns: list[float]) -> bool:
    """Tell whether the last turn before a moment was a turn around, at the start or the end."""
    at_start = walk["ends"][0] and junction == 0 and turns[0] <= second < turns[1]
    at_end = walk["ends"][1] and second >= turns[-1]
    return bool(at_start or at_end)


# ---- the forward pass ------------------------------------------------------------------------


def speed_up(network) -> None:
    """Train faster on a CPU, with the same numbers: plain products for attention and for patches.

    The library's own kernels spend two thirds of a step in their backward pass. Pairs of frames
    are equally long here, so the vision tower attends to all of them in one call.
    """
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen

    def attend(self, hidden_states, cu_seqlens, position_embeddings=None, **kwargs):
        clips = len(cu_seqlens) - 1
        rows = len(hidden_states)
        split = self.qkv(hidden_states).reshape(rows, 3, self.num_heads, -1)
        q, k, v = split.unbind(1)
        q, k = qwen.apply_rotary_pos_emb_vision(q, k, *position_embeddings)

        def by_clip(x):
            return x.reshape(clips, rows // clips, self.num_heads, -1).transpose(1, 2).to(v.dtype)

        scores = (by_clip(q) @ by_clip(k).transpose(-1, -2)).float() * self.scaling
        mixed = scores.softmax(-1).to(v.dtype) @ by_clip(v)
        return self.proj(mixed.transpose(1, 2).reshape(rows, -1))

    def embed(self, rows):
        return torch.nn.functional.linear(rows, self.proj.weight.flatten(1))

    qwen.VisionAttention.forward = attend
    qwen.PatchEmbed.forward = embed
    network.set_attn_implementation("eager")


def build_readers() -> torch.nn.ModuleDict:
    """Build the linear readers; see the top of this file."""
    sizes = {
        "option": LONGEST * (len(STEPS) + 1),
        "chain": LONGEST * (len(STEPS) + 1),
        "letter": len(LETTERS),
        "states": sum(STATES),
    }
    return torch.nn.ModuleDict(
        {name: torch.nn.Linear(tiny_parts.WIDTH, size) for name, size in sizes.items()}
    )


def forward(
    network, processor, batch: dict, readers=None, step_logits: float = 1.0
) -> tuple[torch.Tensor, dict]:
    """Return the weighted loss of a batch, and how often each kind of token was right.

    `batch` is what `Lessons.draw` returns. Rows are padded on the right, so no mask is needed.
    """
    tok = processor.tokenizer
    coded = encode(tok, batch["chats"])
    ids = coded["input_ids"]
    video = {}
    if batch["frames"] is not None:
        video["pixel_values_videos"] = patches(processor, batch["frames"])
        grid = [FRAMES // 2, SIZE // PATCH, SIZE // PATCH]
        video["video_grid_thw"] = torch.tensor([grid] * len(ids))
    place = positions(tok, ids, bool(video))
    kind = autocast_type()
    with torch.autocast("cpu", kind or torch.bfloat16, enabled=kind is not None):
        out = network.model(
            input_ids=ids,
            position_ids=place,
            use_cache=False,
            output_hidden_states=True,
            output_attentions=True,
            **video,
        )
        labels = coded["labels"][:, 1:]
        taught = labels != -100
        logits = network.lm_head(out.last_hidden_state[:, :-1][taught]).float()
    is_step = torch.isin(labels[taught], _step_ids(tok))
    logits = torch.where(is_step[:, None], logits * step_logits, logits)
    loss, right = _token_loss(logits, labels, coded)
    if readers is not None:
        for part, share in _reader_losses(readers, tok, ids, out, batch["states"]):
            loss = loss + part
            right |= share
    return loss, right


def _step_ids(tok) -> torch.Tensor:
    """Return the ids of all steps, with and without a space before them."""
    names = [*STEPS, *(f" {step}" for step in STEPS)]
    return torch.tensor([token_id(tok, name) for name in names])


def _token_loss(logits, labels, coded: dict) -> tuple[torch.Tensor, dict]:
    """Return the loss on the replies' tokens, and the share of tokens, replies and letters right."""
    taught = labels != -100
    weight = coded["weight"][:, 1:][taught]
    loss = cross_entropy(logits, labels[taught], reduction="none")
    right = logits.argmax(-1) == labels[taught]
    wrong = torch.zeros(labels.shape, dtype=torch.bool).masked_scatter(taught, ~right)
    shares = {"all": right.float().mean().item(), "whole": 1 - wrong.any(1).float().mean().item()}
    first_letters = _first_letters(labels, coded["letters"])
    if first_letters.any():
        shares["letter"] = 1 - wrong[first_letters].float().mean().item()
    return (loss * weight).sum() / weight.sum(), shares


def _first_letters(labels: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    """Mark the first letter of each reply, the one its chain names (B,L)."""
    is_letter = torch.isin(labels, letters)
    return is_letter & (is_letter.int().cumsum(1) == 1)


def _reader_losses(readers, tok, ids, out, happened):
    """Yield each reader's loss with its share of right answers."""
    places = find_lists(tok, ids)
    for kind, name in ((OPTION, "option"), (CHAIN, "chain")):
        chosen = [place for place in places if place["kind"] == kind]
        if not chosen:
            continue
        hidden = _hidden(out, MIDDLE, chosen)
        guess = readers[name](hidden).unflatten(-1, (LONGEST, len(STEPS) + 1))
        wanted = _padded([place["list"] for place in chosen])
        right = (guess.argmax(-1) == wanted).all(1).float().mean().item()
        yield cross_entropy(guess.flatten(0, 1), wanted.flatten()), {name: right}
        if kind == OPTION:
            guess = readers["letter"](hidden)
            wanted = torch.tensor([place["letter"] for place in chosen])
            right = (guess.argmax(-1) == wanted).float().mean().item()
            yield cross_entropy(guess, wanted), {"named": right}
        else:
            yield _attention_loss(out.attentions[MIDDLE], chosen)
    if happened is not None:
        yield from _state_losses(readers["states"], tok, ids, out, happened)


def _hidden(out, layer: int, places: list[dict]) -> torch.Tensor:
    rows = [place["row"] for place in places]
    columns = [place["at"] for place in places]
    return out.hidden_states[layer][rows, columns].float()


def _padded(lists: list[list[int]]) -> torch.Tensor:
    """Pad lists of steps to the longest a list can be (N,LONGEST)."""
    padded = torch.full((len(lists), LONGEST), len(STEPS))
    for row, steps in zip(padded, lists):
        row[: len(steps)] = torch.tensor(steps)
    return padded


def _attention_loss(attention: torch.Tensor, chains: list[dict]) -> tuple[torch.Tensor, dict]:
    """Reward one head's attention from the end of a chain to the end of the right option."""
    rows = [place["row"] for place in chains]
    start = [place["at"] for place in chains]
    end = [place["option_end"] for place in chains]
    look = attention[rows, 0, start, end].float()
    loss = -ATTENTION_WEIGHT * look.clamp(1e-3).log().mean()
    return loss, {"look": look.mean().item()}


def _state_losses(reader, tok, ids, out, happened):
    """Yield the losses of reading what has happened by each pair of frames, `happened` (B,T/2,3)."""
    ends = _video_starts(tok, ids)[:, None] + torch.arange(1, PAIRS + 1) * GRID**2 - 1
    rows = torch.arange(len(ids))[:, None]
    guesses = reader(out.hidden_states[EARLY][rows, ends].float()).split(STATES, -1)
    for i, name in enumerate(("place", "turn", "act")):
        wanted = happened[..., i]
        right = (guesses[i].argmax(-1) == wanted).float().mean().item()
        yield cross_entropy(guesses[i].flatten(0, 1), wanted.flatten()), {name: right}


# ---- lessons and stages ----------------------------------------------------------------------


class Lessons:
    """Draw the batches of a stage: {"chats", "frames" or None, "states" or None}."""

    def __init__(self, pool: Pool, stage: dict):
        self.pool = pool
        self.stage = stage

    def draw(self, lesson: str, size: int, rng: random.Random, held_out: bool = False) -> dict:
        """Draw one batch of "text", "describe" or "video" chats."""
        hard = 1.0 if held_out else self.stage["hard"]
        if lesson == "text":
            chats = [tiny_lessons.text_chat(rng, hard) for _ in range(size)]
            return {"chats": chats, "frames": None, "states": None}
        seeds = []
        chats = []
        for _ in range(size):
            task = rng.choices(TASKS, self.stage["tasks"])[0] if lesson == "video" else "direction"
            seed = rng.choice(self.pool.seeds(task, held_out))
            seeds.append(seed)
            chats.append(self._chat(lesson, task, tiny_lessons.base_walk(seed), rng))
        drawn = torch.stack([states(tiny_lessons.base_walk(seed)) for seed in seeds])
        frames = self.pool.look(seeds, None if held_out else rng)
        return {"chats": chats, "frames": frames, "states": drawn}

    def _chat(self, lesson: str, task: str, walk: dict, rng: random.Random) -> list[dict]:
        if lesson == "describe":
            return tiny_lessons.describe_chat(walk, rng)
        return tiny_lessons.video_chat(walk, task, rng, self.stage)


def optimizers(network, readers) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest; rates are set at every step."""
    inner = []
    rest = list(readers.parameters())
    for name, parameter in network.named_parameters():
        in_layer = "layers" in name or "blocks" in name
        (inner if parameter.ndim == 2 and in_layer else rest).append(parameter)
    muon = torch.optim.Muon(
        inner, lr=1e-3, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)]


STAGE = {  # what a stage says only where it differs
    "text": 0,  # chats a step
    "describe": 0,
    "video": 0,
    "tasks": (1.0, 1.0, 1.0),  # weights of direction, landmark, action among chains over video
    "hard": 0.8,  # share of questions over text with hard options
    "slips": dict.fromkeys(TASKS, (0.0, 0.0)),  # see tiny_lessons.video_chat
    "opposite": 0.5,
    "forward_first": None,
    "step_logits": 1.0,  # what logits of steps are multiplied with in the loss; more keeps doubt
    "rate": 1.5e-3,
    "warm": 100,  # steps in which the rate rises
    "fall": 0,  # steps at the end in which the rate falls
    "readers": True,
    "freeze_tower": False,
    "fresh_optimizer": False,
}


class Trainer:
    """Train through stages; a checkpoint holds all that going on needs."""

    def __init__(self, pool: Pool, path: Path, seed: int = 0, start: Path | None = None):
        torch.manual_seed(seed)
        self.pool = pool
        self.path = path
        self.seed = seed
        self.step = 0
        self.processor = tiny_parts.processor()
        self.network = tiny_parts.model(self.processor.tokenizer)
        if start is not None:
            self.network = type(self.network).from_pretrained(start, dtype=torch.float32)
        speed_up(self.network)
        self.readers = build_readers()
        self.optimizers = optimizers(self.network, self.readers)
        if path.exists():
            self._load(torch.load(path, weights_only=True))

    def _load(self, saved: dict) -> None:
        self.step = saved["step"]
        self.network.load_state_dict(saved["network"])
        self.readers.load_state_dict(saved["readers"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint in one move."""
        saved = {
            "step": self.step,
            "network": self.network.state_dict(),
            "readers": self.readers.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = self.path.with_suffix(".part")
        torch.save(saved, part)
        part.replace(self.path)

    def run(self, stages: list[dict], every: int = 50) -> None:
        """Train through the stages that are not done; print each lesson's accuracy as it goes."""
        begin = 0
        started = time.time()
        for changes in stages:
            stage = {**STAGE, **changes}
            end = begin + stage["steps"]
            if self.step == begin and stage["fresh_optimizer"]:
                self.optimizers = optimizers(self.network, self.readers)
            lessons = Lessons(self.pool, stage)
            self.network.model.visual.requires_grad_(not stage["freeze_tower"])
            while begin <= self.step < end:
                self._train_step(lessons, self.step - begin)
                if self.step % every == 0 or self.step == end:
                    minutes = round((time.time() - started) / 60, 1)
                    line = {"step": self.step, "minutes": minutes, **self.measure(lessons)}
                    print(json.dumps(line), flush=True)
                    self.save()
            begin = end

    def _train_step(self, lessons: Lessons, at: int) -> None:
        """Take one optimizer step, the stage's `at`-th."""
        stage = lessons.stage
        rng = random.Random(f"{self.seed}/{self.step}")
        rate = stage["rate"] * min(1, (at + 1) / stage["warm"])
        if stage["fall"]:
            rate *= min(1, (stage["steps"] - at) / stage["fall"])
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        readers = self.readers if stage["readers"] else None
        for lesson in ("text", "describe", "video"):
            if stage[lesson]:
                batch = lessons.draw(lesson, stage[lesson], rng)
                how = (readers, stage["step_logits"])
                loss, _ = forward(self.network, self.processor, batch, *how)
                loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1

    @torch.no_grad()
    def measure(self, lessons: Lessons, size: int = 64) -> dict:
        """Measure each lesson by itself on held-out walks, teacher-forced: {"text/letter": ...}."""
        self.network.eval()
        readers = self.readers if lessons.stage["readers"] else None
        found = {}
        for lesson in ("text", "describe", "video"):
            if not lessons.stage[lesson]:
                continue
            batch = lessons.draw(lesson, size, random.Random(5), held_out=True)
            _, shares = forward(self.network, self.processor, batch, readers)
            for name, share in shares.items():
                found[f"{lesson}/{name}"] = round(share, 3)
        self.network.train()
        return found
