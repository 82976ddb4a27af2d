"""Inside TRL every supported method makes the update that our own trainer makes of the same recorded batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="TRL is not installed here; `make test-plugins` runs this where it is")

from transformers import TrainerCallback

import ascent
from ascent.core.method import Method
from ascent.core.registry import cards
from ascent.plugins.support import support
from ascent.plugins.trl import ROW, AscentTrainer
from tests.plugins.trl_runs import Own, Recorded, config, prompts, scores, stored, tiny, tokenizer, weights_of

warnings.filterwarnings("ignore", message=".*rollout_func.*")

METHODS = [card.slug for card in cards() if support(card.slug)["trl"].supported]
REFUSED = [card.slug for card in cards() if not support(card.slug)["trl"].supported]
PLANS: dict[str, dict[str, int]] = {
    "accumulated, two passes": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_iterations": 2,
    },
    "one piece": {"per_device_train_batch_size": 16},
    "two generations an update": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 2,
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("tiny"))


class Watched(AscentTrainer):
    """Notes which rows each update is made of."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self.seen = [*self.__dict__.get("seen", []), inputs[ROW]]
        return super()._compute_loss(model, inputs)


class Exact(Watched):
    """In float64, which TRL's fused head does not know: the model's own logits instead."""

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor, None]:
        places = (attention_mask.cumsum(1) - 1).clamp(min=0)
        found = model(input_ids=input_ids, attention_mask=attention_mask, position_ids=places, use_cache=False)
        odds = found.logits[:, -logits_to_keep - 1 : -1].log_softmax(-1)
        taken = odds.gather(-1, input_ids[:, -logits_to_keep:, None])[..., 0]
        return taken, -(odds.exp() * odds).sum(-1), None


class Compare(TrainerCallback):
    """Before each optimiser step: the gradient here, and that of our own trainer."""

    def __init__(self, own: Own, steps: int) -> None:
        self.own, self.steps = own, steps
        self.apart, self.sizes, self.losses = list[float](), list[float](), list[float]()
        self.trainer: Any = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        model, ids = self.trainer.model, torch.cat(self.trainer.seen)
        self.trainer.seen = []
        found, loss = self.own.gradient(ids, weights_of(model), state.global_step, self.steps)
        pairs = [(x.grad, found[name]) for name, x in model.named_parameters() if name in found]
        gap = sum(float((here - there).double().square().sum()) for here, there in pairs) ** 0.5
        self.sizes.append(sum(float(there.double().square().sum()) for _, there in pairs) ** 0.5)
        self.apart.append(gap / max(self.sizes[-1], 1e-3))
        self.losses.append(loss)


def follow(trainer: Any, recorded: Recorded, compare: Compare) -> None:
    """Our side collects whenever TRL does."""
    inner = trainer._generate_and_score_completions

    def both(inputs: Any) -> dict[str, Any]:
        found = inner(inputs)
        step, keys = trainer.state.global_step, trainer._fresh.key
        compare.own.collect(recorded.generations[-1], keys, weights_of(trainer.model), step, compare.steps)
        return found

    trainer._generate_and_score_completions = both
    compare.trainer = trainer


def compared(
    model: Path, folder: Path, method: Method, args: Mapping[str, Any], recorded: Recorded, exact: bool = True
) -> Compare:
    settings = config(folder, model_init_kwargs={"dtype": torch.float64 if exact else torch.float32}, **args)
    asked = "teacher_log_prob" in method.needs
    teacher = tiny(5).double() if exact else tiny(5)
    trainer = (Exact if exact else Watched)(
        model=str(model),
        reward_funcs=scores,
        args=settings,
        train_dataset=prompts(),
        processing_class=tokenizer(),
        rollout_func=recorded,
        method=method,
        scorers={"teacher_log_prob": teacher} if asked else None,
    )
    own = Own(trainer.method, weights_of(trainer.model), weights_of(teacher) if asked else None, 4)
    compare = Compare(own, settings.max_steps)
    trainer.add_callback(compare)
    follow(trainer, recorded, compare)
    trainer.train()
    trained = weights_of(trainer.model)
    assert any(bool((trained[name] != tensor).any()) for name, tensor in own.reference.items())
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx(compare.losses, rel=1e-4, abs=1e-4)
    return compare


# Tiny random models take huge steps, of which capo's own thresholds leave nothing.
PARAMETERS: dict[str, dict[str, Any]] = {"capo": {"objective_threshold": 1.0, "policy_threshold": 1.0}}


@pytest.mark.parametrize("settings", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("slug", METHODS)
def test_the_update_is_our_own(slug: str, settings: Mapping[str, int], model: Path, tmp_path: Path) -> None:
    """The whole gradient at each optimiser step, relative to its size; float64 from the logits on."""
    method = ascent.method(slug, **PARAMETERS.get(slug, {}))
    compare = compared(model, tmp_path, method, settings, Recorded())
    assert len(compare.apart) == 4
    assert max(compare.apart) < 1e-6, compare.apart
    assert max(compare.sizes) > 1e-3


@pytest.mark.parametrize("slug", ["grpo", "bapo", "forking_tokens"])
def test_trls_fused_head_gives_our_update_in_float32(slug: str, model: Path, tmp_path: Path) -> None:
    settings = PLANS["accumulated, two passes"]
    compare = compared(model, tmp_path, ascent.method(slug), settings, Recorded(), exact=False)
    assert max(compare.apart) < 1e-6, compare.apart
