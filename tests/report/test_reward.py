"""The reward model's charts and the pairs that it misjudges."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.report.figures import figures
from rlhf.report.findings import findings
from rlhf.report.judgements import MAX_ROWS, anchor_of, judgement_rows, raters_names, voices_of
from rlhf.report.misjudged import word_differences, worst_cards
from rlhf.report.page import render, vega_bundle
from rlhf.report.pairs import heldout_pairs
from rlhf.report.reading import Run, read_run
from rlhf.report.reward_charts import histogram
from tests.report.reward_runs import NUM_PAIRS, WORST, write_rows
from tests.report.runs import HOSTILE, make_run

NEW_FILES = ("reward/train_sample.jsonl", "reward/doctor.json", "ratings/judgements.jsonl")


def run_of(folder: Path, **changes: Any) -> Run:
    return read_run(make_run(folder / "run", **changes))


def captions(run: Run) -> dict[str, str]:
    return {item["title"]: item["caption"] for item in figures(run)["reward"]}


def small_run(folder: Path, rows: list[dict[str, Any]]) -> Run:
    """A run whose held-out pairs are `rows`."""
    make_run(folder / "run")
    write_rows(folder / "run" / "reward" / "heldout.jsonl", rows)
    return read_run(folder / "run")


def pair(index: int, gap: float, **changes: Any) -> dict[str, Any]:
    texts = {"prompt": f"question {index}", "chosen": "a b c", "rejected": "a b"}
    return {**texts, "chosen_score": gap, "rejected_score": 0.0, "p_chosen": 0.9, **changes}


def test_accuracy_is_drawn_by_every_kind_of_pair_with_its_count(tmp_path: Path) -> None:
    run = small_run(
        tmp_path,
        [pair(i, 1.0, margin=3.0, votes=[vote("a", "chosen")]) for i in range(8)]
        + [pair(i, -1.0, margin=0.5, votes=[vote("b", "chosen")]) for i in range(8, 12)]
        + [pair(12, -1.0, p_chosen=0.5)],  # a tie is in no accuracy
    )
    drawn = {item["title"]: item for item in figures(run)["reward"]}
    # Of 12 decided pairs 8 are right; Wilson's interval of 8 of 8 begins at 1 / (1 + z^2 / 8).
    strength = drawn["Accuracy by strength of preference"]["caption"]
    assert strength == "strength 0 to 1: 0% (0% to 49%); strength over 2: 100% (68% to 100%)."
    raters = drawn["Agreement with each rater"]["caption"]
    assert raters == "a: 100% (68% to 100%); b: 0% (0% to 49%)."
    labels = json.dumps(drawn["Agreement with each rater"]["spec"])
    assert "a: 100% (n=8)" in labels
    assert "b: 0% (n=4)" in labels


def vote(rater: str, prefers: str) -> dict[str, Any]:
    return {"id": None, "rater": rater, "prefers": prefers, "strength": 1}


def test_training_pairs_stand_beside_the_held_out(tmp_path: Path) -> None:
    caption = captions(run_of(tmp_path))["Accuracy and its ceiling"]
    assert "on its training pairs: 100%" in caption


def test_a_temperature_is_shown_before_and_after(tmp_path: Path) -> None:
    drawn = {item["title"]: item for item in figures(run_of(tmp_path))["reward"]}
    reliability = drawn["Reliability"]
    assert "as it is, said" in reliability["caption"]
    assert "at temperature" in reliability["caption"]
    assert "the temperature that fits the other half best" in reliability["note"]


@pytest.mark.parametrize(
    ("spreads", "expected"),
    [
        # Every mistake has a larger spread than every right pair, or a smaller one.
        ((0.1, 0.9), "The ensemble's spread predicts mistakes: AUROC 1.00"),
        ((0.9, 0.1), "This run does not show that the ensemble's spread predicts mistakes"),
    ],
)
def test_says_whether_the_spread_predicts_mistakes(
    tmp_path: Path, spreads: tuple[float, float], expected: str
) -> None:
    def member_scores(gap: float, spread: float) -> dict[str, Any]:
        return {
            "chosen_member_scores": [gap + spread, gap - spread],
            "rejected_member_scores": [0.0, 0.0],
        }

    right = [pair(i, 1.0, **member_scores(1.0, spreads[0] + i / 1000)) for i in range(30)]
    wrong = [pair(i, -1.0, **member_scores(-1.0, spreads[1] + i / 1000)) for i in range(30, 40)]
    run = small_run(tmp_path, right + wrong)
    assert expected in " ".join(finding.text for finding in findings(run))
    # Four bins of ten: the ten mistakes fill the last, or the first.
    wrong_in = ["0%", "0%", "0%", "100%"]
    wrong_in = wrong_in if spreads[0] < spreads[1] else wrong_in[::-1]
    caption = captions(run)["Mistakes by the ensemble's spread"]
    assert [text.split(": ")[1].split(" ")[0] for text in caption.split("; ")] == wrong_in


def test_each_head_is_held_to_its_own_criterion(tmp_path: Path) -> None:
    def of_heads(index: int, helpful: float, label: float) -> dict[str, Any]:
        scores = {"helpful": helpful, "brief": 0.0}
        heads = {"chosen_head_scores": scores, "rejected_head_scores": {"helpful": 0, "brief": 0}}
        return pair(index, 1.0, criteria={"helpful": label, "brief": 0.5}, **heads)

    # Right on the first four, where the criterion goes against the label on two; wrong on four.
    told = [(1.0, 0.9), (1.0, 0.9), (-1.0, 0.1), (-1.0, 0.1)] + 4 * [(-1.0, 0.9)]
    run = small_run(tmp_path, [of_heads(i, *each) for i, each in enumerate(told)])
    caption = captions(run)["Accuracy by criterion"]
    assert caption.startswith("helpful: 50% (")
    assert "brief" not in caption  # ties only


def test_a_histogram_counts_every_score_once() -> None:
    bins = histogram({"chosen": [0.0, 1.0, 2.0], "rejected": [2.0]}, num_bins=2)
    assert [(row["side"], row["start"], row["count"]) for row in bins] == [
        ("chosen", 0.0, 1),
        ("chosen", 1.0, 2),
        ("rejected", 1.0, 1),
    ]
    assert histogram({"chosen": [1.0]})[0]["count"] == 1


def test_the_worst_pair_comes_first_and_its_difference_is_marked(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    names = raters_names(run)
    card = worst_cards(run, heldout_pairs(run), names)[0]
    assert card["gap"] == pytest.approx(4.5)
    marked = [[text for text, changed in side["segments"] if changed] for side in card["sides"]]
    assert marked == [["dry"], ["wet"]]
    assert [voice.id for voice in card["voices"]] == run.heldout[WORST]["judgement_ids"]
    assert card["voices"][0].rationale == "It dries out otherwise."
    page = render(run)
    assert "The rejected one scores 4.50 higher" in page
    assert "<mark>dry</mark>" in page


def test_word_differences_join_to_the_texts_and_spare_what_shares_nothing() -> None:
    texts = ("one  two\nthree", "one  2\nthree four")
    first, second = word_differences(*texts)
    assert "".join(text for text, _ in first) == texts[0]
    assert "".join(text for text, _ in second) == texts[1]
    assert [text for text, changed in second if changed] == ["2", "four"]
    assert word_differences("a b c", "x y z") == ([("a b c", False)], [("x y z", False)])
    long = "word " * 900
    assert word_differences(long, "word")[0] == [(long, False)]


def test_links_lead_from_a_pair_to_its_judgements_and_back(tmp_path: Path) -> None:
    page = render(run_of(tmp_path))
    assert 'href="#judgement-judgement-00021"' in page
    assert page.count('id="judgement-judgement-00021"') == 1
    row = page.partition('id="judgement-judgement-00021"')[2].partition("</tr>")[0]
    assert 'href="#pair-1"' in row
    assert "It dries out otherwise." in row


def test_votes_without_a_rater_are_named_by_the_judgements_or_not_at_all(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for row in run.heldout:
        row["votes"] = [{**each, "rater": None} for each in row["votes"]]
    assert captions(run)["Agreement with each rater"].startswith("simulated-1: ")
    run.judgements = {}
    assert "Agreement with each rater" not in captions(run)


def test_raters_stay_under_their_pseudonyms(tmp_path: Path) -> None:
    run = run_of(tmp_path, simulated=False)
    assert "real name" in json.dumps(run.judgements)
    assert "real name" not in render(run)
    for row in run.heldout:  # an older run: no votes in the rows
        del row["votes"]
    page = render(run)
    assert "real name" not in page
    assert "rater-1" in page
    voices = voices_of(run, run.heldout[WORST], raters_names(run))
    assert [voice.prefers for voice in voices] == ["chosen", "chosen", "chosen"]


def test_what_a_judgement_says_in_words(tmp_path: Path) -> None:
    run = small_run(tmp_path, [pair(0, -1.0, judgement_ids=["a", "b", "c", "d", "e"])])
    said = {"completions": ["a b", "a b c"], "annotator": "x", "shown_order": [1, 0]}
    run.judgements = {
        "a": said | {"verdict": -3, "both_bad": True},
        "b": said | {"ranking": [2, 1], "ratings": {"truth": [4, 5]}},
        "c": said | {"skip": "not my field"},
        "d": said | {"verdict": 2, "completions": ["other", "texts"]},
        "e": {},
    }
    voices = voices_of(run, run.heldout[0], raters_names(run))
    assert [voice.words for voice in voices] == [
        "the rejected much better; both bad",
        "ranking: 2/1; ratings: truth 4/5",
        "skipped: not my field",
        "completion 2 better",
        "no preference",
    ]
    assert [voice.prefers for voice in voices] == ["rejected", "chosen", None, None, None]
    assert [voice.shown_first for voice in voices][:1] == ["the chosen"]
    run.judgements = {}  # the votes alone
    votes = [{"id": "a", "prefers": "rejected", "strength": 3.0}, {"id": "b", "prefers": "tie"}]
    votes.append({"id": "c", "prefers": "chosen", "strength": 1.5})
    voices = voices_of(run, run.heldout[0] | {"votes": votes}, {})
    assert [voice.words for voice in voices] == [
        "the rejected much better",
        "a tie",
        "the chosen better by 1.5",
    ]


def test_anchors_are_safe_and_apart() -> None:
    assert anchor_of("simulated-1a.2") == "judgement-simulated-1a.2"
    hostile = [anchor_of(text) for text in ('"><img>', "a b", "a  b", "é", "")]
    assert len(set(hostile)) == 5
    assert all(
        set(anchor) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.img") for anchor in hostile
    )


def test_no_more_judgements_are_written_out_than_fit(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for index, row in enumerate(run.heldout):
        row["judgement_ids"] = [f"j{index}-{i}" for i in range(10)]
        row["votes"] = [vote("a", "chosen") | {"id": one} for one in row["judgement_ids"]]
    names = raters_names(run)
    cards = worst_cards(run, heldout_pairs(run), names)
    rows = judgement_rows(run, cards, names)
    assert len(rows) == MAX_ROWS < 10 * NUM_PAIRS
    assert [row["voice"].id for row in rows[:10]] == run.heldout[WORST]["judgement_ids"]
    page = render(run)
    for row in run.heldout:  # those that are not written out are in the list of ids
        assert page.count(f'id="{anchor_of(row["judgement_ids"][0])}"') == 1


def test_hostile_texts_of_a_pair_stay_inert(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    row = run.heldout[WORST]
    row |= {"prompt": HOSTILE, "chosen": HOSTILE, "rejected": f"{HOSTILE} more"}
    row["judgement_ids"] = [HOSTILE]
    row["votes"] = [{"id": HOSTILE, "rater": HOSTILE, "prefers": HOSTILE, "strength": HOSTILE}]
    run.judgements[HOSTILE] = {
        "annotator": HOSTILE,
        "completions": [HOSTILE, HOSTILE],
        "ranking": [HOSTILE],
        "rationale": HOSTILE,
        "seconds": HOSTILE,
        "shown_order": [HOSTILE],
    }
    run.doctor = {HOSTILE: [{"name": HOSTILE, "words": HOSTILE, "examples": [HOSTILE, {}]}]}
    page = render(run).replace(vega_bundle(), "")
    assert "<script>window.pwned" not in page
    assert "<img" not in page
    assert "<b>bold" not in page
    assert "{{ 7 * 7 }}" in page


def test_an_older_run_renders_without_any_of_the_new_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for name in (*NEW_FILES, "gate/gate.json", "gate/manifest.json"):
        (folder / name).unlink()
    old = ("prompt", "chosen", "rejected", "chosen_score", "rejected_score", "p_chosen")
    rows = read_run(folder).heldout
    kept = [{key: row[key] for key in (*old, "judgement_ids")} for row in rows]
    write_rows(folder / "reward" / "heldout.jsonl", kept)
    run = read_run(folder)
    run.doctor = {}
    page = render(run)
    assert run.gaps == ["gate: it has not been asked, so nothing has checked the reward model"]
    assert "Agreement with each rater" not in page
    assert 'id="pair-1"' in page
    assert 'id="judgement-judgement-00021"' in page  # in the list of ids


def test_rows_without_scores_or_texts_are_left_out(tmp_path: Path) -> None:
    broken = [{}, pair(1, 1.0, chosen=None), pair(2, 1.0, chosen_score="high")]
    run = small_run(tmp_path, [*broken, pair(3, 1.0)])
    pairs = heldout_pairs(run)
    assert pairs is not None
    assert len(pairs) == 1
    assert "reward: 3 rows of heldout.jsonl have no texts or scores and are left out" in run.gaps
    render(run)
    assert heldout_pairs(small_run(tmp_path / "none", broken)) is None


def test_a_stage_alone_is_reported(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    run = read_run(folder / "reward")
    page = render(run)
    assert run.gaps == []
    assert list(run.stages) == ["reward"]
    assert 'id="stage-reward"' in page
    assert "not run" not in page
    assert "The worst misjudged pairs" in page


def test_files_that_are_damaged_within_a_line_do_not_stop_the_page(tmp_path: Path) -> None:
    """Half characters, ids that are none, a step that is none, brackets without end."""
    make_run(tmp_path / "run")
    folder = tmp_path / "run" / "reward"
    rows = [pair(i, -1.0, num_chosen_tokens=3, num_rejected_tokens=2) for i in range(4)]
    rows[0] |= {"prompt": "half \ud83d", "judgement_ids": ["\ud83d", None, 3], "item": "\ud83d"}
    rows[1] |= {"num_chosen_tokens": "three"}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "heldout.jsonl").write_text(lines)
    (folder / "log.json").write_text('[{"step": null, "loss": 1}, {"step": 1, "loss": 0.5}]')
    (folder / "doctor.json").write_text("[" * 5000)
    (tmp_path / "run" / "ratings" / "judgements.jsonl").write_text('{"prompt": "p"}\n')
    run = read_run(tmp_path / "run")
    assert [row["prompt"] for row in run.heldout] == ["half ?", "question 2", "question 3"]
    assert [row["step"] for row in run.logs["reward"]] == [1]
    render(run).encode()
