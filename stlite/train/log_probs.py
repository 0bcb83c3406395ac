"""Log-probs of tokens, a few tokens' logits at a time: a vocabulary of 152,000 is never held for a whole batch.

log_probs, entropies = token_log_probs(model.lm_head, hidden, targets, temperature=1.0)
"""

from collections.abc import Callable

import torch

CHUNK = 64  # tokens whose logits are held at once: 39 MB of float32 for a vocabulary of 152,000


def token_log_probs(
    head, hidden, targets, temperature: float = 1.0, entropy_gradient: bool = False
):
    """Return log-probs and entropies (N,), in float32 nats, of targets (N,) that follow hidden states (N,d).

    `head` maps hidden states to logits (N,V). In the backward pass each chunk's logits are computed
    again, where the head is frozen. Entropies have a gradient only if `entropy_gradient`.
    """
    frozen = not any(parameter.requires_grad for parameter in head.parameters())
    compute = Recomputed.apply if frozen else _chunk
    log_probs, entropies = [], []
    for start in range(0, max(len(targets), 1), CHUNK):
        chunk = slice(start, start + CHUNK)
        values = compute(hidden[chunk], targets[chunk], head, temperature, entropy_gradient)
        log_probs.append(values[0])
        entropies.append(values[1])
    return torch.cat(log_probs), torch.cat(entropies)


def _chunk(hidden, targets, head, temperature: float, entropy_gradient: bool):
    logits = head(hidden).float() / temperature
    every = logits.log_softmax(-1)
    chosen = every.gather(-1, targets[:, None])[:, 0]
    if not entropy_gradient:
        every = every.detach()
    return chosen, -(every.exp() * every).sum(-1)


class Recomputed(torch.autograd.Function):
    """Computes a chunk without keeping its logits, and computes it again in the backward pass.

    torch's checkpoint would do the same, but Unsloth puts another in its place.
    """

    @staticmethod
    def forward(ctx, hidden, targets, head, temperature, entropy_gradient):
        """Return log-probs and entropies (n,) of a chunk."""
        ctx.save_for_backward(hidden, targets)
        ctx.rest = (head, temperature, entropy_gradient)
        device = hidden.device.type
        enabled = torch.is_autocast_enabled(device)
        ctx.autocast = (device, torch.get_autocast_dtype(device), enabled)
        log_probs, entropies = _chunk(hidden, targets, *ctx.rest)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    def backward(ctx, log_prob_gradient, entropy_gradient):
        """Return the gradient of the hidden states (n,d)."""
        hidden, targets = ctx.saved_tensors
        hidden = hidden.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            log_probs, entropies = _chunk(hidden, targets, *ctx.rest)
            total = (log_probs * log_prob_gradient).sum()
            if entropies.requires_grad:
                total = total + (entropies * entropy_gradient).sum()
        (gradient,) = torch.autograd.grad(total, hidden)
        return gradient, None, None, None, None


def call_inside(model, bare, function: Callable, *arguments):
    """Call a function on a bare model from inside its wrapper's forward pass, if it has a wrapper.

    On several cards the wrapper gathers weights before, and gradients after.
    """
    if model is bare:
        return function(bare, *arguments)
    from trl.models.utils import _ForwardRedirection

    return _ForwardRedirection()(model, bare, function, bare, *arguments)
