"""Sampling by vLLM in this process, with the adapter loaded natively: its base stays as it is.

After vLLM's documentation of LLM, SamplingParams and LoRARequest (docs.vllm.ai): an adapter is
known by its id and name, so each sync uses new ones, and no request can meet an older adapter.
"""

import gc
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError
from rlhf.models.adapters import is_of_adapter
from rlhf.models.generation import batch_seed
from rlhf.models.rollouts.engine import Sampled, Sampling
from rlhf.models.rollouts.whole_weights import whole

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as max_lora_rank: room, not the adapter's own rank."""
_NOT_SERVED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    # One rank and alpha for all layers is what it reads (vllm/lora/peft_helper.py); others would
    # be scaled wrongly without a word.
    "rank_pattern",
    "alpha_pattern",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """`base` is the folder or hub id of the model under the adapter; `context` its tokens.

    `gpu_memory_utilization` is the share of the GPU's memory that vLLM may take.
    """

    base: str
    dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.3
    context: int | None = None


class VllmEngine:
    """Samples from the adapter named `adapter` of `policy`, as it was at the last sync."""

    name = "vllm"

    def __init__(
        self, policy: Any, sampling: Sampling, options: VllmOptions, *, adapter: str = "default"
    ) -> None:
        rank = _served_rank(policy, adapter)
        require_vllm()
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                f"use_vllm: vLLM is installed and cannot be imported ({error}); mend its "
                "installation, or leave use_vllm out"
            ) from None
        self.policy = policy
        self.sampling = sampling
        self.options = options
        self.adapter = adapter
        self._folder = Path(tempfile.mkdtemp(prefix="rollout-adapter-"))
        self._num_syncs = 0
        self._llm: Any = LLM(
            model=options.base,
            dtype=options.dtype,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=rank,
            gpu_memory_utilization=options.gpu_memory_utilization,
            max_model_len=options.context,
            # Log-probabilities at the sampling temperature, as the trainer computes its own.
            logprobs_mode="processed_logprobs",
            # The model's generation config would bend the distribution.
            generation_config="vllm",
            **_placement(),
        )
        self.sync()

    @property
    def _current(self) -> Path:
        return self._folder / str(self._num_syncs)

    def sync(self) -> None:
        """Save the adapter under a new id, which the next request loads."""
        assert self._llm is not None, "the engine is closed"
        older = self._current
        draft = self._folder / "draft"
        save_adapter(self.policy, self.adapter, draft)
        self._num_syncs += 1
        draft.rename(self._current)  # complete, or not there
        shutil.rmtree(older, ignore_errors=True)

    def sample(
        self, prompt_ids: list[list[int]], *, seed: int, first_row: int = 0
    ) -> list[Sampled]:
        """See RolloutEngine."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        assert self._llm is not None, "the engine is closed"
        ends = [] if self.sampling.ignore_end else list(self.sampling.end_ids)
        settings = [
            SamplingParams(
                max_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=1.0,
                top_k=-1,
                min_p=0.0,
                seed=batch_seed(seed, first_row + row),
                stop_token_ids=ends,
                ignore_eos=self.sampling.ignore_end,
                logprobs=0,  # of the sampled token alone
                detokenize=False,
            )
            for row in range(len(prompt_ids))
        ]
        name = f"policy-{self._num_syncs}"
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompt_ids],
            settings,
            lora_request=LoRARequest(name, self._num_syncs, str(self._current)),
            use_tqdm=False,
        )
        return [_read(output.outputs[0]) for output in outputs]

    def describe(self) -> str:
        """In words which engine this is, and why it was chosen."""
        return f"rollouts by vLLM on {self.options.base} with the adapter loaded: use_vllm"

    def close(self) -> None:
        """Give back the GPU's memory and the saved adapters."""
        self._llm = None
        gc.collect()
        shutil.rmtree(self._folder, ignore_errors=True)


def require_vllm() -> None:
    """ConfigError saying how to get vLLM, where it is not installed; imports nothing."""
    if find_spec("vllm") is None:
        raise ConfigError(
            "use_vllm: vLLM is not installed; pip install vllm (Linux with a GPU), or leave "
            "use_vllm out"
        )


def save_adapter(policy: Any, adapter: str, folder: Path) -> None:
    """Write the adapter's weights, gathered from all ranks, and its config into a new `folder`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    held = {
        name: whole(weight)
        for name, weight in policy.named_parameters()
        if is_of_adapter(name, adapter)  # the base is large, and stays where it is
    }
    weights = get_peft_model_state_dict(
        policy, state_dict=held, adapter_name=adapter, save_embedding_layers=False
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    policy.peft_config[adapter].save_pretrained(str(folder))
    save_file(
        {name: weight.cpu().contiguous() for name, weight in weights.items()},
        folder / "adapter_model.safetensors",
    )


def _served_rank(policy: Any, adapter: str) -> int:
    """The smallest max_lora_rank that holds the adapter; ConfigError for what vLLM cannot serve."""
    config = getattr(policy, "peft_config", {}).get(adapter)
    if config is None or str(config.peft_type.value) != "LORA":
        raise ConfigError("use_vllm: serves LoRA adapters only; add use_peft, or leave it out")
    for field in _NOT_SERVED:
        if getattr(config, field, None):
            raise ConfigError(f"use_vllm: vLLM does not serve adapters with {field}; leave it out")
    if config.bias != "none":
        raise ConfigError(f"use_vllm: vLLM does not serve adapters with bias {config.bias}")
    named = config.target_modules or ()
    targets = named if isinstance(named, str) else " ".join(named)
    if "lm_head" in targets or "embed_tokens" in targets:
        raise ConfigError("use_vllm: vLLM serves no adapters on the head or the embeddings")
    rank = config.r
    fitting = [size for size in _RANKS if size >= rank]
    if not fitting:
        raise ConfigError(f"use_vllm: vLLM serves LoRA ranks up to {_RANKS[-1]}, not {rank}")
    return fitting[0]


def _placement() -> dict[str, Any]:
    """Under a launcher every process runs a vLLM of its own, on its own GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return {}
    return {"tensor_parallel_size": 1, "distributed_executor_backend": "external_launcher"}


def _read(output: Any) -> Sampled:
    """One completion of vLLM's: `logprobs` holds {token id: Logprob} for each token."""
    token_ids = list(output.token_ids)
    logps = [
        float(found[token].logprob) for token, found in zip(token_ids, output.logprobs, strict=True)
    ]
    return Sampled(token_ids, output.finish_reason == "stop", logps)
