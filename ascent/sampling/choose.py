"""Which decoder a policy gets: the fastest one that is known to say what the model says."""

from __future__ import annotations

import warnings
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ascent.core.random import key, mix
from ascent.policies.causal import CausalPolicy, accepts
from ascent.policies.lean.weights import refusal
from ascent.sampling.captured import Captured
from ascent.sampling.decode import Cached, Decoder, Uncached
from ascent.sampling.lean import Lean
from ascent.sampling.native import Native, fits

Kind = type[Lean] | type[Native]
# Decoders that were compared with a model's own forward, and whether they agreed.
_AGREES: WeakKeyDictionary[nn.Module, dict[Kind, bool]] = WeakKeyDictionary()
# Largest difference of a logit, relative to 1 + the largest logit.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
TRIED_TOKENS = 4


def decoder_for(policy: CausalPolicy) -> Decoder:
    """The fastest decoder that the architecture and the machine allow.

    A model of the Llama family is decoded by `Native` where its functions can be compiled, else by `Lean` (on CUDA by
    `Captured`), once a few tokens have shown that the decoder says what the model's own forward says; where it does
    not, a warning names the difference and the next is tried. The last is the model's own forward.
    """
    if "past_key_values" not in accepts(policy.base):
        return Uncached(policy)
    if refusal(policy.base) is not None:
        return Cached(policy)
    if fits(policy) and agrees(policy, Native):
        return Native(policy)
    if not agrees(policy, Lean):
        return Cached(policy)
    return Captured(policy) if policy.device.type == "cuda" else Lean(policy)


def agrees(policy: CausalPolicy, kind: Kind) -> bool:
    """Whether `kind` agrees with the model's own forward; tried once for a model, with a warning where not."""
    model = policy.base
    known = _AGREES.setdefault(model, {})
    if kind not in known:
        difference, allowed = difference_from_own(policy, kind), TOLERANCE[policy.dtype]
        # Written so that NaN fails.
        known[kind] = difference <= allowed
        if not known[kind]:
            warnings.warn(
                f"the {kind.__name__.lower()} decode of {type(model).__name__} differs from its own forward by "
                f"{difference:.1e} (relative; {allowed:.0e} is allowed in {policy.dtype}); falling back to a slower "
                "one.",
                stacklevel=3,
            )
    return known[kind]


@torch.inference_mode()
def difference_from_own(policy: CausalPolicy, kind: Kind) -> float:
    """The largest difference of a logit between `kind` and `Cached`, relative to 1 + the largest logit.

    Both read two padded prompts and are fed the same tokens; one row leaves on the way.
    """
    vocabulary = policy.config.get_text_config().vocab_size
    words = mix(torch.tensor(key("compare")), torch.arange(6)[:, None], torch.arange(6)) % vocabulary
    prompt, real = words[:2].to(policy.device), torch.ones(2, 6, dtype=torch.bool, device=policy.device)
    real[1, :2] = False
    rows = torch.tensor([0, 2, 3], device=policy.device)
    lean, own = kind(policy), Cached(policy)
    pairs = [(lean.start(prompt, real, 2, TRIED_TOKENS), own.start(prompt, real, 2, TRIED_TOKENS))]
    for number in range(TRIED_TOKENS):
        tokens = words[2:, number].to(policy.device)
        if number >= TRIED_TOKENS // 2:
            tokens = tokens[rows]
        if number == TRIED_TOKENS // 2:
            lean.keep(rows)
            own.keep(rows)
        pairs.append((lean.step(tokens), own.step(tokens)))
    gaps = [((one - two).abs().max() / (1 + two.abs().max())).item() for one, two in pairs]
    return float("nan") if any(gap != gap for gap in gaps) else max(gaps)
