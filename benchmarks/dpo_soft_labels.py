"""DPO on soft labels against DPO on hard ones, from simulated raters of unequal reliability.

    python benchmarks/dpo_soft_labels.py --run runs/quickstart --work FOLDER --json soft.json

**Everything here is simulated.** The quickstart's SFT model answered the quickstart's prompts; a
panel of twelve simulated raters, from careful to nearly guessing, judges pairs of its answers by
the documented simulated utility. Dawid and Skene's model sums their judgements up, and `rlhf dpo`
trains on the same pairs in the same order twice: once with the likelier side taken as certain,
once with its probability. The truth then judges the implicit reward of each policy on pairs of
answers to prompts that nobody rated, and with --win_rate what the policies answer themselves.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from numpy.typing import NDArray
from reward_data import right
from reward_training import as_arguments
from reward_vs_trl import PACKAGES, Remaining, work_folder
from soft_labels import advantage, judged, label_accuracy, rater_accuracies, write_lines

from rlhf.data.feedback_pairs import pair_row
from rlhf.data.tokenization import Renderer
from rlhf.evaluation.statistics import clustered_bootstrap, mean_estimate
from rlhf.evaluation.win_rate import outcomes
from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.simulation import simulated_truth
from rlhf.manifest import write_json
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.scoring import sequence_logps
from rlhf.records import Comparison, Completion, Prompt

ROOT = Path(__file__).parent.parent
SIDES = ("hard", "soft")
BETA = 0.1
PAIRS_A_STEP = 8
STAGE: dict[str, Any] = {
    "learning_rate": 3.0e-4,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": PAIRS_A_STEP // 2,
    "max_length": 192,
    "beta": BETA,
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
    "num_train_epochs": 1,
    "save_strategy": "no",
    "logging_steps": 2,
    "max_loss": 0,
}
"""The quickstart's own DPO settings."""

_BEFORE_IMPORT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
Floats = NDArray[np.float64]


def main() -> None:
    options = parse(None)
    with work_folder(options.work) as folder:
        run = options.run or quickstart(folder)
        items = comparisons(run / "sample" / "completions.jsonl")
        heldout = sampled(run / "sft", folder / f"heldout-{options.answers}.jsonl", options)
        judge = Judge(run / "sft", heldout, options)
        remaining = Remaining(options.seeds * len(SIDES))
        seeds = [
            measure_seed(seed, items, judge, options, folder, remaining)
            for seed in range(options.seeds)
        ]
    found = summary(seeds, judge.prompts, options.answers)
    print("\n".join(table(found)), flush=True)
    if options.json:
        budget = {key: getattr(options, key) for key in ("seeds", "steps", "raters", "answers")}
        settings = STAGE | budget | {"dtype": options.dtype}
        write_json(
            options.json, {"simulated": True, "settings": settings, **found, **machine(PACKAGES)}
        )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=Path, help="a quickstart's folder with sft/ and sample/; made when not given"
    )
    parser.add_argument("--work", type=Path, help="folder that keeps what was made, to go on from")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24, help=f"of {PAIRS_A_STEP} pairs")
    parser.add_argument("--raters", type=int, default=3, help="that judge each pair")
    parser.add_argument("--answers", type=int, default=4, help="to each held-out prompt")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16", help="of the frozen base")
    parser.add_argument(
        "--win_rate", action="store_true", help="also sample from every policy, which takes longer"
    )
    parser.add_argument(
        "--heldout_prompts",
        type=Path,
        default=ROOT / "configs" / "quickstart" / "heldout_prompts.jsonl",
    )
    options = parser.parse_args(argv)
    if options.seeds < 2:
        parser.error("--seeds: an interval needs at least 2")
    if options.answers < 2:
        parser.error("--answers: a pair needs at least 2")
    return options


def quickstart(folder: Path) -> Path:
    """The quickstart's SFT model and its answers to the prompts to train on."""
    config = ROOT / "configs" / "pipeline" / "quickstart.yaml"
    rlhf("run", config, "--output_dir", folder / "quickstart", "--until", "sample")
    return folder / "quickstart"


def rlhf(*words: Any) -> None:
    """`rlhf WORDS` in a process of its own; what it prints goes to standard error."""
    command = [sys.executable, "-m", "rlhf", *map(str, words)]
    environment = os.environ | _BEFORE_IMPORT
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=sys.stderr)


def comparisons(path: Path) -> list[Comparison]:
    """Every pair of different answers to a prompt, of a file that `rlhf sample` wrote."""
    found = []
    for row in map(json.loads, path.read_text().splitlines()):
        prompt = Prompt(content=row["prompt"])
        answers = {
            text: Completion(text=text, source="sft", ended=ended)
            for text, ended in zip(row["completions"], row["ended"], strict=True)
        }
        for number, pair in enumerate(combinations(answers.values(), 2)):
            item = f"{prompt.id}-{number}"
            found.append(Comparison(prompt=prompt, completions=pair, item=item))
    return found


def sampled(model: Path, output: Path, options: argparse.Namespace) -> Path:
    """The file with a model's answers to the held-out prompts, made when it is missing."""
    if output.is_file():
        return output
    given = {
        "model_name_or_path": model.absolute(),
        "dataset_name": options.heldout_prompts.absolute(),
        "num_completions": options.answers,
        "max_new_tokens": options.max_new_tokens,
        "dtype": options.dtype,
        "batch_size": 64,
        "output": output.absolute(),
    }
    rlhf("sample", *as_arguments(given))
    return output


def measure_seed(
    seed: int,
    items: Sequence[Comparison],
    judge: "Judge",
    options: argparse.Namespace,
    folder: Path,
    remaining: Remaining,
) -> dict[str, Any]:
    """One draw of pairs, raters, order and fresh weights; what each kind of label comes to."""
    drawn = two_a_prompt(items, seed)
    judgements = [one for item in drawn for one in judged(item, options.raters, seed)]
    evidence = Evidence(comparisons=drawn, judgements=judgements)
    pairs, _ = aggregate_evidence(evidence, method="dawid_skene")
    pairs = pairs[: options.steps * PAIRS_A_STEP]
    if len(pairs) < options.steps * PAIRS_A_STEP:
        raise SystemExit(f"only {len(pairs)} pairs to train on; give fewer --steps")
    rows = write_lines(folder / f"seed-{seed}.jsonl", [pair_row(pair) for pair in pairs])
    found: dict[str, Any] = {
        "num_pairs": len(pairs),
        "raters": rater_accuracies(drawn, judgements),
        "label_accuracy": label_accuracy(pairs),
        "mean_p_chosen": float(np.mean([pair.p_chosen for pair in pairs])),
    }
    for side in SIDES:
        remaining.announce(f"seed {seed}, {side} labels")
        policy = train(folder / f"{side}-{seed}", rows, side, seed, judge.sft, options)
        found[side] = judge(policy, folder / f"{side}-{seed}.answers.jsonl")
    return found


def two_a_prompt(items: Sequence[Comparison], seed: int) -> list[Comparison]:
    """At most two pairs of each prompt, in an order drawn by the seed, as the quickstart rates."""
    taken: dict[str, int] = {}
    found = []
    for place in np.random.default_rng(seed).permutation(len(items)):
        item = items[place]
        taken[item.prompt.id] = taken.get(item.prompt.id, 0) + 1
        if taken[item.prompt.id] <= 2:
            found.append(item)
    return found


def train(
    folder: Path, rows: Path, labels: str, seed: int, sft: Path, options: argparse.Namespace
) -> Path:
    """The folder that `rlhf dpo` leaves; a finished run is not repeated."""
    given = STAGE | {
        "model_name_or_path": sft.absolute(),
        "dataset_name": rows.absolute(),
        "output_dir": folder.absolute(),
        "dtype": options.dtype,
        "labels": labels,
        "max_steps": options.steps,
        "seed": seed,
    }
    rlhf("dpo", *as_arguments(given))
    return folder


class Judge:
    """What the truth says of a policy on held-out prompts.

    The implicit reward beta * (log p(answer | policy) - log p(answer | SFT)) is judged on pairs of
    the SFT model's answers; pairs that the truth finds equal are left out. `prompts` [N] names the
    prompt of each pair.
    """

    def __init__(self, sft: Path, sft_answers: Path, options: argparse.Namespace) -> None:
        self.sft, self.sft_answers, self.options = sft, sft_answers, options
        pairs = [better_first(item) for item in comparisons(sft_answers) if advantage(item)]
        self.prompts = [item.prompt.id for item in pairs]
        self.answers = list(
            {
                (item.prompt.id, one.text): (item.prompt, one)
                for item in pairs
                for one in item.completions
            }.values()
        )
        places = {(prompt.id, one.text): n for n, (prompt, one) in enumerate(self.answers)}
        self.places = np.array(
            [[places[item.prompt.id, one.text] for one in item.completions] for item in pairs]
        )  # [N, 2]: the better one first
        self.ref_logps = self._logps(sft)

    def __call__(self, policy: Path, answers: Path) -> dict[str, Any]:
        """The gap of each pair, [N]; with --win_rate also how each answer fares against SFT's."""
        rewards = BETA * (self._logps(policy) - self.ref_logps)  # [M]
        found = {"gaps": (rewards[self.places[:, 0]] - rewards[self.places[:, 1]]).tolist()}
        if self.options.win_rate:
            ours, base = truths(sampled(policy, answers, self.options)), truths(self.sft_answers)
            found["wins"] = outcomes(ours, base).tolist()
        return found

    def _logps(self, location: Path) -> Floats:
        """The summed log-probability of each held-out answer, [M], in nats."""
        renderer = Renderer(load_tokenizer(location))
        model = load_policy(location, dtype=self.options.dtype)
        prompts = [renderer.prompt_ids(prompt.content) for prompt, _ in self.answers]
        completions = [renderer.completion_ids(one.text, one.ended) for _, one in self.answers]
        logps: Floats = sequence_logps(model, prompts, completions).double().numpy()
        return logps


def better_first(item: Comparison) -> Comparison:
    """The comparison with the truly better answer first."""
    turned = item.completions[::-1] if advantage(item) > 0 else item.completions
    return replace(item, completions=turned)


def truths(path: Path) -> list[float]:
    """The utility of every answer of a file that `rlhf sample` wrote, prompt by prompt."""
    return [
        simulated_truth(row["prompt"], text, ended)
        for row in map(json.loads, path.read_text().splitlines())
        for text, ended in zip(row["completions"], row["ended"], strict=True)
    ]


def summary(
    seeds: Sequence[dict[str, Any]], pair_prompts: Sequence[str], num_answers: int
) -> dict[str, Any]:
    """What each side comes to, and soft less hard: by prompt and by seed, with 95% intervals.

    By prompt is a bootstrap over held-out prompts of all seeds' pairs: what other prompts would
    have shown of these very policies. By seed is Student's t over seeds: what other draws of
    pairs, raters and weights would have come to.
    """
    found: dict[str, Any] = {}
    for name, of_side in measures("wins" in seeds[0]["soft"]).items():
        values = {side: np.array([of_side(one[side]) for one in seeds]) for side in SIDES}
        clusters = pair_prompts
        if name == "win_rate":
            clusters = [str(n // num_answers) for n in range(values["soft"].shape[1])]
        found[name] = compared(values, clusters)
    return {"measures": found, "num_heldout_pairs": len(pair_prompts), "runs": list(seeds)}


def measures(with_wins: bool) -> dict[str, Callable[[dict[str, Any]], Floats]]:
    """{name: what it is of each held-out pair (or answer) of one policy, [N]}."""
    found: dict[str, Callable[[dict[str, Any]], Floats]] = {
        "accuracy": lambda one: right(np.array(one["gaps"])).astype(np.float64),
        "log_loss": lambda one: np.logaddexp(0, -np.array(one["gaps"])),
    }
    if with_wins:
        found["win_rate"] = lambda one: np.array(one["wins"])
    return found


def compared(values: dict[str, Floats], clusters: Sequence[str]) -> dict[str, Any]:
    """Each side's mean and soft less hard, of values [S, N] of each side, S seeds."""
    num_seeds = len(values["soft"])

    def by_prompt(numbers: Floats) -> dict[str, Any]:
        return clustered_bootstrap(numbers.reshape(-1), list(clusters) * num_seeds).as_dict()

    difference = values["soft"] - values["hard"]
    return {
        **{side: by_prompt(numbers) for side, numbers in values.items()},
        "soft_minus_hard": by_prompt(difference),
        "soft_minus_hard_by_seed": mean_estimate(difference.mean(1)).as_dict(),
        "seeds": {side: numbers.mean(1).tolist() for side, numbers in values.items()},
    }


def table(found: dict[str, Any]) -> list[str]:
    """The summary as lines for reading."""
    rates = [value for one in found["runs"] for value in one["raters"].values()]
    right_labels = [one["label_accuracy"] for one in found["runs"]]
    lines = [
        f"SIMULATED: raters agree with the truth in {min(rates):.0%} to {max(rates):.0%}, "
        f"labels in {np.mean(right_labels):.1%} (mean over seeds), "
        f"{found['num_heldout_pairs']} held-out pairs",
        "measure      hard     soft     soft - hard, 95% by prompt    95% by seed",
    ]
    for name, numbers in found["measures"].items():
        sides = "  ".join(f"{numbers[side]['value']:7.4f}" for side in SIDES)
        intervals = "  ".join(
            f"{_interval(numbers[key]):28}"
            for key in ("soft_minus_hard", "soft_minus_hard_by_seed")
        )
        lines.append(f"{name:10} {sides}  {intervals}".rstrip())
    return lines


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


if __name__ == "__main__":
    main()
