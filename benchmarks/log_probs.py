"""One group's log-probs and their backward: each prompt once (packed), against a pass over every copy.

"Packed" attends as `packed_attention` does; "masked" is the same sequence under a mask over all of it.

    python benchmarks/log_probs.py                  # about five minutes on one core
    python benchmarks/log_probs.py 1200:64:8:on     # prompt : reply : G : gradient checkpointing

A Qwen2-VL of 23 M random weights in float32, with a LoRA adapter, on text alone: the clip's encoding
is kept, so that it costs neither way anything. CPU seconds of this process on one thread, of the
median of three passes. Saved: bytes of tensors that autograd holds until the backward pass.
The last lines are about logits: what a pass needs above the model for 8 x 256 tokens of 152,000.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "sample_data")]

POINTS = (
    "1200:64:8:on", "300:64:8:on", "1200:256:8:on", "1200:64:4:on", "1200:64:16:on",
    "1200:64:8:off", "300:64:8:off",
)  # fmt: skip
WIDTH = 512
LAYERS = 6
TARGETS = {"1200:64:8:on": 0.22, "300:64:8:on": 0.45, "1200:256:8:on": 0.40}


def build(checkpointing: bool):
    """Return a model of random weights with its adapter, in training mode."""
    import make_tiny
    from transformers import Qwen2VLForConditionalGeneration

    from stlite.train.models import add_lora

    config = make_tiny.model(make_tiny.processor().tokenizer).config
    config.vision_config.hidden_size = WIDTH
    text = config.text_config
    text.hidden_size = WIDTH
    text.intermediate_size = 3 * WIDTH
    text.num_hidden_layers = LAYERS
    text.num_attention_heads = WIDTH // 64
    text.num_key_value_heads = WIDTH // 64
    text.layer_types = ["full_attention"] * LAYERS
    text.max_position_embeddings = 8192
    text.rope_parameters["mrope_section"] = [16, 8, 8]
    network = Qwen2VLForConditionalGeneration(config)
    for parameter in network.parameters():  # so that what a token sees moves its log-prob
        if parameter.ndim > 1:
            parameter.data.mul_(3)
    model = add_lora(network)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
    return model.train()


def one_pass(log_probs_of, model, prompt, replies) -> tuple[float, float, list]:
    """Take one pass and its backward; return CPU seconds, bytes held for the backward, and log-probs."""
    import torch

    held = {}

    def hold(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    core = model.get_base_model()
    began = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        log_probs, _ = log_probs_of(core, prompt, replies, {}, 1.0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    log_probs.mean().backward()
    seconds = time.process_time() - began
    model.zero_grad()
    activations = sum(size for place, size in held.items() if place not in weights)
    return seconds, activations, log_probs.detach()


def measure(point: str) -> dict:
    """Compare the two ways at one point: ratios packed / plain, and their largest difference."""
    import torch

    from stlite.train import shared_prefix
    from stlite.train.packed_attention import allow_packed

    torch.set_num_threads(1)
    length, reply, group, checkpointing = point.split(":")
    torch.manual_seed(0)
    model = build(checkpointing == "on")
    prompt = torch.randint(20, 200, (int(length),))
    replies = [torch.randint(20, 200, (int(reply),)) for _ in range(int(group))]
    rows = {}
    for name in ("separate", "masked", "packed"):
        log_probs_of = shared_prefix.packed_log_probs
        if name == "separate":
            log_probs_of = shared_prefix.separate_log_probs
        if name == "packed":
            allow_packed(model)
        passes = [one_pass(log_probs_of, model, prompt, replies) for _ in range(3)]
        seconds = statistics.median(each[0] for each in passes)
        rows[name] = (seconds, passes[-1][1], passes[-1][2])
    plain = rows["separate"]
    packed = rows["packed"]
    difference = (plain[2] - packed[2]).abs().max().item()
    return {
        "point": point,
        "CPU s, plain": round(plain[0], 2),
        "CPU s, packed": round(packed[0], 2),
        "packed / plain": round(packed[0] / plain[0], 3),
        "masked / plain": round(rows["masked"][0] / plain[0], 3),
        "asked for": TARGETS.get(point),
        "saved, packed / plain": round(packed[1] / plain[1], 3),
        "largest difference of log-probs": difference,
    }


def logits() -> dict:
    """Measure what log-probs and backward of 8 x 256 tokens at 152k need above the model (GB)."""
    import torch

    from stlite.train.log_probs import token_log_probs

    torch.manual_seed(0)
    head = torch.nn.Linear(1024, 151_936, bias=False).requires_grad_(False)
    hidden = torch.randn(8 * 256, 1024, requires_grad=True)
    targets = torch.randint(151_936, (8 * 256,))
    token_log_probs(head, hidden[:8], targets[:8])[0].sum().backward()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_gb()
    token_log_probs(head, hidden, targets)[0].sum().backward()
    whole = 2 * 8 * 256 * 151_936 * 4 / 1e9
    return {"logits in chunks, GB above the model": round(peak_gb() - before, 2),
            "whole logits and log-softmax, by counting": round(whole, 2)}  # fmt: skip


def peak_gb() -> float:
    """Read this process's peak of memory (GB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def main() -> None:
    """Measure each point in a process of its own."""
    for point in sys.argv[1:] or [*POINTS, "logits"]:
        command = [sys.executable, "-W", "ignore", __file__, "--one", point]
        print(subprocess.check_output(command, text=True).splitlines()[-1], flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        point = sys.argv[2]
        print(json.dumps(logits() if point == "logits" else measure(point)))
    else:
        main()
