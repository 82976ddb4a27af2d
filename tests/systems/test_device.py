"""Language runs away from the CPU. The device is a pretended one (`tests/elsewhere.py`); no GPU kernel runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.plan import AppendTree
from ascent.core.registry import cards
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.text import TextSampler, generate
from ascent.systems.assembly import FED
from ascent.systems.config import BadConfig, LanguageConfig, make
from ascent.systems.device import place, settled
from ascent.systems.language import planned
from ascent.training import checkpoint
from ascent.training.annotate import log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Dataset, Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.text.registry import task
from ascent.worlds.text.score import TextScore
from tests.elsewhere import DEVICE, Elsewhere, Far

CPU = torch.device("cpu")
WORLD = task("arithmetic")
LANGUAGE = [
    card.slug
    for card in cards()
    if card.family != "supervised"
    and card.build().needs - FED["language"] <= {"mask", "advantage", "value_target"}
    and not isinstance(card.build().step, AppendTree)
]


QUICK, SLOW = ("grpo", "entropy_mechanism"), pytest.mark.slow


def small(value_head: bool, device: torch.device = CPU) -> CausalPolicy:
    policy = embedded(WORLD.alphabet, seed=1, hidden=16, layers=1, heads=2, context=64, value_head=value_head)
    policy.to(device)
    # A GPU's parameters are moved in place and stay tied; the pretended ones are new objects.
    policy.base.tie_weights()
    return policy


def loop_on(
    device: torch.device, slug: str, steps: int = 1, micro_rows: int | None = None
) -> tuple[Loop, CausalPolicy]:
    """A run of a method on the device, with its reference and its critic where it wants them."""
    method = planned(ascent.method(slug))
    critic = bool({"value", "next_value"} & method.needs)
    policy = small(critic, device)
    scorers = {}
    if "reference_log_prob" in method.needs:
        scorers["reference_log_prob"] = log_prob_of(small(critic, device).requires_grad_(False))
    memory, sampler = Fresh(), TextSampler(policy, WORLD, 4, 4, 5)
    score = TextScore(WORLD, policy.tokenizer, None)
    reward = score.score
    # Nobody solves a task untrained, so the rewards are made to differ.
    score.score = lambda rows, texts: [  # type: ignore[method-assign]
        [float(len(set(text)) % 3) for text in texts] for _ in reward(rows, texts)
    ]
    collect = Collect("collect", sampler, memory, score=score, accept=method.accept, refill=1)
    learn = Learn(
        "policy",
        policy,
        method,
        memory,
        scorers=scorers,
        micro_rows=micro_rows,
        exact_behaviour=sampler.exact,
        monitor=frozenset({"entropy"}),
    )
    return Loop(System({"policy": policy}, {"memory": memory}, [Phase("learn", [collect, learn], steps)])), policy


def weights(policy: CausalPolicy) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu() for name, parameter in policy.named_parameters()}


@pytest.mark.parametrize("slug", [pytest.param(slug, marks=() if slug in QUICK else SLOW) for slug in LANGUAGE])
def test_every_language_method_trains_elsewhere_as_on_the_cpu(slug: str) -> None:
    loop, here = loop_on(CPU, slug)
    loop.run()
    with Elsewhere():
        loop, there = loop_on(DEVICE, slug)
        assert all(isinstance(parameter, Far) for parameter in there.parameters())
        loop.run()
        moved = weights(there)
    before = weights(small(here.value_head is not None))
    assert any(not torch.equal(before[name], parameter) for name, parameter in weights(here).items())
    for name, parameter in weights(here).items():
        torch.testing.assert_close(moved[name], parameter, rtol=1e-5, atol=1e-6)


def test_micro_batches_work_elsewhere() -> None:
    with Elsewhere():
        loop, _ = loop_on(DEVICE, "grpo", micro_rows=5)
        loop.run()
    assert loop.step == 1


def test_a_resumed_run_returns_to_its_device(tmp_path: Path) -> None:
    with Elsewhere():
        whole, expected = loop_on(DEVICE, "grpo", steps=3)
        whole.run()
        first, _ = loop_on(DEVICE, "grpo", steps=3)
        stages = first.system.program[0].stages
        for stage in stages:
            stage.run(first, 0)
        stages[0].run(first, 1)  # killed between acting and learning: the collection is in the memory
        path = checkpoint.save(tmp_path, 1, first.state_dict())
        state = checkpoint.load(path, DEVICE)
        held = state["system"]["memories"]["memory"]["parts"][0]
        assert isinstance(held["column/action"], Far)
        second, resumed = loop_on(DEVICE, "grpo", steps=3)
        second.load_state_dict(state)
        phase = second.system.program[0]
        phase.round, phase.place = 1, 1
        second.run()
        for name, parameter in weights(expected).items():
            assert torch.equal(weights(resumed)[name], parameter)
    held = checkpoint.load(path)["system"]["memories"]["memory"]["parts"][0]
    assert not isinstance(held["column/action"], Far)


def test_recorded_responses_are_dealt_elsewhere() -> None:
    with Elsewhere():
        group = torch.arange(6, device=DEVICE) // 2
        content = Decisions(mask=torch.ones(6, 3, dtype=torch.bool, device=DEVICE), group=group)
        drawn = Dataset(content, 2, seed=0).draw(0)
        assert drawn.mask.device == DEVICE and len(drawn) == 4


def test_answers_elsewhere_are_those_of_the_cpu() -> None:
    prompts = [WORLD.example(index).prompt for index in range(3)]
    here = generate(small(False), prompts, samples=2, max_new_tokens=6, temperature=1.0)
    with Elsewhere():
        assert generate(small(False, DEVICE), prompts, samples=2, max_new_tokens=6, temperature=1.0) == here


def test_the_pretended_device_refuses_what_cuda_refuses() -> None:
    with Elsewhere():
        there, near = torch.arange(3, device=DEVICE), torch.arange(3)
        for slip in (lambda: there + near, lambda: near[there], lambda: torch.isin(there, near), lambda: there.numpy()):
            with pytest.raises((RuntimeError, TypeError), match="device"):
                slip()
        assert there[near].tolist() == (there + torch.tensor(0)).cpu().tolist() == [0, 1, 2]


def config(**values: Any) -> LanguageConfig:
    made = make("language", {"method": "grpo", **values})
    assert isinstance(made, LanguageConfig)
    return made


def test_auto_is_settled_and_a_missing_gpu_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place(settled(config())) == "cpu"
    with pytest.raises(BadConfig, match=r"device 'cuda:0' is not available here; got: cpu"):
        settled(config(device="cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place(settled(config())) == "cuda"
    assert place(settled(config(device="cuda:1"))) == "cuda:1"
    with pytest.raises(BadConfig, match="cuda:2"):
        settled(config(device="cuda:2"))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(BadConfig, match="device must be auto, cpu, cuda or cuda:<number>"):
        config(device=device)


def test_a_refused_device_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    with pytest.raises(BadConfig, match="device 'cuda'"):
        ascent.train("grpo", device="cuda", output=str(folder), quiet=True)
    assert not folder.exists()


def test_control_stays_on_the_cpu() -> None:
    with pytest.raises(BadConfig, match=r"device.*belongs to language runs"):
        make("control", {"method": "ppo", "env": "CartPole-v1", "device": "cuda"})
