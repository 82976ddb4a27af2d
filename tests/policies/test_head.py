"""The three ways through the head give the same numbers and gradients, and the chunked ones stay small."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ascent.policies import head as module
from ascent.policies.head import FusedHead, checkpointed, head, plain
from ascent.policies.lean import fused as fused_module

ENTROPY = frozenset({"entropy"})


def inputs(positions: int = 13, bias: bool = True) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(positions, 6, dtype=torch.float64, requires_grad=True)
    return hidden, nn.Linear(6, 11, bias=bias, dtype=torch.float64), torch.randint(0, 11, (positions,))


def gradients(columns: dict[str, Tensor], leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (torch.randn(column.shape, generator=generator, dtype=column.dtype) * column).sum()
        for column in columns.values()
    )
    return list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [1, 4, 13, 50])
def test_fused_equals_plain_in_values_and_gradients(bias: bool, temperature: float, rows: int) -> None:
    hidden, linear, action = inputs(bias=bias)
    leaves = [hidden, *linear.parameters()]
    expected = plain(hidden, linear, action, temperature, ENTROPY, {})
    fused = head(hidden, linear, action, ENTROPY, {}, temperature, chunk=rows * 11 if rows < 13 else 1)
    for name in expected:
        torch.testing.assert_close(fused[name], expected[name], atol=1e-12, rtol=0)
    for got, wanted in zip(gradients(fused, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_plain_equals_torch_distributions() -> None:
    hidden, linear, action = inputs()
    reference = torch.distributions.Categorical(logits=linear(hidden) / 0.5)
    columns = plain(hidden, linear, action, 0.5, ENTROPY, {})
    torch.testing.assert_close(columns["log_prob"], reference.log_prob(action))
    torch.testing.assert_close(columns["entropy"], reference.entropy())


def test_fused_gradients_equal_finite_differences() -> None:
    hidden, linear, action = inputs(5)

    def both(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return FusedHead.apply(h, w, b, action, 1.3, True, 2)

    assert torch.autograd.gradcheck(both, (hidden, linear.weight, linear.bias))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (5, 4), (13, 10), (20, 11), (4, 40)])
def test_blocks_of_columns_are_joined_exactly(bias: bool, rows: int, columns: int) -> None:
    hidden, linear, action = inputs(bias=bias)
    with torch.no_grad():
        linear.weight[3] *= 40.0  # one block of columns far above the others
    leaves = [hidden, *linear.parameters()]
    expected = plain(hidden, linear, action, 0.7, ENTROPY, {})
    found = FusedHead.apply(hidden, linear.weight, linear.bias, action, 0.7, True, rows, columns)
    fused = dict(zip(("log_prob", "entropy"), found, strict=True))
    for name in expected:
        torch.testing.assert_close(fused[name], expected[name], atol=1e-11, rtol=0)
    for got, wanted in zip(gradients(fused, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-11, rtol=0)


def test_gradients_of_blocks_equal_finite_differences() -> None:
    hidden, linear, action = inputs(5)

    def both(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return FusedHead.apply(h, w, b, action, 1.3, True, 2, 4)

    assert torch.autograd.gradcheck(both, (hidden, linear.weight, linear.bias))


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("alive", [[], [2], [0, 5, 12]])
def test_rows_that_nothing_flows_into_are_skipped_exactly(entropy: bool, alive: list[int]) -> None:
    hidden, linear, action = inputs()
    leaves = [hidden, *linear.parameters()]
    slope = torch.zeros(13, dtype=torch.float64).index_fill(0, torch.tensor(alive, dtype=torch.int64), 0.3)

    def total(columns: dict[str, Tensor]) -> list[Tensor]:
        value = (columns["log_prob"] * slope).sum()
        if entropy:
            value = value + (columns["entropy"] * 2 * slope.roll(1)).sum()
        return list(torch.autograd.grad(value, leaves))

    computed: list[int] = []
    block = fused_module.Logits.block

    def counted(self: fused_module.Logits, row: slice, column: slice, table: Tensor) -> Tensor:
        computed.append(row.stop - row.start)
        return block(self, row, column, table)

    expected = total(plain(hidden, linear, action, 1.0, ENTROPY, {}))
    found = head(hidden, linear, action, ENTROPY, {}, chunk=22)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_module.Logits, "block", counted)
        got = total(found)
    for one, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-12, rtol=0)
    needed = set(alive) | ({(row + 1) % 13 for row in alive} if entropy else set())
    assert sum(computed) == len(needed)


def test_single_precision_stays_close_at_a_large_vocabulary() -> None:
    """Base 2, blocks and all: against float64, as close as the plain way."""
    draw = torch.Generator().manual_seed(0)
    hidden = 2 * torch.randn(64, 32, generator=draw)
    linear = nn.Linear(32, 5000, bias=False)
    torch.nn.init.normal_(linear.weight, generator=draw)
    action = torch.randint(0, 5000, (64,), generator=draw)
    wide = nn.Linear(32, 5000, bias=False, dtype=torch.float64)
    wide.load_state_dict({"weight": linear.weight.double()})
    exact = plain(hidden.double(), wide, action, 1.0, ENTROPY, {})
    near = plain(hidden, linear, action, 1.0, ENTROPY, {})
    log_prob, entropy = FusedHead.apply(hidden, linear.weight, None, action, 1.0, True, 16, 600)
    for name, found in (("log_prob", log_prob), ("entropy", entropy)):
        error = (near[name].double() - exact[name]).abs().max()
        assert (found.double() - exact[name]).abs().max() <= 2 * error + 1e-6


def test_probes_flow_through_chunks() -> None:
    hidden, linear, action = inputs()

    def second_moment(logits: Tensor, states: Tensor, chosen: Tensor) -> Tensor:
        return logits.softmax(-1).square().sum(-1)

    def pair(logits: Tensor, states: Tensor, chosen: Tensor) -> Tensor:
        return torch.stack([states.sum(-1), chosen.to(states.dtype)], -1)

    probes = {"squared": second_moment, "pair": pair}
    leaves = [hidden, *linear.parameters()]
    expected = plain(hidden, linear, action, 1.0, ENTROPY, probes)
    chunked = checkpointed(hidden, linear, action, 1.0, ENTROPY, probes, rows=3)
    assert set(chunked) == {"log_prob", "entropy", "probe:squared", "probe:pair"}
    assert chunked["probe:pair"].shape == (13, 2)
    for name in expected:
        torch.testing.assert_close(chunked[name], expected[name])
    for got, wanted in zip(gradients(chunked, leaves), gradients(expected, leaves), strict=True):
        torch.testing.assert_close(got, wanted)


def test_entropy_is_computed_only_where_it_is_needed() -> None:
    hidden, linear, action = inputs()
    assert set(head(hidden, linear, action, frozenset(), {})) == {"log_prob"}
    assert set(head(hidden, linear, action, frozenset(), {}, chunk=1)) == {"log_prob"}


def test_a_wrapped_head_is_chunked_too() -> None:
    hidden, linear, action = inputs()
    wrapped = nn.Sequential(linear)
    got = head(hidden, wrapped, action, ENTROPY, {}, chunk=22)
    torch.testing.assert_close(got["log_prob"], plain(hidden, linear, action, 1.0, ENTROPY, {})["log_prob"])


def test_no_position_is_no_error() -> None:
    hidden, linear, action = inputs(0)
    for chunk in (1, 100):
        columns = head(hidden, linear, action, ENTROPY, {}, chunk=chunk)
        assert columns["log_prob"].shape == (0,)
    assert checkpointed(hidden, linear, action, 1.0, ENTROPY, {}, rows=2)["entropy"].shape == (0,)


class Widest(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor):
                self.numbers = max(self.numbers, item.numel())
        return result


@pytest.mark.parametrize("positions", [64, 256])
def test_no_tensor_of_the_chunked_path_grows_with_positions_times_vocabulary(positions: int) -> None:
    hidden = torch.randn(positions, 4, requires_grad=True)
    linear = nn.Linear(4, 500, bias=False)
    with Widest() as widest:
        columns = head(hidden, linear, torch.zeros(positions, dtype=torch.int64), ENTROPY, {}, chunk=8 * 500)
        (columns["log_prob"].sum() + columns["entropy"].sum()).backward()
    assert widest.numbers == 8 * 500


def test_the_default_chunk_bounds_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", {"cpu": 4000})
    monkeypatch.setattr(module, "HELD", {"cpu": 4000})
    monkeypatch.setattr(module, "FEWEST_ROWS", 8)
    hidden = torch.randn(100, 4, requires_grad=True)
    with Widest() as widest:
        head(hidden, nn.Linear(4, 400), torch.zeros(100, dtype=torch.int64), ENTROPY, {})["log_prob"].sum().backward()
    assert widest.numbers == 4000


def test_half_precision_is_summed_in_single() -> None:
    hidden, linear, action = inputs()
    narrow = nn.Linear(6, 11).to(torch.bfloat16)
    narrow.load_state_dict(linear.state_dict())
    columns = head(hidden.detach().bfloat16().requires_grad_(), narrow, action, ENTROPY, {}, chunk=22)
    assert columns["log_prob"].dtype == torch.float32
    columns["log_prob"].sum().backward()
    assert narrow.weight.grad is not None and narrow.weight.grad.dtype == torch.bfloat16
