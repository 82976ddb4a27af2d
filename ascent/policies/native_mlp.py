"""Small networks for a learning stage, forward and backward by one call of `mlp.c` each.

For a minibatch of 64 rows PyTorch's operations and their autograd nodes cost several times what the arithmetic does.
Here all that a policy says is one node, and its backward adds to the parameters' `.grad` itself: nothing is handed
from node to node, no hook of a parameter is called, and the next update writes over the same memory. A learning stage
reads `.grad` and nothing else, so nobody but a learning stage may use it. The networks in PyTorch are the reference,
and what is taken wherever this does not fit: other types, devices or layouts, frozen parameters, autocast, no
compiler.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascent.core.densities import HALF_LOG_TAU
from ascent.policies.compiled import compiled

SOURCE = Path(__file__).with_name("mlp.c")
# Type, and terms of the series that reach its precision.
NUMBERS = {torch.float32: ("float", 7), torch.float64: ("double", 13)}
# As in `mlp.c`: rows at a time, layers of a network; numbers in the longest vector.
BLOCK, MOST, LANES = 64, 8, 16
# Rows times weights up to which one thread is no slower than several.
SMALL = 2**22
# Bytes of a vector from which products of any size were measured to be as fast as PyTorch's.
WIDE = 32

_LOG = logging.getLogger(__name__)


@cache
def library(dtype: torch.dtype) -> Any:
    """The compiled functions for this precision, `wide` or not; None where there are none, and the log says why."""
    if dtype not in NUMBERS:
        return None
    number, degree = NUMBERS[dtype]
    instead = "small networks learn by PyTorch's operations"
    flags = (f"-DNUMBER={number}", f"-DDEGREE={degree}")
    found: Any = compiled(SOURCE, flags, _LOG, instead)
    if found is not None:
        found.bytes.restype = c_int64
        found.wide = found.bytes() >= WIDE
        arguments = {"forward": (0, 5), "backward": (0, 5), "density": (2, 4), "density_backward": (2, 5)}
        for name, (numbers, places) in arguments.items():
            function = getattr(found, name)
            function.argtypes, function.restype = [c_int64] * numbers + [c_void_p] * places, None
    return found


class Network(ctypes.Structure):
    """`Network` of `mlp.c`."""

    _fields_ = [
        *((name, c_int64) for name in ("layers", "relu", "across", "rows")),
        ("size", c_int64 * (MOST + 1)),
        *((name, c_void_p * MOST) for name in ("weight", "bias", "weight_gradient", "bias_gradient")),
    ]


class Gradients:
    """Room for the gradients of parameters, which becomes their `.grad`.

    Attributes:
        views: one of each parameter's shape.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = parameters[0].new_zeros(sum(sizes))
        self.views = [part.view_as(x) for part, x in zip(self.flat.split(sizes), parameters, strict=True)]

    def open(self) -> None:
        """Before something is added to `views`."""
        if self.parameters[0].grad is not self.views[0]:
            self.flat.zero_()

    def close(self) -> None:
        """After it: `.grad` holds what it held before and what was added."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            if parameter.grad is None:
                parameter.grad = view
            elif parameter.grad is not view:
                parameter.grad += view


class Stack:
    """K networks of one shape and one input, whose parameters are stacked.

    Args:
        parameters: weight and bias of every layer, one after the other: [out, in] and [out] of a single network, or
            [K, in, out] and [K, 1, out].
        relu: the hidden layers' activation is relu, otherwise tanh.
        constant: the parameters have no gradient, but the inputs may.
        first: only the first so many networks; None is all.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], relu: bool, constant: bool = False, first: int | None = None
    ) -> None:
        self.parameters, self.constant = list(parameters), constant
        weights = self.parameters[::2]
        self.across = weights[0].dim() == 3
        self.stacked = len(weights[0]) if self.across else 1
        self.members = self.stacked if first is None else first
        ins, outs = (-2, -1) if self.across else (-1, -2)
        sizes = [weights[0].shape[ins], *(weight.shape[outs] for weight in weights)]
        self.inputs, self.outputs, self.held = sizes[0], sizes[-1], BLOCK * sum(sizes[:-1])
        widest = -(-max(sizes) // LANES) * LANES
        self.room = (3 * BLOCK + widest) * widest
        self.plans = [Network(len(weights), relu, self.across) for _ in range(self.members)]
        for plan in self.plans:
            plan.size[: len(sizes)] = sizes
        self.addresses = [ctypes.addressof(plan) for plan in self.plans]
        self.numbers = sum(weight[0].numel() if self.across else weight.numel() for weight in weights) * self.members
        self.places: list[int] = []
        self.dtype: torch.dtype | None = None

    def ready(self, x: Tensor) -> bool:
        """Whether the parameters learn, and they and inputs are such that `mlp.c` can read them; tells it where."""
        parameters = self.parameters
        if not self.constant and not all([parameter.requires_grad for parameter in parameters]):
            return False
        places = [parameter.data_ptr() for parameter in parameters]
        if places != self.places or parameters[0].dtype != self.dtype:
            kinds = {(parameter.dtype, parameter.device.type, parameter.is_contiguous()) for parameter in parameters}
            self.places, self.dtype = places, parameters[0].dtype
            self.library = library(self.dtype) if kinds == {(self.dtype, "cpu", True)} else None
            if self.library is not None:
                self._point()
        if self.library is None or x.dtype != self.dtype or x.device.type != "cpu" or x.shape[1:] != (self.inputs,):
            return False
        # Large products are for as many threads as there are.
        return len(x) * self.numbers <= SMALL or (self.library.wide and torch.get_num_threads() == 1)

    def _point(self) -> None:
        self.scratch = self.parameters[0].detach().new_empty(self.room)
        named: dict[str, Sequence[Tensor]] = {"": self.parameters}
        if not self.constant:
            self.gradients = Gradients(self.parameters)
            named["_gradient"] = self.gradients.views
        for kind, tensors in named.items():
            for number, tensor in enumerate(tensors):
                step = tensor.numel() // self.stacked * tensor.element_size()
                for member, plan in enumerate(self.plans):
                    places = getattr(plan, ("bias" if number % 2 else "weight") + kind)
                    places[number // 2] = tensor.data_ptr() + member * step

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        """Outputs [M, outputs], or [K, M, outputs], of x [M, inputs], and what a backward needs."""
        rows = len(x)
        numbers = -(-rows // BLOCK) * self.held
        kept = x.new_empty(self.members, numbers)
        out = x.new_empty(self.members, rows, self.outputs) if self.across else x.new_empty(rows, self.outputs)
        size = x.element_size()
        for member, (plan, address) in enumerate(zip(self.plans, self.addresses, strict=True)):
            plan.rows = rows
            self.library.forward(
                address,
                x.data_ptr(),
                kept.data_ptr() + member * numbers * size,
                out.data_ptr() + member * rows * self.outputs * size,
                self.scratch.data_ptr(),
            )
        return (out,), (kept, rows)

    def backward(self, held: Any, gradient: Tensor | None) -> None:
        """Add to `.grad` of the parameters, given the gradient by the outputs."""
        # A network that the loss does not read has no gradient: an optimiser leaves it alone.
        if gradient is not None:
            self.gradients.open()
            self._backward(held, gradient.contiguous(), None)
            self.gradients.close()

    def _backward(self, held: Any, gradient: Tensor, by_input: Tensor | None) -> None:
        """Add to the gradients of the parameters that learn, and to that by the inputs where it is asked for."""
        kept, rows = held
        size, numbers = gradient.element_size(), kept.shape[1]
        for member, (plan, address) in enumerate(zip(self.plans, self.addresses, strict=True)):
            plan.rows = rows
            self.library.backward(
                address,
                kept.data_ptr() + member * numbers * size,
                gradient.data_ptr() + member * rows * self.outputs * size,
                None if by_input is None else by_input.data_ptr(),
                self.scratch.data_ptr(),
            )

    def said(self, x: Tensor) -> Tensor | None:
        """Outputs of constant networks, with the gradient by x [M, inputs]; None where `mlp.c` cannot."""
        if torch.is_autocast_enabled("cpu") or not self.ready(x):
            return None
        out: Tensor = Through.apply(x.contiguous(), self)  # type: ignore[no-untyped-call]
        return out


class Through(torch.autograd.Function):
    """Constant networks as a node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stack: Stack) -> Tensor:
        (out,), ctx.held = stack.forward(x)
        ctx.stack = stack
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        by_input = gradient.new_zeros(ctx.held[1], ctx.stack.inputs)
        ctx.stack._backward(ctx.held, gradient, by_input)
        return by_input, None


class Normal:
    """A network whose outputs are the means of independent normal numbers.

    Args:
        means: the network.
        log_std: [A].
    """

    def __init__(self, means: Stack, log_std: nn.Parameter) -> None:
        self.means, self.log_std = means, log_std
        self.gradients = Gradients([log_std])

    def ready(self, x: Tensor, action: Tensor) -> bool:
        """Whether `mlp.c` can read everything."""
        like, own = self.gradients.flat, self.log_std
        if not own.requires_grad or not self.means.ready(x) or not like.dtype == own.dtype == action.dtype == x.dtype:
            return False
        return own.device.type == action.device.type == "cpu" and action.shape == (len(x), self.means.outputs)

    def forward(self, x: Tensor, action: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        """Log-probs [M] of actions [M, A], the entropy [], and what a backward needs."""
        (distance,), held = self.means.forward(x)
        rows, size = distance.shape
        log_prob = distance.new_empty(rows)
        # The means become the standardised distances of the actions.
        places = self.log_std.data_ptr(), action.data_ptr(), distance.data_ptr(), log_prob.data_ptr()
        self.means.library.density(rows, size, *places)
        return (log_prob, self.log_std.sum() + (0.5 + HALF_LOG_TAU) * size), (distance, held)

    def backward(self, held: Any, gradient: Tensor | None, entropy: Tensor | None) -> None:
        """Add to `.grad` of the parameters, given the gradients by log-probs and entropy."""
        if gradient is None and entropy is None:
            return
        distance, held = held
        rows, size = distance.shape
        own = self.gradients
        own.open()
        if entropy is not None:
            own.flat += entropy
        if gradient is not None:
            by_mean = torch.empty_like(distance)
            tensors = self.log_std, gradient.contiguous(), distance, by_mean, own.flat
            self.means.library.density_backward(rows, size, *[tensor.data_ptr() for tensor in tensors])
        own.close()
        if gradient is not None:
            self.means.backward(held, by_mean)


class Piece(Protocol):
    """What `Pass` passes: `Stack`, `Normal`."""

    def ready(self, *inputs: Tensor) -> bool: ...
    def forward(self, *inputs: Tensor) -> tuple[tuple[Tensor, ...], Any]: ...
    def backward(self, held: Any, *gradients: Tensor | None) -> None: ...


class Pass(torch.autograd.Function):
    """Several pieces as one node, whose backward ends in the parameters' `.grad`."""

    @staticmethod
    def forward(ctx: Any, engaged: Tensor, pieces: Sequence[tuple[Piece, Sequence[Tensor]]]) -> tuple[Tensor, ...]:
        ctx.pieces = []
        outputs: list[Tensor] = []
        for piece, inputs in pieces:
            said, held = piece.forward(*inputs)
            ctx.pieces.append((piece, held, len(said)))
            outputs += said
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None]:
        left = iter(gradients)
        for piece, held, count in ctx.pieces:
            piece.backward(held, *[next(left) for _ in range(count)])
        return None, None


ENGAGED = torch.zeros((), requires_grad=True)
"""What makes a node of an operation on inputs that have no gradient."""


def passed(pieces: Sequence[tuple[Piece, Sequence[Tensor]]]) -> list[Tensor] | None:
    """What the pieces say of their inputs, one after the other; None where `mlp.c` cannot."""
    if torch.is_autocast_enabled("cpu") or not all([piece.ready(*inputs) for piece, inputs in pieces]):
        return None
    contiguous = [(piece, [x.contiguous() for x in inputs]) for piece, inputs in pieces]
    return list(Pass.apply(ENGAGED, contiguous))  # type: ignore[no-untyped-call]
