"""Published numbers on real judgements: the three annotators of PandaLM's test set.

Wang et al., "PandaLM: An automatic evaluation benchmark for LLM instruction tuning
optimization", 2024: Cohen's kappas 0.85, 0.88 and 0.86.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from rlhf.feedback.imports import import_file
from rlhf.feedback.quality import agreement_report, rater_table, reliability_report
from rlhf.feedback.store import Store
from tests.feedback.makers import row, write_jsonl

pytestmark = pytest.mark.shared_data

RATERS = ("annotator1", "annotator2", "annotator3")
VERDICTS = {0: 0, 1: -1, 2: 1}  # theirs: a tie, the first, the second


@pytest.fixture(scope="module")
def published() -> list[dict[str, Any]]:
    folder = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
    path = folder / "pandalm.json"
    if not path.exists():
        pytest.skip(f"no real human data at {folder} (set RLHF_TEST_DATA)")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def store(
    published: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """The judgements in a store, to be read."""
    folder = tmp_path_factory.mktemp("pandalm")
    rows = [
        row(
            campaign="pandalm",
            item=f"pandalm-{one['idx']}",
            prompt="\n\n".join(part for part in (one["instruction"], one["input"]) if part),
            completions=[str(one["response1"]), str(one["response2"])],  # one is the bare word true
            annotator=rater,
            verdict=VERDICTS[one[rater]],
        )
        for one in published
        for rater in RATERS
    ]
    with Store.open(folder / "feedback.db", create=True) as store:
        import_file(store, write_jsonl(folder / "pandalm.jsonl", *rows))
        yield store


def test_import_keeps_items_texts_and_votes(store: Store) -> None:
    items = store.comparisons("pandalm")
    assert len(items) == 999
    texts = [(one.prompt.content, *(each.text for each in one.completions)) for one in items]
    assert len(set(texts)) == 900
    assert sum("" in one[1:] for one in texts) == 54
    votes: dict[str, list[int]] = {}
    for one in store.judgements("pandalm"):
        votes.setdefault(one.item, []).append(one.verdict or 0)
    majority = Counter(Counter(each).most_common(1)[0][0] for each in votes.values())
    assert (majority[0], majority[-1], majority[1]) == (105, 422, 472)


def test_agreement_is_the_published_one(store: Store) -> None:
    report = agreement_report(store, "pandalm")
    kappas = {(one["a"], one["b"]): one["kappa"] for one in report["pairs"]}
    assert sorted(kappas) == list(combinations(RATERS, 2))
    assert sorted(round(each, 2) for each in kappas.values()) == [0.85, 0.86, 0.88]
    assert all(one["n"] == 999 for one in report["pairs"])
    alpha = report["krippendorff_alpha"]["nominal"]
    assert alpha["low"] < alpha["value"] < alpha["high"]
    # three raters with all items: alpha is nearly the mean of the kappas
    assert alpha["value"] == pytest.approx(sum(kappas.values()) / 3, abs=0.005)
    assert report["simulated"] is False


def test_people_who_agree_are_found_reliable(store: Store) -> None:
    report = reliability_report(store, "pandalm")
    assert [one["name"] for one in report["raters"]] == list(RATERS)
    assert all(0.9 < one["low"] < one["value"] < one["high"] <= 1 for one in report["raters"])
    # some items are asked twice, but no three texts are compared in a circle
    assert "share no completions" in report["connectivity"]["refusal"] or "circle" in str(
        report["connectivity"]["refusal"]
    )
    assert [one.num_judged for one in rater_table(store, "pandalm")] == [999] * 3
