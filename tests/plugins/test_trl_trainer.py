"""AscentTrainer beside its update: what it refuses, processes, resuming, and what it lets through of TRL."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("trl", reason="TRL is not installed here; `make test-plugins` runs this where it is")

from transformers import MixtralConfig, MixtralForCausalLM
from trl import GRPOTrainer

import ascent
from ascent.core.registry import cards
from ascent.plugins.support import support
from ascent.plugins.trl import AscentTrainer, plan
from ascent.plugins.trl_settings import guard
from tests.plugins.trl_runs import Recorded, config, prompts, scores, stored, tiny, tokenizer, weights_of

REFUSED = [card.slug for card in cards() if not support(card.slug)["trl"].supported]
ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ONE = {"per_device_train_batch_size": 16}
SEVERAL = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("tiny"))


def trainer(model: Any, args: Any, method: Any, rewards: Any = scores, recorded: bool = True, **more: Any) -> Any:
    more = {"rollout_func": Recorded(), **more} if recorded else more
    return AscentTrainer(
        model=model if not isinstance(model, Path) else str(model),
        reward_funcs=rewards,
        args=args,
        train_dataset=prompts(),
        processing_class=tokenizer(),
        method=method,
        **more,
    )


@pytest.mark.parametrize("slug", REFUSED)
def test_what_trl_cannot_feed_is_refused_by_name_before_anything_loads(slug: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"method '{slug}' cannot learn inside TRL: .*(environment|demonstrations)"):
        trainer(tmp_path / "no model", config(tmp_path), slug)


def test_it_is_refused_before_the_arguments_are_made() -> None:
    with pytest.raises(ValueError, match="method 'ppo' cannot learn inside TRL"):
        AscentTrainer(method="ppo", model="nowhere", reward_funcs=len)


def test_a_composed_method_is_asked_for_its_needs(tmp_path: Path) -> None:
    method = ascent.method("ppo")
    composed = ascent.method("grpo").replace(slug="mine", value_target=method.value_target)
    with pytest.raises(ValueError, match=r"method 'mine' cannot learn inside TRL: its credit needs .*`value`"):
        trainer(tmp_path / "no model", config(tmp_path), composed)


@pytest.mark.parametrize(
    ("slug", "more", "message"),
    [
        ("kdrl", {}, r"needs teacher_log_prob; give scorers="),
        ("grpo", {"scorers": {"teacher_log_prob": None}}, r"does not read 'teacher_log_prob'; it takes no scorers"),
    ],
)
def test_scorers_are_those_that_the_method_reads(slug: str, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path / "no model", config(tmp_path), slug, **more)


@pytest.mark.parametrize(("name", "value"), [("loss_type", "cispo"), ("beta", 0.1), ("epsilon", 0.1)])
def test_arguments_of_trls_own_loss_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r} belongs to TRL's own loss, which method 'bapo' replaces"):
        trainer(tmp_path / "no model", config(tmp_path, **{name: value}), "bapo")


@pytest.mark.parametrize(
    ("slug", "settings", "message"),
    [
        (
            "copg",
            {"per_device_train_batch_size": 2, "steps_per_generation": 2},
            "per_device_train_batch_size must be a multiple of num_gen",
        ),
        (
            "bapo",
            {"per_device_train_batch_size": 2, "steps_per_generation": 4},
            "must be a multiple of num_generations=4, and steps_per_generation of .*; got 2 and 4",
        ),
        ("capo", {"per_device_train_batch_size": 4, "lr_scheduler_type": "cosine"}, "constant or linear"),
    ],
)
def test_arguments_that_tear_what_belongs_together_are_refused(
    slug: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path / "no model", config(tmp_path, **settings), slug)


def test_an_older_trl_is_refused_and_a_newer_one_warned_of() -> None:
    with pytest.raises(ImportError, match=r"needs trl >= 1.16; 1.15.3 is installed"):
        guard("1.15.3")
    with pytest.warns(UserWarning, match=r"tested with trl 1.16.x; 1.17.0 is installed"):
        guard("1.17.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard("1.16.4")


def test_the_plan_of_a_method_as_arguments(tmp_path: Path, caplog: pytest.LogCaptureFixture, model: Path) -> None:
    found = plan("bapo", 3)
    assert found == {"gradient_accumulation_steps": 3, "steps_per_generation": 12, "num_iterations": 2}
    with caplog.at_level(logging.WARNING, logger="ascent.plugins.trl_settings"):
        trainer(model, config(tmp_path, per_device_train_batch_size=4, **plan("bapo")), "bapo")
        assert not caplog.records
        trainer(model, config(tmp_path, **ONE), "bapo")
    assert "method 'bapo' walks a generation as" in caplog.text


def launched(words: list[str], *script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [sys.executable, *words, *script], cwd=ROOT, env=environment, timeout=280, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("slug", ["bapo", "capo", "p3o"])
def test_two_processes_are_one(slug: str, model: Path, tmp_path: Path) -> None:
    """With what looks at a whole update, compares groups, reads logits, or remembers; trained and evaluated."""
    script = str(Path(__file__).parent / "trl_launched.py")
    launched([], script, str(model), str(tmp_path / "one"), slug, "8")
    launched(TORCHRUN, script, str(model), str(tmp_path / "two"), slug, "4")
    one, two = (load_file(tmp_path / name / "found.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=0, atol=2e-6), name
    before = weights_of(tiny())
    assert max(float((one[name] - tensor).abs().max()) for name, tensor in before.items()) > 1e-3
    logged = [(tmp_path / name / "logged.txt").read_text().split() for name in ("one", "two")]
    assert list(map(float, logged[0])) == pytest.approx(list(map(float, logged[1])), abs=2e-4)
    assert len(logged[0]) == 2 * (4 + 2)


@pytest.mark.parametrize(
    ("slug", "parameters"), [("p3o", {"reward_scale": "running"}), ("bapo", {}), ("reinforce_plus_plus", {})]
)
def test_a_resumed_run_goes_on_inside_a_generation(
    slug: str, parameters: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    """Stopped after two of a generation's four updates: the same weights and state, bit for bit."""
    method = ascent.method(slug, **parameters)
    settings = config(tmp_path / "straight", **SEVERAL, **{"max_steps": 6, "save_strategy": "steps", "save_steps": 2})
    straight = trainer(model, settings, method)
    straight.train()
    resumed = trainer(model, settings, method)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert len(resumed.rollout_func.generations) == 1  # of the second generation only
    assert resumed.rollout_func.generations[0] == straight.rollout_func.generations[1]
    after, again = weights_of(straight.model), weights_of(resumed.model)
    assert all(torch.equal(tensor, again[name]) for name, tensor in after.items())
    for path, part in straight._state.parts.items():
        assert all(torch.equal(tensor, resumed._state.parts[path][name]) for name, tensor in part.items())
    written = {file.name for file in (tmp_path / "straight" / "checkpoint-2").iterdir()}
    assert {"ascent.json", "ascent.safetensors", "ascent_buffer_0.safetensors"} <= written
    assert not (tmp_path / "straight" / "checkpoint-4" / "ascent_buffer_0.safetensors").exists()


def test_a_checkpoint_of_another_method_is_refused(model: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, **ONE, **{"max_steps": 1, "save_strategy": "steps", "save_steps": 1})
    trainer(model, settings, "rloo").train()
    with pytest.raises(ValueError, match="was saved by method 'rloo', and this trainer has 'dr_grpo'"):
        trainer(model, settings, "dr_grpo").train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    (tmp_path / "checkpoint-1" / "ascent.json").unlink()
    with pytest.raises(ValueError, match="was not saved by AscentTrainer"):
        trainer(model, settings, "rloo").train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_the_model_answers_itself_and_the_run_is_logged(model: Path, tmp_path: Path) -> None:
    """TRL's own generation, evaluation, and the completions' table."""
    settings = config(tmp_path, **SEVERAL, **{"log_completions": True, "per_device_eval_batch_size": 4})
    run = trainer(model, settings, "bapo", recorded=False, eval_dataset=prompts(4))
    run.train()
    line = run.state.log_history[0]
    assert {"loss", "entropy", "reward", "loss/policy", "clip_bound_high"} <= line.keys()
    step, update = run._step, run._update
    found = run.evaluate()
    assert {"eval_loss", "eval_entropy", "eval_loss/policy"} <= found.keys()
    assert run._step == step and update is not run._update
    assert len(run._logs["advantages"]) == len(run._logs["prompt"])
    assert list((tmp_path / "completions").iterdir())


def test_truncated_responses_shape_the_baseline_and_are_not_learnt_from(model: Path, tmp_path: Path) -> None:
    fresh = {}
    for masked in (False, True):
        run = trainer(
            model,
            config(tmp_path, **ONE, **{"max_steps": 1, "mask_truncated_completions": masked}),
            "dr_grpo",
            rollout_func=Recorded(tools=False),
        )
        run.train()
        fresh[masked] = run._fresh
    cut = fresh[False].truncated.any(1)
    assert 0 < int(cut.sum()) < len(cut)
    assert torch.equal(fresh[True].mask, fresh[False].mask & ~cut[:, None])
    assert torch.equal(fresh[True].advantage, fresh[False].advantage)


def test_several_rewards_are_weighed_and_kept_apart(model: Path, tmp_path: Path) -> None:
    def length(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    run = trainer(model, config(tmp_path, **ONE, max_steps=1, reward_weights=[1.0, 0.5]), "rloo", [scores, length])
    run.train()
    rows = run._fresh
    first, second = rows.extras["reward:scores"], rows.extras["reward:length"]
    assert torch.allclose(rows.reward.sum(1), torch.where(rows.mask.any(1), first + 0.5 * second, 0.0))
    assert float(second.max()) >= 3.0


@pytest.mark.parametrize(("slug", "corrected"), [("dr_grpo", True), ("bapo", False)])
def test_trls_correction_of_another_engine_weighs_the_advantage(
    slug: str, corrected: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up weights, as TRL would bring them from vLLM; a method that reads the sampler's log-probs needs none."""
    inner = GRPOTrainer._generate_and_score_completions
    fresh = []
    for ratio in (None, 0.5):

        def generate(self: Any, inputs: Any, ratio: float | None = ratio) -> dict[str, Any]:
            found = inner(self, inputs)
            shape = found["completion_mask"].shape
            return found if ratio is None else {**found, "importance_sampling_ratio": torch.full(shape, ratio)}

        monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", generate)
        run = trainer(model, config(tmp_path, **ONE, max_steps=1), slug)
        run.train()
        fresh.append(run._fresh.advantage)
    assert torch.equal(fresh[1], 0.5 * fresh[0] if corrected else fresh[0])
    assert bool((fresh[0] != 0).any())


def test_adapters_pass_through(model: Path, tmp_path: Path) -> None:
    """Only LoRA's weights move; the reference is the model without them."""
    peft = pytest.importorskip("peft", reason="peft is not installed here: pip install 'ascent-rl[peft]'")
    adapters = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    run = trainer(model, config(tmp_path, **SEVERAL), "grpo", peft_config=adapters)
    before = weights_of(run.model)
    run.train()
    moved = {name for name, tensor in weights_of(run.model).items() if not torch.equal(tensor, before[name])}
    assert moved and all("lora" in name for name in moved)
    assert run.ref_model is None and "reference_log_prob" in run._fresh


def test_a_mixture_of_experts_keeps_its_auxiliary_loss(tmp_path: Path) -> None:
    names = tokenizer()
    settings = MixtralConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
        pad_token_id=names.pad_token_id,
        eos_token_id=names.eos_token_id,
    )
    torch.manual_seed(0)
    found = {}
    experts = MixtralForCausalLM(settings)
    for slug in ("dr_grpo", "capo"):  # by TRL's fused head, and by the model's own forward
        run = trainer(experts, config(tmp_path, **ONE, **{"max_steps": 1, "learning_rate": 0.0}), slug)
        run.train()
        line = run.state.log_history[0]
        assert line["loss"] == pytest.approx(line["loss/policy"] + 0.5 * line["aux_loss"], abs=2e-4)
        found[slug] = line["aux_loss"]
    assert found["dr_grpo"] == pytest.approx(found["capo"], rel=1e-5) and found["capo"] > 1.0
