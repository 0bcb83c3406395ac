"""Loading: presets, readings, what is said before, LoRA, and versions."""

import http.server
import json
import socket
import sys
import threading

import pytest
import torch
from huggingface_hub import constants
from random_models import architecture
from transformers import Qwen2VLForConditionalGeneration

from stlite.train import backend, downloads, models, presets, runs
from stlite.train.memory import plan
from stlite.train.models import add_lora, load


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(ValueError, match="tiny, qwen2-vl-2b.*found 'qwen9'"):
        load("qwen9")


def test_without_bitsandbytes_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RuntimeError, match="four_bit=False"):
        load("tiny")


def test_weights_are_four_bit_and_the_tower_is_not(tiny):
    model, _ = tiny
    kinds = {n: type(m).__name__ for n, m in model.named_modules() if n.endswith(("q_proj", "qkv"))}
    assert {kinds[n] for n in kinds if "language_model" in n} == {"Linear4bit"}
    assert {kinds[n] for n in kinds if "visual" in n} == {"Linear"}


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize(("kind", "dtype"), [("qwen3", "float16"), ("qwen3.5", "float32")])
def test_qwen35_computes_in_float32_where_a_card_has_no_bfloat16(
    kind, dtype, four_bit, tmp_path, monkeypatch
):
    """In float16 its recurrent layers give NaN; training then must not cast to float16 either."""
    monkeypatch.setattr(backend, "compute_dtype", lambda: torch.float16)
    model, _ = load(str(architecture(kind, tmp_path)), four_bit=four_bit)
    assert model.model.language_model.norm.weight.dtype == getattr(torch, dtype)
    kinds = {type(module).__name__: module for module in model.modules()}
    if four_bit:
        assert kinds["Linear4bit"].compute_dtype == getattr(torch, dtype)
    arguments = runs.arguments(tmp_path, {}, 0, model)
    assert (arguments["fp16"], arguments["bf16"]) == (dtype == "float16", False)


OTHERS = ("llava", "gemma3", "internvl", "qwen3", "qwen3_vl_moe", "qwen3_5_text", "Qwen3_VL", "")


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("merged", [False, True])
def test_another_family_is_refused_by_name_before_its_weights_are_read(tmp_path, family, merged):
    """There are none in the folder; one that `merge` could have written says nothing of families."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    if merged:
        reading = {"frames": 8, "max_pixels": 151200, "multiple": 28}
        (tmp_path / "stlite.json").write_text(json.dumps(reading))
    expected = f"expected a model of the families qwen2_vl, .*, qwen3_5, found '{family}'"
    with pytest.raises(ValueError, match=expected):
        load(str(tmp_path), four_bit=False)


@pytest.mark.parametrize(("text", "found"), [('{"model_type": ', "JSON"), ("[]", "a JSON object")])
@pytest.mark.parametrize("read", [load, plan])
def test_a_damaged_configuration_is_named(tmp_path, text, found, read):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json: expected {found}, found"):
        read(str(tmp_path))


def test_a_folder_without_a_reader_of_videos_says_what_to_copy(tmp_path):
    folder = architecture("qwen3", tmp_path)
    (folder / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="qwen3-vl: expected a processor.*Copy processor_config"):
        load(str(folder), four_bit=False)


def test_a_reading_is_the_presets_or_the_one_given():
    assert load("tiny")[1].reading == {"frames": 16, "max_pixels": 84 * 84, "multiple": 28}
    _, processor = load("tiny", frames=8, max_pixels=56 * 56)
    assert processor.reading == {"frames": 8, "max_pixels": 56 * 56, "multiple": 28}


@pytest.mark.parametrize("reading", [{"frames": 7}, {"frames": 0}, {"max_pixels": 100}])
def test_a_reading_that_cannot_be_is_refused_before_loading(reading):
    with pytest.raises(ValueError, match="an even number of frames and max_pixels of at least 28²"):
        load("tiny", **reading)


def test_lora_touches_the_language_layers_alone_and_once(tiny):
    model = add_lora(tiny[0], "paper")
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("language_model" in n and "lora_" in n for n in trained)
    assert not any("mlp" in n for n in trained)
    assert add_lora(model) is model
    with pytest.raises(ValueError, match="paper, default"):
        add_lora(load("tiny", four_bit=False)[0], "huge")


# ---- a model of the hub --------------------------------------------------------------------------


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """Leave the hub's cache empty."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, at import
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


def test_without_a_network_loading_fails_at_once(empty_hub, monkeypatch):
    """A server that takes the connection and never answers stands for a network that swallows packets."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(downloads, "HUB_SECONDS", 0.2)
        with pytest.raises(ConnectionError, match="Qwen3-VL-4B-Instruct: not on this machine"):
            load("qwen3-vl-4b")


@pytest.mark.parametrize("status", [407, 502, 503])
def test_a_proxy_that_reaches_no_hub_is_no_network(empty_hub, monkeypatch, status):
    class Proxy(http.server.BaseHTTPRequestHandler):
        """Answers every HEAD for a hub that it cannot reach."""

        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setattr(downloads, "HUB_SECONDS", 60)
        threading.Thread(target=proxy.handle_request, daemon=True).start()
        with pytest.raises(ConnectionError, match="Qwen3-VL-4B-Instruct: not on this machine"):
            load("qwen3-vl-4b")


def test_offline_by_wish_is_no_network(empty_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="give its folder"):
        load("someone/a-model-that-is-not-here")


def test_one_line_says_what_loading_without_a_card_will_take(empty_hub, monkeypatch, capsys):
    class Answer(http.server.BaseHTTPRequestHandler):
        """Answers every HEAD."""

        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        monkeypatch.setattr(downloads, "HUB_SECONDS", 60)  # a busy machine answers late
        threading.Thread(target=hub.handle_request, daemon=True).start()
        downloads.announce("qwen3-vl-4b", "Qwen/Qwen3-VL-4B-Instruct", four_bit=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert "8.9 GB to download" in line  # the sum of its files on the hub
    assert "CPU" in line
    assert "in 4 bits" in line


def test_a_folder_is_loaded_without_a_word(capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    downloads.announce("tiny", presets.PRESETS["tiny"]["source"], four_bit=True)
    assert capsys.readouterr().out == ""


# ---- numbers that overflow -----------------------------------------------------------------------


@pytest.fixture
def spoiled(tmp_path):
    """Return a function that saves a small model after changing it, and gives its folder."""

    def save(change) -> str:
        folder = architecture("qwen2", tmp_path)
        net = Qwen2VLForConditionalGeneration.from_pretrained(folder)
        with torch.no_grad():
            change(net)
        net.save_pretrained(folder)
        return str(folder)

    return save


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.model.language_model.layers[1].mlp.up_proj.weight.fill_(float("nan")),
        lambda net: net.model.language_model.embed_tokens.weight.fill_(float("inf")),
        lambda net: net.lm_head.weight[3].fill_(float("-inf")),
        lambda net: net.model.visual.merger.mlp[2].weight.fill_(float("inf")),
        lambda net: net.model.visual.blocks[0].mlp.fc1.bias.fill_(float("nan")),
    ],
)
def test_a_model_whose_numbers_overflow_is_refused(spoiled, change):
    with pytest.raises(FloatingPointError, match="NaN or infinite numbers"):
        load(spoiled(change), four_bit=False)


def test_a_tower_that_overflows_float16_is_put_in_float32(spoiled, capsys):
    """Products of 1e5 do not fit float16; the merger brings them down again."""

    def enlarge(net):
        net.model.visual.merger.mlp[0].weight.mul_(1e5)
        net.model.visual.merger.mlp[2].weight.mul_(1e-5)

    model, _ = load(spoiled(enlarge), four_bit=False)
    del model.model.visual.feature_cache
    model.half()
    models.check_finite(model)
    assert model.model.visual.dtype == torch.float32
    assert model.model.language_model.norm.weight.dtype == torch.float16
    assert "put in float32" in capsys.readouterr().out
