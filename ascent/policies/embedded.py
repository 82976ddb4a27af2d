"""The embedded default: a small decoder of the Llama family and a character tokenizer.

It is an ordinary Hugging Face model: saved, it loads with `AutoModelForCausalLM` and `AutoTokenizer`.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ascent.core.random import key
from ascent.policies.causal import CausalPolicy

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def character_tokenizer(alphabet: str, context: int = 256) -> PreTrainedTokenizerFast:
    """One token a character of `alphabet`, after `<pad>`, `<bos>`, `<eos>`, `<unk>`.

    Raises:
        ValueError: the alphabet is empty.
    """
    if not alphabet:
        raise ValueError("alphabet must hold at least one character; got ''.")
    letters = list(dict.fromkeys(alphabet))
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )


def embedded(
    alphabet: str,
    seed: int = 0,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    context: int = 256,
    temperature: float = 1.0,
    value_head: bool = False,
) -> CausalPolicy:
    """A fresh small policy, about 0.86 M parameters at the defaults; the same weights for the same seed.

    Args:
        alphabet: every character that prompts and responses may hold.
        seed: of the initial weights. The global generator is left as it was.
        hidden: width, a multiple of `2 * heads`.
        layers, heads: >= 1.
        context: most tokens of prompt and response together.
        temperature, value_head: of `CausalPolicy`.

    Raises:
        ValueError: a size is out of range, or the alphabet is empty.
    """
    for name, number in (("hidden", hidden), ("layers", layers), ("heads", heads), ("context", context)):
        if number < 1:
            raise ValueError(f"{name} must be >= 1; got {number!r}.")
    if hidden % (2 * heads):
        raise ValueError(f"hidden must be a multiple of 2 * heads = {2 * heads}; got {hidden}.")
    tokenizer = character_tokenizer(alphabet, context)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=hidden**-0.5 / 2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "embedded") & 0x7FFF_FFFF_FFFF_FFFF)
        model = LlamaForCausalLM(config)
    return CausalPolicy(model, tokenizer, temperature=temperature, value_head=value_head)
