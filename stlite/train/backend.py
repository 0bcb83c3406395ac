"""What stands under the models: Unsloth where there is a card, versions, and what is known not to work together.

Whoever imports transformers, peft or trl imports this first: on CUDA Unsloth must come before them,
as it replaces parts of them.
"""

import platform
import shutil
from importlib import metadata, util
from pathlib import Path

import torch
from packaging.version import Version

UNSLOTH = torch.cuda.is_available() and util.find_spec("unsloth") is not None
if UNSLOTH:
    import unsloth  # noqa: F401

# at most
UNSLOTH_TAKES = {"torch": "2.14.1", "transformers": "5.17.0", "trl": "1.15.0", "datasets": "4.8.5"}
UNSLOTH_TRIED = "2026.10.9"  # the newest that stlite was tried with
DRIVERS = (  # files of an NVIDIA driver: on Linux, and in Windows' Linux
    "/proc/driver/nvidia/version",
    "/usr/lib/wsl/lib/nvidia-smi",
)


def compute_dtype() -> torch.dtype:
    """Return bfloat16 where the card computes in it, float16 on older cards, float32 on a CPU."""
    if not torch.cuda.is_available():
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def dtype_for(family: str) -> torch.dtype:
    """Return `compute_dtype`, but float32 for Qwen3.5 on older cards.

    Float16 gives NaN in its recurrent layers.
    """
    if family == "qwen3_5" and compute_dtype() == torch.float16:
        return torch.float32
    return compute_dtype()


def unseen_card() -> str:
    """Say what is wrong where a card is there that torch cannot use; "" where all is well."""
    driver = any(Path(path).is_file() for path in DRIVERS) or shutil.which("nvidia-smi")
    if torch.cuda.is_available() or not driver:
        return ""
    return (
        f"an NVIDIA driver is here, but torch {torch.__version__} sees no card, and all runs in float32 on the CPU: "
        f"update the driver (this torch is built for CUDA {torch.version.cuda}), install a torch for an older CUDA, or "
        "look at CUDA_VISIBLE_DEVICES"
    )


def versions() -> str:
    """Say in one line which versions run, on which device, and which known-bad combination was met."""
    names = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "unsloth")
    found = {name: _version(name) for name in names}
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU ({torch.get_num_threads()} threads)"
    numbers = " ".join(f"{name} {version}" for name, version in found.items())
    route = "Unsloth 4-bit" if UNSLOTH else "transformers + bitsandbytes nf4"
    line = f"{device} | python {platform.python_version()} | {numbers} | {route}"
    for bad in [*known_bad(found, cuda), unseen_card()]:
        if bad:
            line += f" | WARNING {bad}"
    return line


def known_bad(found: dict[str, str], cuda: bool) -> list[str]:
    """List what is known not to work together among installed versions ("absent" where there is none), with the fix."""
    installed = {name: Version(version) for name, version in found.items() if version != "absent"}
    bad = []
    for name, last in UNSLOTH_TAKES.items():
        if "unsloth" not in installed or name not in installed:
            continue
        if installed[name].release > Version(last).release:
            bad.append(f"Unsloth refuses {name} {installed[name]}: install {name}=={last}")
    if "unsloth" in installed and installed["unsloth"] > Version(UNSLOTH_TRIED):
        bad.append(
            f"unsloth {installed['unsloth']} is newer than the {UNSLOTH_TRIED} that stlite was tried with: where "
            f"something fails, install unsloth=={UNSLOTH_TRIED}"
        )
    if "trl" in installed and installed["trl"].release[:2] == (1, 15) and not cuda:
        bad.append("trl 1.15 needs Triton for every log-prob: install trl==1.14.2")
    return bad


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
