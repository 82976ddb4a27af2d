"""verl's own micro-batching, counting over ranks and loss dispatch, on CPU processes around a model of two matrices.

verl's FSDP engine moves batches to an accelerator; here its `forward_backward_batch` runs as it is, with the device
named "cpu" and the forward of a bigram model in place of the sharded one.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed
from tensordict import TensorDict
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from tests.plugins.verl_batch import COLUMNS, PROMPT, ROWS, advantages, configured, nested, recorded

VOCABULARY = 11


def tokens() -> Tensor:
    """[N, prompt + T] of every row."""
    return torch.randint(0, VOCABULARY, (ROWS, PROMPT + COLUMNS), generator=torch.Generator().manual_seed(5))


def bigram() -> torch.nn.Linear:
    """The model: logits of the next token from the present one."""
    model = torch.nn.Linear(VOCABULARY, VOCABULARY, dtype=torch.float64)
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    return model


def spoken(model: torch.nn.Linear, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Log-prob of each next token and entropy at each token; the last predicts nothing, so its log-prob is 0."""
    log_probs = model(torch.nn.functional.one_hot(ids, VOCABULARY).double()).log_softmax(-1)
    taken = log_probs[:-1].gather(-1, ids[1:, None]).squeeze(-1)
    return torch.cat((taken, taken.new_zeros(1))), -(log_probs.exp() * log_probs).sum(-1)


def batch(slug: str, parameters: dict[str, Any]) -> tuple[ascent.Method, Decisions, Evaluation, torch.nn.Linear]:
    """The recorded batch with log-probs near the model's, and what the model says of it."""
    method, model, ids = ascent.method(slug, **parameters), bigram(), tokens()
    _, decisions = recorded(method)
    said = [spoken(model, row) for row in ids]
    log_prob = torch.stack([row[0][PROMPT - 1 : -1] for row in said])
    entropy = torch.stack([row[1][PROMPT - 1 : -1] for row in said])
    old = (log_prob + 0.2 * torch.sin(torch.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS))).detach()
    reference = (log_prob + 0.3 * torch.cos(torch.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS))).detach()
    decisions = decisions.replace(old_log_prob=old, behaviour_log_prob=old, reference_log_prob=reference)
    return method, decisions, Evaluation(log_prob=log_prob, entropy=entropy), model


def own(slug: str, parameters: dict[str, Any]) -> list[Tensor]:
    """Gradients of the model's parameters in Ascent's own update."""
    method, decisions, evaluation, model = batch(slug, parameters)
    loss, _ = method.loss(evaluation, method.credit(decisions))
    loss.backward()
    return [weight.grad for weight in model.parameters()]


def rank(
    number: int, ranks: int, folder: str, slug: str, parameters: dict[str, Any], engineering: dict[str, Any]
) -> None:
    """One process: its rows through verl's engine; the first one writes the gradients, averaged as FSDP does."""
    from verl.utils import seqlen_balancing
    from verl.utils import tensordict_utils as tu
    from verl.workers.engine.fsdp import transformer_impl
    from verl.workers.utils.losses import ppo_loss

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(Path(folder) / "store"), ranks)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=ranks)
    transformer_impl.get_device_id = seqlen_balancing.get_device_name = lambda: "cpu"

    class Engine(transformer_impl.FSDPEngine):
        def __init__(self, module: torch.nn.Linear) -> None:
            self.module, self.ulysses_sequence_parallel_size = module, 1
            self.engine_config = SimpleNamespace()

        def get_data_parallel_group(self) -> Any:
            return torch.distributed.group.WORLD

        def get_data_parallel_size(self) -> int:
            return ranks

        def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> tuple[Tensor, dict]:
            said = [spoken(self.module, row) for row in micro_batch["input_ids"].unbind()]
            output = {"log_probs": nested([row[0] for row in said])}
            if entropies:
                output["entropy"] = nested([row[1] for row in said])
            loss, metrics = loss_function(model_output=output, data=micro_batch, dp_group=None)
            return loss, {"loss": loss.detach().item(), "metrics": metrics}

    _, decisions, _, model = batch(slug, parameters)
    config, actor = configured(slug, parameters)
    advantage = advantages(config, decisions)
    entropies = actor.entropy_coeff != 0
    rows = torch.arange(ROWS)[number::ranks].tolist()
    length = {row: int(torch.nonzero(decisions.mask[row]).max()) + 1 for row in rows}
    ids = tokens()
    mask = decisions.mask.to(torch.int64)
    columns = {
        "response_mask": mask,
        "loss_mask": mask,
        "old_log_probs": decisions.old_log_prob,
        "ref_log_prob": decisions.reference_log_prob,
        "advantages": advantage,
        "responses": ids[:, PROMPT:],
    }
    data = {name: nested([column[row, : length[row]] for row in rows]) for name, column in columns.items()}
    data["prompts"] = nested([ids[row, :PROMPT] for row in rows])
    data["input_ids"] = nested([ids[row, : PROMPT + length[row]] for row in rows])
    info = {"global_batch_size": ROWS, **engineering}
    output = Engine(model).forward_backward_batch(
        tu.get_tensordict(data, non_tensor_dict=info), partial(ppo_loss, config=actor)
    )
    for weight in model.parameters():
        torch.distributed.all_reduce(weight.grad)
        weight.grad /= ranks
    if number == 0:
        found = {"parts": len(output["loss"]), "gradients": [weight.grad.tolist() for weight in model.parameters()]}
        (Path(folder) / "gradients.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
