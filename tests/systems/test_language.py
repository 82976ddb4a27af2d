"""The language assembly: what it refuses before a model loads, what it evaluates, what it shares out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ascent.core.centre import Centre
from ascent.sampling.text import Distribution, generated
from ascent.systems import language as assembly
from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.language import HeldOut, build, planned
from ascent.training.processes import Processes
from tests.training.runs import language, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_nothing_is_loaded_for_a_method_that_cannot_be_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "load_policy", lambda *_: pytest.fail("a model was loaded"))
    config = LanguageConfig(method="grpo")
    method = config.composed()
    method = method.replace(advantage=Centre(by="turn"))
    with pytest.raises(BadConfig, match=r"method 'grpo' needs turn, which task 'arithmetic' does not give.*run here"):
        build(config, method, Processes())
    supervised = LanguageConfig(method="sft")
    with pytest.raises(BadConfig, match="method 'sft' learns from demonstrations"):
        build(supervised, supervised.composed(), Processes())


def test_every_process_needs_a_prompt(model: Path, tmp_path: Path) -> None:
    processes = Processes()
    processes.count = 3
    config = language(model, tmp_path / "run", batch=4, group_size=2)
    with pytest.raises(BadConfig, match=r"got 2 prompts for 3 processes\. Take batch >= 6"):
        build(config, config.composed(), processes)


def test_a_reference_is_loaded_only_where_it_is_needed(model: Path, tmp_path: Path) -> None:
    for method, expected in (("grpo", {"reference_log_prob"}), ("reinforce", set())):
        config = language(model, tmp_path / "run", method=method)
        built = build(config, config.composed(), Processes())
        learn = built.system.program[0].stages[1]
        assert set(learn.scorers) == expected


def test_responses_are_dealt_whole() -> None:
    config = LanguageConfig(method="ppo")
    assert config.composed().plan.unit == "decision"
    assert planned(config.composed()).plan.unit == "row"


def test_the_learning_stage_takes_the_sampler_at_its_word_only_where_it_is_exact(model: Path, tmp_path: Path) -> None:
    for more, exact in (({}, True), ({"top_p": 0.9}, False), ({"top_k": 3}, False), ({"temperature": 0.7}, True)):
        config = language(model, tmp_path / "run", **more)
        built = build(config, config.composed(), Processes())
        assert built.system.program[0].stages[1].exact_behaviour is exact, more


def test_the_held_out_entropy_is_that_of_every_distribution_a_token_was_drawn_from(model: Path, tmp_path: Path) -> None:
    config = language(model, tmp_path / "run", evaluate_every=1, held_out=3, samples=2, temperature=0.7)
    config.folder.mkdir()
    evaluate = build(config, config.composed(), Processes()).system.evaluate
    assert isinstance(evaluate, HeldOut)
    policy, found = evaluate.policy, []
    drawn = Distribution(temperature=0.7)
    for ids, answers in generated(policy, [item.prompt for item in evaluate.examples], 2, evaluate.budget, drawn, 0):
        for row in range(len(answers.mask)):
            length = int(answers.mask[row].sum())
            whole = torch.tensor([[*ids[row // 2], *answers.action[row, :length].tolist()]])
            with torch.no_grad():
                logits = policy.model(input_ids=whole).logits[0, -length - 1 : -1] / 0.7
            found += torch.distributions.Categorical(logits=logits).entropy().tolist()
    # transformers computes the norms of this forward in float32 even where the weights are float64.
    assert evaluate(0)["entropy"] == pytest.approx(sum(found) / len(found), abs=1e-6)


def test_held_out_scores_are_means_over_samples_and_do_not_move(model: Path, tmp_path: Path) -> None:
    config = language(model, tmp_path / "run", evaluate_every=1, held_out=6, samples=3)
    config.folder.mkdir()
    built = build(config, config.composed(), Processes())
    evaluate = built.system.evaluate
    assert isinstance(evaluate, HeldOut)
    draw = torch.random.get_rng_state()
    first = evaluate(0)
    assert evaluate(0) == first
    assert torch.equal(torch.random.get_rng_state(), draw), "no global draw"
    assert set(first) == {"reward", "pass@1", "pass@3", "entropy"}
    assert 0 <= first["pass@1"] <= first["pass@3"] <= 1
    lines = [json.loads(line) for line in (config.folder / "completions.jsonl").read_text().splitlines()]
    assert len(lines) == assembly.SHOWN, "an evaluation that comes again replaces its lines"
    prompts = {line["prompt"] for line in lines}
    training = {built.system.program[0].stages[0].sampler.task.example(index).prompt for index in range(200)}
    assert not prompts & training


@pytest.mark.parametrize("count", [1, 2])
def test_processes_share_the_same_prompts(model: Path, tmp_path: Path, count: int) -> None:
    config = language(model, tmp_path / "run")
    seen: list[tuple[int, str]] = []
    for rank in range(count):
        processes = Processes()
        processes.rank, processes.count = rank, count
        sampler = build(config, config.composed(), processes).system.program[0].stages[0].sampler
        acted = sampler.act(0)
        texts = sampler.policy.tokenizer.batch_decode(acted.action)
        seen += zip(acted.group.tolist(), texts, strict=True)
        assert sampler.consumed == 4
    assert [group for group, _ in sorted(seen)] == [0, 0, 1, 1, 2, 2, 3, 3]
    alone = build(config, config.composed(), Processes()).system.program[0].stages[0].sampler.act(0)
    whole = zip(alone.group.tolist(), sampler.policy.tokenizer.batch_decode(alone.action), strict=True)
    strip = lambda pair: (pair[0], pair[1].replace(sampler.policy.tokenizer.pad_token, ""))  # noqa: E731
    assert sorted(map(strip, seen)) == sorted(map(strip, whole))
