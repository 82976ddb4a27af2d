"""Two reward functions with the signature that TRL uses.

    ascent train --method grpo --model <folder or hub id> --data examples/custom_reward/prompts.jsonl \
        --reward examples/custom_reward/my_rewards.py:correct examples/custom_reward/my_rewards.py:brief \
        --reward-weights 1.0 0.2 --max-new-tokens 26

Each returns one number a completion, or None where it does not apply. Columns of the data arrive by name.
"""

from __future__ import annotations

from typing import Any


def result(completion: str) -> str:
    """What follows the last semicolon: the model writes its steps before it."""
    return completion.rsplit(";", 1)[-1].strip()


def correct(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """1 where the result is right, else 0."""
    return [float(result(text) == right) for text, right in zip(completions, answer, strict=True)]


def brief(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
    """Shorter is better, among right results only: None elsewhere, so that brevity never pays for a mistake."""
    return [
        1.0 - len(text) / 26 if result(text) == right else None for text, right in zip(completions, answer, strict=True)
    ]
