"""Tokenizers made fit for preference training: a pad token of their own, and nothing lost."""

import json
from pathlib import Path
from typing import Any

from rlhf.data.tokenization import Renderer

NEW_PAD_TOKEN = "<|pad|>"
# Special tokens that vocabularies reserve for padding, or reserve and never use, best first.
_SPARE_TOKENS = (
    NEW_PAD_TOKEN,
    "<pad>",
    "[PAD]",
    "<|padding|>",
    "<|finetune_right_pad_id|>",  # Llama 3.1 and later
    "<|reserved_special_token_0|>",  # Llama 3
    "<empty_output>",  # SmolLM2: reserved, never met in training
    "<unused0>",  # Gemma
)


def ensure_own_pad_token(tokenizer: Any) -> None:
    """Give `tokenizer` a pad token that is neither eos nor what ends a turn, if it has none.

    With pad == eos a mask or a reward model's pooling, which look for the pad, would lose the
    end of every completion. A reserved token is taken where there is one, so that the
    embeddings keep their shape; else `<|pad|>` is added.
    """
    pad = tokenizer.pad_token
    if pad is not None:
        tokenizer.pad_token = None  # while pad stands in for it, the turn's end is not seen
    ends = {tokenizer.eos_token_id, Renderer(tokenizer).turn_end_id}
    if pad is not None and tokenizer.convert_tokens_to_ids(pad) not in ends:
        tokenizer.pad_token = pad
        return
    known = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
    for spare in _SPARE_TOKENS:
        if spare in known and known[spare] not in ends:
            tokenizer.pad_token = spare
            return
    tokenizer.add_special_tokens({"pad_token": NEW_PAD_TOKEN})


def plain_tokenizer(core: Any, like: Any, *, pad_token: str, max_length: int) -> Any:
    """`core` (a tokenizers.Tokenizer) with the special tokens and chat template of `like`.

    The class is the generic one: a model's own class (GPT2Tokenizer, say) rebuilds the
    pre-tokenizer when it loads, and so forgets that SmolLM2 splits numbers into digits.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=like.bos_token,
        eos_token=like.eos_token,
        unk_token=like.unk_token,
        pad_token=pad_token,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = like.chat_template
    return tokenizer


def rewrite_tokenizer(folder: Path, *, pad_token: str) -> None:
    """Rewrite a downloaded folder's tokenizer with its own pad token, and its configs to match."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    config = json.loads((folder / "config.json").read_text())
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    like = AutoTokenizer.from_pretrained(folder)
    length = config["max_position_embeddings"]
    tokenizer = plain_tokenizer(core, like, pad_token=pad_token, max_length=length)
    for stale in ("special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json"):
        (folder / stale).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text())
            values["pad_token_id"] = tokenizer.pad_token_id
            (folder / name).write_text(json.dumps(values, indent=2) + "\n")
