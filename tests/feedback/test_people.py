from datetime import UTC, datetime

import pytest

from rlhf.errors import ConfigError
from rlhf.feedback.people import originals, rated_by_people
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, Prompt


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "feedback.db", create=True) as store:
        store.create_campaign("everyday", overlap=3, guideline="Be fair.", settings={"items": "x"})
        completions = (Completion(text="a"), Completion(text="b"))
        prompt = Prompt(content="Which?")
        item = Comparison(prompt=prompt, completions=completions, item="one")
        store.add_comparisons("everyday", [item])
        yield store


def judge(store, annotator, *, simulated):
    store.add_annotator(Annotator(name=annotator, simulated=simulated))
    judgement = Judgement(
        id=f"by-{annotator}",
        campaign="everyday",
        item="one",
        annotator=annotator,
        simulated=simulated,
        seconds=1.0,
        created_at=datetime.now(UTC),
        shown_order=(0, 1),
        verdict=1,
    )
    store.record([judgement])


def test_people_rate_a_campaign_that_nobody_has_judged(store):
    assert rated_by_people(store, "everyday").name == "everyday"


def test_what_simulated_raters_judged_gets_a_campaign_for_people(store):
    judge(store, "sim", simulated=True)
    copy = rated_by_people(store, "everyday")
    assert (copy.name, copy.overlap, copy.guideline) == ("everyday-people", 1, "Be fair.")
    assert store.comparisons(copy.name) == store.comparisons("everyday")
    assert store.judgements(copy.name) == []
    assert rated_by_people(store, "everyday") == copy
    assert [campaign.name for campaign in originals(store.campaigns())] == ["everyday"]
    assert store.problems() == []


def test_people_stay_where_they_have_judged_already(store):
    judge(store, "kim", simulated=False)
    judge(store, "sim", simulated=True)
    assert rated_by_people(store, "everyday").name == "everyday"


def test_an_unknown_campaign_is_refused(store):
    with pytest.raises(ConfigError, match="everyday"):
        rated_by_people(store, "evryday")
