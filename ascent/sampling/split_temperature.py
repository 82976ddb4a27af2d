"""Decoding with two temperatures: one where the policy hesitates, one elsewhere.

    p'_t = softmax(z_t / T'_t),   T'_t = T_high where H_t > threshold, else T_low       (arXiv 2506.01939, eq. 5)

H_t is the entropy at the policy's own temperature, whatever the two are. Nothing is recorded to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ascent.core.densities import Categorical
from ascent.core.random import key, mix, uniform
from ascent.policies.causal import CausalPolicy
from ascent.sampling.decode import draw
from ascent.sampling.text import decoded, decoder_for, fits
from ascent.worlds.text.task import Prompt


@torch.inference_mode()
def generate_split(
    policy: CausalPolicy,
    prompts: Sequence[Prompt],
    samples: int,
    max_new_tokens: int,
    threshold: float,
    high: float,
    low: float,
    seed: int = 0,
) -> list[list[str]]:
    """`samples` responses of each prompt as text; with `high == low` the same as `generate` at that temperature.

    Args:
        policy: who answers.
        prompts: strings or lists of messages.
        samples, max_new_tokens: >= 1.
        threshold: nats; above it a position takes the temperature `high`.
        high, low: temperatures, > 0.
        seed: of the draws.
    """
    for name, number in (("high", high), ("low", low)):
        if not number > 0:
            raise ValueError(f"{name} must be a temperature > 0; got {number!r}.")
    for name, count in (("samples", samples), ("max_new_tokens", max_new_tokens)):
        if count < 1:
            raise ValueError(f"{name} must be >= 1; got {count!r}.")
    encoded = [policy.encode_prompt(prompt) for prompt in prompts]
    for number, ids in enumerate(encoded):
        fits(policy, len(ids), max_new_tokens, number)
    keys = mix(torch.tensor(key(seed, "generate")), torch.arange(len(encoded))[:, None], torch.arange(samples))
    prompt, real = policy.pad_prompts(encoded)
    device = prompt.device
    draws = uniform(keys.reshape(-1)[:, None], torch.arange(max_new_tokens)).to(device)
    decoder = decoder_for(policy)
    logits = decoder.start(prompt, real, samples, max_new_tokens)
    ends = torch.tensor(policy.eos, device=device)
    running = torch.ones(len(logits), dtype=torch.bool, device=device)
    written, counted = [], []
    for position in range(max_new_tokens):
        scores = logits if logits.dtype == torch.float64 else logits.float()
        hesitates = Categorical(scores / policy.temperature).entropy() > threshold
        temperature = torch.where(hesitates, high, low).to(scores.dtype)
        tokens, _ = draw(scores / temperature[:, None], draws[:, position], 1.0, 0, 1.0)
        tokens = torch.where(running, tokens, policy.pad)
        written.append(tokens)
        counted.append(running)
        running = running & ~torch.isin(tokens, ends)
        if not bool(running.any()) or position + 1 == max_new_tokens:
            break
        logits = decoder.step(tokens)
    lines = decoded(policy, torch.stack(written, 1), torch.stack(counted, 1))
    return [lines[row : row + samples] for row in range(0, len(lines), samples)]
