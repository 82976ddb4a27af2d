"""Strings of letters 1..9 closed by 0, at most 10 after one of 8 prompts, a hidden score of them, and a reward model.

The score counts the prompt's three favourite letters, minus 0.6 for a letter twice in a row, minus 0.05 a letter.
Score, reward model and policies depend on prompt, place and last letter only: expectations and divergences are sums
over tables, no samples.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator, key, uniform
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import MLP, ActorCritic
from ascent.systems.offline import reward_model_method
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Dataset
from ascent.training.program import Phase

PROMPTS, LETTERS, LENGTH = 8, 10, 10
COMPARISONS, MODEL_STEPS = 3000, 300


def features(prompt: Tensor, place: Tensor, last: Tensor) -> Tensor:
    """[..., 28] one-hot prompt, place and last letter."""
    parts = ((prompt, PROMPTS), (place, LENGTH), (last, LETTERS))
    return torch.cat([torch.nn.functional.one_hot(number, size) for number, size in parts], -1).float()


GRID = torch.meshgrid(torch.arange(PROMPTS), torch.arange(LENGTH), torch.arange(LETTERS), indexing="ij")
INPUTS = PROMPTS + LENGTH + LETTERS


@functools.cache
def score_table(seed: int) -> Tensor:
    """[8, 10, 10, 10] what the next letter adds to the hidden score."""
    draw = generator("favourites", seed)
    favourite = torch.zeros(PROMPTS, LETTERS, dtype=torch.float64)
    for prompt in range(PROMPTS):
        favourite[prompt, 1 + torch.randperm(LETTERS - 1, generator=draw)[:3]] = 1.0
    letter = (torch.arange(LETTERS) > 0).double()
    again = torch.eye(LETTERS, dtype=torch.float64) * letter
    step = favourite[:, None, :] - 0.6 * again[None] - 0.05 * letter
    return step[:, None].expand(PROMPTS, LENGTH, LETTERS, LETTERS)


@torch.no_grad()
def policy_table(policy: ActorCritic) -> Tensor:
    """Log-probabilities [8, 10, 10, 10] of the next letter by prompt, place and last letter."""
    return torch.log_softmax(policy.actor(features(*GRID)).double(), -1)


def expected(log_pi: Tensor, step: Tensor) -> float:
    """Expected sum of `step` over a string, exact, over uniform prompts."""
    state = torch.zeros(PROMPTS, LETTERS, dtype=torch.float64)
    state[:, 0] = 1 / PROMPTS
    total = 0.0
    for place in range(LENGTH):
        joint = state[..., None] * log_pi[:, place].exp()
        total += float((joint * step[:, place]).sum())
        state = joint.sum(1)
        state[:, 0] = 0.0  # ended
    return total


def divergence(log_pi: Tensor, log_ref: Tensor) -> float:
    """KL(pi, reference) of a whole string, nats, exact."""
    return expected(log_pi, log_pi - log_ref)


def strings(log_pi: Tensor, step: Tensor, prompt: Tensor, group: Tensor, name: int) -> Decisions:
    """A string for each prompt, drawn by hash of `name`, with the sum of `step` as its reward."""
    rows = len(prompt)
    draws = uniform(torch.full((rows, 1), name), torch.arange(rows)[:, None], torch.arange(LENGTH))
    last, open_, total = torch.zeros_like(prompt), torch.ones(rows, dtype=torch.bool), torch.zeros(rows).double()
    seen, action, mask, log_prob = [], [], [], []
    for place in range(LENGTH):
        now = log_pi[prompt, place, last]
        letter = (draws[:, place, None] >= now.exp().cumsum(-1)).sum(-1).clamp(max=LETTERS - 1)
        letter = torch.where(open_, letter, 0)
        seen.append(features(prompt, torch.full_like(prompt, place), last))
        action.append(letter)
        mask.append(open_)
        log_prob.append(now.gather(1, letter[:, None])[:, 0].float())
        total += torch.where(open_, step[prompt, place, last, letter], 0.0)
        last, open_ = letter, open_ & (letter > 0)
    mask_, observation = torch.stack(mask, 1), torch.stack(seen, 1)
    final = mask_ & ~torch.cat([mask_[:, 1:], torch.zeros(rows, 1, dtype=torch.bool)], 1)
    return Decisions(
        mask=mask_,
        context={"observation": observation, "next_observation": observation},
        action=torch.stack(action, 1),
        behaviour_log_prob=torch.stack(log_prob, 1),
        reward=torch.where(final, total[:, None], 0.0).float(),
        terminated=final,
        truncated=torch.zeros_like(final),
        group=group,
        key=torch.arange(rows),
    )


@functools.cache
def reference(seed: int) -> ActorCritic:
    """pi_ref: supervised learning of strings of a random Markov grammar; its critic is untrained."""
    draw = generator("grammar", seed)
    weight = torch.rand(LETTERS, LETTERS, generator=draw, dtype=torch.float64) + 0.2
    weight[:, 0] = 0.12 * weight[:, 1:].sum(-1)
    grammar = (weight / weight.sum(-1, keepdim=True)).log().expand(PROMPTS, LENGTH, -1, -1)
    prompt = torch.randint(0, PROMPTS, (3000,), generator=draw)
    content = strings(grammar, score_table(seed), prompt, torch.arange(3000), key("grammar", seed))
    policy = ActorCritic(INPUTS, Head("categorical", (LETTERS,)), seed=seed)
    learn = Learn("policy", policy, ascent.method("sft", learning_rate=3e-3), Dataset(content, 128, seed))
    Loop(System({"policy": policy}, {}, (Phase("sft", (learn,), 200),))).run()
    return policy


class StepScorer(nn.Module):
    """A reward model whose score of a string is a sum over its letters; as a policy it has only values."""

    splittable = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.net = MLP((INPUTS, 64, LETTERS), 1.0, generator(seed, "reward model"))

    def steps(self) -> Tensor:
        """[8, 10, 10, 10] what each letter adds."""
        found: Tensor = self.net(features(*GRID)).double()
        return found

    def evaluate(self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Any] = {}) -> Evaluation:
        each = self.net(decisions.context["observation"]).gather(-1, decisions.action[..., None])[..., 0]
        return Evaluation(value=torch.where(decisions.mask, each, 0.0).cumsum(1))

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        return decisions.replace(value=self.evaluate(decisions, needs).value.detach())


def pairs(log_pi: Tensor, step: Tensor, count: int, *words: int | str) -> Decisions:
    """Two strings of each of `count` random prompts."""
    prompt = torch.randint(0, PROMPTS, (count,), generator=generator("prompts", *words)).repeat_interleave(2)
    return strings(log_pi, step, prompt, torch.arange(count).repeat_interleave(2), key("pairs", *words))


@functools.cache
def reward_model(seed: int) -> tuple[Tensor, dict[str, float]]:
    """Its table of steps, and how often it orders fresh pairs of the reference as the hidden score does.

    It is trained on comparisons that a Bradley-Terry judge of the hidden score made: y wins with sigmoid(s - s').
    """
    log_ref, step = policy_table(reference(seed)), score_table(seed)
    content = pairs(log_ref, step, COMPARISONS, "comparisons", seed)
    score = content.reward.sum(1)
    first_wins = torch.rand(COMPARISONS, generator=generator("judge", seed)) < torch.sigmoid(score[0::2] - score[1::2])
    label = torch.stack([first_wins, ~first_wins], 1).flatten().float()
    judged = content.replace(reward=torch.where(content.terminated, label[:, None], 0.0))
    model = StepScorer(seed)
    learn = Learn("policy", model, reward_model_method(3e-3), Dataset(judged, 128, seed))
    Loop(System({"policy": model}, {}, (Phase("reward model", (learn,), MODEL_STEPS),))).run()
    with torch.no_grad():
        fresh = pairs(log_ref, step, 2000, "fresh", seed)
        hidden, found = fresh.reward.sum(1), (model.evaluate(fresh, frozenset()).value * fresh.terminated).sum(1)
        differ = hidden[0::2] != hidden[1::2]
        right = ((hidden[0::2] > hidden[1::2]) == (found[0::2] > found[1::2]))[differ].double().mean()
        chance = torch.sigmoid((hidden[0::2] - hidden[1::2]).abs()).mean()
        spread = found.std()
        return model.steps(), {"accuracy": float(right), "judge": float(chance), "std": float(spread)}


@functools.cache
def offsets(seed: int, size: float) -> Tensor:
    """[8] delta(x), as a table of steps [8, 10, 10, 10] that the first letter carries."""
    table = torch.zeros(PROMPTS, LENGTH, LETTERS, LETTERS, dtype=torch.float64)
    table[:, 0] = size * torch.randn(PROMPTS, generator=generator("offsets", seed)).double()[:, None, None]
    return table
