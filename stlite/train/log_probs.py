"""Log-probs of tokens, a few tokens' logits at a time: a vocabulary of 152,000 is never held for a whole batch.

log_probs, entropies = token_log_probs(model.lm_head, hidden, targets, temperature=1.0)
"""

import torch
from torch.utils.checkpoint import checkpoint

CHUNK = 64  # tokens whose logits are held at once: 39 MB of float32 for a vocabulary of 152,000


def token_log_probs(
    head, hidden, targets, temperature: float = 1.0, entropy_gradient: bool = False
):
    """Return log-probs and entropies (N,), in float32 nats, of targets (N,) that follow hidden states (N,d).

    `head` maps hidden states to logits (N,V). In the backward pass each chunk's logits are computed again. Entropies
    have a gradient only if `entropy_gradient`.
    """
    log_probs, entropies = [], []
    for start in range(0, max(len(targets), 1), CHUNK):
        chunk = slice(start, start + CHUNK)
        arguments = (head, hidden[chunk], targets[chunk], temperature, entropy_gradient)
        if torch.is_grad_enabled() and hidden.requires_grad:
            values = checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            values = _chunk(*arguments)
        log_probs.append(values[0])
        entropies.append(values[1])
    return torch.cat(log_probs), torch.cat(entropies)


def _chunk(head, hidden, targets, temperature: float, entropy_gradient: bool):
    logits = head(hidden).float() / temperature
    every = logits.log_softmax(-1)
    chosen = every.gather(-1, targets[:, None])[:, 0]
    if not entropy_gradient:
        every = every.detach()
    return chosen, -(every.exp() * every).sum(-1)
