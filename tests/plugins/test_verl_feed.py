"""What verl can feed follows from what a method needs; no verl is needed to say so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ascent
from ascent.core.centre import Centre
from ascent.core.decisions import Decisions
from ascent.core.divergences import Divergence, Entropy
from ascent.core.method import Method
from ascent.core.plan import Linear, Plan, Stop
from ascent.core.registry import cards
from ascent.core.returns import RewardToGo, Score
from ascent.core.shaping import Penalised
from ascent.core.surrogates import ClippedRatio, DecoupledClip, LogProb
from ascent.core.term import Term
from ascent.plugins.support import Support
from ascent.plugins.verl_feed import BUDGET, Refused, contradictions, overrides, read, reading, support

# Fresh interpreters on a busy machine.
pytestmark = pytest.mark.timeout(900)

PLAIN = ascent.method("grpo", kl_coefficient=0.0)


def reasons(method: Method) -> str:
    return "; ".join(read(method).reasons)


def test_every_method_is_answered() -> None:
    for item in cards():
        found = support(item.build())
        assert isinstance(found, Support) and (found.supported or found.reason)


def test_methods_for_control_and_for_demonstrations_are_refused() -> None:
    assert "language models" in reasons(ascent.method("ppo"))
    assert "demonstrations" in reasons(ascent.method("sft"))


def test_a_divergence_to_the_reference_is_verls_own_kl_loss() -> None:
    found = read(ascent.method("grpo", kl_coefficient=0.03))
    assert list(found.actor.losses) == ["policy"] and not found.reasons
    settings = found.settings()
    assert settings["actor_rollout_ref.actor.kl_loss_coef"] == 0.03
    assert settings["actor_rollout_ref.actor.kl_loss_type"] == "low_var_kl"
    assert "reference_log_prob" not in found.actor.needs


@pytest.mark.parametrize(
    "value",
    [Divergence("k3", limit=5.0), Divergence("k1", against="teacher"), Divergence("exact")],
    ids=["limited", "another policy", "over all tokens"],
)
def test_a_divergence_that_verl_does_not_compute_is_refused(value: Divergence) -> None:
    assert "its loss needs" in reasons(PLAIN.with_terms(kl=Term(value, 0.1, reduction="seq-mean-token-mean")))


def test_an_entropy_bonus_is_verls_own() -> None:
    found = read(PLAIN.with_terms(entropy=Term(Entropy(), 0.02, reduction="seq-mean-token-mean")))
    assert not found.reasons and found.settings()["actor_rollout_ref.actor.entropy_coeff"] == 0.02


def test_verls_own_terms_must_add_up_alike() -> None:
    method = ascent.method("grpo").with_terms(entropy=Term(Entropy(), 0.02, reduction="token-mean"))
    assert "one loss_agg_mode" in reasons(method)


def test_a_penalty_in_the_reward_is_left_to_verl() -> None:
    method = PLAIN.replace(advantage=Centre(of=Score(Penalised(0.2)), by="group"))
    found = read(method)
    assert not found.reasons and found.penalty == 0.2
    assert found.settings()["algorithm.kl_ctrl.kl_coef"] == 0.2
    assert {"old_log_prob", "reference_log_prob"}.isdisjoint(found.credit.needs - {"old_log_prob"})
    # What is left computes the credit of rewards from which the penalty was already taken.
    mask = torch.ones(4, 3, dtype=torch.bool)
    reward, ratio = torch.randn(4, 3), torch.randn(4, 3)
    group = torch.tensor([0, 0, 1, 1])
    columns = {"mask": mask, "group": group, "old_log_prob": ratio, "reference_log_prob": torch.zeros(4, 3)}
    whole = method.credit(Decisions(reward=reward, **columns)).advantage
    rest = found.credit.credit(Decisions(mask=mask, group=group, reward=reward - 0.2 * ratio)).advantage
    torch.testing.assert_close(rest, whole)


def test_two_penalties_are_too_many() -> None:
    twice = Penalised(0.1, reward=Penalised(0.2))
    assert "reference_log_prob" in reasons(PLAIN.replace(advantage=Centre(of=Score(twice))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"losses": {"policy": Term(ClippedRatio(high=Linear(0.3, 0.1)))}}, "schedule"),
        ({"losses": {"policy": Term(LogProb(), Linear(1.0, 0.5))}}, "schedule"),
        ({"losses": {"policy": Term(LogProb(), unit="row")}}, "counts rows"),
        ({"losses": {"policy": Term(DecoupledClip())}}, "one of both"),
        ({"losses": {"entropy": Term(Entropy(), 0.1)}}, "nothing is left"),
        ({"companions": {"critic": PLAIN}}, "critic"),
        ({"reject": lambda decisions: decisions.mask}, "mask"),
        ({"plan": Plan(stop=Stop("approximate_kl", 0.1))}, "early"),
        ({"advantage": RewardToGo(bootstrap=True)}, "next_value"),
    ],
)
def test_other_reasons(change: dict[str, object], said: str) -> None:
    assert said in reasons(PLAIN.replace(**change))


def test_a_credit_that_reads_old_log_probs_is_refused() -> None:
    assert "old_log_prob" in reasons(ascent.method("entropy_mechanism", diagnostics=True))


def test_what_looks_at_the_whole_update() -> None:
    assert {slug: read(ascent.method(slug)).whole for slug in ("grpo", "gspo", "bapo", "entropy_mechanism")} == {
        "grpo": False,
        "gspo": False,
        "bapo": True,
        "entropy_mechanism": True,
    }


@pytest.mark.parametrize("name", ["learning_rate", "passes", "minibatches"])
def test_a_parameter_that_verl_has_itself_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=name):
        reading("grpo", {name: 7})


def test_a_parameter_that_changes_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="segment_tokens"):
        reading("bapo", {"segment_tokens": 4})


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(TypeError, match="clip_low"):
        reading("grpo", {"clip_lo": 0.1})
    with pytest.raises(ValueError, match="clip_low"):
        reading("grpo", {"clip_low": -1.0})


def test_a_refusal_says_why() -> None:
    with pytest.raises(Refused, match=r"'forking_tokens'.*`entropy`"):
        overrides("forking_tokens")


def test_the_overrides() -> None:
    lines = overrides("dr_grpo", {"clip_high": 0.3})
    assert "+algorithm.ascent={clip_high:0.3}" in lines
    assert f"actor_rollout_ref.actor.loss_scale_factor={BUDGET}" in lines
    assert "actor_rollout_ref.actor.loss_scale_factor=9" in overrides("dr_grpo", {"horizon": 9.0})
    assert f"+algorithm.ascent_budget={BUDGET}" in overrides("dapo")
    assert not any("ascent_budget" in line for line in overrides("dapo", {"overlong_buffer": 0.0}))


def test_contradictions_are_sentences() -> None:
    wanted = {"a.b": True, "a.c": BUDGET, "a.d": 0.5}
    assert contradictions(wanted, {"a.b": True, "a.c": 512, "a.d": 0.5}) == []
    found = contradictions(wanted, {"a.b": False, "a.c": None})
    assert found == [
        "a.b must be true, and is false",
        f"a.c must be {BUDGET}, and is null",
        "a.d must be 0.5, and is null",
    ]


def imported_with(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    """What `import ascent.plugins.verl` says beside a verl that has only a version."""
    package = folder / "verl"
    package.mkdir()
    (package / "__init__.py").write_text(f"__version__ = {json.dumps(version)}\n")
    root = str(Path(ascent.__file__).parents[1])
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {root!r}]; import ascent.plugins.verl"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=840)


def test_an_older_verl_is_refused_aloud(tmp_path: Path) -> None:
    found = imported_with(tmp_path, "0.8.4")
    assert found.returncode != 0
    assert "*** Ascent is NOT registered in verl" in found.stderr and "found 0.8.4" in found.stderr


def test_a_broken_verl_is_reported_aloud(tmp_path: Path) -> None:
    found = imported_with(tmp_path, "0.9.1")
    assert found.returncode != 0 and "*** Ascent is NOT registered in verl" in found.stderr
