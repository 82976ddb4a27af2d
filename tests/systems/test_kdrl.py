"""The assembly of kdrl: its teacher is trained once, larger, frozen; another tokenizer is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ascent
from ascent.policies.embedded import embedded
from ascent.policies.with_logits import WithLogits
from ascent.sampling.text import TextSampler
from ascent.systems import warm_up
from ascent.systems.config import BadConfig
from ascent.systems.kdrl import refuse_other_tokens, scorers
from ascent.worlds.text.arithmetic import Arithmetic

TASK = Arithmetic()


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(warm_up, "BATCH", 4)
    return tmp_path


def student(folder: Path) -> str:
    embedded(TASK.alphabet, hidden=16, layers=1, heads=2, context=64).save(folder)
    return str(folder)


def run(tmp_path: Path, name: str, **parameters: object) -> list[dict[str, float]]:
    options = {"teacher_steps": 2, "teacher_hidden": 24, **parameters}
    return ascent.train(
        "kdrl",
        task="arithmetic",
        model=student(tmp_path / "student"),
        steps=2,
        batch=8,
        group_size=4,
        held_out=2,
        samples=1,
        output=str(tmp_path / name),
        parameters=options,
        quiet=True,
        tensorboard=False,
    ).metrics


@pytest.mark.parametrize("parameters", [{}, {"objective": "sequential", "mask": "group"}, {"estimator": "exact"}])
def test_it_trains_beside_a_teacher_made_once(tmp_path: Path, parameters: dict[str, object]) -> None:
    steps = [line for line in run(tmp_path, "first", **parameters) if "kl_teacher" in line]
    assert len(steps) == 2 and all(line["kl_teacher"] > 0 for line in steps)
    made = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("teacher-arithmetic")]
    assert len(made) == 1
    before = made[0].stat().st_mtime_ns
    run(tmp_path, "second", **parameters)
    assert made[0].stat().st_mtime_ns == before


def test_without_distillation_there_is_no_teacher(tmp_path: Path) -> None:
    run(tmp_path, "alone", objective="rl")
    assert not (tmp_path / "cache").exists()


def test_the_scorers_agree() -> None:
    policy = embedded(TASK.alphabet, hidden=16, layers=1, heads=2, context=64)
    decisions = TextSampler(policy, TASK, 2, 2, 6).act(0)
    teacher = embedded(TASK.alphabet, seed=1, hidden=24, layers=1, heads=2, context=64)
    written = {name: scorer(decisions).detach() for name, scorer in scorers(teacher).items()}
    taken = written["teacher_distribution"].gather(-1, decisions.action[..., None])[..., 0]
    assert torch.allclose(taken[decisions.mask], written["teacher_log_prob"][decisions.mask], atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    now = WithLogits(policy).evaluate(decisions, frozenset({"log_prob", "outputs", "features"}))
    own = now.outputs.log_softmax(-1).gather(-1, decisions.action[..., None])[..., 0]
    assert torch.allclose(own[decisions.mask], now.log_prob[decisions.mask], atol=1e-5)
    weight = policy.model.get_output_embeddings().weight
    assert torch.allclose(now.features @ weight.T, now.outputs, atol=1e-5), "the state is the one behind the logits"
    assert now.outputs.requires_grad and "logits" not in now


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    policy = embedded(TASK.alphabet, hidden=16, layers=1, heads=2)
    with pytest.raises(BadConfig, match=r"same tokenizer; \d+ tokens differ, for example '[^']+' \(student"):
        refuse_other_tokens(policy, embedded("0123456789=+;", hidden=16, layers=1, heads=2))
    embedded("abc", hidden=16, layers=1, heads=2).save(tmp_path / "other")
    with pytest.raises(BadConfig, match="same tokenizer"):
        run(tmp_path, "wrong", teacher=str(tmp_path / "other"))


def test_refused_before_a_model_loads(tmp_path: Path) -> None:
    with pytest.raises((BadConfig, FileNotFoundError), match="does not exist"):
        run(tmp_path, "lost", teacher="./nowhere")
    with pytest.raises((BadConfig, ValueError), match="teacher must be"):
        run(tmp_path, "none", teacher="")
