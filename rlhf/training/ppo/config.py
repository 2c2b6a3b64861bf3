"""The settings of PPO, by TRL's own names where the meaning is TRL's."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from rlhf.training.rewards.options import ScoreOptions


@dataclass
class PPOConfig(ScoreOptions, TrainingArguments):  # type: ignore[misc]
    """PPO beside what every transformers Trainer takes.

    A rollout is `per_device_train_batch_size * steps_per_generation` completions on each process.
    They are learnt from `num_iterations` times, `gradient_accumulation_steps` micro-batches an
    optimizer step. docs/ppo.md has the reason for each default.
    """

    # Rollouts
    max_completion_length: int = field(
        default=128, metadata={"help": "A completion is cut after this many tokens."}
    )
    num_generations: int = field(
        default=1, metadata={"help": "Completions of each prompt in a rollout."}
    )
    steps_per_generation: int | None = field(
        default=None,
        metadata={
            "help": "Micro-batches of one rollout; gradient_accumulation_steps unless given, which "
            "is one minibatch. A multiple of it."
        },
    )
    temperature: float = field(
        default=1.0,
        metadata={"help": "Of sampling, and of every log-probability that is compared with it."},
    )
    rollout_copy: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata={
            "help": "Sample from a copy of the base with the adapter merged into it: faster, for "
            "the memory of one more base. auto: where that memory is free."
        },
    )
    rollout_batch_size: int | None = field(
        default=None,
        metadata={"help": "Completions decoded together; the whole rollout unless given."},
    )
    use_vllm: bool = field(
        default=False, metadata={"help": "Sample by vLLM, which loads the adapter natively."}
    )
    vllm_gpu_memory_utilization: float = field(
        default=0.3, metadata={"help": "Share of the GPU's memory that vLLM may take."}
    )
    logp_tolerance: float = field(
        default=0.1,
        metadata={
            "help": "Mean difference (nats a token) between the sampler's log-probabilities and "
            "the trainer's above which the run stops: they are not the same policy."
        },
    )

    # Learning
    num_iterations: int = field(
        default=4, metadata={"help": "How many times each rollout is learnt from (PPO epochs)."}
    )
    epsilon: float = field(
        default=0.2, metadata={"help": "The ratio's clipping range of the policy loss."}
    )
    epsilon_value: float = field(
        default=0.2, metadata={"help": "How far a value may move in the value loss; inf: freely."}
    )
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})
    gamma: float = field(default=1.0, metadata={"help": "Discount of later rewards."})
    lam: float = field(default=0.95, metadata={"help": "Lambda of GAE."})
    standardize_advantages: bool = field(
        default=True,
        metadata={"help": "Mean 0 and variance 1 over the tokens of a rollout, of all processes."},
    )
    target_kl: float | None = field(
        default=None,
        metadata={
            "help": "A rollout is left before its next iteration when the policy has moved further "
            "from the one that sampled it (mean k3 a token, nats)."
        },
    )

    # Staying near the reference
    kl_coef: float = field(default=0.05, metadata={"help": "Price of a nat of KL."})
    kl_estimator: Literal["k1", "k2", "k3"] = field(
        default="k1", metadata={"help": "Of the KL: in the reward k1, in the loss k2 or k3."}
    )
    kl_placement: Literal["reward", "loss"] = field(
        default="reward",
        metadata={"help": "Take the KL off the reward of each token, or add it to the loss."},
    )
    kl_controller: Literal["fixed", "adaptive"] = field(
        default="fixed", metadata={"help": "adaptive moves kl_coef so that the KL meets kl_target."}
    )
    kl_target: float = field(
        default=6.0, metadata={"help": "Nats a completion that the adaptive controller aims at."}
    )
    kl_horizon: int = field(
        default=10_000, metadata={"help": "Completions over which the adaptive controller acts."}
    )
    kl_budget: float | None = field(
        default=None,
        metadata={
            "help": "Nats a completion: checkpoints beyond it are never the best one, and the run "
            "stops when it stays beyond it."
        },
    )

    # The critic
    critic: Literal["head", "adapter"] = field(
        default="head",
        metadata={
            "help": "Values by a head on the policy's own trunk, or by an adapter of their own on "
            "the same base."
        },
    )
    critic_init: Literal["auto", "reward", "zero"] = field(
        default="auto",
        metadata={
            "help": "Where the critic begins: as the reward model, or with a head of zeros. auto: "
            "an adapter as the reward model, a head with zeros."
        },
    )
    critic_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the critic; learning_rate unless given."}
    )
    critic_warmup: int = field(
        default=0, metadata={"help": "Rollouts at first that only the critic learns from."}
    )

    # Rewards and logs
    logging_steps: float = field(
        default=1, metadata={"help": "Optimizer steps between two rows of the log."}
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each source of rewards; 1 each unless given."}
    )
    log_completions: bool = field(
        default=True, metadata={"help": "Keep completions with their scores, and send a table."}
    )
    num_completions_to_log: int = field(
        default=16, metadata={"help": "Of each rollout, at most; all of them go to Parquet."}
    )

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a rollout on each process."""
        return self.steps_per_generation or self.gradient_accumulation_steps

    @property
    def rollout_size(self) -> int:
        """Completions of a rollout on each process."""
        return int(self.per_device_train_batch_size) * self.micro_batches

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps that a rollout gives when it is not left early."""
        return self.num_iterations * self.micro_batches // int(self.gradient_accumulation_steps)
