"""What the PPO benchmarks start from: a reward model without training, and prompts as ids.

    python benchmarks/ppo_models.py BASE FOLDER

Writes FOLDER/reward, an adapter with random weights as the reward stage would save it, and
FOLDER/merged_reward, the same merged into the base. A process of its own: loading models takes
memory that the sides' processes would else begin with.
"""

import json
import subprocess
import sys
from pathlib import Path

HEAD_STD = 0.05
ADAPTER_STD = 0.01
"""Small beside the base's own weights, so that what the adapted model computes stays sane."""


def make_reward(base: str, folder: Path) -> tuple[Path, Path]:
    """FOLDER/reward and FOLDER/merged_reward, made in a fresh process unless they are there."""
    made = folder / "reward", folder / "merged_reward"
    if not (made[1] / "config.json").is_file():
        subprocess.run([sys.executable, __file__, base, str(folder)], check=True)
    return made


def merge_reward(reward: Path, folder: Path) -> Path:
    """FOLDER/merged_reward, a trained reward model as a whole one; fp32."""
    made = folder / "merged_reward"
    if not (made / "config.json").is_file():
        subprocess.run([sys.executable, __file__, "--merge", str(reward), str(made)], check=True)
    return made


def write_prompt_ids(name: str, prompts: Path, output: Path) -> list[int]:
    """The prompts' ids by `name`'s tokenizer and chat template, as JSON; their lengths."""
    from rlhf.data.tokenization import Renderer
    from rlhf.models.loading import load_tokenizer

    renderer = Renderer(load_tokenizer(name))
    rows = [json.loads(line)["prompt"] for line in prompts.read_text().splitlines()]
    ids = [renderer.prompt_ids(prompt) for prompt in rows]
    output.write_text(json.dumps(ids))
    return [len(row) for row in ids]


def save_random_reward(base: str, folder: Path) -> None:
    """A reward adapter whose weights are random, with its head, tokenizer and reward.json."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from rlhf.models.loading import load_tokenizer, prepare_for_tokenizer
    from rlhf.models.reward_spec import RewardSpec

    torch.manual_seed(0)
    tokenizer = load_tokenizer(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    prepare_for_tokenizer(model, tokenizer)
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules="all-linear",
        modules_to_save=["score"],
        task_type="SEQ_CLS",
    )
    model = get_peft_model(model, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=ADAPTER_STD)
        elif "score" in name:
            torch.nn.init.normal_(weight, std=HEAD_STD)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    RewardSpec().write(folder)


def main() -> None:
    from rlhf.models.reward_roundtrip import save_merged

    if sys.argv[1] == "--merge":
        save_merged(sys.argv[2], Path(sys.argv[3]))
        return
    base, folder = sys.argv[1], Path(sys.argv[2])
    save_random_reward(base, folder / "reward")
    save_merged(folder / "reward", folder / "merged_reward")


if __name__ == "__main__":
    main()
