"""Greedy answers up to where rounding decides.

Where kernels are not ours (KV of another type than f16, no flash attention, a GPU), what a
token's logits are depends, in the last digits, on what else is in its batch. Of random weights,
two tokens are now and then as likely as each other to within that, and which of them wins is
chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import snapllm

TIE = 0.02
"""A difference of log probabilities that rounding could turn around."""


def num_decided(gaps: Sequence[float]) -> int:
    """How many tokens come before the first tie.

    Args:
        gaps: by how much each token's log probability is above the next likely one's.
    """
    return next((i for i, gap in enumerate(gaps) if gap < TIE), len(gaps))


def decided_tokens(model: snapllm.Model, prompt: str | list[int], **options: object) -> list[int]:
    """The greedy answer's tokens, up to the first tie."""
    answer = model.generate(prompt, temperature=0, num_logprobs=2, **options)  # type: ignore[call-overload]
    gaps = [entry.top[0].logprob - entry.top[1].logprob for entry in answer.logprobs]
    return list(answer.tokens[: num_decided(gaps)])
