"""The rows of a reward stage: read, labelled, split, tokenised, and counted where lost."""

import sys
from dataclasses import dataclass

from rlhf.data.columns import Columns, refuse_no_rows, reward_columns
from rlhf.data.doctor import Side
from rlhf.data.formats import Pair, preference_pairs
from rlhf.data.tokenization import Renderer
from rlhf.training.arguments import Settings
from rlhf.training.preferences.labels import (
    LabelPlan,
    label_columns,
    labelled_pairs,
    plan_labels,
    refuse_no_labels,
)
from rlhf.training.stage import Inputs, is_main, read_sides, report_inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRows:
    """Tokenised rows and the pairs that they are of, to train on and to measure on."""

    plan: LabelPlan
    train: Columns
    train_pairs: list[Pair]
    heldout: Columns
    heldout_pairs: list[Pair]


def read_columns(settings: Settings, renderer: Renderer, inputs: Inputs) -> RewardRows:
    """The rows of a run: chosen first, labelled as --labels, --ties and --criteria say.

    --max_length bounds training only: a held-out pair is scored whole, however long. DataError
    when nothing is left to train on, or nothing tells better from worse.
    """
    train, heldout = read_sides(settings, inputs, preference_pairs)
    heldout_data = inputs.heldout or inputs.train
    plan = plan_labels(settings.stage, train, inputs.train.name)
    refuse_no_labels(train, plan, inputs.train.name)
    train = labelled_pairs(train, plan, inputs.train.losses)
    heldout = labelled_pairs(heldout, plan, heldout_data.losses)
    max_length = settings.training.max_length
    train_rows, train = reward_columns(train, renderer, max_length, inputs.train.losses)
    refuse_no_rows(train_rows, inputs.train.name, inputs.train.losses)
    heldout_rows, heldout = reward_columns(heldout, renderer, None, heldout_data.losses)
    sides = Side(train, train_rows), Side(heldout, heldout_rows)
    report_inputs(inputs, settings, "pairs", renderer, *sides)
    if is_main(settings) and inputs.reports:
        print(plan.words(), file=sys.stderr)
    for rows, pairs in ((train_rows, train), (heldout_rows, heldout)):
        for row, label in zip(rows, label_columns(pairs, plan), strict=True):
            row |= label
    return RewardRows(
        plan=plan,
        train=train_rows,
        train_pairs=train,
        heldout=heldout_rows,
        heldout_pairs=heldout,
    )
