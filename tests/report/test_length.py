"""The length probe beside every policy's win rate."""

from pathlib import Path

import pytest

from rlhf.report.length import lengths_of
from rlhf.report.reading import Run
from tests.report.ppo_runs import (
    loud,
    run_of,
    texts_of,
)


def with_texts(run: Run, **words: list[int]) -> Run:
    """The run with completions of so many words for each policy, a row for each number."""
    names = list(words)
    run.rows = [
        {
            "prompt": f"p{index}",
            "policies": {
                name: {"text": " ".join("w" * count), "scores": {"simulated truth": 0.5}}
                for name, count in zip(names, counts, strict=True)
            },
        }
        for index, counts in enumerate(zip(*words.values(), strict=True))
    ]
    return run


def test_a_policy_that_won_by_getting_shorter_is_said_loudly(tmp_path: Path) -> None:
    run = with_texts(run_of(tmp_path), sft=[17, 18, 19] * 8, ppo=[9, 10, 11] * 8)
    told = texts_of(run)
    at = next(index for index, text in enumerate(told) if text.startswith("PPO's completions are"))
    assert told[at - 1].startswith("PPO's completions beat SFT's on 70%")
    # 18 to 10 words, by resampling 24 prompts of deviation 0.82: 0.17 either way, twice.
    assert told[at].startswith(
        "PPO's completions are 44% SHORTER than SFT's: 10.0 (9.7\u201310.3) words on average, "
        "SFT's 18.0 (17.7\u201318.3) (in brackets 95% intervals). What it won may have been won by "
        "shorter completions."
    )
    assert "It was not shorter on 0 prompts only" in told[at]
    assert told[at] in loud(run)


def test_a_policy_that_won_by_getting_longer_is_said_loudly_too(tmp_path: Path) -> None:
    run = with_texts(run_of(tmp_path), sft=[10, 11] * 12, dpo=[15, 16] * 12)
    text = next(text for text in loud(run) if text.startswith("DPO"))
    assert text.startswith("DPO's completions are 48% LONGER than SFT's: 15.5 (")
    assert "won by longer completions" in text


def test_what_a_policy_wins_where_it_is_not_shorter(tmp_path: Path) -> None:
    run = with_texts(run_of(tmp_path), sft=[18] * 40, ppo=[8] * 30 + [18] * 10)
    for index, row in enumerate(run.rows):
        # It wins wherever it is shorter, and 3 of the 10 where it is not.
        won = index < 33
        row["policies"]["ppo"]["scores"] = {"simulated truth": 1.0 if won else 0.0}
    text = next(text for text in loud(run) if text.startswith("PPO's completions are"))
    assert "On the 10 prompts where it was not shorter it won 30% (95% interval" in text


@pytest.mark.parametrize(
    "ppo",
    [
        [17, 18, 19] * 8,  # as long
        [15, 16, 17] * 8,  # shorter by a tenth: nobody sees it
        [1, 1, 38] * 8,  # a quarter shorter on average, but that is chance
    ],
)
def test_a_policy_of_the_same_length_is_said_quietly(tmp_path: Path, ppo: list[int]) -> None:
    run = with_texts(run_of(tmp_path, stops=False), sft=[17, 18, 19] * 8, ppo=ppo)
    assert not [text for text in loud(run) if "completions" in text]
    assert any(text.startswith("PPO's completions have ") for text in texts_of(run))


def test_lengths_need_texts_and_one_prompt_has_no_interval(tmp_path: Path) -> None:
    run = with_texts(run_of(tmp_path), sft=[18], ppo=[10])
    assert "10.0 words on average" in " ".join(texts_of(run))
    assert not [text for text in loud(run) if "SHORTER" in text]
    assert lengths_of(run, "dpo", "sft") is None
    run.rows = [{"policies": {"ppo": None, "sft": {}}}, {"policies": []}]
    assert lengths_of(run, "ppo", "sft") is None
