"""The text sampler: exact log-probs, draws that survive any batch, endings, shares, bad input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.choose import decoder_for
from ascent.sampling.text import TextSampler, generate
from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.task import Example

TASK = Arithmetic()
LOG_PROB = frozenset({"log_prob"})


class Uneven(Arithmetic):
    """Prompts of different lengths, so that padding matters."""

    def example(self, index: int) -> Example:
        return Example("1+" * (index % 4) + super().example(index).prompt)


def policy(temperature: float = 1.0, peaked: float = 1.0, context: int = 64) -> CausalPolicy:
    """Random weights; `peaked` > 1 makes some tokens, the end among them, more likely."""
    made = embedded(TASK.alphabet, seed=1, hidden=32, layers=2, heads=2, context=context, temperature=temperature)
    with torch.no_grad():
        made.model.model.norm.weight *= peaked
    return made


def sampler(made: CausalPolicy, **changes: Any) -> TextSampler:
    settings: dict[str, Any] = {"prompts_per_step": 4, "group_size": 3, "max_new_tokens": 20} | changes
    return TextSampler(made, settings.pop("task", Uneven()), **settings)


def by_key(decisions: Decisions) -> Mapping[int, list[int]]:
    """The tokens of each row by its key."""
    rows = zip(decisions.key.tolist(), decisions.action, decisions.mask, strict=True)
    return {key: action[mask].tolist() for key, action, mask in rows}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_log_probs_are_what_the_policy_says(temperature: float) -> None:
    made = policy(temperature, peaked=3.0)
    drawn = sampler(made, temperature=temperature)
    assert drawn.exact
    decisions = drawn.act(0)
    found = made.evaluate(decisions, LOG_PROB).log_prob
    torch.testing.assert_close(found, decisions.behaviour_log_prob, atol=1e-5, rtol=0)
    lengths = decisions.mask.sum(1)
    assert lengths.min() < lengths.max()


def test_shape_of_a_collection() -> None:
    made = policy(peaked=3.0)
    decisions = sampler(made).act(5)
    assert decisions.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert decisions.index.tolist() == decisions.group.tolist()
    assert len(set(decisions.key.tolist())) == 12
    assert decisions.extras["budget"].unique().tolist() == [20]
    assert decisions.context["prompt"].shape == decisions.context["prompt_mask"].shape
    assert (decisions.terminated.sum(1) + decisions.truncated.sum(1)).eq(1).all()
    for row in range(12):
        length = int(decisions.mask[row].sum())
        last = decisions.action[row, length - 1]
        assert bool(decisions.mask[row, :length].all())
        assert bool(decisions.terminated[row, length - 1]) == (int(last) in made.eos)
        assert bool(decisions.truncated[row, length - 1]) == (length == 20 and int(last) not in made.eos)
        assert not any(int(token) in made.eos for token in decisions.action[row, : length - 1])
    assert not decisions.behaviour_log_prob.is_inference()


def test_both_endings_happen() -> None:
    decisions = sampler(policy(peaked=2.0), group_size=16).act(0)
    assert decisions.terminated.any() and decisions.truncated.any()


def test_a_response_does_not_depend_on_the_rows_beside_it() -> None:
    made = policy(peaked=3.0)
    whole = by_key(sampler(made).act(2))
    assert by_key(sampler(made, rows_at_once=3).act(2)) == whole
    smaller = by_key(sampler(made, group_size=2).act(2))
    assert len(smaller) == 8 and all(whole[key] == tokens for key, tokens in smaller.items())


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_are_the_parts_of_the_whole(processes: int) -> None:
    made = policy(peaked=3.0)
    whole = by_key(sampler(made).act(1))
    parts: dict[int, list[int]] = {}
    for rank in range(processes):
        drawn = sampler(made, share=(rank, processes))
        part = by_key(drawn.act(1))
        assert not set(part) & set(parts) and drawn.consumed == 4
        parts |= part
    assert parts == whole


def test_steps_samples_and_seeds_draw_apart() -> None:
    made = policy()
    first, again, other = sampler(made), sampler(made), sampler(made, seed=1)
    one = first.act(0)
    assert by_key(one) == by_key(again.act(0))
    assert not set(by_key(one)) & set(by_key(other.act(0)))
    repeated = sampler(made).act(1)
    assert by_key(one) != by_key(repeated)
    rows = list(by_key(one).values())
    assert len({tuple(row) for row in rows[:3]}) == 3


def test_the_cursor_goes_on_where_it_was() -> None:
    made = policy()
    straight, resumed = sampler(made), sampler(made)
    straight.act(0)
    resumed.load_state_dict(straight.state_dict())
    expected = straight.act(1)
    assert expected.index.min() == 4
    assert by_key(resumed.act(1)) == by_key(expected)


@pytest.mark.parametrize("change", [{"top_k": 3}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.8, "temperature": 0.8}])
def test_restricted_draws_record_renormalised_log_probs(change: dict[str, Any]) -> None:
    made = policy(peaked=4.0)
    drawn = sampler(made, **change)
    assert not drawn.exact
    decisions = drawn.act(0)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | change
    for row in range(len(decisions)):
        owner = int(decisions.context_row[row]) if decisions.context_row is not None else row
        prompt = decisions.context["prompt"][owner][decisions.context["prompt_mask"][owner]]
        tokens = decisions.action[row][decisions.mask[row]]
        with torch.no_grad():
            logits = made.model(input_ids=torch.cat([prompt, tokens])[None]).logits[0, len(prompt) - 1 : -1]
        for column, token in enumerate(tokens.tolist()):
            law = (logits[column] / settings["temperature"]).softmax(-1)
            order = law.argsort(descending=True).tolist()
            kept = order[: settings["top_k"]] if settings["top_k"] else order
            inside = law[kept].sum()
            nucleus, reached = [], 0.0
            for item in kept:
                if reached >= settings["top_p"]:
                    break
                nucleus.append(item)
                reached += float(law[item] / inside)
            assert token in nucleus
            expected = (law[token] / law[nucleus].sum()).log()
            torch.testing.assert_close(decisions.behaviour_log_prob[row, column], expected, atol=1e-5, rtol=0)


def test_frequencies_follow_the_distribution() -> None:
    """First tokens of 4000 draws against the model's law: a chi-square far below the 0.1% bound."""
    made = policy(peaked=2.0)
    decisions = sampler(made, prompts_per_step=1, group_size=4000, max_new_tokens=1, task=TASK).act(0)
    with torch.no_grad():
        law = made.model(input_ids=decisions.context["prompt"]).logits[0, -1].softmax(-1)
    counts = torch.bincount(decisions.action[:, 0], minlength=len(law))
    chi_square = float(((counts - 4000 * law) ** 2 / (4000 * law)).sum())
    assert chi_square < 40  # 17 degrees of freedom: the 0.1% quantile is 40.8


def test_stop_strings_end_a_response_and_stay_in_its_text() -> None:
    made = policy()
    stop = ("1", "2+", "==")
    decisions = sampler(made, stop=stop, group_size=8).act(0)
    ended = 0
    for row in range(len(decisions)):
        text = made.tokenizer.decode(decisions.action[row][decisions.mask[row]], skip_special_tokens=True)
        hits = [item for item in stop if item in text]
        if hits:
            ended += 1
            assert all(text.index(item) + len(item) == len(text) for item in hits)
            assert bool(decisions.terminated[row].any())
    assert ended > 10


def test_generate_is_greedy_and_draws_by_prompt_and_sample() -> None:
    made = policy(peaked=3.0)
    prompts = ["1+2=", "33+4=", "5+66="]
    greedy = generate(made, prompts, max_new_tokens=8)
    assert greedy == generate(made, prompts, max_new_tokens=8, rows_at_once=1)
    ids = made.encode_prompt("33+4=")
    for _ in range(8):
        with torch.no_grad():
            token = int(made.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        if token in made.eos:
            break
    assert greedy[1][0] == made.tokenizer.decode(ids[5:], skip_special_tokens=True)
    some = generate(made, prompts, samples=4, max_new_tokens=8, temperature=1.0)
    assert [len(texts) for texts in some] == [4, 4, 4] and len(set(some[0])) > 1
    assert some == generate(made, prompts, samples=4, max_new_tokens=8, temperature=1.0, rows_at_once=4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop": "ab"}, "stop"),
        ({"stop": ("",)}, "stop"),
        ({"group_size": 0}, "group_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"prompts_per_step": 1, "share": (0, 2)}, "prompts_per_step"),
        ({"share": (2, 2)}, "share"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sampler(policy(), **change)


def test_a_prompt_that_does_not_fit_is_refused_with_its_index() -> None:
    with pytest.raises(ValueError, match=r"prompt 3 has 12 tokens.*context of 31"):
        sampler(policy(context=31)).act(0)
    with pytest.raises(ValueError, match="prompt 1 has"):
        generate(policy(context=20), ["1+1=", "1+" * 9], max_new_tokens=10)


class Folded:
    """A task whose prompts repeat: equal text is still another drawn prompt."""

    name, max_new_tokens, alphabet = "folded", 5, TASK.alphabet

    def example(self, index: int) -> Example:
        return Example("1+1=")

    def score(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [0.0] * len(completions)


def test_equal_prompts_are_different_groups() -> None:
    decisions = sampler(policy(), task=Folded()).act(0)
    assert decisions.group.unique().tolist() == [0, 1, 2, 3]
    assert len({tuple(tokens) for tokens in by_key(decisions).values()}) > 8


def test_a_model_with_an_adapter_samples_what_it_evaluates(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy(peaked=3.0).save(tmp_path)
    made = CausalPolicy.load(tmp_path, torch.float64, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]})
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter += 0.3
    decisions = sampler(made).act(0)
    found = made.evaluate(decisions, LOG_PROB).log_prob
    torch.testing.assert_close(found, decisions.behaviour_log_prob, atol=1e-5, rtol=0, check_dtype=False)


class EndAt:
    """A decoder that wraps the policy's own and forces the length of each row."""

    def __init__(self, policy: CausalPolicy, lengths: Sequence[int]) -> None:
        self.inner, self.end = decoder_for(policy), policy.eos[0]
        self.lengths, self.position = torch.tensor(lengths), 0

    def _edited(self, logits: torch.Tensor) -> torch.Tensor:
        self.position += 1
        over = self.lengths == self.position
        logits[:, self.end] = torch.where(over, 0.0, -torch.inf)
        logits[over, : self.end] = -torch.inf
        logits[over, self.end + 1 :] = -torch.inf
        return logits

    def start(self, prompt: torch.Tensor, real: torch.Tensor, copies: int, room: int) -> torch.Tensor:
        return self._edited(self.inner.start(prompt, real, copies, room).clone())

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._edited(self.inner.step(tokens).clone())

    def keep(self, rows: torch.Tensor) -> None:
        self.inner.keep(rows)
        self.lengths = self.lengths[rows]


def test_a_decoder_that_wraps_the_own_one_edits_logits() -> None:
    made, lengths = policy(), [1, 5, 9, 2, 20, 3, 4, 4, 4, 12, 7, 8]
    drawn = sampler(made, decoder_of=lambda policy: EndAt(policy, lengths))
    decisions = drawn.act(0)
    assert decisions.mask.sum(1).tolist() == lengths
    assert not drawn.exact and sampler(made).exact
