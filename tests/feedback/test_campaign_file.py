"""Campaigns out of YAML: made whole, made once, and every mistake named by its key."""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.errors import ConfigError, DataError, RlhfError
from rlhf.feedback import sampling
from rlhf.feedback.campaign_file import (
    KEYS,
    create_campaign,
    create_campaign_from_text,
    plan_campaign,
    template_names,
    template_text,
)
from rlhf.feedback.pairing import make_comparisons
from rlhf.feedback.protocols import protocol_of
from rlhf.feedback.store import Store
from tests.feedback.makers import write_jsonl

TEMPLATES = [name for name, _ in template_names()]
COMPLETIONS = {
    "prompt": "Name a tree.",
    "completions": ["Oak", {"text": "Elm", "source": "m1", "ended": False}],
}


def written(folder: Path, **values: Any) -> Path:
    """A campaign file with rows of completions beside it, where it names none."""
    write_jsonl(folder / "rows.jsonl", COMPLETIONS)
    keys = {"name": "c", "task": "pairwise", "completions": "rows.jsonl", **values}
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in keys.items() if v is not ...}))
    return path


def make(store: Store, folder: Path, **values: Any) -> Any:
    return create_campaign(store, plan_campaign(written(folder, **values)))


def test_the_templates_that_were_promised_are_there() -> None:
    assert set(TEMPLATES) >= {
        *("hh_helpful", "hh_harmless", "instructgpt_ranking", "llama2_strengths", "helpsteer"),
        *("rewrite", "flags"),
    }
    assert all(title and title != name for name, title in template_names())


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_makes_a_campaign(sqlite_store: Store, tmp_path: Path, name: str) -> None:
    task = yaml.safe_load(template_text(name))["task"]
    created = make(sqlite_store, tmp_path, template=name, task=...)
    assert created.num_items == 1
    campaign = sqlite_store.campaign("c")
    assert campaign.task == task
    assert campaign.settings["template"] == name
    assert len(campaign.guideline) > 300
    assert protocol_of(campaign.task, campaign.settings).title
    assert sqlite_store.problems() == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_names_its_source_or_is_plain(name: str) -> None:
    text = template_text(name)
    assert text.startswith("#")  # says what it is and after whom
    if name != "flags":
        assert "arXiv:" in text


def test_llama2_has_four_strengths_and_marks_safety() -> None:
    values = yaml.safe_load(template_text("llama2_strengths"))
    assert [choice["value"] for choice in values["scale"]] == [-3, -2, -1, 0, 1, 2, 3]
    assert "unsure" in values["scale"][3]["label"]
    assert [flag["name"] for flag in values["flags"]] == ["unsafe"]


def test_helpsteer_has_five_criteria_from_0_to_4_with_words_at_each_point() -> None:
    protocol = protocol_of("ratings", yaml.safe_load(template_text("helpsteer")))
    names = [criterion.name for criterion in protocol.criteria]
    assert names == ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
    for criterion in protocol.criteria:
        assert (criterion.low, criterion.high) == (0, 4)
        assert list(criterion.anchors) == [0, 1, 2, 3, 4]


def test_everything_in_the_file_is_in_the_campaign(store: Store, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Look\n")
    created = make(
        store,
        tmp_path,
        guideline_file="guide.md",
        overlap=3,
        lease_s=60,
        seed=7,
        rationale=False,  # what YAML makes of a bare `off`
        gold_share=0.1,
        gold=[{**COMPLETIONS, "expected": {"verdict": -2}}],
        qualification=[{**COMPLETIONS, "item": "q", "expected": {"flags": [[], ["unsafe"]]}}],
        flags=["unsafe"],
        consent="You may stop at any time.",
    )
    campaign = store.campaign("c")
    assert (campaign.overlap, campaign.lease_s, campaign.seed) == (3, 60, 7)
    assert campaign.guideline == "# Look\n"
    assert campaign.settings["rationale"] == "off"
    assert (created.num_items, created.num_gold, created.num_qualification) == (1, 1, 1)
    assert sorted(store.purposes("c").values()) == ["gold", "qualification", "rate"]
    assert store.gold("c")["q"] == {"flags": [[], ["unsafe"]]}
    (rated,) = [o for o in store.comparisons("c") if store.purposes("c")[o.item] == "rate"]
    assert [one.text for one in rated.completions] == ["Oak", "Elm"]
    assert (rated.completions[1].source, rated.completions[1].ended) == ("m1", False)
    assert store.problems() == []


def test_again_with_the_same_file_changes_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    path = written(tmp_path, overlap=2)
    assert create_campaign(sqlite_store, plan_campaign(path)).new
    sqlite_store.revise_guideline("c", "a lead has written this since")
    before = sqlite_store.campaign("c"), sqlite_store.comparisons("c")
    again = create_campaign(sqlite_store, plan_campaign(path))
    assert (again.new, again.num_items) == (False, 1)
    assert (sqlite_store.campaign("c"), sqlite_store.comparisons("c")) == before


def test_the_same_file_from_another_folder_is_the_same(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_campaign(sqlite_store, plan_campaign(written(tmp_path)))
    monkeypatch.chdir(tmp_path)
    assert not create_campaign(sqlite_store, plan_campaign(Path("campaign.yaml"))).new


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"overlap": 3}, "overlap"),
        ({"task": "flags", "flags": ["unsafe"]}, "task"),
        ({"guideline": "other"}, "guideline"),
        ({"consent": "other"}, "consent"),
        ({"completions": [{"prompt": "p", "completions": ["a", "b"]}]}, "completions"),
    ],
)
def test_another_content_under_the_same_name_is_refused_by_key(
    sqlite_store: Store, tmp_path: Path, changed: dict[str, Any], key: str
) -> None:
    make(sqlite_store, tmp_path)
    before = sqlite_store.campaigns(), sqlite_store.comparisons("c")
    with pytest.raises(ConfigError, match=f"'c' is there with another {key}"):
        make(sqlite_store, tmp_path, **changed)
    assert (sqlite_store.campaigns(), sqlite_store.comparisons("c")) == before


GOLD = {**COMPLETIONS, "expected": {"verdict": 1}}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"overlp": 2}, "unknown key 'overlp'; did you mean 'overlap'?"),
    "no name": ({"name": ...}, "no name"),
    "name a number": ({"name": 2026}, "name 2026: text"),
    "no task": ({"task": ...}, "no task"),
    "task": ({"task": "pairwize"}, "'pairwize' is none; did you mean 'pairwise'?"),
    "overlap": ({"overlap": 0}, "overlap 0: a whole number"),
    "overlap yes": ({"overlap": True}, "overlap True"),
    "lease": ({"lease_s": -1}, "lease_s -1"),
    "seed": ({"seed": "x"}, "seed 'x'"),
    "template": ({"template": "helpster"}, "did you mean 'helpsteer'?"),
    "template's task": ({"template": "helpsteer"}, "task 'pairwise': the template"),
    "protocol": ({"gold_share": 2}, "gold_share 2"),
    "criteria": ({"task": "ratings"}, "needs criteria"),
    "scale": ({"scale": 5}, "scale: a list is needed"),
    "a scale of truth": (
        {"scale": [{"value": v, "label": "x", "short": "x"} for v in (False, True)]},
        "value False is not a whole number",
    ),
    "bounds of truth": (
        {"task": "ratings", "criteria": [{"name": "x", "title": "X", "low": False, "high": True}]},
        "needs whole numbers",
    ),
    "a title of numbers": (
        {"task": "ratings", "criteria": [{"name": "x", "title": [1]}]},
        "criteria: title [1]: text is needed",
    ),
    "a label that is none": ({"flags": [{"name": "x", "label": True}]}, "flags: label True: text"),
    "a name of nothing": ({"name": "  "}, "a name that can be read"),
    "a name with a control": ({"name": "a\0b"}, "a name that can be read"),
    "a flag of nothing": ({"flags": [" "]}, "flags: each entry needs"),
    "a title of nothing": (
        {"task": "ratings", "criteria": [{"name": "x", "title": ""}]},
        "criteria: title: it is empty",
    ),
    "paused": ({"paused": "no"}, "paused 'no': true or false"),
    "guidelines": ({"guideline": "a", "guideline_file": "b"}, "give one of them"),
    "guideline file": ({"guideline_file": "none.md"}, "guideline_file: "),
    "no completions": ({"completions": ...}, "no completions; give"),
    "missing file": ({"completions": "none.jsonl"}, "completions: "),
    "empty": ({"completions": []}, "no rows in it"),
    "both": ({"sample": {"models": ["m"], "dataset_name": "p"}}, "completions and sample"),
    "one completion": ({"completions": [{"prompt": "p", "completions": ["a"]}]}, "1 completions"),
    "no text": ({"completions": [{"prompt": "p", "completions": [1, 2]}]}, "is not text"),
    "no prompt": ({"completions": [{"completions": ["a", "b"]}]}, "no 'prompt'"),
    "which pairs": ({"completions": [{"prompt": "p", "completions": list("abc")}]}, "add `pairs:`"),
    "pairs": ({"pairs": "adjacant"}, "did you mean 'adjacent'?"),
    "pairs of ranking": ({"task": "ranking", "pairs": "all"}, "leave the key out"),
    "ranking one": (
        {"task": "ranking", "completions": [{"prompt": "p", "completions": ["a"]}]},
        "2 to 9 can be ranked",
    ),
    "item twice": ({"completions": [{**COMPLETIONS, "item": "i"}] * 2}, "'i' stands twice"),
    "gold unseen": ({"gold": [GOLD]}, "set gold_share"),
    "gold empty": ({"gold": [COMPLETIONS], "gold_share": 0.1}, "no expected values"),
    "gold key": (
        {"gold": [{**COMPLETIONS, "expected": {"verdikt": 1}}], "gold_share": 0.1},
        "did you mean 'verdict'?",
    ),
    "gold value": (
        {"gold": [{**COMPLETIONS, "expected": {"verdict": 9}}], "gold_share": 0.1},
        "not within -3..3",
    ),
    "gold scale": (
        {
            "gold": [GOLD],
            "gold_share": 0.1,
            "scale": [{"value": v, "label": "l", "short": "s"} for v in (-2, 2)],
        },
        "not on this campaign's scale",
    ),
    "gold flag": (
        {"gold": [{**COMPLETIONS, "expected": {"flags": [["rude"], []]}}], "gold_share": 0.1},
        "'rude' is not one",
    ),
    "sample key": (
        {"completions": ..., "sample": {"models": ["m"], "datset_name": "p"}},
        "did you mean 'dataset_name'?",
    ),
    "a date for a text": (
        {"completions": [{"prompt": date(2026, 1, 2), "completions": ["a", "b"]}]},
        "row 1: Object of type date",
    ),
    "sample a date": (
        {"completions": ..., "sample": {"models": ["m"], "prompts": [date(2026, 1, 2)]}},
        "sample.prompts",
    ),
    "sample nothing": ({"completions": ..., "sample": {"models": []}}, "sample.models"),
    "sample prompts": (
        {"completions": ..., "sample": {"models": ["m"]}},
        "give one of dataset_name",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_that_names_file_and_key(
    sqlite_store: Store, tmp_path: Path, mistake: str
) -> None:
    values, message = MISTAKES[mistake]
    path = written(tmp_path, **values)
    with pytest.raises(RlhfError) as caught:
        create_campaign(sqlite_store, plan_campaign(path))
    said = str(caught.value)
    assert message in said
    assert "campaign.yaml" in said
    assert "\n" not in said
    assert sqlite_store.campaigns() == []


def test_what_fails_half_way_leaves_nothing(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_campaign(written(tmp_path, gold=[GOLD], gold_share=0.1))
    whole = sqlite_store.add_comparisons

    def failing(*args: Any, **values: Any) -> int:
        if values.get("purpose") == "gold":
            raise DataError("the disk is full")
        return whole(*args, **values)

    monkeypatch.setattr(sqlite_store, "add_comparisons", failing)
    with pytest.raises(DataError):
        create_campaign(sqlite_store, plan)
    assert sqlite_store.campaigns() == []


def test_an_item_cannot_be_gold_and_rated(sqlite_store: Store, tmp_path: Path) -> None:
    rows = [{**COMPLETIONS, "item": "i"}]
    with pytest.raises(DataError, match="item 'i' is among the completions, too"):
        make(sqlite_store, tmp_path, completions=rows, gold=[{**GOLD, "item": "i"}], gold_share=0.1)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("adjacent", [("a", "b"), ("b", "c"), ("c", "d")]),
        ("all", [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]),
    ],
)
def test_which_pairs_are_made_of_four_completions(pairs: Any, expected: Any) -> None:
    rows = [("r", {"prompt": "p", "completions": list("abcd"), "item": "i"})]
    made = make_comparisons(rows, num_per_prompt=9, seed=0, pairs=pairs)
    texts = [tuple(one.text for one in item.completions) for item in made.comparisons]
    assert texts == expected
    assert made.comparisons[1].item == {"adjacent": "i#1-2", "all": "i#0-2"}[pairs]


def test_random_pairs_are_as_many_as_asked_and_of_the_seed(
    sqlite_store: Store, tmp_path: Path
) -> None:
    rows = [{"prompt": "p", "completions": list("abcd")}]
    values = {"completions": rows, "pairs": "random", "num_comparisons_per_prompt": 2}
    created = make(sqlite_store, tmp_path, **values)
    texts = [{one.text for one in item.completions} for item in sqlite_store.comparisons("c")]
    assert created.num_items == 2
    assert texts[0] | texts[1] == set("abcd")  # each completion as rarely as can be


def test_identical_and_repeated_are_counted(sqlite_store: Store, tmp_path: Path) -> None:
    rows = [COMPLETIONS, COMPLETIONS, {"prompt": "p", "completions": ["same", "same"]}]
    created = make(sqlite_store, tmp_path, completions=rows)
    assert (created.num_items, created.num_identical, created.num_repeated) == (1, 1, 1)


def test_the_option_overrides_the_completions_of_the_file(
    sqlite_store: Store, tmp_path: Path
) -> None:
    other = write_jsonl(tmp_path / "o.jsonl", {"prompt": "other", "completions": ["x", "y"]})
    create_campaign(sqlite_store, plan_campaign(written(tmp_path), completions=other))
    assert [one.prompt.content for one in sqlite_store.comparisons("c")] == ["other"]


def test_a_campaign_of_the_browser_is_text_and_rows(sqlite_store: Store) -> None:
    text = "template: helpsteer\noverlap: 2\n"
    created = create_campaign_from_text(sqlite_store, text, [COMPLETIONS], name="web")
    assert (created.campaign.name, created.num_items) == ("web", 1)
    with pytest.raises(ConfigError, match="the campaign: unknown key 'titel'"):
        create_campaign_from_text(sqlite_store, "titel: x", [COMPLETIONS], name="w2")
    with pytest.raises(DataError, match="completions: row 1: no 'completions'"):
        create_campaign_from_text(sqlite_store, text, [{"prompt": "p"}], name="w2")


@pytest.mark.parametrize(
    "line",
    [
        "completions: /etc/passwd.jsonl",
        "guideline_file: /etc/passwd",
        "{gold: /etc/passwd.jsonl, gold_share: 0.1}",
        "sample: {models: [m], dataset_name: /etc/passwd}",
    ],
)
def test_a_browser_reaches_no_file_of_the_server(sqlite_store: Store, line: str) -> None:
    values = {"name": "c", "task": "pairwise", **yaml.safe_load(line)}
    rows = [COMPLETIONS] if {"gold", "guideline_file"} & values.keys() else None
    with pytest.raises(ConfigError, match="names a file of the server"):
        create_campaign_from_text(sqlite_store, yaml.safe_dump(values), rows)
    assert sqlite_store.campaigns() == []


def test_completions_are_sampled_from_each_model_in_its_own_process(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for `rlhf sample` writes what that would: here no model is at hand."""
    program = tmp_path / "sample.py"
    program.write_text(
        "import json, sys\n"
        "words = dict(word.split('=', 1) for word in sys.argv[1:])\n"
        "rows = [json.loads(line) for line in open(words['--dataset_name'])]\n"
        "model = words['--model_name_or_path']\n"
        "if model == 'bad':\n"
        "    print('loading', 'rlhf sample: bad: no such model', sep='\\n', file=sys.stderr)\n"
        "    sys.exit(2)\n"
        "with open(words['--output'], 'w') as out:\n"
        "    for row in rows:\n"
        "        row |= {'completions': [model + words['--temperature']], 'source': [model]}\n"
        "        row |= {'ended': [True], 'seed': [1]}\n"
        "        print(json.dumps(row), file=out)\n"
    )
    real = sampling._command

    def command(*args: Any) -> list[str]:
        words = real(*args)
        assert words[:4] == [sys.executable, "-m", "rlhf", "sample"]
        return [sys.executable, str(program), *words[4:]]

    monkeypatch.setattr(sampling, "_command", command)
    write_jsonl(tmp_path / "prompts.jsonl", {"prompt": "p"}, {"prompt": "q"})
    sample = {"models": ["m1", "m2"], "dataset_name": "prompts.jsonl", "temperature": 0.5}
    make(sqlite_store, tmp_path, completions=..., sample=sample)
    items = sqlite_store.comparisons("c")
    assert [one.prompt.content for one in items] == ["p", "q"]
    assert [(one.text, one.source, one.ended) for one in items[0].completions] == [
        ("m10.5", "m1", True),
        ("m20.5", "m2", True),
    ]
    with pytest.raises(ConfigError, match=r"sample\.models: bad: rlhf sample: bad: no such"):
        make(
            sqlite_store, tmp_path, name="d", completions=..., sample={**sample, "models": ["bad"]}
        )
    assert len(sqlite_store.campaigns()) == 1


def test_the_options_of_sampling_are_those_of_the_command() -> None:
    from dataclasses import fields

    from rlhf.cli.sample import SampleConfig

    own = {"model_name_or_path", "dataset_name", "output", "output_dir"}
    assert {each.name for each in fields(SampleConfig)} - own == set(sampling.SAMPLE_OPTIONS)


def test_keys_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text()
    names = [*KEYS, *TEMPLATES]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_settings_survive_the_store_as_the_file_gave_them(
    sqlite_store: Store, tmp_path: Path
) -> None:
    criteria = [{"name": "h", "title": "H", "low": 1, "high": 3, "anchors": {1: "bad", 3: "good"}}]
    make(sqlite_store, tmp_path, task="ratings", criteria=criteria)
    settings = sqlite_store.campaign("c").settings
    assert json.loads(json.dumps(settings)) == settings
    assert protocol_of("ratings", settings).criteria[0].anchors == {1: "bad", 3: "good"}
