"""Settings that cannot be meant are refused when they are read, each by its name."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError
from rlhf.training.arguments import parse_settings

BASE = ["--dataset_name", "d", "--model_name_or_path", "m", "--reward_funcs", "p.f"]
MODEL = ["--dataset_name", "d", "--model_name_or_path", "m", "--reward_model_name_or_path", "r"]


def parse(verb, *words, base=BASE):
    return parse_settings(verb, [*base, *words], example="")


@pytest.mark.parametrize("verb", ["ppo", "rloo", "grpo"])
def test_the_defaults_with_a_source_of_rewards_will_do(verb):
    assert parse(verb).stage.reward_funcs == ["p.f"]
    assert parse(verb, base=MODEL).stage.reward_model_name_or_path == ["r"]


EVERYWHERE = [
    ("--temperature 0", "--temperature 0.0: must be above 0 and finite"),
    ("--temperature nan", "--temperature nan"),
    ("--max_completion_length 0", "--max_completion_length 0: must be at least 1 and finite"),
    ("--num_iterations 0", "--num_iterations 0: must be at least 1"),
    ("--epsilon -0.1", "--epsilon -0.1"),
    ("--learning_rate -1", "--learning_rate -1.0"),
    ("--learning_rate inf", "--learning_rate inf"),
    ("--ensemble_penalty -1", "--ensemble_penalty -1.0: must be at least 0"),
    ("--reward_clip 0", "--reward_clip 0.0: must be above 0"),
    ("--missing_eos_penalty -1", "--missing_eos_penalty -1.0"),
    ("--length_penalty inf", "--length_penalty inf: must be finite"),
    ("--max_grad_norm nan", "--max_grad_norm nan: must be at least 0 and finite"),
    ("--weight_decay -1", "--weight_decay -1.0: must be at least 0"),
    ("--adam_beta1 1", "--adam_beta1 1.0: must be at least 0 and below 1"),
    ("--adam_epsilon nan", "--adam_epsilon nan: must be at least 0 and at most 1"),
    ("--warmup_steps nan", "--warmup_steps nan: must be at least 0 and finite"),
    ("--logging_steps nan", "--logging_steps nan: must be at least 0 and finite"),
    ("--save_steps nan", "--save_steps nan: must be at least 0 and finite"),
    ("--num_train_epochs 1e308", "must be above 0 and at most 1e"),
    ("--output_dir=", "--output_dir is needed"),
    ("--num_train_epochs nan", "--num_train_epochs nan: must be above 0 and at most 1e"),
    ("--dataloader_num_workers -1", "--dataloader_num_workers -1: must be at least 0"),
    ("--use_peft --lora_alpha 0", "--lora_alpha 0: must be above 0"),
    ("--seed -1", "--seed -1: must be from 0 to 4294967295"),
    ("--lora_r 0 --use_peft", "--lora_r 0: must be at least 1"),
    ("--lora_dropout 1.5", "--lora_dropout 1.5: must be from 0 to 1"),
    ("--reward_weights 1 2", "--reward_weights: 2 for 1 sources"),
    ("--reward_weights nan", "must be finite, and not all 0"),
    ("--reward_weights 0", "must be finite, and not all 0"),
    ("--reward_funcs=", "--reward_funcs: an empty name"),
    ("--gate_dir g", "--gate_dir: 1 for 0 reward models"),
    ("--eval_strategy steps", "--eval_strategy steps: no prompt is held out; give --eval_fraction"),
    ("--reward_normalization reference", "there is no reward model; choose running or none"),
    (
        "--steps_per_generation 3 --gradient_accumulation_steps 2 --num_generations 2 "
        "--per_device_train_batch_size 2",
        "--steps_per_generation 3: must be a multiple of --gradient_accumulation_steps 2",
    ),
]


@pytest.mark.parametrize("verb", ["ppo", "rloo", "grpo"])
@pytest.mark.parametrize(("words", "message"), EVERYWHERE)
def test_what_no_stage_that_learns_online_can_do(verb, words, message):
    with pytest.raises(ConfigError, match=message):
        parse(verb, *words.split())


@pytest.mark.parametrize("verb", ["ppo", "rloo", "grpo"])
def test_no_source_of_rewards(verb):
    with pytest.raises(ConfigError, match="no source of rewards: give --reward_model"):
        parse(verb, base=BASE[:4])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gamma 1.5", "--gamma 1.5: must be at least 0 and at most 1"),
        ("--lam -0.1", "--lam -0.1: must be at least 0 and at most 1"),
        ("--vf_coef -1", "--vf_coef -1.0"),
        ("--entropy_coef -1", "--entropy_coef -1.0"),
        ("--kl_coef -0.1", "--kl_coef -0.1"),
        ("--kl_coef nan", "--kl_coef nan"),
        ("--target_kl 0", "--target_kl 0.0: must be above 0"),
        ("--kl_target 0", "--kl_target 0.0: must be above 0"),
        ("--kl_horizon 0", "--kl_horizon 0"),
        ("--kl_budget -1", "--kl_budget -1.0"),
        ("--epsilon 0", "--epsilon 0.0: must be above 0"),
        ("--epsilon_value 0", "--epsilon_value 0.0: must be above 0"),
        ("--logp_tolerance 0", "--logp_tolerance 0.0"),
        ("--rollout_batch_size 0", "--rollout_batch_size 0"),
        ("--vllm_gpu_memory_utilization 1.1", "must be above 0 and at most 1"),
        ("--critic_warmup -1", "--critic_warmup -1"),
        ("--critic_learning_rate -1", "--critic_learning_rate -1.0"),
        ("--num_completions_to_log -1", "--num_completions_to_log -1"),
        ("--num_generations 0", "--num_generations 0"),
        ("--num_generations 3", "a rollout of 8 completions .* not divisible by .* 3"),
        ("--kl_placement loss", "k1 with kl_placement: loss"),
        ("--kl_controller adaptive --kl_coef 0", "is 0 and would stay so"),
        ("--critic adapter", "--critic adapter: .* add --use_peft"),
        ("--critic_init reward", "there is none; choose zero"),
        ("--fp16 true", "--fp16: not for PPO; use --bf16"),
        ("--save_strategy epoch", "--save_strategy: PPO goes by optimizer steps"),
        ("--neftune_noise_alpha 5", "--neftune_noise_alpha: not for PPO; leave it out"),
        ("--label_smoothing_factor 0.1", "--label_smoothing_factor: not for PPO"),
        ("--use_vllm true", "--use_vllm: serves LoRA adapters only; add --use_peft"),
    ],
)
def test_what_ppo_cannot_do(words, message):
    with pytest.raises(ConfigError, match=message):
        parse("ppo", *words.split())


@pytest.mark.parametrize("verb", ["ppo", "rloo", "grpo"])
def test_vllm_is_asked_for_before_anything_is_read(verb, monkeypatch, capsys):
    words = [verb, *BASE, "--use_peft", "--use_vllm", "true"]
    monkeypatch.setitem(sys.modules, "vllm", None)  # as where it is not installed
    assert main(words) == 2
    assert "use_vllm: vLLM is not installed; pip install vllm" in capsys.readouterr().err
    package = ModuleType("vllm")
    package.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", package)
    assert parse(verb, "--use_peft", "--use_vllm", "true").training.use_vllm


@pytest.mark.parametrize(
    "words",
    [
        "--epsilon_value inf",
        "--gamma 0 --lam 1",
        "--kl_placement loss --kl_estimator k2",
        "--kl_coef 0 --missing_eos_penalty 0",
        "--length_penalty -0.1",
        "--critic adapter --use_peft",
        "--reward_weights -1",
        "--steps_per_generation 4 --gradient_accumulation_steps 2 --num_generations 8",
    ],
)
def test_what_ppo_can_do(words):
    parse("ppo", *words.split())


@pytest.mark.parametrize("verb", ["rloo", "grpo"])
def test_what_trls_trainers_cannot_do(verb):
    with pytest.raises(ConfigError, match=r"--beta -0\.1: must be at least 0"):
        parse(verb, "--beta", "-0.1")
    with pytest.raises(ConfigError, match="at least 2"):
        parse(verb, "--num_generations", "1")
    with pytest.raises(ConfigError, match="divisible by num_generations"):
        parse(verb, "--num_generations", "3")
