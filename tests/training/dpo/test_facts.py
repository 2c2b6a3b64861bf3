"""What a DPO run's manifest says of its labels."""

import pytest

from rlhf.training.dpo.facts import label_facts
from tests.training.conftest import metrics_of, read_json, write_rows


@pytest.mark.parametrize(
    ("labels", "kind", "num_ties"),
    [
        ([None, None], "hard", 0),
        ([[1.0], [0.5]], "hard", 1),
        ([[1.0], [0.75]], "soft", 0),
        ([[0.5], [0.75]], "soft", 1),
    ],
)
def test_kind_and_ties(labels, kind, num_ties):
    rows = [{"row": n} | ({"p_chosen": p} if p else {}) for n, p in enumerate(labels)]
    facts = label_facts(rows, {"label_method": "votes"})
    assert (facts["labels"], facts["num_ties"]) == (kind, num_ties)
    assert (facts["label_method"], facts["weight_range"]) == ("votes", None)
    assert facts["uses_margin"] is False


def test_weights_and_margins():
    rows = [{"weight": 0.5, "margin": 0.0}, {"weight": 1.5, "margin": 2.0}]
    facts = label_facts(rows, {})
    assert facts["weight_range"] == [0.5, 1.5]
    assert facts["uses_margin"] is True


def test_the_manifest_of_a_run_says_it(run_stage, tmp_path):
    rows = [
        {"prompt": f"q {n}?", "chosen": "yes.", "rejected": "no.", "p_chosen": 0.5 + n / 16}
        for n in range(8)
    ]
    folder = run_stage("dpo", write_rows(tmp_path / "soft.jsonl", rows), "--use_peft")
    assert (metrics_of(folder)["labels"], metrics_of(folder)["num_ties"]) == ("soft", 1)
    provenance = read_json(folder / "manifest.json")["provenance"]
    assert provenance["reference"].startswith("the model that training starts from")
    assert "prompt" in provenance["prompt_sharing"]
