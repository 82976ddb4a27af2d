"""Every language method inside TRL: `AscentTrainer(method="bapo", ...)`, a `GRPOTrainer` with another loss.

What TRL does stays TRL's: data, generation, rewards, PEFT, vLLM, optimiser, processes, logging. What a method does is
Ascent's: which columns it is given, credit, `prepare` on the whole update, the loss. TRL shuffles and splits a
generation before its loss, so a row carries its number through that, and everything else is looked up by it.

Private methods of `GRPOTrainer` are overridden, which promise nothing: tested with TRL 1.16 (`trl_settings.TESTED`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.core.registry import method as build_method
from ascent.plugins import trl_checkpoint as checkpoint
from ascent.plugins.trl_rows import (
    OWN_FORWARD,
    Generated,
    Kept,
    collected,
    credit_reads_policy,
    credited,
    dealt_by_groups,
    evaluation,
    prepare_reads_policy,
    widened,
)
from ascent.plugins.trl_settings import dealt_together, guard, plan, refuse, refuse_unfed, with_step_of
from ascent.policies.head import statistics
from ascent.policies.with_logits import logits_of

try:
    INSTALLED = version("trl")
except ImportError as error:
    raise ImportError("ascent.plugins.trl needs TRL: pip install 'ascent-rl[trl]'") from error


guard(INSTALLED)

from trl import GRPOConfig, GRPOTrainer  # noqa: E402  (an older TRL is refused before it is imported)
from trl.trainer.utils import (  # noqa: E402
    add_fused_lm_head,
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

ROW = "ascent_row"
__all__ = ["AscentTrainer", "plan"]

VISION = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles"),
    *("image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)


class AscentTrainer(GRPOTrainer):
    """A GRPOTrainer that learns by a method of Ascent; one process or many.

    Args:
        method: slug, or a composed Method (`ascent.method("bapo", positive_share=0.4)`).
        scorers: frozen models by the column that they write, `{"teacher_log_prob": model}`, where the method asks.
        arguments, keywords: of GRPOTrainer. `args` says the plan: `num_iterations` passes over a generation,
            `steps_per_generation / gradient_accumulation_steps` updates a pass (see `plan`).

    Raises:
        ValueError: TRL cannot feed the method, or `args` sets what only TRL's own loss reads.
    """

    _tag_names = ["trl", "ascent"]  # noqa: RUF012  (TRL's attribute)

    def __init__(
        self,
        *arguments: Any,
        method: str | Method,
        scorers: Mapping[str, PreTrainedModel] | None = None,
        **keywords: Any,
    ) -> None:
        given = inspect.signature(GRPOTrainer.__init__).bind(self, *arguments, **keywords).arguments
        del given["self"]
        chosen = method if isinstance(method, Method) else build_method(method)
        refuse_unfed(chosen)  # before GRPOConfig, which may refuse the machine
        args = copy.copy(given.get("args") or GRPOConfig(f"{chosen.slug}-trl"))
        refuse(chosen, args, scorers or {})
        # TRL keeps a reference model where beta is not 0; its size is read by TRL's own loss only.
        args.beta = 1.0 if "reference_log_prob" in chosen.needs else 0.0
        self.method = with_step_of(chosen, args)
        self._state = self.method.start()
        self._kept, self._window = Kept(), list[dict[str, Any]]()
        self._raw: Sequence[Any] = ()
        self._totals: dict[str, Tensor] = {}
        self._update: Decisions | None = None
        self._generations = 0
        super().__init__(**{**given, "args": args})
        self.scorers = {name: self._scorer(model) for name, model in (scorers or {}).items()}

    def _scorer(self, model: PreTrainedModel) -> Any:
        add_fused_lm_head(model, self.temperature, self.args.cast_lm_head_to_fp32)
        return self.accelerator.prepare_model(model.eval().requires_grad_(False), evaluation_mode=True)

    # What TRL generated, credited.

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._responses = completion_ids_list
        return self._rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        found = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        generated = self._generated(found)
        group_size = self.num_generations if mode == "train" else self.num_generations_eval
        number, rows = self._generations, len(generated.action)
        collection = collected(
            generated, number, group_size, self.max_completion_length, self.args.seed, self.state.global_step
        )
        self._fresh = credited(self.method, collection, generated, self._now())
        self._generations += 1
        mine = slice(self.accelerator.process_index * rows // self.accelerator.num_processes, None)
        local = len(found["prompt_ids"])
        found[ROW] = (number * rows + torch.arange(rows, device=generated.action.device))[mine][:local]
        self._first = number * rows
        if "advantage" in self._fresh:
            advantage = self._fresh.advantage * self._fresh.mask
            found["advantages"] = advantage[mine][:local, : found["completion_ids"].shape[1]]
            shown = self._logs["advantages"]
            for _ in range(min(rows, len(shown))):
                shown.pop()
            shown.extend((advantage.sum(1) / self._fresh.mask.sum(1).clamp(min=1)).tolist())
        return found

    def _generated(self, found: Mapping[str, Any]) -> Generated:
        """The rows of all processes."""
        response = found["completion_mask"]
        tool = found.get("tool_mask", torch.ones_like(response))
        # TRL blanks all masks of a truncated response; what was decided there still shapes the baseline.
        blank = (response.sum(1) == 0)[:, None]
        ends = torch.tensor([bool(ids) and ids[-1] in self.eos_token_ids for ids in self._responses])
        lengths = torch.tensor([len(ids) for ids in self._responses])
        correction = found.get("importance_sampling_ratio")
        return Generated(
            action=self._everyone(found["completion_ids"]),
            length=self._everyone(lengths.to(response.device)),
            ended=self._everyone(ends.to(response.device)),
            decided=self._everyone(tool.bool() | blank),
            kept=self._everyone((response * tool).bool()),
            rewards=self._rewards,
            weights=self.reward_weights,
            names=self.reward_func_names,
            columns={name: self._everyone(column) for name, column in self._columns(found).items()},
            correction=None if correction is None else self._everyone(correction),
        )

    def _columns(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """Recorded log-probs of this process's rows."""
        columns = {
            "old_log_prob": found.get("old_per_token_logps"),
            "behaviour_log_prob": found.get("sampling_per_token_logps"),
            "reference_log_prob": found.get("ref_per_token_logps"),
        }
        size = self.args.per_device_train_batch_size
        with torch.no_grad():
            if columns["old_log_prob"] is None and credit_reads_policy(self.method):
                columns["old_log_prob"] = self._log_probs(self.model, found, size)[0]
            for name, scorer in self.scorers.items():
                columns[name] = self._log_probs(scorer, found, size)[0]
        return {name: column for name, column in columns.items() if column is not None}

    def _everyone(self, rows: Tensor) -> Tensor:
        """The rows of all processes in order of rank, T padded to the longest."""
        if self.accelerator.num_processes == 1:
            return rows
        flags = rows.dtype == torch.bool
        rows = rows.int() if flags else rows
        rows = self.accelerator.pad_across_processes(rows, dim=1) if rows.dim() > 1 else rows
        whole = self.accelerator.gather(rows.contiguous())
        return whole.bool() if flags else whole

    # Updates: all micro-batches of one are known before its first gradient.

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        self._raw, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._window = []
        return self._raw, items

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training:
            found = self._generate_and_score_completions(generation_batch)
            kept = Kept()
            kept.add(self._first, self._fresh)
            return self._prepared([found], kept)[0]
        if not self._window:
            parts = [self._part(self._step + place, raw) for place, raw in enumerate(self._raw or [generation_batch])]
            self._window = self._prepared(parts, self._kept)
        return self._window.pop(0)

    def _part(self, step: int, raw: Any) -> dict[str, Any]:
        """The micro-batch of a step, out of the buffered generation or a new one."""
        parts = self.args.steps_per_generation
        if step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            found = self._generate_and_score_completions(raw)
            self._kept.add(self._first, self._fresh)
            rows, group_size = len(found["prompt_ids"]), self.num_generations
            if dealt_together(self.method) and rows % group_size == 0:
                order = dealt_by_groups(rows, group_size).to(found["prompt_ids"].device)
                found = {name: _picked(column, order) for name, column in found.items()}
            else:
                found = shuffle_sequence_dict(split_pixel_values_by_grid(found))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(found, parts)]
        return self._buffered_inputs[step % parts]

    def _prepared(self, parts: Sequence[dict[str, Any]], kept: Kept) -> list[dict[str, Any]]:
        """The micro-batches of an update with their decisions, prepared as one update over all processes."""
        method, count = self.method, self.accelerator.num_processes
        ids = self._everyone(torch.cat([part[ROW] for part in parts]))
        kept.forget(ids)
        whole = kept.rows(ids)
        # An update in one piece is prepared where its loss is made, from the same forward.
        if len(parts) > 1 or count > 1:
            now = self._looked(parts, whole) if prepare_reads_policy(method) else None
            whole = method.prepare(whole, now, self._now())
        self._update, self._totals = whole, {}
        start = self.accelerator.process_index * (len(whole) // count)
        cuts = whole.rows(slice(start, start + len(whole) // count)).cut([len(part[ROW]) for part in parts])
        final = len(parts) - 1
        return [
            {**part, "decisions": rows, "final": place == final}
            for place, (part, rows) in enumerate(zip(parts, cuts, strict=True))
        ]

    @torch.no_grad()
    def _looked(self, parts: Sequence[dict[str, Any]], whole: Decisions) -> Evaluation:
        """What the policy says of the whole update before its first gradient."""
        wanted = self.method.prepares | {"log_prob"}
        nows = [widened(self._evaluated(self.model, part, wanted)[0], whole.mask.shape[1]) for part in parts]
        return evaluation({name: self._everyone(torch.cat([now.column(name) for now in nows])) for name in nows[0]})

    # The loss of a micro-batch.

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        method, rows, mode = self.method, inputs["decisions"], "train" if self.model.training else "eval"
        now, auxiliary = self._evaluated(model, inputs, method.evaluates | {"entropy"})
        now = widened(now, rows.mask.shape[1])
        if not method.prepared(rows):
            rows = self._update = method.prepare(rows, now, self._now())
        if "old_log_prob" not in rows:
            frozen = now.detach().cleaned(rows.mask).log_prob
            behaviour = rows.behaviour_log_prob if "behaviour_log_prob" in rows else frozen
            rows = rows.with_extras({"old_log_prob": frozen, "behaviour_log_prob": behaviour})
        loss, metrics = method.loss(now, rows, self._now())
        metrics["entropy"] = (rows.extras["weight"] * torch.where(rows.mask, now.entropy.detach(), 0.0)).sum()
        for name, metric in metrics.items():
            self._totals[name] = self._totals[name] + metric if name in self._totals else metric
        if inputs["final"]:
            self._finished(mode)
        # Gradients are averaged over processes, where ours add up; an evaluation's loss is told whole on each of them.
        count = self.accelerator.num_processes
        loss = loss * count if mode == "train" else self.accelerator.reduce(loss, "sum")
        if auxiliary is not None:
            steps = self.current_gradient_accumulation_steps if mode == "train" else 1
            loss = loss + self.router_aux_loss_coef * auxiliary / steps
            self._metrics[mode]["aux_loss"].append(self.accelerator.gather(auxiliary.detach()).mean().item())
        return loss

    def _finished(self, mode: str) -> None:
        """Log the update, and let the method's parts remember it."""
        names = sorted(self._totals)
        sums = torch.stack([self._totals[name].double() for name in names])
        totals = dict(zip(names, self.accelerator.reduce(sums, "sum").unbind(), strict=True))
        for name, total in totals.items():
            if name != "loss":  # the trainer logs its own, which is the same
                self._metrics[mode][name].append(total.item())
        if mode == "train":
            assert self._update is not None
            self._state = self.method.after(self._update, totals, self._now())

    def _evaluated(
        self, model: Any, inputs: Mapping[str, Any], needs: frozenset[str]
    ) -> tuple[Evaluation, Tensor | None]:
        """What the policy says of a micro-batch [B, T, ...], and the auxiliary loss of a mixture of experts."""
        if needs & OWN_FORWARD:
            return self._with_logits(model, inputs, needs)
        log_prob, entropy, auxiliary = self._log_probs(model, inputs, None, "entropy" in needs, self.aux_loss_enabled)
        columns = {"log_prob": log_prob} if entropy is None else {"log_prob": log_prob, "entropy": entropy}
        return Evaluation(**columns), auxiliary

    def _log_probs(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """TRL's own forward, its head fused."""
        ids, attention = _text(inputs)
        return self._get_per_token_logps_and_entropies(
            model,
            ids,
            attention,
            inputs["completion_ids"].shape[1],
            batch_size,
            compute_entropy,
            compute_aux_loss,
            **{name: inputs[name] for name in VISION if name in inputs},
        )

    def _with_logits(
        self, model: Any, inputs: Mapping[str, Any], needs: frozenset[str]
    ) -> tuple[Evaluation, Tensor | None]:
        """The model's own forward with its last hidden states and logits [B, T, V], for text only."""
        if any(name in inputs for name in VISION):
            raise ValueError(f"method {self.method.slug!r} reads logits, which images and their rows do not give here.")
        ids, attention = _text(inputs)
        action = inputs["completion_ids"]
        rows, width = action.shape
        options: dict[str, Any] = {"output_router_logits": True} if self.aux_loss_enabled else {}
        accepted = inspect.signature(self.accelerator.unwrap_model(model).forward).parameters
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = width + 1
        if "position_ids" in accepted:  # counted from a prompt's first token, as when it was sampled
            options["position_ids"] = (attention.cumsum(1) - 1).clamp(min=0)
        with self.accelerator.autocast():
            found = model(
                input_ids=ids, attention_mask=attention, use_cache=False, output_hidden_states=True, **options
            )
        logits = found.logits[:, -width - 1 : -1] / self.temperature
        hidden = found.hidden_states[-1][:, -width - 1 : -1]
        flat = statistics(logits.flatten(0, 1), hidden.flatten(0, 1), action.flatten(), needs, {"logits": logits_of})
        columns = {name: column.unflatten(0, (rows, width)) for name, column in flat.items()}
        columns["outputs"] = columns.pop("probe:logits")
        if "features" in needs:
            columns["features"] = hidden
        return evaluation(columns), found.aux_loss if self.aux_loss_enabled else None

    def _now(self) -> MethodState:
        """The parts' state and the clock of the run."""
        step, most = self.state.global_step, max(self.state.max_steps, 1)
        return MethodState(self._state.parts, Clock(step, min(step / most, 1.0)))

    # Checkpoints: the state of the parts, and a half-used generation.

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        used = self._step % (self.args.steps_per_generation * self.num_iterations)
        buffered = checkpoint.plain(self._buffered_inputs) if used else None
        if buffered is not None:
            checkpoint.write_buffer(folder, self.accelerator.process_index, buffered)
        if self.args.should_save:
            kept = self._kept if buffered is not None else Kept()
            counts = {"method": self.method.slug, "generations": self._generations, "step": self._step}
            checkpoint.write(folder, counts, self._state, kept)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        super()._load_optimizer_and_scheduler(folder)
        if folder is None:
            return
        device, rank = str(self.accelerator.device), self.accelerator.process_index
        counts, parts, self._kept = checkpoint.read(Path(folder), self.method, device)
        self._state = MethodState(parts)
        self._generations, self._step = counts["generations"], counts["step"]
        self._buffered_inputs = checkpoint.read_buffer(Path(folder), rank, self.args.steps_per_generation, device)


def _text(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of prompt and response."""
    return (
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
    )


def _picked(column: Any, order: Tensor) -> Any:
    if isinstance(column, Tensor):
        return column[order] if column.dim() else column
    return [column[place] for place in order.tolist()]
