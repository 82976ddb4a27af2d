"""Written solutions as decisions, for the supervised warm-up."""

from __future__ import annotations

import random

import torch

from ascent.core.decisions import Decisions
from ascent.core.random import key
from ascent.policies.causal import CausalPolicy
from ascent.worlds.text.task import TextTask


def demonstrations(
    task: TextTask, policy: CausalPolicy, step: int, batch: int, seed: int, corrupted: float = 0.5
) -> Decisions:
    """`batch` solutions of training problems `step * batch`, ...; the same for the same arguments.

    Args:
        task: with demonstrations.
        policy: its tokenizer writes the tokens; the end-of-sequence token closes every solution.
        step: of the warm-up, from 0.
        batch: rows, >= 1.
        seed: of which solutions are corrupted, and how.
        corrupted: share of wrong solutions in [0, 1]; with some of them the warm-up leaves work to do.

    Returns:
        Rows with prompts as context and solution tokens as actions; no log-probs, rewards or advantages.
    """
    if batch < 1 or not 0 <= corrupted <= 1:
        raise ValueError(f"batch must be >= 1 and corrupted in [0, 1]; got batch={batch}, corrupted={corrupted}.")
    prompts, solutions = [], []
    for index in range(step * batch, (step + 1) * batch):
        rng = random.Random(key(seed, "demonstration", index))
        solution = task.demonstration(index)
        solutions.append(task.corrupt(solution, rng) if rng.random() < corrupted else solution)
        prompts.append(policy.encode_prompt(task.example(index).prompt))
    ids = [[*item, policy.eos[0]] for item in policy.tokenizer(solutions, add_special_tokens=False)["input_ids"]]
    prompt, real = policy.pad_prompts(prompts)
    width = max(len(item) for item in ids)
    lengths = torch.tensor([[len(item)] for item in ids])
    action = torch.tensor([item + [policy.pad] * (width - len(item)) for item in ids])
    columns = torch.arange(width)
    indices = torch.arange(step * batch, (step + 1) * batch)
    return Decisions(
        mask=(columns < lengths).to(policy.device),
        context={"prompt": prompt, "prompt_mask": real},
        action=action.to(policy.device),
        terminated=(columns == lengths - 1).to(policy.device),
        truncated=torch.zeros(batch, width, dtype=torch.bool, device=policy.device),
        group=indices.to(policy.device),
        index=indices.to(policy.device),
        key=torch.tensor([key(seed, "demonstration", int(index)) for index in indices], device=policy.device),
    )
