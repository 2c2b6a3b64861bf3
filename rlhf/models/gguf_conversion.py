"""Turning a GGUF file into an ordinary model folder that every stage can load and save."""

from pathlib import Path
from typing import Any

from rlhf.errors import DataError
from rlhf.models.loading import quiet_transformers
from rlhf.models.tokenizer import plain_tokenizer


def convert_gguf(gguf: Path, folder: Path, *, pad_token: str) -> str:
    """Write `gguf`, dequantised to fp32, with its tokenizer into `folder`; say how in one line.

    Raises DataError when the file has no such pad token or is no GGUF file.
    """
    import transformers

    try:
        with quiet_transformers():
            model = _dequantised(gguf)
            tokenizer = _tokenizer(gguf, pad_token, model.config.max_position_embeddings)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise DataError(f"{gguf.name}: not a GGUF file that can be read ({error})") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"dequantised to float32 by transformers {transformers.__version__} from {gguf.name}"


def _dequantised(gguf: Path) -> Any:
    """A fresh fp32 model with the weights of `gguf`: one loaded from GGUF refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    values = loaded.config.to_dict()
    for stale in ("quantization_config", "_model_name_or_path"):  # the latter is only a title
        values.pop(stale, None)
    config = type(loaded.config).from_dict(values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model


def _tokenizer(gguf: Path, pad_token: str, max_length: int) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    like = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    core = like.backend_tokenizer
    if _field(gguf, "tokenizer.ggml.pre") == "smollm":
        # transformers ignores this field. Without it "a   1" splits before the last blank, and
        # the model reads other ids than it was trained on. Compare llama.cpp, which splits on
        # \p{N} before GPT-2's rules for this value.
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if core.token_to_id(pad_token) is None:
        raise DataError(f"{gguf.name}: its vocabulary lacks {pad_token!r}, chosen to pad with")
    return plain_tokenizer(core, like, pad_token=pad_token, max_length=max_length)


def _field(gguf: Path, name: str) -> Any:
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field(name)
    return None if field is None else field.contents()
