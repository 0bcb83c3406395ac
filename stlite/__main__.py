"""The command line: `stlite annotate | sft | grpo | evaluate | report | plan`, or `python -m stlite …`.

On several cards: `accelerate launch --config_file stlite/train/accelerate/ddp.yaml -m stlite sft …`
"""

import argparse
import ast
import os
import sys
from functools import partial
from pathlib import Path

from stlite.data.checks import format_table
from stlite.data.egost import read_rows
from stlite.data.paths import list_films
from stlite.data.video import ORDERS
from stlite.eval import render
from stlite.eval import report as reports
from stlite.eval.evaluate import evaluate, questions
from stlite.eval.records import join, shard
from stlite.eval.run_folder import fingerprint
from stlite.rewards.rewards import PRESETS as REWARDS
from stlite.train import durations, memory


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    commands = ", ".join(COMMANDS)
    parser = argparse.ArgumentParser(
        prog="stlite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=commands)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see: stlite COMMAND --help")
    args = parser.parse_args(argv)
    COMMANDS[args.command](args.arguments)


def _parser(name: str, function) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"stlite {name}", description=function.__doc__)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add what every command that loads a model takes."""
    parser.add_argument(
        "--videos", required=True, help="the folder that paths of videos start from"
    )
    parser.add_argument("--out", required=True, help="the run folder, made or resumed")
    parser.add_argument("--model", default="tiny", help="a preset, a local folder or a hub id")
    parser.add_argument("--adapter", help="a folder that training saved")
    parser.add_argument(
        "--four-bit", action=argparse.BooleanOptionalAction, default=True, help="nf4 weights"
    )
    backends = ("auto", "unsloth", "transformers")
    parser.add_argument("--backend", default="auto", choices=backends, help="what loads the model")


# ---- annotation ---------------------------------------------------------------------------------


def annotate_command(argv: list[str]) -> None:
    """Annotate the films of a folder: write a notebook of one cell, and open it in JupyterLab."""
    parser = _parser("annotate", annotate_command)
    parser.add_argument("videos", metavar="FOLDER", help="the folder of the films")
    table_help = "the table to write or to go on with, .csv or .jsonl (walks.csv)"
    parser.add_argument("table", metavar="TABLE", nargs="?", default="walks.csv", help=table_help)
    parser.add_argument("--no-open", action="store_true", help="only write the notebook")
    args = parser.parse_args(argv)
    from stlite.viz import annotation_notebook

    films, faults = list_films(args.videos)
    if not films:
        found = "; ".join(faults) or f"none under {args.videos}"
        parser.error(f"expected a folder with films, found {found}")
    try:
        path = annotation_notebook.write_notebook(args.videos, args.table)
        print(f"notebook: {path}")
        if args.no_open:
            print(f'open it: jupyter lab "{path}"')
        else:
            sys.exit(annotation_notebook.open_notebook(path))
    except (OSError, ValueError) as error:
        parser.error(str(error))


# ---- training -----------------------------------------------------------------------------------


def _train_parser(name: str, function) -> argparse.ArgumentParser:
    parser = _parser(name, function)
    parser.add_argument("--data", required=True, help="a file of released rows")
    _add_model(parser)
    parser.add_argument("--lora", default="default", help="default or paper")
    parser.add_argument("--seed", type=int, default=0)
    choices = ("raise", "leave out")
    parser.add_argument("--on-bad-video", default="raise", choices=choices)
    parser.add_argument(
        "settings",
        nargs="*",
        type=setting,
        metavar="KEY=VALUE",
        help="settings of TrainingArguments or GRPOConfig",
    )
    return parser


def setting(text: str) -> tuple[str, object]:
    """Read a name and a Python value, or else text.

    >>> setting("learning_rate=1e-4"), setting("optim=adamw_torch")
    (('learning_rate', 0.0001), ('optim', 'adamw_torch'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def sft_command(argv: list[str]) -> None:
    """Teach a model chains of thought, on one card or several."""
    parser = _train_parser("sft", sft_command)
    recipes = ("st-cot", "forward-cot", "label")
    parser.add_argument("--recipe", default="st-cot", choices=recipes)
    args = parser.parse_intermixed_args(argv)
    from stlite.train.sft import sft

    _train(sft, args, recipe=args.recipe)


def grpo_command(argv: list[str]) -> None:
    """Reinforce what earns reward, on one card or several."""
    parser = _train_parser("grpo", grpo_command)
    parser.add_argument("--rewards", default="st-r1", choices=REWARDS)
    parser.add_argument(
        "--temporal", action="store_true", help="reward right replies that need the frames' order"
    )
    args = parser.parse_intermixed_args(argv)
    from stlite.train.grpo import grpo

    _train(grpo, args, rewards=args.rewards, temporal=args.temporal)


def _train(stage, args: argparse.Namespace, **options) -> None:
    from stlite.train.models import load

    how = {"four_bit": args.four_bit, "backend": args.backend, "adapter": args.adapter}
    model, processor = load(args.model, **how)
    samples = list(read_rows(args.data, args.videos))
    options |= {"videos": args.videos, "lora": args.lora, "seed": args.seed}
    options["on_bad_video"] = args.on_bad_video
    stage(model, processor, samples, args.out, **options, **dict(args.settings))


# ---- evaluation ---------------------------------------------------------------------------------


def evaluate_command(argv: list[str]) -> None:
    """Evaluate a model on questions, or go on where a run stopped, on one card or several."""
    parser = _parser("evaluate", evaluate_command)
    data_help = "a folder of the benchmark, released rows, or samples.jsonl"
    parser.add_argument("--data", required=True, help=data_help)
    _add_model(parser)
    parser.add_argument("--order", default="forward", choices=ORDERS, help="order of the frames")
    parser.add_argument(
        "--direct",
        action="store_true",
        help="ask for the answer without thinking; reports set RUN/direct beside RUN",
    )
    parser.add_argument("--retry", action="store_true", help="ask again what failed")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N questions")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="questions at a time")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="the longest reply")
    args = parser.parse_args(argv)
    samples = _questions(parser, args)
    rank = int(os.environ.get("RANK", 0))
    count = int(os.environ.get("WORLD_SIZE", 1))
    settings, ask = _model(args)
    evaluate(
        samples[rank::count],
        ask,
        shard(args.out, rank, count),
        settings=settings,
        batch=args.batch,
        order=args.order,
        retry=args.retry,
    )
    if count == 1 or join(samples, args.out, count):
        print(f"written: {args.out}; next: stlite report {args.out}")


def _questions(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list:
    """Read the questions asked for; rows that are none are counted on stderr."""
    samples, bad = questions(args.data, args.videos)
    if bad:
        said = f"left out: {len(bad)} rows that are no questions; the first: {bad[0]}"
        print(said, file=sys.stderr)
    if not samples or not Path(args.videos).is_dir():
        parser.error(
            f"expected questions and a folder of videos, found {len(samples)} and {args.videos!r}"
        )
    return samples[: args.limit]


def _model(args: argparse.Namespace) -> tuple:
    """Load a model; return the settings that its records go by, and the function that asks it."""
    from stlite.train import generation, models, presets

    settings = dict(presets.settings(args.model))
    del settings["source"]
    settings |= {"model": args.model, "four_bit": args.four_bit, "direct": args.direct}
    settings["adapter"] = fingerprint(args.adapter) if args.adapter else None
    how = {"four_bit": args.four_bit, "backend": args.backend, "adapter": args.adapter}
    model, processor = models.load(args.model, **how)
    ask = partial(
        generation.generate,
        model,
        processor,
        videos=args.videos,
        max_new_tokens=args.tokens,
        direct=args.direct,
    )
    return settings, ask


def report_command(argv: list[str]) -> None:
    """Report on run folders; of two or more, also on how each differs from the first."""
    parser = _parser("report", report_command)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a file of records")
    for ending in render.RENDER:
        parser.add_argument(
            f"--{ending[1:]}", dest="files", action="append", metavar="FILE", help="written as well"
        )
    args = parser.parse_args(argv)
    report = reports.report(*args.runs)
    print(render.text(report))
    for path in args.files or []:
        print("written:", render.save(report, path))


# ---- before a run -------------------------------------------------------------------------------


def plan_command(argv: list[str]) -> None:
    """Predict a training step's memory (GB).

    Without a model, batches and minutes by preset and card.
    """
    parser = _parser("plan", plan_command)
    parser.add_argument("--model", help="a preset or a local folder")
    parser.add_argument(
        "settings", nargs="*", type=setting, metavar="KEY=VALUE", help="settings of memory.plan"
    )
    args = parser.parse_intermixed_args(argv)
    settings = dict(args.settings)
    if args.model:
        print(format_table([memory.plan(args.model, **settings)]))
    else:
        print(format_table(memory.largest_batches(**settings)))
        print("\nminutes: SFT over 630 rows + 150 GRPO steps + 300 questions evaluated")
        print(format_table(durations.table()))


COMMANDS = {
    "annotate": annotate_command,
    "sft": sft_command,
    "grpo": grpo_command,
    "evaluate": evaluate_command,
    "report": report_command,
    "plan": plan_command,
}

if __name__ == "__main__":
    main()
