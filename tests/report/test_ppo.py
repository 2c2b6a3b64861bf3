"""The PPO section of the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.manifest import Manifest
from rlhf.report.figures import figures
from rlhf.report.findings import warnings
from rlhf.report.page import chain, render, vega_bundle
from rlhf.report.ppo import phase_rows, ppo_section
from rlhf.report.reading import read_run
from rlhf.report.rollouts import read_rollouts, sample_rows
from rlhf.report.run_charts import points_of
from tests.report.conftest import Visit
from tests.report.ppo_runs import (
    NUM_ROLLOUTS,
    OVERRIDE,
    loud,
    run_of,
    texts_of,
    write_ppo,
)
from tests.report.runs import HOSTILE, make_run
from tests.report.test_browser import NUM_CHARTS, NUM_DRAWN, OVERFLOW
from tests.training.gated_reward import gated_reward

NUM_PPO_CHARTS = 9


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The page of a run for each of two verdicts of its gate: one takes seconds to draw."""
    folder = tmp_path_factory.mktemp("pages")
    return {gate: render(run_of(folder / gate, gate=gate)) for gate in ("passed", "overridden")}


def test_findings_say_how_the_score_moved_what_is_best_and_why_it_stopped(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    told = " ".join(texts_of(run))
    first, last = run.logs["ppo"][0], run.logs["ppo"][-2]
    assert (
        f"went from {first['score']:.2f} (95% interval {first['score_ci_low']:.2f} to "
        f"{first['score_ci_high']:.2f}) to {last['score']:.2f}"
    ) in told
    assert "in 384 episodes" in told
    # KL is 7.4 * (step / 96) ** 1.4: 5.73 at step 80, beyond 6 at step 96.
    assert "PPO saved its best checkpoint, that of step 80" in told
    assert "at a KL of 5.7 nats a completion within the budget of 6." in told
    assert any(text.startswith("PPO STOPPED EARLY: KL of ") for text in loud(run))


def test_a_run_to_its_end_and_one_without_a_best(tmp_path: Path) -> None:
    run = run_of(tmp_path, stops=False)
    assert "PPO went to its end; nothing stopped it." in texts_of(run)
    run.stages["ppo"].metrics |= {"best_step": None}
    beyond = "None of PPO's evaluations was within the budget of 6 nats, so it saved its last step"
    assert beyond in " ".join(loud(run))
    run.logs["ppo"] = [row for row in run.logs["ppo"] if "eval_score" not in row]
    assert "PPO measured no held-out prompts while it ran" in " ".join(texts_of(run))


def test_a_gain_that_chance_explains_is_called_so(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    overlap = "The two intervals overlap, so the gain may be chance."
    assert overlap not in " ".join(texts_of(run))
    run.logs["ppo"][-2] |= {"score": 0.5, "score_ci_low": 0.1, "score_ci_high": 0.9}
    assert overlap in " ".join(texts_of(run))


def test_its_own_warnings_stand_in_the_page_with_their_place(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    section = ppo_section(run)
    assert section is not None
    causes = [one["cause"] for one in run.metrics("ppo")["warnings"]]
    assert causes == ["length_hacking", "kl_budget"]
    assert section["warnings"][0]["place"] == "rollout 12 (step 48)"
    assert "PPO, rollout 12 (step 48): length falling with score" in " ".join(warnings(run))
    run.metrics("ppo")["warnings"] *= 5
    assert "PPO gave 4 more warnings: see its section." in warnings(run)


def test_an_override_is_said_loudly_with_its_reason(tmp_path: Path, pages: dict[str, str]) -> None:
    run = run_of(tmp_path, gate="overridden")
    assert any("whose gate FAILED and was overridden" in text for text in loud(run))
    assert any(OVERRIDE in text for text in loud(run))
    assert "Tuned against a reward model that FAILED its gate." in pages["overridden"]
    assert "PPO rests on reward: its gate FAILED and a person overrode it." in warnings(run)
    assert "its gate passed" in pages["passed"]
    assert "Tuned against a reward model" not in pages["passed"]
    assert (
        "ab" * 32 in pages["passed"].partition('<section id="ppo">')[2]
    )  # the reward model's hash


def test_seconds_and_tokens_by_phase_over_the_whole_run() -> None:
    log = [
        {"step": 4, "seconds/rollout": 2.0, "tokens_per_second/rollout": 100.0},
        {"step": 4, "eval_score": 1.0},
        {
            "step": 8,
            "seconds/rollout": 6.0,
            "tokens_per_second/rollout": 20.0,
            "seconds/train": 8.0,
        },
    ]
    rows = {row["name"]: row for row in phase_rows(log)}
    # 2 s at 100 and 6 s at 20 tokens a second: 320 tokens in 8 of 16 seconds.
    assert rows["rollout"]["seconds"] == 8.0
    assert rows["rollout"]["tokens_per_second"] == 40.0
    assert rows["rollout"]["share"] == rows["train"]["share"] == 0.5
    assert rows["train"]["tokens_per_second"] is None


def test_points_leave_out_what_is_no_number() -> None:
    log = [{"step": 1, "kl": None}, {"step": 2, "kl": 1.5}, {"step": 3, "kl": float("nan")}]
    found = points_of([*log, {"step": 4, "kl": True}], {"kl": "rollouts"})
    assert [(point["step"], point["value"], point["low"]) for point in found] == [(2, 1.5, None)]


def test_the_curves_and_their_words(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    drawn = {item["title"]: item for item in figures(run)["ppo"]}
    assert list(drawn) == [
        *("Score", "Score by source", "KL to the reference", "Completion length"),
        *("Ended rate", "Entropy", "Explained variance", "Clip fraction", "Repetition"),
    ]
    assert len(drawn) == NUM_PPO_CHARTS
    assert "rollouts 0.0865 to 7.4" in drawn["KL to the reference"]["caption"]
    assert "budget 6" in json.dumps(drawn["KL to the reference"]["spec"])
    assert all(item["simulated"] for item in drawn.values())
    assert "policy 8% to 18%" in drawn["Clip fraction"]["caption"]
    assert not any(item["title"].startswith("PPO") for item in figures(run)["curves"])
    run.logs["ppo"] = [{"step": 1, "kl": 0.5}]
    assert [item["title"] for item in figures(run)["ppo"]] == ["KL to the reference"]


def test_first_completions_against_last(tmp_path: Path, pages: dict[str, str]) -> None:
    run = run_of(tmp_path)
    samples = sample_rows(run.rollouts)
    # Three prompts and the hostile one stand in both rollouts.
    assert [sample["same"] for sample in samples] == [True] * 4 + [False] * 2
    assert all(
        sample["sides"][0]["prompt"] == sample["sides"][1]["prompt"] for sample in samples[:4]
    )
    assert "Rollout 1: 16 completions, " in pages["passed"]
    assert f"Rollout {NUM_ROLLOUTS}: 16 completions, " in pages["passed"]
    assert "Loaf 0: how?" in pages["passed"]


def test_one_rollout_or_a_damaged_part(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "ppo"
    write_ppo(stage)
    (stage / "completions" / "rollout-000024.parquet").write_bytes(b"PAR1 half")
    (stage / "completions" / "rollout-000030.parquet.tmp").write_bytes(b"")
    found, gaps = read_rollouts(stage)
    assert list(found) == [1]
    assert len(gaps) == 1
    assert gaps[0].startswith("completions/rollout-000024.parquet is damaged (")
    run = read_run(tmp_path / "run")
    assert any(gap.startswith("ppo: completions/rollout-000024") for gap in run.gaps)
    assert "Its first completions against its last" not in render(run)


def test_parts_of_all_ranks_are_one_rollout(tmp_path: Path) -> None:
    stage = tmp_path / "ppo"
    write_ppo(stage)
    part = stage / "completions" / "rollout-000001.parquet"
    part.with_name("rollout-000001-rank-1.parquet").write_bytes(part.read_bytes())
    assert {number: len(rows) for number, rows in read_rollouts(stage)[0].items()} == {
        1: 32,
        24: 16,
    }


def test_a_ppo_stage_alone_is_reported(tmp_path: Path) -> None:
    write_ppo(tmp_path / "ppo", overridden=True)
    run = read_run(tmp_path / "ppo")
    page = render(run)
    assert run.gaps == []
    assert list(run.stages) == ["ppo"]
    assert "Tuned against a reward model that FAILED its gate." in page
    assert "The raters were simulated." in page
    assert "not run" not in page


def test_a_real_run_has_all_that_the_page_shows(tmp_path: Path, tiny_model: Path) -> None:
    """The stage and the page must mean the same by each name."""
    reward = gated_reward(
        tmp_path, tiny_model, simulated=True, passed=False, override="only a trial"
    )
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"question {i}?"}) + "\n" for i in range(40)))
    settings = {
        "model_name_or_path": tiny_model,
        "reward_model_name_or_path": reward,
        "dataset_name": prompts,
        "output_dir": tmp_path / "ppo",
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": "all-linear",
        "max_completion_length": 8,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "eval_fraction": 0.2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "logging_steps": 2,
        "kl_budget": 1e6,
        "max_loss": 1,
        "disable_tqdm": True,
    }
    argv = [str(part) for key, value in settings.items() for part in (f"--{key}", value)]
    assert main(["ppo", *argv]) == 0
    run = read_run(tmp_path / "ppo")
    assert run.gaps == []
    titles = [item["title"] for item in figures(run)["ppo"]]
    assert len(titles) == NUM_PPO_CHARTS - 1  # of a single source no chart by source
    section = ppo_section(run)
    assert section is not None
    assert {row["name"] for row in section["phases"]} == {"rollout", "score", "train"}
    assert all(row["tokens_per_second"] > 0 for row in section["phases"])
    assert section["numbers"] == [1, 2]
    assert [row["reason"] for row in section["sources"]] == ["only a trial"]
    assert "PPO saved its best checkpoint, that of step" in " ".join(texts_of(run))
    assert "only a trial" in render(run)


def test_a_run_without_ppo_says_nothing_of_it(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    page = render(run)
    assert 'id="ppo"' not in page
    assert ppo_section(run) is None
    assert run.gaps == []
    assert "ppo" not in [card["name"] for card in chain(run)]


def test_ppo_without_dpo_misses_nothing(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "run", stages=("sft", "sample", "ratings", "reward", "gate", "evaluate")
    )
    write_ppo(folder / "ppo")
    run = read_run(folder)
    assert run.gaps == []
    assert [card["name"] for card in chain(run)][-2:] == ["ppo", "evaluate"]


def test_a_stage_with_nothing_of_all_this_still_renders(tmp_path: Path) -> None:
    stage = tmp_path / "ppo"
    stage.mkdir()
    Manifest(stage="ppo", config={}, metrics={"warnings": "none", "best_step": "x"}).write(stage)
    (stage / "log.json").write_text('[{"step": 1, "score": "high", "seconds/train": null}]')
    run = read_run(stage)
    assert 'id="ppo"' in render(run)


def test_simulated_numbers_are_marked_and_human_ones_are_not(
    tmp_path: Path, pages: dict[str, str]
) -> None:
    def section(page: str) -> str:
        return page.partition('<section id="ppo">')[2].partition("</section>")[0]

    assert section(pages["passed"]).count('class="sim"') > NUM_PPO_CHARTS
    assert 'class="sim"' not in section(render(run_of(tmp_path, simulated=False)))


def test_hostile_texts_stay_inert(tmp_path: Path) -> None:
    run = run_of(tmp_path, gate="overridden")
    stage = run.stages["ppo"]
    stage.metrics["warnings"] = [{"rollout": HOSTILE, "step": HOSTILE, "words": HOSTILE}]
    stage.metrics["stop_reason"] = HOSTILE
    source = stage.provenance["rewards"][0]
    source |= {"name": HOSTILE, "kind": HOSTILE, "sha256": HOSTILE}
    source["gate"]["override"] = {"reason": HOSTILE}
    for rows in run.rollouts.values():
        for row in rows:
            row |= {"prompt": HOSTILE, "completion": HOSTILE, "num_tokens": HOSTILE}
    run.logs["ppo"][0][f"score/{HOSTILE}"] = 1.0
    page = render(run).replace(vega_bundle(), "")
    assert "<script>window.pwned" not in page
    assert "<img" not in page
    assert "<b>bold" not in page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, pages: dict[str, str]) -> Path:
    path = tmp_path_factory.mktemp("ppo") / "report.html"
    path.write_text(pages["overridden"], encoding="utf-8")
    return path


@pytest.mark.browser
@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 360, "height": 740}},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    ],
    ids=["phone", "dark"],
)
def test_it_is_drawn_fetches_nothing_runs_nothing_and_fits(
    report: Path, visit: Callable[..., Visit], options: dict[str, Any]
) -> None:
    shown = "[...document.querySelectorAll('#ppo .text')].map((cell) => cell.textContent)"
    inside = "document.querySelectorAll('#ppo img, #ppo script, #ppo .text *:not(em)').length"
    scripts = (NUM_CHARTS, OVERFLOW, "String(window.pwned)", shown, inside)
    seen = visit(report, *scripts, **options)
    assert seen.requests == [report.as_uri()]
    assert seen.messages == []
    assert seen.values[0] == [NUM_DRAWN + NUM_PPO_CHARTS] * 2
    assert seen.values[1] <= 0
    assert seen.values[2] == "undefined"
    assert HOSTILE in seen.values[3]
    assert seen.values[4] == 0


@pytest.mark.browser
def test_axe_finds_no_violation(report: Path, visit: Callable[..., Visit]) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    run = """axe.run(document, {resultTypes: ["violations"]}).then((result) =>
        result.violations.map((one) => one.id + ": " + one.nodes[0].html.slice(0, 160)))"""
    for scheme in ("light", "dark"):
        seen = visit(report, AXE_FILE_PATH.read_text(), run, color_scheme=scheme)
        assert seen.values[1] == []
