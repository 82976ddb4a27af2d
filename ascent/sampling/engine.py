"""Responses by a second engine: its log-probs are the behaviour's, and its routes are recorded token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.policies.causal import CausalPolicy
from ascent.policies.engine import Engine
from ascent.policies.routing import NATURAL, routed, routers
from ascent.sampling.choose import decoder_for
from ascent.sampling.decode import Decoder, DecoderFactory
from ascent.sampling.text import TextSampler

Make = Callable[[CausalPolicy, DecoderFactory], TextSampler]


class EngineSampler:
    """A text sampler whose policy is an engine's copy, brought up to date before every act.

    Args:
        engine: who answers.
        make: a text sampler of a policy and a decoder factory.
        routes: record the routes, as the columns `routes` and `prompt_routes`.
        router_noise: deviation of the noise on the engine's router logits, >= 0.

    Raises:
        ValueError: routes or noise are wanted of a policy without known routers.
    """

    exact = False
    """Another engine's log-probs are not the policy's own."""

    def __init__(self, engine: Engine, make: Make, routes: bool = False, router_noise: float = 0.0) -> None:
        if not router_noise >= 0:
            raise ValueError(f"router_noise must be >= 0; got {router_noise!r}.")
        self.engine, self.routes, self.noise = engine, routes, router_noise
        self.watched = routes or router_noise > 0
        if self.watched:
            routers(engine.policy.base)
        self.inner = make(engine.policy, self._decoder if self.watched else decoder_for)
        self.decoders: list[Routing] = []

    @property
    def consumed(self) -> int:
        """Prompts used so far."""
        return self.inner.consumed

    @consumed.setter
    def consumed(self, prompts: int) -> None:
        self.inner.consumed = prompts

    @property
    def max_new_tokens(self) -> int:
        return self.inner.max_new_tokens

    def act(self, step: int) -> Decisions:
        """Responses of the engine as the policy is now."""
        self.engine.refresh()
        self.decoders = []
        decisions = self.inner.act(step)
        decoders, self.decoders = self.decoders, []
        return decisions.with_extras(_columns(decoders, decisions)) if self.routes else decisions

    def _decoder(self, policy: CausalPolicy) -> Decoder:
        self.decoders.append(Routing(policy, self.noise))
        return self.decoders[-1]

    def state_dict(self) -> dict[str, Any]:
        """The cursor; the engine's copy is made anew before the next act."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class Routing:
    """A decoder that remembers the routes of every position it reads.

    Args:
        policy: a mixture of experts.
        noise: deviation of the noise on its router logits, >= 0.
    """

    def __init__(self, policy: CausalPolicy, noise: float = 0.0) -> None:
        self.model, self.noise = policy.base, noise
        self.inner = decoder_for(policy)
        self.prompt: Tensor
        self.steps: list[tuple[Tensor, Tensor]] = []

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        with routed(self.model, noise=self.noise) as record:
            logits = self.inner.start(prompt, real, copies, room)
        found = record.routes().unflatten(0, prompt.shape)
        self.prompt = torch.where(real[..., None, None], found, NATURAL).repeat_interleave(copies, 0)
        self.rows = torch.arange(len(self.prompt), device=prompt.device)
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        with routed(self.model, noise=self.noise) as record:
            logits = self.inner.step(tokens)
        self.steps.append((self.rows, record.routes()))
        return logits

    def keep(self, rows: Tensor) -> None:
        self.inner.keep(rows)
        self.rows = self.rows[rows]

    def routes(self, columns: int) -> Tensor:
        """[B, columns, layers, k]: at t the route of the position that predicted token t."""
        shape = (len(self.prompt), columns, *self.prompt.shape[2:])
        whole = torch.full(shape, NATURAL, dtype=torch.int16, device=self.prompt.device)
        whole[:, 0] = self.prompt[:, -1]
        for column, (rows, found) in enumerate(self.steps[: columns - 1], start=1):
            whole[rows, column] = found
        return whole


def _columns(decoders: list[Routing], decisions: Decisions) -> dict[str, Tensor]:
    """What decoders remember, in the layout of a collection: prompts on the right, nothing beyond a response's end."""
    columns, width = decisions.mask.shape[1], decisions.context["prompt"].shape[1]
    prompts = []
    for decoder in decoders:
        shape = (len(decoder.prompt), width - decoder.prompt.shape[1], *decoder.prompt.shape[2:])
        prompts.append(torch.cat([decoder.prompt.new_full(shape, NATURAL), decoder.prompt], 1))
    routes = torch.cat([decoder.routes(columns) for decoder in decoders])
    decided = decisions.mask[..., None, None]
    return {"routes": torch.where(decided, routes, NATURAL), "prompt_routes": torch.cat(prompts)}
