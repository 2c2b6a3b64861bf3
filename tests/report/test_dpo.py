"""The sections of DPO and its family: curves, facts, warnings, and what was kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.manifest import Manifest
from rlhf.report.dpo import dpo_findings, dpo_sections, dpo_warnings, fact_rows
from rlhf.report.dpo_figures import with_derived
from rlhf.report.figures import figures
from rlhf.report.findings import findings, warnings
from rlhf.report.page import render, write_report
from rlhf.report.reading import Run, read_run
from tests.report.conftest import Visit
from tests.report.dpo_runs import BEST_STEP, REFERENCE_LENGTH, write_dpo
from tests.report.runs import HOSTILE, make_run
from tests.report.test_browser import NUM_CHARTS, OVERFLOW

TITLES = [
    "Loss",
    "Chosen and rejected against the reference",
    "Accuracy of the implicit reward",
    "Margin of the implicit reward",
    "KL to the reference",
    "Completion length",
    "Ended rate",
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A DPO stage alone."""
    write_dpo(tmp_path / "dpo")
    return read_run(tmp_path / "dpo")


def drawn(run: Run, section: str = "dpo") -> dict[str, dict[str, Any]]:
    return {item["title"]: item for item in figures(run)[section]}


def test_the_implicit_reward_is_turned_back_into_nats() -> None:
    (row,) = with_derived([{"rewards/chosen": -0.3, "eval_rewards/rejected": 0.5}], 0.1)
    assert row["chosen"] == pytest.approx(-3.0)
    assert row["eval_rejected"] == pytest.approx(5.0)
    assert "rejected" not in row
    (undivided,) = with_derived([{"rewards/chosen": -0.3}], 0)
    assert "chosen" not in undivided


def test_the_sampled_kl_has_its_interval() -> None:
    (row,) = with_derived([{"eval_kl": 4.0, "eval_kl_se": 0.5}], None)
    assert (row["eval_kl_ci_low"], row["eval_kl_ci_high"]) == pytest.approx((3.02, 4.98))


def test_the_curves_and_their_words(run: Run) -> None:
    charts = drawn(run)
    assert list(charts) == TITLES
    both = charts["Chosen and rejected against the reference"]
    # -9 d^2 and -20 d nats at d = 1/30 and 1; held out -5 d and -15 d at d = 1/6 and 1.
    assert "chosen -0.01 to -9; rejected -0.667 to -20" in both["caption"]
    assert "chosen, held out -0.833 to -5; rejected, held out -2.5 to -15" in both["caption"]
    assert "the reference" in json.dumps(both["spec"])
    assert f"reference: {REFERENCE_LENGTH:.1f}" in json.dumps(charts["Completion length"]["spec"])
    assert "budget 6" in json.dumps(charts["KL to the reference"]["spec"])
    assert all(item["simulated"] for item in charts.values())
    assert "dpo" not in " ".join(item["title"].lower() for item in figures(run)["curves"])


def test_the_kept_step_is_marked_and_said(run: Run) -> None:
    assert f'"at": {BEST_STEP}' in json.dumps(drawn(run)["Loss"]["spec"])
    assert "dotted line" in drawn(run)["Loss"]["note"]
    told = [finding.text for finding in findings(run)]
    assert any(
        text.startswith(f"DPO kept its best checkpoint, that of step {BEST_STEP}: the lowest")
        and text.endswith("0.6100. It stopped there early.")
        for text in told
    )
    run.stages["dpo"].metrics |= {"best_step": None}
    assert "dotted" not in drawn(run)["Loss"]["note"]
    assert not any("best checkpoint" in finding.text for finding in findings(run))


def test_how_often_it_agrees_has_an_interval_and_chance_is_named(run: Run) -> None:
    (text,) = [one.text for one in dpo_findings(run) if "implicit reward" in one.text]
    # Wilson's interval of 56 of 80
    assert "on 70% of 80 held-out pairs (95% interval 59\u201379%)" in text
    assert "one half" not in text
    run.stages["dpo"].metrics["eval_rewards/accuracies"] = 0.55
    assert "one half" in dpo_findings(run)[0].text
    run.stages["dpo"].metrics["num_eval"] = 0
    assert not any("implicit reward" in one.text for one in dpo_findings(run))


def test_its_warnings_name_the_page_that_explains_them(run: Run) -> None:
    (section,) = dpo_sections(run)
    causes = [row["explained"].partition("#")[2] for row in section["warnings"]]
    assert causes == [one["cause"] for one in run.metrics("dpo")["warnings"]]
    assert {"chosen_falls", "overfitting", "kl_budget", "length_drift"} <= set(causes)
    assert section["warnings"][0]["explained"].startswith("docs/dpo-pathologies.md#")
    page = render(run)
    assert "docs/dpo-pathologies.md#chosen_falls" in page
    assert any("chosen log-probability falls" in text for text in warnings(run))
    run.metrics("dpo")["warnings"] *= 3
    assert any("more warnings: see its section" in text for text in dpo_warnings(run))


def test_every_explanation_that_a_warning_names_is_written() -> None:
    from rlhf.report.dpo import PATHOLOGICAL, PATHOLOGIES
    from rlhf.training.dpo.watch import CAUSES

    assert set(PATHOLOGICAL) == CAUSES.keys()
    text = (Path(__file__).parents[2] / PATHOLOGIES).read_text()
    assert {name for name in CAUSES if f"\n## {name}\n" not in text} == set()


def test_what_it_learned_from_is_told(run: Run) -> None:
    (section,) = dpo_sections(run)
    facts = dict(section["facts"])
    assert facts["Labels"].startswith("soft: ")
    assert facts["Labels"].endswith(
        "12 ties among them; summed up by dawid_skene; weights 0.5 to 1.2; margins taken"
    )
    assert facts["Data"] == "400 pairs to learn from, 80 held out"
    assert facts["Left out or cut"] == (
        "3 dropped (over max_length); 2 cut (prompt over max_length) of 485 rows"
    )
    assert facts["Loss"] == "1 x sigmoid + 0.5 x sft, beta 0.1"
    assert facts["Reference"] == "the model that training starts from (runs/sft)"
    assert facts["Prompts"].endswith("9 of 10 batches")
    assert facts["Early stopping"] == "after 2 evaluations without a better held-out loss"


def test_rounds_have_curves_of_their_own_and_warnings_their_round(tmp_path: Path) -> None:
    write_dpo(tmp_path / "online", kind="online_dpo")
    run = read_run(tmp_path / "online")
    run.logs["online_dpo"] = [
        {"step": 4, "score": 0.5, "kl": 1.0, "kl_se": 0.5, "completion_length": 20.0},
        {"step": 8, "score": 0.9, "kl": 3.0, "kl_se": 0.5, "ended_rate": 0.75},
    ]
    run.metrics("online_dpo")["warnings"] = [{"cause": "c", "round": 2, "step": 8, "words": "w."}]
    charts = drawn(run, "online_dpo")
    assert list(charts) == ["Score", "KL to the reference", "Completion length", "Ended rate"]
    assert "rounds 1 to 3" in charts["KL to the reference"]["caption"]
    assert '"low": 2.02' in json.dumps(charts["KL to the reference"]["spec"])
    (section,) = dpo_sections(run)
    assert section["title"] == "Online DPO"
    assert section["warnings"] == [
        {"place": "round 2", "words": "w", "explained": "docs/online_dpo.md"}
    ]


def test_facts_that_nobody_wrote_are_left_out() -> None:
    assert fact_rows(Manifest(stage="dpo", config={}), []) == []
    manifest = Manifest(stage="dpo", config={"early_stopping_patience": 0})
    manifest.provenance = {"losses": {"num_rows": 5, "dropped": {}, "cut": {}}}
    manifest.metrics = {"labels": "hard", "num_ties": 0}
    facts = dict(fact_rows(manifest, []))
    assert facts["Left out or cut"] == "nothing of 5 rows"
    assert facts["Labels"] == "hard: chosen is taken as certainly better; no ties"
    assert facts["Early stopping"].startswith("off")


def test_each_stage_of_the_family_has_its_own_section(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for name, kind in (("kto", "kto"), ("online_dpo", "online_dpo"), ("wins", "dpo")):
        write_dpo(folder / name, kind=kind)
    run = read_run(folder)
    titles = [section["title"] for section in dpo_sections(run)]
    assert titles == ["DPO", "KTO", "Online DPO", "DPO (wins)"]
    page = render(run)
    assert page.count('id="dpo"') == page.count('id="tuned-wins"') == 1
    assert figures(run)["wins"][0]["title"].startswith("Win rates")
    assert list(drawn(run, "tuned-wins")) == TITLES


def test_a_log_that_is_no_numbers_still_renders(tmp_path: Path) -> None:
    stage = tmp_path / "dpo"
    stage.mkdir()
    config = {"beta": "x", "loss_type": None, "kl_budget": "y"}
    Manifest(stage="dpo", config=config, metrics={"warnings": "none", "best_step": "x"}).write(
        stage
    )
    (stage / "log.json").write_text('[{"step": 1, "loss": "high", "rewards/chosen": null}]')
    run = read_run(stage)
    assert 'id="dpo"' in render(run)
    assert figures(run)["dpo"] == []


@pytest.mark.parametrize("verb", ["dpo", "kto"])
def test_a_real_run_has_what_the_page_shows(
    verb: str, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stages and the page must mean the same by each name."""
    rows = [
        {"prompt": f"question {n}?", "chosen": f"yes {n}.", "rejected": "no.", "p_chosen": 0.75}
        for n in range(32)
    ]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "model_name_or_path": tiny_model,
        "dataset_name": source,
        "output_dir": tmp_path / verb,
        "use_peft": True,
        "lora_target_modules": "all-linear",
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "eval_fraction": 0.3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "early_stopping_patience": 2,
        "disable_tqdm": True,
    }
    sampled = {"num_kl_prompts": 3, "kl_max_completion_length": 4} if verb == "dpo" else {}
    argv = [
        str(part) for key, value in (settings | sampled).items() for part in (f"--{key}", value)
    ]
    assert main([verb, *argv]) == 0, capfd.readouterr().err
    run = read_run(tmp_path / verb)
    assert run.gaps == []
    titles = list(drawn(run, verb))
    if verb == "dpo":
        assert titles == TITLES
    else:
        assert [title for title in titles if "Margin" not in title] == [
            *TITLES[:2],
            "Reference point of the loss",
        ]
    both = drawn(run, verb)["Chosen and rejected against the reference"]["caption"]
    assert "chosen, held out" in both
    assert "rejected, held out" in both
    (section,) = dpo_sections(run)
    facts = dict(section["facts"])
    assert {"Data", "Left out or cut", "Loss"} <= facts.keys()
    assert "better held-out loss" in facts["Early stopping"]
    if verb == "dpo":
        assert facts["Labels"].startswith("soft")
        assert "training starts from" in facts["Reference"]
        assert "of the tokens were computed" in facts["Prompts"]
    assert "best checkpoint" in " ".join(one.text for one in dpo_findings(run))


def test_numbers_of_people_are_not_marked(tmp_path: Path) -> None:
    write_dpo(tmp_path / "dpo", simulated=False)
    page = render(read_run(tmp_path / "dpo"))
    assert 'class="sim"' not in page.partition('<section id="dpo">')[2].partition("</section>")[0]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = tmp_path_factory.mktemp("report") / "dpo"
    write_dpo(stage)
    manifest = Manifest.read(stage)
    manifest.metrics["warnings"].append({"cause": HOSTILE, "step": 3, "words": HOSTILE})
    manifest.write(stage)
    return write_report(read_run(stage), stage.parent / "report.html")


@pytest.mark.browser
@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    ids=["phone", "dark"],
)
def test_fetches_nothing_runs_nothing_and_fits(
    report: Path, visit: Callable[..., Visit], options: dict[str, Any]
) -> None:
    inside = "document.querySelectorAll('#dpo img, #dpo script').length"
    seen = visit(report, NUM_CHARTS, OVERFLOW, "String(window.pwned)", inside, **options)
    assert seen.requests == [report.as_uri()]
    assert seen.messages == []
    assert seen.values == [[len(TITLES)] * 2, 0, "undefined", 0]
