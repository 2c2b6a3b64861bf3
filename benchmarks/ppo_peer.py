"""TRL 1.12's PPOTrainer as its own example sets it up, in a process of its own, and measured.

    PYTHONPATH=FOLDER_WITH_TRL_1.12 python benchmarks/ppo_peer.py RUN.json RESULT.json

Its code is not touched: phases are read off the calls that it makes. Four models, as it wants
them: the policy with LoRA, which without its adapter is the reference; the reward model; and the
value model, all of which is trained.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ppo_runs import (
    CLIP,
    GAMMA,
    LAM,
    PEER_VERSION,
    TEMPERATURE,
    VALUE_CLIP,
    VALUE_COEF,
    Clock,
    Run,
    after,
    dtypes,
    main,
    peak_gb,
)


def train(run: Run) -> dict[str, Any]:
    """Train in this process: phases of each update, peak memory, TRL's log, what dtypes it had."""
    import trl

    assert trl.__version__ == PEER_VERSION, f"{trl.__file__}: TRL {trl.__version__}"
    with TemporaryDirectory() as folder:
        trainer = make_trainer(run, folder)
        clock = watched(trainer)
        clock.begin()
        trainer.train()
        peak = peak_gb()
        if run.adapter is not None:
            trainer.save_model(run.adapter)
    return {
        "updates": clock.updates,
        "peak_gb": peak,
        "scores": [row["objective/scores"] for row in trainer.state.log_history],
        "log": trainer.state.log_history,
        "policy_dtypes": dtypes(trainer.model.policy.named_parameters()),
        "optimizer_dtypes": state_dtypes(trainer),
        "value_dtypes": dtypes(trainer.model.value_model.named_parameters()),
        "num_tokens": clock.num_tokens,
    }


def make_trainer(run: Run, folder: str) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOTrainer

    dtype = getattr(torch, run.dtype)
    tokenizer = AutoTokenizer.from_pretrained(run.policy, padding_side="left")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    torch.manual_seed(run.seed)  # of the LoRA weights
    policy = AutoModelForCausalLM.from_pretrained(run.policy, dtype=dtype)
    reward_dtype = getattr(torch, run.options.get("reward_dtype", run.dtype))
    classifier = AutoModelForSequenceClassification.from_pretrained
    reward_model = classifier(run.merged_reward, num_labels=1, dtype=reward_dtype)
    value_model = classifier(run.merged_reward, num_labels=1, dtype=dtype)
    rows = [{"input_ids": ids} for ids in json.loads(Path(run.prompt_ids).read_text())]
    return PPOTrainer(
        args=config(run, folder),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:1]),
        peft_config=LoraConfig(
            r=run.lora_r,
            lora_alpha=run.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def config(run: Run, folder: str) -> Any:
    """Its PPOConfig; what is not named here keeps TRL's default."""
    from trl.experimental.ppo import PPOConfig

    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=run.micro_batch_size,
        gradient_accumulation_steps=run.num_completions // run.micro_batch_size,
        num_mini_batches=1,
        num_ppo_epochs=run.num_iterations,
        total_episodes=run.num_updates * run.num_completions,
        response_length=run.max_new_tokens,
        stop_token=None if run.ignore_eos else "eos",
        missing_eos_penalty=run.missing_eos_penalty or None,
        temperature=TEMPERATURE,
        learning_rate=run.learning_rate,
        lr_scheduler_type="constant",
        kl_coef=run.kl_coef,
        cliprange=CLIP,
        cliprange_value=VALUE_CLIP,
        vf_coef=VALUE_COEF,
        gamma=GAMMA,
        lam=LAM,
        use_cpu=True,
        bf16=run.options.get("autocast", False),
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        seed=run.seed,
    )


def watched(trainer: Any) -> Clock:
    """A clock on the functions that its loop calls, which do what they did."""
    import torch
    from transformers import TrainerCallback
    from trl.experimental.ppo import ppo_trainer

    clock = Clock()
    sample, forward, get_reward = (
        getattr(ppo_trainer, name) for name in ("batch_generation", "forward", "get_reward")
    )

    def forward_noted(*args: Any, **rest: Any) -> Any:
        if torch.is_grad_enabled():
            clock.trains()
        return forward(*args, **rest)

    def get_reward_noted(model: Any, rows: Any, pad_id: int, start: int) -> Any:
        if model is trainer.reward_model:  # it alone reads the rows as they were cut at the end
            clock.count(int((rows[:, start:] != pad_id).sum()))
        return get_reward(model, rows, pad_id, start)

    ppo_trainer.batch_generation = after(sample, lambda _: clock.sampled())
    ppo_trainer.forward, ppo_trainer.get_reward = forward_noted, get_reward_noted

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_args: Any, **_rest: Any) -> None:
            clock.end()

    trainer.add_callback(Steps())
    return clock


def state_dtypes(trainer: Any) -> dict[str, list[str]]:
    """The dtypes of what AdamW remembers of the policy's weights and of the value model's."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    found = {}
    for name in ("policy", "value_model"):
        states = [
            optimizer.state[one][key]
            for one in getattr(trainer.model, name).parameters()
            if one in optimizer.state
            for key in ("exp_avg", "exp_avg_sq")
        ]
        found[name] = sorted({str(one.dtype).removeprefix("torch.") for one in states})
    return found


if __name__ == "__main__":
    main(train)
