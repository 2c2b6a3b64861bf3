"""Loading policies, reward models and tokenizers by registry name, hub id or folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError
from rlhf.models.adapters import (
    adapter_chain,
    attach_adapter,
    is_adapter,
    load_another,
    read_adapter_config,
)
from rlhf.models.registry import resolve_model
from rlhf.models.reward_checks import (
    require_base,
    require_heads,
    require_tokenizer,
    require_whole_head,
)
from rlhf.models.reward_spec import HEAD_NAME, RewardSpec
from rlhf.models.tokenizer import ensure_own_pad_token

DTYPES = ("float32", "bfloat16", "float16", "auto")


def best_device() -> str:
    """Where a model should run: the first accelerator, else the CPU.

    Under a launcher with several processes it is the CPU, since the trainer places the model.
    """
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_memory() -> None:
    """Give back what models and caches no longer hold.

    A cache that grows token by token leaves glibc's heap full of holes, which it would keep:
    the next model then comes on top of them.
    """
    import ctypes
    import gc
    import sys

    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> Any:
    """The tokenizer of a model, always with a pad token of its own, never eos.

    `name` is a registry name, a hub id or a folder; an adapter folder without tokenizer files
    takes its base's. Raises ConfigError when there is none.
    """
    from transformers import AutoTokenizer

    location = resolve_model(name)
    if is_adapter(location) and not (Path(location) / "tokenizer_config.json").is_file():
        location = adapter_chain(location)[0]
    with _errors_named(location):
        tokenizer = AutoTokenizer.from_pretrained(location, revision=revision or "main")
    ensure_own_pad_token(tokenizer)
    return tokenizer


@cache
def context_tokens(name: str, revision: str | None = None) -> int | None:
    """How many tokens a model can attend to, from its config alone; None when it does not say."""
    from transformers import AutoConfig

    base = adapter_chain(resolve_model(name))[0]
    try:
        config = AutoConfig.from_pretrained(base, revision=revision or "main")
    except (OSError, ValueError):  # loading the model will say what is wrong with it
        return None
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def load_policy(
    name: str | Path,
    *,
    dtype: str = "float32",
    adapter: str | Path | None = None,
    revision: str | None = None,
    quantization_config: Any = None,
    attn_implementation: str | None = None,
    device: str = "auto",
    is_trainable: bool = False,
) -> Any:
    """A causal language model in eval mode, with its adapters on (a PeftModel) if it has any.

    `name` is a registry name, a hub id, or a folder, which may be a stage's with an adapter;
    `adapter` is another one put on top. `dtype` is one of DTYPES; `quantization_config` is
    what TRL's get_quantization_config gives. Embeddings grow only when the tokenizer has more
    entries than they have rows. Raises ConfigError for what cannot be found, DataError for
    what is damaged or is a reward model.
    """
    from transformers import AutoModelForCausalLM

    location = resolve_model(name)
    base, adapters = adapter_chain(location)
    if adapter is not None:
        adapters.append(Path(resolve_model(adapter)))
    for folder in adapters:
        _refuse_reward_adapter(folder)
    options = _load_options(dtype, revision, quantization_config, attn_implementation, device)
    with _errors_named(base):
        model = AutoModelForCausalLM.from_pretrained(base, **options)
    _refuse_classifier(model, base)
    prepare_for_tokenizer(model, load_tokenizer(adapter or name, revision=revision))
    for folder in adapters:
        model = attach_adapter(model, folder, is_trainable=is_trainable)
    return _placed(model, device, quantization_config).eval()


def load_reward_model(
    folder: str | Path,
    *,
    dtype: str = "float32",
    quantization_config: Any = None,
    attn_implementation: str | None = None,
    device: str = "auto",
) -> Any:
    """A sequence classifier with its trained head, in eval mode; an ensemble carries its members.

    `folder` holds a whole model, or adapters whose base is found as for policies, and the
    RewardSpec that says how many outputs and members there are. The heads are fp32 whatever
    `dtype` is: in bf16 close scores become equal. Raises DataError when a head was never
    trained (none is stored), or when base, tokenizer or members are not those of the spec.
    """
    from transformers import AutoModelForSequenceClassification

    location = resolve_model(folder)
    spec = RewardSpec.read(location)
    base, adapters = adapter_chain(location)
    if adapters:
        require_heads(adapters[-1], spec)
        require_base(adapters[-1], base, spec)
    else:
        require_whole_head(Path(location), spec)
    tokenizer = load_tokenizer(folder)
    require_tokenizer(Path(location), tokenizer, spec)
    options = _load_options(dtype, None, quantization_config, attn_implementation, device)
    with _errors_named(base), quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(spec.heads), **options
        )
    prepare_for_tokenizer(model, tokenizer)
    for adapter in adapters:
        model = attach_adapter(model, adapter)
    for member in spec.members[1:]:
        load_another(model, spec.member_folder(Path(location), member), member)
    reward_head(model).float()
    return _placed(model, device, quantization_config).eval()


def reward_head(model: Any) -> Any:
    """The module that turns a hidden state into a score; DataError for other classifiers."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(inner, HEAD_NAME):
        raise DataError(f"{type(inner).__name__} has no head called {HEAD_NAME!r}; it cannot score")
    return getattr(inner, HEAD_NAME)


def backbone_of(model: Any) -> Any:
    """The transformer without its head; LoRA layers inside it stay active."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


@contextmanager
def compact_head(model: Any) -> Iterator[None]:
    """Within, the output head gets its hidden states in one piece.

    Where weights are frozen (under LoRA), torch multiplies a slice [B, T, H] of the hidden
    states by B copies of the head: gigabytes, and many times the work.
    """

    def in_one_piece(head: Any, hidden: tuple[Any, ...]) -> tuple[Any, ...]:
        return (hidden[0].contiguous(), *hidden[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(in_one_piece)
    try:
        yield
    finally:
        handle.remove()


def prepare_for_tokenizer(model: Any, tokenizer: Any) -> None:
    """Make `model` fit `tokenizer`: the same pad id, and a row for every entry."""
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        _add_rows(model, len(tokenizer), rows)


def _add_rows(model: Any, num_rows: int, old_rows: int) -> None:
    """Grow the embeddings; a new row is the mean of the old, so that nothing here is random."""
    import torch

    model.resize_token_embeddings(num_rows, mean_resizing=False)
    with torch.no_grad():
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            if embeddings is not None:
                embeddings.weight[old_rows:] = embeddings.weight[:old_rows].mean(0)


def _load_options(
    dtype: str, revision: str | None, quantization: Any, attention: str | None, device: str
) -> dict[str, Any]:
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention or "sdpa"}
    if revision is not None:
        options["revision"] = revision
    if quantization is not None:  # quantised weights are packed on the device they will stay on
        options["quantization_config"] = quantization
        options["device_map"] = {"": best_device() if device == "auto" else device}
    return options


def _placed(model: Any, device: str, quantization: Any) -> Any:
    if quantization is not None:
        return model
    return model.to(best_device() if device == "auto" else device)


def _refuse_reward_adapter(folder: Path) -> None:
    if read_adapter_config(folder).get("task_type") == "SEQ_CLS":
        raise DataError(f"{folder}: a reward model; it scores completions and cannot write them")


def _refuse_classifier(model: Any, base: str) -> None:
    architectures = model.config.architectures or []
    if any("SequenceClassification" in name for name in architectures):
        raise DataError(f"{base}: a reward model; it scores completions and cannot write them")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' remarks off the terminal; its bars stay.

    Its table of weights that it made up says nothing new: a head is checked for by name.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _errors_named(location: str) -> Iterator[None]:
    """Turn what the libraries raise while loading into one line that names the model."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise DataError(f"{location}: damaged weights ({error}); make or pull it again") from None
    except ImportError as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{location}: a library is missing ({reason})") from None
    except OSError as error:
        raise _not_loadable(location, error) from None
    except (ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise
        raise DataError(f"{location}: cannot be loaded ({_first_words(error)})") from None


def _not_loadable(location: str, error: OSError) -> ConfigError | DataError:
    if Path(location).is_dir():
        return DataError(f"{location}: incomplete model folder ({_first_words(error)})")
    return ConfigError(
        f"{location}: no such folder, and the hub does not give such a model "
        f"({_first_words(error)}); check the name, the network and HF_HUB_OFFLINE"
    )


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
