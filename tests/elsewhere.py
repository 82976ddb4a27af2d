"""A second device made of the CPU's memory, to catch slips between devices where there is no GPU.

Tensors of `DEVICE` hold their numbers in a CPU tensor inside. Under `Elsewhere()` factories, `.to` and every operation
obey CUDA's rule: operands are on one device. Exempt, as on CUDA, are scalars (no dimensions) of the CPU, copies, and
indices of the CPU into a tensor of the device. What it cannot show: kernels, their rounding, graphs, streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("meta")
"""Its label: PyTorch's own device without kernels, so that whatever is not caught here fails."""

_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Far(Tensor):
    """A tensor of `DEVICE`."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Far:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.inner})"

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor of the device has no numpy array; call .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return computed(function, arguments, options or {})


_NEW = torch.tensor


def _tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    """`torch.tensor`, which makes nothing of the data where the device is PyTorch's own one without kernels."""
    made = _NEW(data, **options)
    return made.to(DEVICE) if device is not None and torch.device(device) == DEVICE else made


def _enter(mode: Any) -> None:
    mode.without = torch.no_grad()
    mode.without.__enter__()


def _leave(mode: Any, *found: Any) -> None:
    mode.without.__exit__(*found)


class Elsewhere(TorchDispatchMode):
    """While it is entered, `DEVICE` exists. Inference mode is then merely without gradient."""

    def __enter__(self) -> Elsewhere:
        kind = torch.inference_mode
        self.patches = [
            mock.patch.object(kind, "__enter__", _enter),
            mock.patch.object(kind, "__exit__", _leave),
            mock.patch.object(torch, "tensor", _tensor),
        ]
        for patch in self.patches:
            patch.start()
        super().__enter__()
        return self

    def __exit__(self, *found: Any) -> None:
        super().__exit__(*found)
        for patch in self.patches:
            patch.stop()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return computed(function, arguments, options or {})


def computed(function: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """The operation on the numbers inside, after its operands' devices were compared."""
    tensors = [leaf for leaf in _leaves((arguments, options)) if isinstance(leaf, Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    asked = options.get("device")
    there = torch.device(asked) == DEVICE if asked is not None else bool(far)
    if far and function not in _COPIES:
        _refuse(function, arguments, tensors, far)
    if asked is not None:
        options = {**options, "device": torch.device("cpu")}
    inner = _mapped(lambda leaf: leaf.inner if isinstance(leaf, Far) else leaf, (arguments, options))
    result = function(*inner[0], **inner[1])
    if function is torch.ops.aten.copy_.default:
        return arguments[0]
    if not there:
        return result
    # What an operation wrote in place is the tensor that it was given.
    known = {id(tensor.inner): tensor for tensor in far}
    result = _mapped(lambda leaf: _wrapped(leaf, known) if isinstance(leaf, Tensor) else leaf, result)
    if not far:
        return result
    return return_and_correct_aliasing(function, arguments, options, result)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [leaf for item in tree for leaf in _leaves(item)] if isinstance(tree, list | tuple) else [tree]


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _mapped(function, item) for name, item in tree.items()}
    if isinstance(tree, list | tuple):
        items = [_mapped(function, item) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    return function(tree)


def _wrapped(inner: Tensor, known: dict[int, Far]) -> Far:
    return known[id(inner)] if id(inner) in known else Far(inner)


def _refuse(function: Any, arguments: Any, tensors: list[Tensor], far: list[Tensor]) -> None:
    near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim()]
    if function.overloadpacket.__name__ in _INDEXED and isinstance(arguments[0], Far):
        near = [tensor for tensor in arguments[2:] if isinstance(tensor, Tensor) and not isinstance(tensor, Far)]
        near = [tensor for tensor in near if tensor.dim()]
    if near:
        shapes = [tuple(tensor.shape) for tensor in near]
        raise RuntimeError(f"{function}: CPU tensors of shapes {shapes} beside {len(far)} of the device")
