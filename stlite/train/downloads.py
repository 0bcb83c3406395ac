"""What loading a model of the hub will take: whether it is here, how much there is to download, and of which family it is.

announce("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", four_bit=True)
"""

import os
import threading
from pathlib import Path

import torch

from stlite.train import memory
from stlite.train.presets import PRESETS, check_family

HUB_SECONDS = 4  # how long the hub may take to answer
PROXY_REFUSES = 407  # the status of a proxy that lets nobody out


def announce(preset: str, source: str, four_bit: bool) -> None:
    """Say in one line what loading a model of the hub will take.

    Fail at once where it cannot be had.
    """
    if Path(source).is_dir():
        return
    there = _is_downloaded(source)
    if not there:
        refuse_unreachable(source)
    if torch.cuda.is_available() and there:
        return
    size = (
        f"{memory.plan(preset, four_bit=False)['weights']:.1f} GB"
        if preset in PRESETS
        else "all of it"
    )
    download = "already downloaded" if there else f"{size} to download"
    device = (
        "on the card"
        if torch.cuda.is_available()
        else "on the CPU, as no CUDA card is seen: slow, for a try only"
    )
    print(f"{source}: {download}; runs {device}, {'in 4 bits' if four_bit else 'unquantised'}")


def refuse_other_families(source: str) -> str:
    """Return a model's family.

    Refuse another than ours before its weights are read or downloaded.
    """
    from transformers import PretrainedConfig

    written, _ = PretrainedConfig.get_config_dict(source)
    return check_family(written.get("model_type", ""), source)


def refuse_unreachable(source: str) -> bool:
    """Return whether the hub answers; refuse a model that is neither there nor to be had."""
    online = _hub_answers()
    if not online and not _is_downloaded(source):
        raise ConnectionError(
            f"{source}: not on this machine, and huggingface.co does not answer. Connect to the network, or download it "
            f"elsewhere and give its folder: load('path/to/{source.split('/')[-1]}')"
        )
    return online


def _is_downloaded(source: str) -> bool:
    """Say whether the hub's cache holds a model; a folder of it may still be incomplete."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, "config.json"), str)


def _hub_answers() -> bool:
    """Ask the hub for a sign of life.

    Whoever looks up its name may hang longer than any time-out.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    answers = []

    def ask():
        from huggingface_hub import constants, get_session

        try:
            status = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS).status_code
            answers.append(status < 500 and status != PROXY_REFUSES)
        except Exception:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return any(answers)
