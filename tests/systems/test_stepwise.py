"""Language losses in environments: what is kept, what is exchanged, what is refused."""

import dataclasses

import pytest

import ascent
from ascent.core.registry import cards
from ascent.core.returns import GAE
from ascent.systems.config import BadConfig, ControlConfig
from ascent.systems.run import resume, train
from ascent.systems.stepwise import speaks_of_steps, stepwise

FITTING = {"bapo", "cispo", "dapo", "entropy_mechanism", "forking_tokens"}


def config(folder, **values):
    usual = {"environments": 2, "horizon": 32, "steps": 2, "episodes": 2, "quiet": True, "tensorboard": False}
    return ControlConfig(env="CartPole-v1", output=str(folder), **{**usual, **values})


def test_methods_whose_terms_are_means_over_decisions():
    assert {card.slug for card in cards() if speaks_of_steps(ascent.method(card.slug))} == FITTING
    assert not speaks_of_steps(ascent.method("gspo"))  # a ratio of whole answers
    assert not speaks_of_steps(ascent.method("ppo"))


def test_the_loss_is_kept_and_the_credit_is_that_of_ppo():
    bapo, ppo = ascent.method("bapo"), ascent.method("ppo")
    found = stepwise(bapo, {})
    assert found.losses["policy"] == bapo.losses["policy"]
    assert found.losses["value"] == ppo.losses["value"]
    assert (found.advantage, found.value_target, found.normalise) == (ppo.advantage, ppo.value_target, ppo.normalise)
    assert (found.accept, found.plan, found.step) == (None, ppo.plan, ppo.step)


def test_given_plan_and_rate_stay():
    given = {"passes": 3, "minibatches": 5, "learning_rate": 2e-4}
    found = stepwise(ascent.method("dapo", **given), given)
    assert (found.plan.passes, found.plan.minibatches, found.step.learning_rate) == (3, 5, 2e-4)
    assert found.plan.unit == "decision"


@pytest.mark.parametrize("slug", sorted(FITTING))
def test_language_clip_bounds_train_a_controller(slug, tmp_path):
    result = train(config(tmp_path / slug, method=slug, learning_rate=1e-3))
    assert result.after is not None
    assert {"loss/policy", "loss/value"} <= result.metrics[-2].keys()
    assert resume(tmp_path / slug, quiet=True).after == result.after


@pytest.mark.slow
def test_bapo_balances_cartpole(tmp_path):
    result = train(config(tmp_path / "run", method="bapo", environments=4, horizon=128, steps=40, episodes=10))
    assert result.before < 60 and result.after > 300


def test_bapo_logs_its_bounds(tmp_path):
    lines = train(config(tmp_path / "run", method="bapo", set=("positive_share=0.9",))).metrics
    bounds = [line["clip_bound_high"] for line in lines if "clip_bound_high" in line]
    assert bounds and all(1.2 <= bound <= 3.0 for bound in bounds)
    assert max(bounds) > 1.2  # nine tenths of the loss from good steps asks for wider bounds than the first


def test_what_speaks_of_answers_is_refused_by_name(tmp_path):
    with pytest.raises(BadConfig, match="segment_tokens=4 says how 'bapo' scores or samples answers"):
        config(tmp_path, method="bapo", set=("segment_tokens=4",)).composed()
    with pytest.raises(BadConfig, match="ddof=0"):
        config(tmp_path, method="bapo", set=("ddof=0",)).composed()
    assert config(tmp_path, method="bapo", set=("ddof=1", "passes=10")).composed().plan.passes == 10


@pytest.mark.parametrize(("slug", "missing"), [("gspo", "group"), ("dpo", "reference_log_prob")])
def test_methods_of_whole_answers_are_still_refused(slug, missing, tmp_path):
    with pytest.raises(BadConfig, match=rf"needs .*{missing}.* Methods that run here: .*bapo"):
        train(config(tmp_path / "run", method=slug))
    assert not (tmp_path / "run").exists()


def test_a_method_with_a_teacher_says_itself_where_it_learns(tmp_path):
    with pytest.raises(BadConfig, match="kdrl distils a language model; give --task"):
        train(config(tmp_path / "run", method="kdrl"))


def test_a_composed_method_stays_as_it_is(tmp_path):
    own = stepwise(ascent.method("cispo"), {}).replace(advantage=GAE(0.9, 0.8))
    assert config(tmp_path, method="cispo").applied(own) == dataclasses.replace(own)
