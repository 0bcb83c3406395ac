"""Each prompt once for its replies: log-probs, gradients and replies equal those of every copy by itself."""

import pytest
import torch
from random_models import KINDS, architecture

from stlite.data import prompts
from stlite.train import generation, packed_attention, shared_prefix
from stlite.train.caches import RoomyLayer
from stlite.train.delta_net import new_cache
from stlite.train.log_probs import CHUNK, token_log_probs
from stlite.train.models import add_lora, load
from stlite.train.runs import float32_adapter


def test_clips_of_different_length_are_split_and_joined():
    grids = torch.tensor([[2, 2, 2], [3, 2, 4]])
    fields = {"pixel_values_videos": torch.arange(32.0)[:, None], "video_grid_thw": grids}
    clips = shared_prefix.split_clips(fields, 2)
    assert [len(c["pixel_values_videos"]) for c in clips] == [8, 24]
    joined = shared_prefix.join_clips([clips[1], clips[0]])
    assert joined["video_grid_thw"].tolist() == grids.tolist()[::-1]
    assert joined["pixel_values_videos"][0] == 8
    with pytest.raises(ValueError, match="one video in each of 3 prompts"):
        shared_prefix.split_clips(fields, 3)


class Group:
    """A model that trains, a question with its clip, and replies of unequal length."""

    def __init__(self, model, processor, sample, videos):
        self.model = add_lora(model)
        float32_adapter(self.model)
        torch.manual_seed(1)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:  # else LoRA's other half has no gradient
                parameter.data.normal_(0, 0.05)
        self.core = self.model.get_base_model()
        self.inputs = generation.encode(processor, [prompts.messages(sample)], videos)
        self.prompt = self.inputs["input_ids"][0]
        (self.clip,) = shared_prefix.split_clips(self.inputs, 1)
        self.replies = [torch.randint(5, 250, (length,)) for length in (9, 1, 23, 5, 16)]

    def packed(self):
        """Return log-probs of all replies as training computes them."""
        return shared_prefix.packed_log_probs(self.core, self.prompt, self.replies, self.clip, 0.9)[
            0
        ]

    def separate(self):
        """Return them from a plain forward of prompt and reply, one after another, by torch's own log-softmax."""
        parts = []
        for reply in self.replies:
            ids = torch.cat([self.prompt, reply])[None]
            kinds = (ids == self.core.config.video_token_id).int() * 2
            logits = self.core(
                input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **self.clip
            ).logits[0]
            before = logits[len(self.prompt) - 1 : -1].float() / 0.9
            parts.append(before.log_softmax(-1)[torch.arange(len(reply)), reply])
        return torch.cat(parts)

    def values(self, log_probs):
        """Return log-probs and the gradient of a sum in which every token weighs something else."""
        self.model.zero_grad()
        values = log_probs()
        (values * torch.linspace(-1, 2, len(values))).sum().backward()
        grads = [p.grad.flatten() for p in self.model.parameters() if p.requires_grad]
        return values.detach(), torch.cat(grads).clone()


WRAPPED = ("qwen3 wrapped", "qwen3.5 wrapped")  # the other way to write the times of frames


PACKED = tuple(f"{kind} in 4 bits" for kind in KINDS)


def loaded(name: str, folder) -> tuple:
    """Load a model of random weights, in one of the architectures: "qwen3", "qwen3 wrapped", "qwen3 in 4 bits"."""
    kind, _, how = name.partition(" ")
    timestamps = how if how == "wrapped" else None
    four_bit = how == "in 4 bits"
    return load(str(architecture(kind, folder)), four_bit=four_bit, timestamps=timestamps)


@pytest.fixture(scope="module", params=[*KINDS, *WRAPPED, *PACKED, "tiny in 4 bits"])
def group(request, training, videos, tmp_path_factory):
    """Build a group of five replies to one question, for a model of each architecture, plain and in 4 bits."""
    if request.param == "tiny in 4 bits":
        model, processor = load("tiny")
    else:
        model, processor = loaded(request.param, tmp_path_factory.mktemp("model"))
    group = Group(model, processor, training[0], videos)
    group.four_bit = "4 bits" in request.param
    return group


@pytest.mark.parametrize("checkpointing", ["off", "reentrant", "not reentrant"])
def test_a_packed_group_gives_the_log_probs_and_gradients_of_its_copies(group, checkpointing):
    model = group.model.train()
    model.gradient_checkpointing_disable()
    expected, expected_gradient = group.values(group.separate)
    if checkpointing != "off":
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    found, gradient = group.values(group.packed)
    model.gradient_checkpointing_disable()
    log_prob_limit = 5e-5 if group.four_bit else 1e-5
    assert (found - expected).abs().max() <= log_prob_limit
    assert expected_gradient.abs().max() > 0
    assert (gradient - expected_gradient).abs().max() <= 1e-5 * expected_gradient.abs().max()


def test_the_prompt_is_read_once_with_checkpointing_on(group):
    """Tokens that the language model reads with a gradient: at most 1.02 × (prompt + replies)."""
    tokens = []
    count = group.core.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    group.model.train()
    group.model.gradient_checkpointing_enable({"use_reentrant": False})
    group.values(group.packed)
    group.model.gradient_checkpointing_disable()
    count.remove()
    assert sum(tokens) <= 1.02 * (len(group.prompt) + sum(len(reply) for reply in group.replies))


def test_a_model_whose_attention_takes_no_mask_reads_every_copy(group, monkeypatch):
    monkeypatch.setattr(
        group.core.config.get_text_config(), "_attn_implementation", "flash_attention_2"
    )
    assert not shared_prefix.can_pack(group.core)
    monkeypatch.undo()
    assert shared_prefix.can_pack(group.core)
    arguments = (group.core, group.prompt, group.replies, group.clip, 0.9)
    with torch.no_grad():
        packed = shared_prefix.packed_log_probs(*arguments)
        separate = shared_prefix.separate_log_probs(*arguments)
    for one, other in zip(packed, separate):
        assert torch.allclose(one, other, atol=5e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_that_is_not_ours_is_given_a_mask(kind, attention, training, videos, tmp_path):
    """Eager attention adds its mask to scores: one of true and false would hide nothing."""
    model, processor = load(str(architecture(kind, tmp_path)), four_bit=False)
    group = Group(model, processor, training[0], videos)
    expected = group.values(group.separate)
    config = group.core.config.get_text_config()
    assert config._attn_implementation == packed_attention.NAME
    group.core.set_attn_implementation(attention)
    assert config._attn_implementation == attention
    found = group.values(group.packed)
    assert (found[0] - expected[0]).abs().max() <= 1e-5


# ---- the vocabulary in chunks --------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_chunks_give_what_whole_logits_give(count, entropy_gradient, frozen):
    """Log-probs, entropies and gradients, of the head too where it trains."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 301, bias=False).requires_grad_(not frozen)
    hidden = torch.randn(count, 16, requires_grad=True)
    targets = torch.randint(0, 301, (count,))
    weights = torch.randn(2, count)
    log_probs, entropies = token_log_probs(head, hidden, targets, 0.7, entropy_gradient)
    ((log_probs * weights[0]).sum() + (entropies * weights[1]).sum() * entropy_gradient).backward()
    found = (hidden.grad.clone(), None if frozen else head.weight.grad.clone())
    hidden.grad = head.weight.grad = None
    every = torch.distributions.Categorical(logits=head(hidden) / 0.7)
    loss = (every.log_prob(targets) * weights[0]).sum()
    if entropy_gradient:
        loss = loss + (every.entropy() * weights[1]).sum()
    loss.backward()
    assert torch.allclose(log_probs, every.log_prob(targets), atol=1e-5)
    assert torch.allclose(entropies, every.entropy(), atol=1e-5)
    assert torch.allclose(found[0], hidden.grad, atol=1e-5)
    assert frozen or torch.allclose(found[1], head.weight.grad, atol=1e-4)
    assert entropies.requires_grad == (entropy_gradient and count > 0) or count == 0


# ---- generation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, *WRAPPED])
def test_prompts_read_once_for_their_copies_give_the_replies_of_each_by_itself(
    kind, training, videos, tmp_path
):
    """Prompts of unequal length, their copies in any order, drawn at a temperature."""
    model, processor = loaded(kind, tmp_path)
    chats = [prompts.messages(sample) for sample in (training[0], training[7])]
    copies = [1, 0, 0, 1, 0]
    settings = generation.sampling(model, processor, max_new_tokens=12, temperature=1.0)
    plain = generation.encode(processor, [chats[copy] for copy in copies], videos)
    torch.manual_seed(3)
    expected = generation.draw(model, plain, settings)
    inputs = generation.encode(processor, chats, videos)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert mask.sum(1).unique().numel() == 2
    clips = shared_prefix.join_clips(shared_prefix.split_clips(inputs, 2))
    cache = new_cache(model.config, RoomyLayer)
    cache = shared_prefix.read_prompts(model, ids, mask, clips, copies, cache)
    torch.manual_seed(3)
    rows = {"input_ids": ids[copies], "attention_mask": mask[copies]}
    assert generation.draw(model, rows, settings, cache) == expected
    assert len({tuple(reply) for reply in expected}) > 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "qwen3.5"])
def test_a_static_cache_gives_the_replies_of_the_growing_one(kind, training, videos, tmp_path):
    """Prompts of unequal length, read once for copies in any order; greedy."""
    model, processor = load(str(architecture(kind, tmp_path)), four_bit=False)
    chats = [prompts.messages(sample) for sample in (training[0], training[7])]
    copies = [1, 0, 0, 1, 0]
    settings = generation.sampling(model, processor, max_new_tokens=12)
    inputs = generation.encode(processor, chats, videos)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    clips = shared_prefix.join_clips(shared_prefix.split_clips(inputs, 2))
    rows = {"input_ids": ids[copies], "attention_mask": mask[copies]}

    def read():
        cache = new_cache(model.config, RoomyLayer)
        return shared_prefix.read_prompts(model, ids, mask, clips, copies, cache)

    expected = generation.draw(model, rows, settings, read())
    assert generation.draw_compiled(model, rows, settings, read) == expected
    assert len({tuple(reply) for reply in expected}) > 1


def test_a_model_with_states_of_its_own_is_drawn_without_a_static_cache(training, videos, tmp_path):
    loaded = load(str(architecture("qwen3.5", tmp_path)), four_bit=False)
    how = {"videos": videos, "max_new_tokens": 6}
    expected = generation.generate(*loaded, training[:2], **how)
    with pytest.warns(UserWarning, match="static.*states of their own"):
        replies = generation.generate(*loaded, training[:2], cache_implementation="static", **how)
    assert replies == expected


def test_steps_that_cannot_be_compiled_are_taken_uncompiled(tiny, training, videos, monkeypatch):
    """The compiler's own error, raised where a machine without one raises it."""
    how = {"videos": videos, "max_new_tokens": 6}
    expected = generation.generate(*tiny, training[:2], **how)
    plain = type(tiny[0]).prepare_inputs_for_generation

    def fail_with_static_cache(self, *args, past_key_values=None, **kwargs):
        if isinstance(past_key_values, generation.StaticCache):
            raise torch._dynamo.exc.TorchRuntimeError("no compiler", None)
        return plain(self, *args, past_key_values=past_key_values, **kwargs)

    monkeypatch.setattr(type(tiny[0]), "prepare_inputs_for_generation", fail_with_static_cache)
    with pytest.warns(UserWarning, match="cannot be compiled here.*no compiler"):
        replies = generation.generate(*tiny, training[:2], cache_implementation="static", **how)
    assert replies == expected
