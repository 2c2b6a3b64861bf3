"""One round after the other: sample, label, pair, note; or take it from disk where it is there."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer

from rlhf.data.columns import Columns
from rlhf.data.progress import Advance, progress
from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, StageError
from rlhf.models.registry import model_source
from rlhf.models.rollouts.decoding import evaluating
from rlhf.models.rollouts.engine import RolloutEngine, Sampling
from rlhf.models.rollouts.whole_weights import is_sharded
from rlhf.models.scoring import sequence_logps
from rlhf.training.arguments import Settings
from rlhf.training.online_dpo.files import (
    PAIRS_NAME,
    read_pairs,
    read_record,
    require_record,
    round_folder,
    write_round,
)
from rlhf.training.online_dpo.labelling import Labelled, Labeller
from rlhf.training.online_dpo.pairs import (
    Paired,
    PairRow,
    best_over_worst,
    pair_row,
    training_columns,
)
from rlhf.training.online_dpo.plan import RoundPlan
from rlhf.training.online_dpo.samples import PromptSamples, own_randomness, sample_prompts
from rlhf.training.online_dpo.summary import (
    LOGGED,
    completion_metrics,
    mean_of_each,
    round_line,
)
from rlhf.training.preferences.batches import even_parts
from rlhf.training.prompts import PromptRow
from rlhf.training.stage import is_main, wait_for_everyone


class Rounds:
    """Makes the rows of each round from the policy as it is when the round begins.

    `run` is the hash of what the run is (settings, data, models, labels), `simulated` whether the
    labels rest on simulated ones. `trainer` and `engine` are set once they are there.
    """

    trainer: Any
    engine: RolloutEngine
    sampling: Sampling

    def __init__(
        self,
        settings: Settings,
        renderer: Renderer,
        plan: RoundPlan,
        prompts: Sequence[PromptRow],
        labeller: Labeller,
        *,
        run: str,
        simulated: bool,
    ) -> None:
        self.settings = settings
        self.stage: Any = settings.stage
        self.renderer = renderer
        self.plan = plan
        self.prompts = prompts
        self.labeller = labeller
        self.run = run
        self.simulated = simulated
        self.output = Path(settings.training.output_dir)

    def begin(self, number: int) -> Columns:
        """The rows of round `number` (from 0), sampled and labelled now unless that was done.

        A round on disk is taken only if this very policy wrote it in this very run; DataError
        when a checkpoint within the round needs one that is gone.
        """
        folder = round_folder(self.output, number)
        state = self.trainer.state
        if state.global_step > number * self.plan.num_steps:
            record = require_record(folder)
        else:
            policy = policy_sha256(self.trainer.model)
            record = self._kept(number, policy) or self._make(number, policy)
        self.labeller.load_state_dict(record["labeller"])
        self._announce(number, record)
        rows = read_pairs(folder)
        places = [f"{folder.name}/{PAIRS_NAME}:{line}" for line in range(1, 1 + len(rows))]
        self.trainer.begin_round(places, self.plan.mean_batch(len(rows)))
        return training_columns(rows, self.renderer, folder.name)

    def _kept(self, number: int, policy: str) -> dict[str, Any] | None:
        """The record of a round on disk that the weights `policy` wrote in this run, if any."""
        kept = read_record(round_folder(self.output, number))
        fits = kept is not None and (kept["run"], kept["policy"]["sha256"]) == (self.run, policy)
        return kept if all(self.gathered([fits])) else None

    def _make(self, number: int, policy: str) -> dict[str, Any]:
        """Sample, label and pair; the record that is then on disk."""
        if number:
            before = require_record(round_folder(self.output, number - 1))
            self.labeller.load_state_dict(before["labeller"])
        task = f"round {number + 1} of {self.plan.num_rounds}"
        seed = self.plan.seed_of(number)
        mine = self._sample(number, seed, task)
        kls = self.kl_of(mine, f"{task}: KL")
        with own_randomness(seed):
            extras = {"trainer_state": self.trainer.state}
            labelled = self.labeller.label(mine, f"{task}: labelling", extras)
        paired, rows, completions = self._paired(mine, labelled, number, policy)
        record = self._record(number, policy, paired, labelled, mine, kls)
        rows, completions = self.gathered(rows), self.gathered(completions)
        if is_main(self.settings):
            write_round(round_folder(self.output, number), rows, completions, record)
        wait_for_everyone(self.settings)
        return require_record(round_folder(self.output, number))

    def _sample(self, number: int, seed: int, task: str) -> list[PromptSamples]:
        """This process's part of the round's prompts, sampled; StageError when all is empty."""
        places = even_parts(self.plan.prompts_of(number), self.plan.num_processes)
        index = self.settings.training.process_index
        self.sync()
        found = self.sample(
            [self.prompts[place] for place in places[index]],
            seed=seed,
            first_prompt=sum(map(len, places[:index])),
            num_generations=self.stage.num_generations,
            task=f"{task}: sampling",
        )
        texts = self.gathered([sample.text for one in found for sample in one.samples])
        if not any(text.strip() for text in texts):
            raise StageError(
                f"{task}: all {len(texts)} completions are empty, so nothing tells better from "
                "worse: the model ends at once; look at its chat template (rlhf doctor), or lower "
                "--learning_rate"
            )
        return found

    def sync(self) -> None:
        """Give the engine the policy of now; ConfigError where no process has all of it."""
        if any(is_sharded(weight) for weight in self.trainer.model.parameters()):
            raise ConfigError(
                "--accelerate_config: online DPO samples from whole weights, and these are sharded "
                "over processes; use multi_gpu"
            )
        self.engine.sync()

    def sample(self, rows: Sequence[PromptRow], **options: Any) -> list[PromptSamples]:
        """Completions of prompts by the engine."""
        batch_size = self.stage.rollout_batch_size
        return sample_prompts(self.engine, self.renderer, rows, batch_size=batch_size, **options)

    def kl_of(self, prompts: Sequence[PromptSamples], task: str) -> list[float]:
        """log p(y) - log p_ref(y), nats, for the first completion y of each prompt.

        Their mean estimates the policy's KL to the reference where they were sampled at
        temperature 1; both log-probabilities are at temperature 1.
        """
        ids = [one.prompt_ids for one in prompts]
        first = [one.samples[0].ids for one in prompts]
        trainer, size = self.trainer, self.settings.training.per_device_eval_batch_size
        with progress(task, 2 * len(ids), "completion") as advance:
            policy = _logps(trainer.model, ids, first, size, advance)
            reference, off = self.reference()
            with off:
                later = lambda done, total: advance(len(ids) + done, 2 * total)  # noqa: E731
                ref = _logps(reference, ids, first, size, later)
        return [float(each) for each in (policy - ref)]

    def reference(self) -> tuple[Any, AbstractContextManager[Any]]:
        """The reference model, and the context in which it is the reference."""
        if self.trainer.ref_model is not None:
            return self.trainer.ref_model, nullcontext()
        return self.trainer.model, self.trainer.model.disable_adapter()

    def _paired(
        self, prompts: Sequence[PromptSamples], labelled: Labelled, number: int, policy: str
    ) -> tuple[Paired, list[PairRow], list[dict[str, Any]]]:
        """The pairs of this process, and the lines of both files."""
        paired = best_over_worst(prompts)
        source = self._source(policy, number)
        common = {
            "source": source,
            "round": number + 1,
            "seed": self.plan.seed_of(number),
            "simulated": self.simulated,
        }
        scale = self.stage.soft_label_scale
        rows = [pair_row(pair, common=common, soft_scale=scale) for pair in paired.pairs]
        return paired, rows, _completion_rows(prompts, labelled, common)

    def _source(self, policy: str, number: int) -> str:
        model = self.settings.model
        name = model_source(model.model_name_or_path, revision=model.model_revision)
        step = number * self.plan.num_steps
        return f"{name}+online_dpo@{policy[:12]} (step {step})"

    def _record(
        self,
        number: int,
        policy: str,
        paired: Paired,
        labelled: Labelled,
        mine: Sequence[PromptSamples],
        kls: Sequence[float],
    ) -> dict[str, Any]:
        """What round.json says, over all processes."""
        pairs = self.gathered([(each.best.score, each.worst.score) for each in paired.pairs])
        lost = self.gathered([(paired.num_ties, paired.num_identical)])
        counts = self.gathered([labelled.counts])
        metrics = {
            "round": number + 1,
            "step": number * self.plan.num_steps,
            "num_prompts": self.plan.size,
            "num_pairs": len(pairs),
            "num_ties": sum(ties for ties, _ in lost),
            "num_identical": sum(identical for _, identical in lost),
            "num_repeated": self.plan.num_repeated(len(pairs)),
            **{name: sum(each[name] for each in counts) for name in counts[0]},
            **self._score_metrics(mine, pairs),
            **completion_metrics(
                self.gathered([sample for one in mine for sample in one.samples]),
                self.gathered(list(kls)),
            ),
            **mean_of_each(self.gathered([labelled.noted.metrics])),
            "simulated": self.simulated,
        }
        return {
            "run": self.run,
            "policy": {"sha256": policy, "source": self._source(policy, number)},
            "seed": self.plan.seed_of(number),
            "metrics": metrics,
            "warnings": sorted(set(self.gathered(labelled.warnings))),
            "labeller": self.labeller.state_dict(),
        }

    def _score_metrics(
        self, mine: Sequence[PromptSamples], pairs: Sequence[tuple[float, float]]
    ) -> dict[str, float]:
        """Mean scores: of all samples where they have a scale, and of both sides of the pairs."""
        found: dict[str, float] = {}
        samples = self.gathered([sample for one in mine for sample in one.samples])
        if self.labeller.has_scale:
            found["score"] = float(np.mean([sample.score for sample in samples]))
            found["score_se"] = self._score_error(mine)
            for name in samples[0].scores:
                values = [each for one in samples if (each := one.scores[name]) is not None]
                found |= {f"score/{name}": float(np.mean(values))} if values else {}
        if pairs:
            best, worst = np.array(pairs, dtype=np.float64).mean(0)
            found |= {"chosen_score": float(best), "rejected_score": float(worst)}
        return found

    def _score_error(self, mine: Sequence[PromptSamples]) -> float:
        """The standard error of the mean score over prompts; 0 for a single one."""
        means = self.gathered(
            [float(np.mean([sample.score for sample in one.samples])) for one in mine]
        )
        return float(np.std(means, ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0

    def _announce(self, number: int, record: Mapping[str, Any]) -> None:
        """Say what came of a round and put it into the log, unless a checkpoint's log has it."""
        trainer, metrics = self.trainer, record["metrics"]
        if any(row.get("round") == number + 1 for row in trainer.state.log_history):
            return
        if is_main(self.settings):
            print(round_line(metrics, self.plan.num_rounds), file=sys.stderr)
            for words in record["warnings"]:
                print(f"warning: {words}", file=sys.stderr)
        logged = {key: metrics[key] for key in metrics if key in LOGGED or key.startswith("score")}
        # Not TRL's own log(), which would close its means over the steps since the last row.
        Trainer.log(trainer, {"round": number + 1} | logged)

    def records(self) -> list[dict[str, Any]]:
        """The records of the rounds that were begun."""
        begun = ceil(self.trainer.state.global_step / self.plan.num_steps)
        return [require_record(round_folder(self.output, number)) for number in range(begun)]

    def gathered(self, values: list[Any]) -> list[Any]:
        """The lists of all processes, one after the other."""
        if self.plan.num_processes == 1:
            return values
        found: list[Any] = gather_object(values)
        return found


def policy_sha256(model: Any) -> str:
    """The sha256 (hex) of all weights that are trained, by name."""
    digest = sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            digest.update(name.encode())
            values = weight.detach().cpu().contiguous().reshape(-1)
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _logps(
    model: Any,
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    batch_size: int,
    advance: Advance,
) -> torch.Tensor:
    """[B] summed log-probabilities in nats, float32 on the CPU."""
    with evaluating(model), torch.no_grad():
        return sequence_logps(
            model, prompt_ids, completion_ids, batch_size=batch_size, on_progress=advance
        )


def _completion_rows(
    prompts: Sequence[PromptSamples], labelled: Labelled, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The lines of completions.jsonl, as `rlhf sample` writes them, with the scores."""
    rows: list[dict[str, Any]] = []
    first = 0
    for one in prompts:
        count = len(one.samples)
        columns = labelled.noted.columns.items()
        rows.append(
            {
                "prompt": one.prompt,
                "completions": [sample.text for sample in one.samples],
                "source": [common["source"]] * count,
                "ended": [sample.ended for sample in one.samples],
                "seed": [common["seed"]] * count,
                "draw": [sample.draw for sample in one.samples],
                "score": [sample.score for sample in one.samples],
                "scores": [sample.scores for sample in one.samples],
                "simulated": common["simulated"],
                **{f"noted_{name}": values[first : first + count] for name, values in columns},
            }
        )
        first += count
    return rows
