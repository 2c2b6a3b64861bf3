"""What is asked of vLLM, by a stand-in for its documented interface that loads what it is given."""

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

from rlhf.errors import ConfigError
from rlhf.models.loading import load_policy
from rlhf.models.rollouts.engine import make_engine
from rlhf.models.rollouts.vllm_engine import VllmEngine, VllmOptions, save_adapter
from tests.models.rollouts.conftest import PROMPTS, make_adapted, make_sampling


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class SamplingParams:
    def __init__(self, **settings):
        self.__dict__ |= settings


class LLM:
    """Keeps what it was called with; answers 7 and, unless told to ignore it, an end token."""

    made: ClassVar[list] = []

    def __init__(self, **settings):
        self.settings = settings
        self.requests = []
        self.adapters = []
        LLM.made.append(self)

    def generate(self, prompts, sampling_params, *, lora_request, use_tqdm):
        assert use_tqdm is False
        assert len(prompts) == len(sampling_params)
        self.requests.append((prompts, sampling_params, lora_request))
        self.adapters.append(load_file(Path(lora_request.lora_path) / "adapter_model.safetensors"))
        return [SimpleNamespace(outputs=[self._answer(each)]) for each in sampling_params]

    def _answer(self, params):
        ids = [7] * params.max_tokens if params.ignore_eos else [7, params.stop_token_ids[0]]
        logprobs = [
            {token: SimpleNamespace(logprob=-0.5 * (place + 1)), 99: SimpleNamespace(logprob=0.0)}
            for place, token in enumerate(ids)
        ]
        reason = "length" if params.ignore_eos else "stop"
        return SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs, finish_reason=reason)


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """The stand-in, in the place of the package."""
    LLM.made = []
    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams = LLM, SamplingParams
    package.__spec__ = ModuleSpec("vllm", None)  # it is installed
    request.LoRARequest = LoRARequest
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.lora", ModuleType("vllm.lora"))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


OPTIONS = VllmOptions(base="runs/sft", gpu_memory_utilization=0.4, context=512)


def test_llm_gets_the_merged_base_and_serves_adapters(adapted):
    make_engine(adapted, make_sampling(), vllm=OPTIONS)
    [llm] = LLM.made
    assert llm.settings == {
        "model": "runs/sft",
        "dtype": "bfloat16",
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": 8,
        "gpu_memory_utilization": 0.4,
        "max_model_len": 512,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
    }


def test_under_a_launcher_each_process_has_its_own(adapted, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    VllmEngine(adapted, make_sampling(), OPTIONS)
    assert LLM.made[0].settings["distributed_executor_backend"] == "external_launcher"
    assert LLM.made[0].settings["tensor_parallel_size"] == 1


def test_request_is_of_the_whole_distribution_with_a_seed_for_each_row(adapted):
    engine = VllmEngine(adapted, make_sampling(temperature=0.7), OPTIONS)
    engine.sample(PROMPTS, seed=3)
    engine.sample(PROMPTS, seed=3)
    engine.sample(PROMPTS, seed=4)
    prompts, params, _ = LLM.made[0].requests[0]
    assert prompts == [{"prompt_token_ids": ids} for ids in PROMPTS]
    seeds = [[one.seed for one in request[1]] for request in LLM.made[0].requests]
    assert len(set(seeds[0])) == len(PROMPTS)
    assert seeds[0] == seeds[1]
    assert not set(seeds[0]) & set(seeds[2])
    settings = dict(params[0].__dict__)
    settings.pop("seed")
    assert settings == {
        "max_tokens": 12,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "stop_token_ids": [2],
        "ignore_eos": False,
        "logprobs": 0,
        "detokenize": False,
    }


def test_completions_are_read_with_the_sampled_tokens_logps(adapted):
    engine = VllmEngine(adapted, make_sampling(), OPTIONS)
    sampled = engine.sample(PROMPTS, seed=0)
    assert len(sampled) == len(PROMPTS)
    assert (sampled[0].token_ids, sampled[0].ended) == ([7, 2], True)
    assert sampled[0].logps == [-0.5, -1.0]


def test_end_tokens_are_ignored_when_asked(adapted):
    engine = VllmEngine(adapted, make_sampling(ignore_end=True), OPTIONS)
    [sampled] = engine.sample(PROMPTS[:1], seed=0)
    params = LLM.made[0].requests[0][1][0]
    assert (params.ignore_eos, params.stop_token_ids) == (True, [])
    assert (len(sampled.token_ids), sampled.ended) == (12, False)


def test_each_sync_has_a_new_id_name_and_folder_and_the_old_folder_goes(adapted):
    engine = VllmEngine(adapted, make_sampling(), OPTIONS)
    seen = []
    for _ in range(3):
        engine.sample(PROMPTS[:1], seed=0)
        seen.append(LLM.made[0].requests[-1][2])
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.mul_(2)
        engine.sync()
    assert [request.lora_int_id for request in seen] == [1, 2, 3]
    assert len({request.lora_name for request in seen}) == 3
    assert not any(Path(request.lora_path).exists() for request in seen)
    assert [path.name for path in Path(seen[0].lora_path).parent.iterdir()] == ["4"]
    first, second, _ = LLM.made[0].adapters
    name = next(name for name in first if "lora_B" in name)
    assert torch.equal(second[name], 2 * first[name])


def test_saved_adapter_is_a_plain_one_without_the_others(adapted, tiny_model, tmp_path):
    adapted.add_adapter("critic", LoraConfig(r=2, target_modules=["k_proj"]))
    save_adapter(adapted, "default", tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = PeftModel.from_pretrained(load_policy(tiny_model), str(tmp_path / "adapter")).eval()
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, adapted(ids).logits)


def test_closing_removes_the_saved_adapters(adapted):
    engine = VllmEngine(adapted, make_sampling(), OPTIONS)
    folder = engine._folder
    assert folder.is_dir()
    engine.close()
    assert not folder.exists()
    with pytest.raises(AssertionError, match="closed"):
        engine.sample(PROMPTS, seed=0)


def test_without_vllm_it_says_how_to_get_it(adapted, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="pip install vllm"):
        make_engine(adapted, make_sampling(), vllm=OPTIONS)


def test_a_broken_vllm_is_told_from_none(adapted, monkeypatch):
    del sys.modules["vllm"].LLM
    with pytest.raises(ConfigError, match=r"cannot be imported \(cannot import name 'LLM'"):
        make_engine(adapted, make_sampling(), vllm=OPTIONS)


@pytest.mark.parametrize(("options", "served"), [({"r": 1}, 8), ({"r": 16}, 16), ({"r": 17}, 32)])
def test_rank_served_is_one_that_vllm_takes(tiny_model, options, served):
    VllmEngine(make_adapted(tiny_model, **options), make_sampling(), OPTIONS)
    assert LLM.made[0].settings["max_lora_rank"] == served


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 40}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 40}}, "alpha_pattern"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the head"),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"r": 600}, "up to 512"),
    ],
)
def test_adapters_that_vllm_does_not_serve_are_refused(tiny_model, options, reason):
    policy = make_adapted(tiny_model, **options)
    with pytest.raises(ConfigError, match=reason):
        VllmEngine(policy, make_sampling(), OPTIONS)
    assert LLM.made == []


def test_policy_without_an_adapter_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="LoRA adapters only"):
        VllmEngine(load_policy(tiny_model), make_sampling(), OPTIONS)
