"""A language model as a policy: any Hugging Face causal language model.

A decision is a token. The context is the prompt, padded on the left; the response follows it without a gap,
so a causal mask alone keeps padding on its right from being seen.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.policies.head import head, statistics, upcast
from ascent.policies.lean.blocks import states as packed_states
from ascent.policies.lean.packed import layout
from ascent.policies.lean.recognise import disagreement, refusal, window
from ascent.policies.policy import Probe

Message = Mapping[str, Any]
Prompt = str | Sequence[Message]

NO_PROBES: Mapping[str, Probe] = {}
VALUE_FILE = "value_head.safetensors"

# Positions (rows x tokens) below which a part of a batch is not worth a forward pass of its own.
SMALLEST_PART = 1024


class CausalPolicy(nn.Module):
    """A causal language model and its tokenizer.

    Dropout is off at all times: a ratio of probabilities compares two policies, not two dropout masks.

    Args:
        model: a `PreTrainedModel` with a language-modelling head, or one wrapped by peft.
        tokenizer: its tokenizer, with an end-of-sequence token.
        temperature: > 0; every log-probability and entropy is of logits / temperature.
        value_head: add a linear critic on the last hidden state (zero at first), for ppo and a2c.
        chat: wrap plain string prompts as one user message of the chat template. Prompts that are lists
            of messages always use the template.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, no chat template where one is asked for, or
            temperature is not positive.
    """

    splittable = True

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        temperature: float = 1.0,
        value_head: bool = False,
        chat: bool = False,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0; got {temperature!r}. For greedy answers use generate.")
        if chat and not tokenizer.chat_template:
            raise ValueError(
                "chat=True needs a tokenizer with a chat template; set tokenizer.chat_template or chat=False."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.chat = chat
        self.eos = _ends(model, tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos[0]
        self.value_head: nn.Linear | None = None
        if value_head:
            self.value_head = nn.Linear(
                self.config.get_text_config().hidden_size, 1, device=self.device, dtype=self.dtype
            )
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self._splits: bool | None = None
        self._packs: bool | None = None
        self.eval()

    @classmethod
    def load(
        cls,
        source: str | Path,
        dtype: torch.dtype | str = "auto",
        lora: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Load a folder or a hub id.

        Args:
            source: folder written by `save_pretrained` (or `save`), or an id on the Hugging Face hub.
            dtype: of the weights, `"auto"` as stored.
            lora: keyword arguments of `peft.LoraConfig`; only the adapter is then trained. Needs `pip install peft`.
            options: of the constructor.

        Raises:
            FileNotFoundError: `source` looks like a folder and is none.
        """
        folder = Path(source)
        if not folder.is_dir() and (str(source).startswith((".", "/", "~")) or str(source).count("/") > 1):
            raise FileNotFoundError(
                f"model folder {str(source)!r} does not exist; give a folder or a hub id 'owner/name'."
            )
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        if lora is not None:
            import peft

            model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **lora))
        stored = folder / VALUE_FILE
        policy = cls(model, tokenizer, **{"value_head": stored.is_file(), **options})
        if policy.value_head is not None and stored.is_file():
            policy.value_head.load_state_dict(load_file(stored))
        return policy

    def save(self, folder: str | Path, merge: bool = False) -> None:
        """Write weights and tokenizer so that `AutoModelForCausalLM.from_pretrained(folder)` reads them.

        Args:
            folder: made where it is missing.
            merge: with LoRA, write a whole model with the adapter folded in, at the price of a copy in memory;
                otherwise only the adapter is written, as peft does.
        """
        model: Any = self.model
        if merge and model is not self.base:
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        if self.value_head is not None:
            save_file(self.value_head.state_dict(), Path(folder) / VALUE_FILE)

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model itself, without peft's wrapper (adapters stay active inside it)."""
        if isinstance(self.model, PreTrainedModel):
            return self.model
        inner: PreTrainedModel = self.model.get_base_model()  # type: ignore[operator]
        return inner

    @property
    def config(self) -> Any:
        return self.base.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def context_length(self) -> int | None:
        """Most tokens that prompt and response may hold together; None where the architecture has no limit."""
        limit = self.config.get_text_config().to_dict().get("max_position_embeddings")
        return int(limit) if limit else None

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: dropout is always off."""
        return super().train(False)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt: a plain string, or a list of `{"role", "content"}` messages.

        Raises:
            ValueError: the prompt is empty, or holds characters that the tokenizer does not know.
        """
        if isinstance(prompt, str) and not self.chat:
            ids = list(self.tokenizer(prompt)["input_ids"])
        else:
            messages = (
                [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(item) for item in prompt]
            )
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown not in (self.pad, *self.eos) and unknown in ids:
            raise ValueError(
                f"prompt {prompt!r} holds characters that the tokenizer does not know; remove them, or choose a model "
                "(an alphabet, for the embedded one) that covers them."
            )
        if not ids and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id]
        if not ids:
            raise ValueError(
                "a prompt must hold at least one token; got an empty one and the tokenizer has no start token."
            )
        return ids

    def pad_prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids [P, L] padded on the left and their mask [P, L], on the policy's device."""
        width = max(len(ids) for ids in prompts)
        padded = torch.tensor([[self.pad] * (width - len(ids)) + list(ids) for ids in prompts])
        lengths = torch.tensor([[len(ids)] for ids in prompts])
        mask = torch.arange(width) >= width - lengths
        return padded.to(self.device), mask.to(self.device)

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """What the model says now of recorded tokens; see `Policy.evaluate`.

        Columns are 0 where `mask` is False. Full [N, T, V] logits are never held (but see `splits`).

        Raises:
            ValueError: `value` is needed and the policy has no value head, or `needs` names a missing probe.
        """
        self._refuse(needs, probes)
        read = self._read(decisions, after=False)
        columns = self._columns(read, needs, probes)
        if "value" in needs:
            columns["value"] = self._value(read.hidden)
        if "features" in needs:
            columns["features"] = read.hidden
        spread = {name: read.spread(column, decisions.mask) for name, column in columns.items()}
        found = {name.removeprefix("probe:"): spread.pop(name) for name in list(spread) if name.startswith("probe:")}
        return Evaluation(**spread, probes=found)

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Write those of `old_log_prob`, `value` and `next_value` that `needs` names, in one forward."""
        wanted = needs & {"old_log_prob", "value", "next_value"}
        if not wanted:
            return decisions
        critic = bool(wanted & {"value", "next_value"})
        self._refuse(frozenset({"value"}) if critic else frozenset(), NO_PROBES)
        read = self._read(decisions, after="next_value" in wanted)
        columns: dict[str, Tensor] = {}
        if "old_log_prob" in wanted:
            columns["old_log_prob"] = self._columns(read, frozenset(), NO_PROBES)["log_prob"]
        if critic:
            columns["value"] = self._value(read.hidden)
        columns = {name: read.spread(column, decisions.mask) for name, column in columns.items()}
        if "next_value" in wanted:
            own = read.spread(self._value(read.after), decisions.mask)
            columns["next_value"] = _next_value(columns["value"], own, decisions)
        return decisions.replace(**{name: column for name, column in columns.items() if name in wanted})

    def _refuse(self, needs: frozenset[str], probes: Mapping[str, Probe]) -> None:
        if "value" in needs and self.value_head is None:
            raise ValueError("the method needs `value`, but this policy has no critic; build it with value_head=True.")
        for name in needs:
            if name.startswith("probe:") and name.removeprefix("probe:") not in probes:
                raise ValueError(f"needs names {name!r}, but probes holds {sorted(probes) or 'none'}; pass that probe.")
        if "outcome" in needs or "outputs" in needs:
            raise ValueError(
                "a language policy has no `outcome` or `outputs`; the method needs another kind of policy."
            )

    def _inputs(self, decisions: Decisions, columns: int) -> tuple[dict[str, Tensor], int]:
        """Arguments of the model for prompt + the first `columns` of the response, and the prompt's width."""
        prompt, real = decisions.context["prompt"], decisions.context["prompt_mask"]
        if decisions.context_row is not None:
            prompt, real = prompt[decisions.context_row], real[decisions.context_row]
        if not bool(real[:, -1].all()):
            # Collections that were joined are padded on the right; a response follows its prompt without a gap.
            order = real.int().argsort(dim=1, stable=True)
            prompt, real = prompt.gather(1, order), real.gather(1, order)
        first = int(real.any(0).int().argmax())
        prompt, real = prompt[:, first:], real[:, first:]
        ids = torch.cat([prompt, decisions.action[:, :columns]], 1)
        inputs = {"input_ids": ids}
        if not bool(real.all()):
            seen = torch.cat([real, real.new_ones(len(ids), columns)], 1)
            inputs["attention_mask"] = seen.long()
            if "position_ids" in accepts(self.base):
                inputs["position_ids"] = (seen.long().cumsum(1) - 1).clamp(min=0)
        return inputs, prompt.shape[1]

    def _read(self, decisions: Decisions, after: bool) -> Read:
        """The states of all decided entries: packed where the architecture is known, else the plain way."""
        return (self._read_packed(decisions, after) if self.packs else None) or self._read_plain(decisions, after)

    def _read_packed(self, decisions: Decisions, after: bool) -> Read | None:
        """Without padding and each prompt once; None where this batch does not fit (an empty prompt, a window)."""
        packed = layout(decisions, after, self.dtype)
        limit = window(self.base)
        if packed is None or (limit is not None and int(packed.position.max()) >= limit):
            return None
        found = packed_states(_decoder(self.base), packed)
        hidden = found.index_select(0, packed.state)
        behind = found.index_select(0, packed.after) if after else hidden
        action = decisions.action[packed.row, packed.column]
        return Read(packed.row, packed.column, hidden, behind, action, None)

    def _read_plain(self, decisions: Decisions, after: bool) -> Read:
        """By the model's own forward. Rows of similar length are read together, to spare padding."""
        parts = [self._read_rows(decisions, rows, after) for rows in _buckets(decisions)]
        if len(parts) == 1:
            return parts[0]
        columns = {item.name: [getattr(part, item.name) for part in parts] for item in fields(Read)}
        return Read(**{name: None if tensors[0] is None else torch.cat(tensors) for name, tensors in columns.items()})

    def _read_rows(self, decisions: Decisions, rows: Tensor, after: bool) -> Read:
        part = decisions.rows(rows)
        width = decided_width(part.mask)
        inputs, prompt = self._inputs(part, width - 1 + int(after))
        row, column = part.mask[:, :width].nonzero(as_tuple=True)
        logits = None
        if self.splits:
            states = _decoder(self.base)(**inputs, use_cache=False).last_hidden_state
        else:
            kept = {"logits_to_keep": width + int(after)} if "logits_to_keep" in accepts(self.base) else {}
            output = self.model(**inputs, **kept, use_cache=False, output_hidden_states=True)
            states = output.hidden_states[-1]
            logits = output.logits[:, -width - int(after) :][row, column]
        hidden = states[row, prompt - 1 + column]
        return Read(
            rows[row],
            column,
            hidden,
            states[row, prompt + column] if after else hidden,
            part.action[row, column],
            logits,
        )

    def _columns(self, read: Read, needs: frozenset[str], probes: Mapping[str, Probe]) -> dict[str, Tensor]:
        """Columns of the head at the decided entries, [M, ...]."""
        asked = {name: probe for name, probe in probes.items() if f"probe:{name}" in needs}
        if read.logits is None:
            output = self.base.get_output_embeddings()
            return head(read.hidden, output, read.action, needs, asked, self.temperature)
        return statistics(upcast(read.logits) / self.temperature, read.hidden, read.action, needs, asked)

    def _value(self, states: Tensor) -> Tensor:
        assert self.value_head is not None
        return self.value_head(states)[..., 0].to(torch.promote_types(states.dtype, torch.float32))

    @property
    def splits(self) -> bool:
        """Whether backbone and head, taken apart, give the model's own logits (checked once, on first use).

        Where they do not (logits that the architecture caps or scales after its head), the full logits of
        a micro-batch are held and a warning says so.
        """
        if self._splits is None:
            self._splits = self._compare()
            if not self._splits:
                warnings.warn(
                    f"{type(self.base).__name__} changes its logits after the head; falling back to full logits "
                    "[N, T, V]. Use smaller micro-batches if memory is short.",
                    stacklevel=3,
                )
        return self._splits

    @property
    def packs(self) -> bool:
        """Whether training reads tokens without padding and each prompt once (`lean/`), checked on first use.

        Where the architecture is not known, or something must see whole layers (hooks, gradient checkpointing), the
        model's own forward is taken and a warning says why, once.
        """
        reason = refusal(self.base)
        if reason is None and self._packs is None:
            reason = (
                disagreement(self.base, lambda decisions: self._read_plain(decisions, False).hidden)
                if self.splits
                else "the model changes its logits after the head"
            )
        if reason is not None and self._packs is not False:
            warnings.warn(
                f"{type(self.base).__name__} is read by its own forward; the packed one does not fit: {reason}.",
                stacklevel=3,
            )
            self._packs = False
        elif reason is None and self._packs is None:
            self._packs = True
        return self._packs is True and reason is None

    @torch.no_grad()
    def _compare(self) -> bool:
        output = self.base.get_output_embeddings()
        if output is None:
            return False
        vocabulary = len(self.base.get_input_embeddings().weight)
        ids = (torch.arange(8, device=self.device) * 7919 % vocabulary)[None]
        whole = self.model(input_ids=ids, use_cache=False).logits.float()
        states = _decoder(self.base)(input_ids=ids, use_cache=False).last_hidden_state
        if states.shape[-1] != getattr(output, "in_features", states.shape[-1]):
            return False
        apart = output(states).float()
        tolerance = 1e-4 if self.dtype in (torch.float32, torch.float64) else 2e-2
        return apart.shape == whole.shape and bool((apart - whole).abs().max() <= tolerance * (1 + whole.abs().max()))


@dataclass(frozen=True)
class Read:
    """What a forward pass found at the M decided entries.

    Attributes:
        row, column: [M] their places in [N, T].
        hidden: [M, H] the state that predicts the action; after: [M, H] the state behind it.
        action: [M]; logits: [M, V] only where the model does not split.
    """

    row: Tensor
    column: Tensor
    hidden: Tensor
    after: Tensor
    action: Tensor
    logits: Tensor | None

    def spread(self, flat: Tensor, mask: Tensor) -> Tensor:
        """Numbers of the decided entries [M, ...] at their places in [N, T, ...], 0 elsewhere."""
        return flat.new_zeros(*mask.shape, *flat.shape[1:]).index_put((self.row, self.column), flat)


def decided_width(mask: Tensor) -> int:
    """Columns up to the last decided one, at least 1."""
    decided = mask.any(0).nonzero()
    return int(decided[-1]) + 1 if len(decided) else 1


def _buckets(decisions: Decisions) -> list[Tensor]:
    """Rows in parts of similar length, more parts only while each spares a tenth of the positions."""
    mask, device = decisions.mask, decisions.mask.device
    places = torch.arange(1, mask.shape[1] + 1, device=device)
    lengths = torch.where(mask, places, 1).amax(1).cpu() if mask.numel() else torch.ones(len(mask))
    order = lengths.argsort(stable=True)
    prompt = decisions.context["prompt"].shape[1]

    def positions(parts: list[Tensor]) -> int:
        return sum(len(part) * (prompt + int(lengths[part[-1]])) for part in parts if len(part))

    best = [torch.arange(len(mask))]
    cost = len(mask) * (prompt + int(lengths.max())) if len(mask) else 0
    for count in (2, 4, 8):
        parts = list(order.tensor_split(count))
        if positions(parts) < SMALLEST_PART * count or positions(parts) > 0.9 * cost:
            break
        best, cost = [part.sort().values for part in parts], positions(parts)
    return [part.to(device) for part in best]


def _next_value(value: Tensor, own: Tensor, decisions: Decisions) -> Tensor:
    """The value of a row's next decision; after its last, `own`: V of the whole text. 0 where terminated."""
    mask = decisions.mask
    result = torch.zeros_like(value)
    coming, known = torch.zeros_like(value[:, 0]), torch.zeros_like(mask[:, 0])
    for column in range(mask.shape[1] - 1, -1, -1):
        here = mask[:, column]
        result[:, column] = torch.where(known, coming, own[:, column])
        coming = torch.where(here, value[:, column], coming)
        known = known | here
    ended = decisions.terminated & mask if "terminated" in decisions else torch.zeros_like(mask)
    return torch.where(mask & ~ended, result, 0.0)


def _decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a model that ends in hidden states."""
    decoder: nn.Module = model.get_decoder()
    return decoder if decoder is not model else model.base_model


def accepts(model: nn.Module) -> frozenset[str]:
    """Argument names of a model's forward."""
    return frozenset(inspect.signature(type(model).forward).parameters)


def _ends(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """All ids that end a response: the tokenizer's and the generation config's."""
    ends: list[int] = []
    if tokenizer.eos_token_id is not None:
        ends.append(int(tokenizer.eos_token_id))
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for item in listed if isinstance(listed, list | tuple) else [listed]:
        if item is not None and int(item) not in ends:
            ends.append(int(item))
    if not ends:
        raise ValueError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token before training.")
    return tuple(ends)
