"""The temporal-contrast reward of T-GRPO: a right reply earns more where the frames' order is needed.

For each prompt, half as many replies are drawn with the frames shuffled. Where the replies to the
film in its order are right clearly more often, the right ones earn a bonus (arXiv 2503.21776).
"""

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from stlite.data.sample import Sample
from stlite.rewards.rewards import accuracy_reward, reward_columns, temporal_contrast
from stlite.train.generation import generate


def make_temporal_reward(
    model, processor, samples: Sequence[Sample], videos, settings: dict
) -> Callable:
    """Return a reward function in TRL's shape that asks the model itself about shuffled frames.

    `settings` are GRPO's: replies are drawn with its temperature and its longest reply.
    """
    by_id = {sample.id: sample for sample in samples}
    sampling = {
        "max_new_tokens": settings["max_completion_length"],
        "temperature": settings["temperature"],
    }

    def temporal_reward(completions, *, id, trainer_state=None, **columns) -> list[float | None]:
        ordered = accuracy_reward(completions, **columns)
        step = trainer_state.global_step if trainer_state else 0
        half = [by_id[name] for name in halve(id)]
        shuffled = score_shuffled(model, processor, half, videos, step, sampling)
        rewards = [None] * len(ordered)
        for name in dict.fromkeys(id):
            places = [place for place, other in enumerate(id) if other == name]
            beside = [score for sample, score in zip(half, shuffled) if sample.id == name]
            scores = temporal_contrast([ordered[place] for place in places], beside)
            for place, score in zip(places, scores):
                rewards[place] = score
        return rewards

    return temporal_reward


def halve(ids: Sequence[str]) -> list[str]:
    """Return each id half as often, and at least once.

    >>> halve(["a", "a", "a", "a", "b"])
    ['a', 'a', 'b']
    """
    half = []
    for name, count in Counter(ids).items():
        half += [name] * max(count // 2, 1)
    return half


def score_shuffled(
    model, processor, samples: Sequence[Sample], videos, seed: int, sampling: dict
) -> list[float | None]:
    """Return the accuracy of replies to shuffled frames.

    Random states and mode of the model stay as they were.
    """
    training = model.training
    with torch.random.fork_rng(devices=_devices(model)):
        found = generate(
            model, processor, samples, order="shuffled", videos=videos, seed=seed, **sampling
        )
    model.train(training)
    errors = [result["error"] for result in found if "error" in result]
    if errors:
        raise OSError(f"temporal reward: a clip could not be read again: {errors[0]}")
    replies = [result["reply"] for result in found]
    opened = [result["thinking_opened"] for result in found]
    return accuracy_reward(replies, thinking_opened=opened, **reward_columns(samples))


def _devices(model) -> list[int]:
    """Return the card whose random state generation moves, if it runs on one."""
    device = next(model.parameters()).device
    return [device.index] if device.type == "cuda" else []
