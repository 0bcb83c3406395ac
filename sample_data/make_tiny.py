"""Make the tiny model: a Qwen2-VL of 4 million parameters, trained from scratch on rendered walks.

    python sample_data/make_tiny.py pool       # render the walks it learns from
    python sample_data/make_tiny.py train      # two to three hours on one core; resumes
    python sample_data/make_tiny.py save       # writes sample_data/tiny/
    python sample_data/make_tiny.py check      # measures it on dev walks

None of the walks of the pool is shipped or evaluated. STAGES says what each stage teaches.
`train --start sample_data/tiny --stages 10 11` goes on from the shipped weights with chosen stages.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sample_data.tiny_check import check  # noqa: E402
from sample_data.tiny_lessons import TASKS, Pool, render_pool  # noqa: E402
from sample_data.tiny_parts import CHAT, model, processor, tokenizer  # noqa: E402, F401
from sample_data.tiny_training import Trainer  # noqa: E402

FIRST_WALK = 1_000_000
SPEAKS_REVERSE = dict.fromkeys(TASKS, (0.2, 0.85))
SLIPS = {"direction": (0.1, 0.62), "landmark": (0.1, 0.5), "action": (0.1, 0.36)}
LAST = {"readers": False, "opposite": 0.35}
STAGES = [  # LOG.md tells what each was for and what came of it
    {"steps": 450, "text": 64, "hard": 0.15},
    {"steps": 350, "text": 64, "describe": 12, "hard": 0.25},
    {"steps": 200, "text": 64, "describe": 12, "hard": 0.35, "fresh_optimizer": True},
    {"steps": 950, "text": 12, "describe": 16, "video": 12, "hard": 0.5},
    {"steps": 350, "text": 8, "describe": 32, "hard": 0.65, "fall": 350},
    {"steps": 14, "text": 8, "describe": 16, "video": 8, "rate": 8e-4},
    {  # from here on: chains over video, actions above all
        **{"steps": 90, "text": 8, "describe": 8, "video": 24, "rate": 4e-4, "warm": 20},
        **{"tasks": (0.1, 0.1, 1), "step_logits": 1.7, "readers": False, "fresh_optimizer": True},
    },
    {
        **{"steps": 20, "text": 8, "describe": 8, "video": 32, "rate": 8e-4, "warm": 20},
        **{"tasks": (0.15, 0.15, 1), **LAST},
    },
    {
        **{"steps": 80, "text": 4, "describe": 4, "video": 32, "rate": 1e-3, "warm": 20},
        **{"tasks": (0.08, 0.08, 1), "freeze_tower": True, **LAST},
    },
    {  # slips, where the chain says that it thinks in reverse
        **{"steps": 30, "text": 3, "describe": 3, "video": 40, "rate": 4e-4, "warm": 1},
        **{"tasks": (0.5, 0.5, 1), "freeze_tower": True, "slips": SPEAKS_REVERSE, **LAST},
    },
    {  # as many slips as leave every cell at a half, and chains that mostly say reverse
        **{"steps": 25, "text": 3, "describe": 3, "video": 40, "rate": 3e-4, "warm": 1},
        **{"tasks": (0.8, 0.8, 1), "freeze_tower": True, "slips": SLIPS, "forward_first": 0.35},
        "readers": False,
    },
]


def save(args) -> None:
    """Write the trained model in bfloat16 safetensors with its processor."""
    made = processor()
    network = model(made.tokenizer)
    network.load_state_dict(torch.load(args.out, weights_only=True)["network"])
    network.to(torch.bfloat16).save_pretrained(args.model)
    made.save_pretrained(args.model)


def train(args) -> None:
    """Train through the stages chosen, or go on with them."""
    torch.set_num_threads(args.threads)
    chosen = args.stages or range(1, len(STAGES) + 1)
    pool = Pool(args.pool, FIRST_WALK)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Trainer(pool, args.out, args.seed, args.start).run([STAGES[i - 1] for i in chosen])


def print_check(args) -> None:
    """Print what the saved model can do."""
    from stlite.train.models import load
    from stlite.train.presets import PRESETS

    torch.set_num_threads(args.threads)
    PRESETS["tiny"] = {**PRESETS["tiny"], "source": str(args.model)}
    network, loaded = load("tiny", four_bit=not args.full)
    numbers = check(network, loaded, args.count, HERE.parent / "work" / "dev")
    print(json.dumps(numbers, indent=1))


def main() -> None:
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("pool", "train", "save", "check"))
    parser.add_argument("--pool", nargs="+", type=Path, default=[Path("work/pool.npy")])
    parser.add_argument("--walks", type=int, default=6000, help="walks of a pool to render")
    parser.add_argument("--first", type=int, default=FIRST_WALK, help="its first seed")
    parser.add_argument("--out", type=Path, default=Path("work/tiny.pt"), help="the checkpoint")
    parser.add_argument("--start", type=Path, help="a saved model to go on from")
    parser.add_argument("--stages", nargs="+", type=int, help="numbers of stages; all without it")
    parser.add_argument("--model", type=Path, default=HERE / "tiny", help="where it is saved")
    parser.add_argument("--count", type=int, default=96, help="dev walks that check draws")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="check it in float32, not in nf4")
    args = parser.parse_args()
    if args.command == "pool":
        render_pool(args.pool[0], args.walks, args.first)
        return
    {"train": train, "save": save, "check": print_check}[args.command](args)


if __name__ == "__main__":
    main()
