"""A mixture of experts as a policy: a causal language model whose routes are recorded and replayed.

The route of the input position t - 1 decides about token t, so it is recorded there: `routes` [N, T, layers, k]. The
prompt's positions have routes too, `prompt_routes` [N, P, layers, k]: other experts in the prompt are another state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen3MoeConfig, Qwen3MoeForCausalLM

from ascent.core.decisions import Decisions
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.core.random import key
from ascent.policies.causal import NO_PROBES, CausalPolicy, Read, decided_width
from ascent.policies.embedded import character_tokenizer
from ascent.policies.policy import Probe
from ascent.policies.routing import NATURAL, changed, routed, routers

CHANGED = "probe:routes_changed"
RECORDED = frozenset({"routes", "prompt_routes"})


@dataclass(frozen=True)
class Seen:
    """One forward: its rows [n], the position of every input in prompt + response [n, W], the routers' own choice
    [n, W, layers, k], and the input position that predicts the first token."""

    rows: Tensor
    position: Tensor
    chosen: Tensor
    first: int


class MixturePolicy(CausalPolicy):
    """A causal language model with routers.

    Args:
        model: a mixture of experts with routers of a known class.
        tokenizer, options: of `CausalPolicy`.

    Attributes:
        replays: evaluate under the recorded routes (see `Replaying`); decisions without them are refused by name.

    Raises:
        ValueError: the model has no known router.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        self.layers = len(routers(self.base))
        self.replays = False
        self._recording = False
        self._seen: list[Seen] = []

    @property
    def packs(self) -> bool:
        """Routers are watched position by position, so the model's own forward is taken."""
        return False

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """As `CausalPolicy.evaluate`; `probe:routes_changed` [N, T] is the share of layers whose router would now
        choose another set of experts than the recorded one."""
        self._seen = []
        now = super().evaluate(decisions, needs - {CHANGED}, probes)
        seen, self._seen = self._seen, []
        if CHANGED not in needs:
            return now
        found = now.log_prob.new_zeros(decisions.mask.shape)
        for part in seen:
            rows = decisions.rows(part.rows)
            share = changed(part.chosen, _plan(rows, part.position))[:, part.first :]
            found[part.rows, : share.shape[1]] = share.to(found.dtype)
        found = torch.where(decisions.mask, found, 0.0)
        own = {name: now.column(name) for name in EVALUATED if name in now}
        return Evaluation(**own, probes={**now.probes, "routes_changed": found})

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """As `CausalPolicy.annotate`; where `needs` names routes (R2), they are those of this forward."""
        if not needs & RECORDED:
            return super().annotate(decisions, needs)
        self._seen, self._recording = [], True
        try:
            written = super().annotate(decisions, (needs - RECORDED) | {"old_log_prob"})
        finally:
            seen, self._seen, self._recording = self._seen, [], False
        return written.with_extras(self._recorded(decisions, seen))

    def _recorded(self, decisions: Decisions, seen: list[Seen]) -> dict[str, Tensor]:
        """The routes of forwards, as columns."""
        rows, columns = decisions.mask.shape
        prompt = decisions.context["prompt"].shape[1]
        shape = (rows, prompt + columns, self.layers, seen[0].chosen.shape[-1])
        whole = torch.full(shape, NATURAL, dtype=torch.int16, device=decisions.mask.device)
        start = whole[:, :1].clone()
        for part in seen:
            whole[part.rows[:, None], part.position] = part.chosen
            start[part.rows, 0] = part.chosen[:, part.first]
        real = decisions.context["prompt_mask"]
        real = real if decisions.context_row is None else real[decisions.context_row]
        last = torch.where(decisions.mask, torch.arange(columns, device=real.device), -1).amax(1, keepdim=True)
        until = torch.arange(columns, device=real.device) <= last
        routes = torch.cat([start, whole[:, prompt : prompt + columns - 1]], 1)
        return {
            "routes": torch.where(until[..., None, None], routes, NATURAL),
            "prompt_routes": torch.where(real[..., None, None], whole[:, :prompt], NATURAL),
        }

    def _read_rows(self, decisions: Decisions, rows: Tensor, after: bool) -> Read:
        part = decisions.rows(rows)
        columns = decided_width(part.mask) - 1 + int(after)
        position, prompt = self._positions(part, columns)
        replay = _plan(part, position).flatten(0, 1) if self.replays and not self._recording else None
        assert self.splits is not None  # its trial is over before anything is recorded
        with routed(self.base, replay) as record:
            read = super()._read_rows(decisions, rows, after)
        chosen = record.routes().unflatten(0, position.shape)
        self._seen.append(Seen(rows, position, chosen, prompt - 1))
        return read

    def _positions(self, part: Decisions, columns: int) -> tuple[Tensor, int]:
        """Where each input [n, W] stands in prompt + response, by giving positions the way of the tokens."""
        real = part.context["prompt_mask"]
        real = real if part.context_row is None else real[part.context_row]
        places = torch.arange(real.shape[1] + part.mask.shape[1], device=real.device).expand(len(real), -1)
        context = {"prompt": places[:, : real.shape[1]], "prompt_mask": real}
        inputs, prompt = self._inputs(
            Decisions(mask=part.mask, context=context, action=places[:, real.shape[1] :]), columns
        )
        return inputs["input_ids"], prompt


class Replaying(nn.Module):
    """A mixture of experts as the trainer sees it under Routing Replay: every evaluation is under recorded routes.

    Whoever asks the policy itself (held-out answers, an engine) gets its natural routes.

    Args:
        policy: which is trained and saved as ever.
    """

    def __init__(self, policy: MixturePolicy) -> None:
        super().__init__()
        self.policy = policy

    @property
    def splittable(self) -> bool:
        return self.policy.splittable

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """As `MixturePolicy.evaluate`. Raises MissingColumn where the decisions hold no routes."""
        self.policy.replays = True
        try:
            return self.policy.evaluate(decisions, needs, probes)
        finally:
            self.policy.replays = False

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """As `MixturePolicy.annotate`: routes that `needs` names are recorded, others are replayed."""
        self.policy.replays = True
        try:
            return self.policy.annotate(decisions, needs)
        finally:
            self.policy.replays = False


def _plan(part: Decisions, position: Tensor) -> Tensor:
    """The recorded routes [n, W, layers, k] of input positions. Raises MissingColumn where there are none."""
    prompt = part.column("prompt_routes", "routing replay")[:, : part.context["prompt"].shape[1]]
    routes = part.column("routes", "routing replay")
    beyond = torch.full_like(routes[:, :1], NATURAL)
    whole = torch.cat([prompt, routes[:, 1:], beyond], 1)
    return whole[torch.arange(len(whole), device=whole.device)[:, None], position]


def embedded_mixture(
    alphabet: str,
    seed: int = 0,
    experts: int = 8,
    per_token: int = 2,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    context: int = 256,
    temperature: float = 1.0,
) -> MixturePolicy:
    """A fresh small mixture of experts of the Qwen3 family, about 0.4 M parameters at the defaults.

    Args:
        alphabet: every character that prompts and responses may hold.
        seed: of the initial weights. The global generator is left as it was.
        experts: E of every layer, >= 2; each is as wide as the model.
        per_token: k experts of a position, >= 1 and < `experts`.
        hidden: width, a multiple of `2 * heads`.
        layers, heads: >= 1.
        context: most tokens of prompt and response together.
        temperature: of `CausalPolicy`.

    Raises:
        ValueError: a size is out of range, or the alphabet is empty.
    """
    for name, number in (("hidden", hidden), ("layers", layers), ("heads", heads), ("context", context)):
        if number < 1:
            raise ValueError(f"{name} must be >= 1; got {number!r}.")
    if hidden % (2 * heads):
        raise ValueError(f"hidden must be a multiple of 2 * heads = {2 * heads}; got {hidden}.")
    if not 1 <= per_token < experts:
        raise ValueError(f"per_token must be >= 1 and < experts={experts}; got {per_token}.")
    tokenizer = character_tokenizer(alphabet, context)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden,
        moe_intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        num_experts=experts,
        num_experts_per_tok=per_token,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=hidden**-0.5 / 2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "embedded mixture") & 0x7FFF_FFFF_FFFF_FFFF)
        model = Qwen3MoeForCausalLM(config)
    return MixturePolicy(model, tokenizer, temperature=temperature)
