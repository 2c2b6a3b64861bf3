"""The gate's verdict, an override, and the doctor's findings on the page."""

import json
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.report.doctor import doctor_rows
from rlhf.report.figures import figures
from rlhf.report.findings import findings, warnings
from rlhf.report.gate import verdict_of
from rlhf.report.page import render, vega_bundle
from rlhf.report.reading import Run, read_run
from tests.report.reward_runs import EMAIL_EXAMPLE
from tests.report.runs import HOSTILE, make_run


def run_of(folder: Path, gate: str = "passed") -> Run:
    return read_run(make_run(folder / "run", gate=gate))


def sentences(run: Run) -> str:
    return " ".join(finding.text for finding in findings(run))


def test_a_gate_that_passed_says_so_and_raises_no_alarm(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    page = render(run)
    assert "The gate passed the reward model: 5 of 6 checks passed, 1 could not be" in page
    assert 'class="alarm"' not in page
    told = "The gate did not measure 1 of its 6 checks: the spread predicts error"
    assert any(warning.startswith(told) for warning in warnings(run))


def test_a_failed_gate_is_shown_on_top_and_among_the_findings(tmp_path: Path) -> None:
    run = run_of(tmp_path, "failed")
    told = "The gate FAILED the reward model, so nothing may be tuned against it: 4 of 6"
    assert told in sentences(run)
    assert "Refused by: score gap against length gap." in sentences(run)
    page = render(run)
    head = page.partition('<section id="findings"')[0]
    assert told in head
    assert "Gate: FAILED." in head
    assert any("'Score gap against length gap' failed" in warning for warning in warnings(run))


def test_an_override_cannot_be_missed_and_quotes_its_reason(tmp_path: Path) -> None:
    run = run_of(tmp_path, "overridden")
    page = render(run).replace(vega_bundle(), "")
    reason = "A trial run only, &lt;b&gt;nobody&lt;/b&gt; uses it."
    assert page.count(f"<blockquote>{reason}</blockquote>") == 2  # on top, and with the checks
    assert "a person overrode it" in sentences(run)
    assert "\u201cA trial run only, <b>nobody</b> uses it.\u201d" in sentences(run)
    assert page.count("passed by override") >= 3  # the top, the chain, the section


def test_an_override_of_what_was_not_measured_is_no_pass(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert run.gate is not None
    run.gate |= {"override": {"reason": ""}, "refused_by": ["spread"]}
    verdict = verdict_of(run)
    assert verdict is not None
    assert verdict.status == "overridden"
    assert verdict.reason == "none was written"
    assert "Refused by: the spread predicts error." in verdict.sentence


def test_a_check_that_failed_outweighs_a_verdict_that_says_passed(tmp_path: Path) -> None:
    run = run_of(tmp_path, "failed")
    assert run.gate is not None
    run.gate["passed"] = True
    verdict = verdict_of(run)
    assert verdict is not None
    assert verdict.status == "failed"


def test_each_check_has_value_interval_count_and_what_was_asked(tmp_path: Path) -> None:
    verdict = verdict_of(run_of(tmp_path, "failed"))
    assert verdict is not None
    shown = {check["name"]: check for check in verdict.checks}
    accuracy = shown["accuracy"]
    assert (accuracy["value"], accuracy["bounds"], accuracy["n"]) == ("0.775", "0.65 to 0.9", 40)
    assert accuracy["threshold"] == "0.6"
    assert shown["length_correlation"]["threshold"] == "between -0.5 and 0.5"
    assert shown["length_correlation"]["verdict"] == "failed"
    assert shown["padding"]["bounds"] is None  # computed, not sampled
    assert shown["spread"]["verdict"] == "not measured"
    assert shown["spread"]["words"] == "one member: no spread"


def test_details_are_told_in_lines_with_their_intervals(tmp_path: Path) -> None:
    verdict = verdict_of(run_of(tmp_path))
    assert verdict is not None
    details = {check["name"]: check["details"] for check in verdict.checks}
    assert details["out_of_domain"][0] == "groups, hhh/harmless: 0.62 (0.49 to 0.74, n=58)"
    assert "curves, value, n=8: 0.15 (0.05 to 0.25, n=50)" in details["best_of_n_value"]
    assert "value source: the simulated truth" in details["best_of_n_value"]


def test_the_probes_curves_and_other_domains_are_drawn(tmp_path: Path) -> None:
    drawn = {item["title"]: item for item in figures(run_of(tmp_path))["gate"]}
    assert drawn["Out of domain"]["caption"].startswith("hhh/harmless: 62% (49% to 74%)")
    value = drawn["Best of n: the true value"]
    assert value["caption"].endswith("n=8: 0.15 (0.05 to 0.25).")
    assert value["simulated"]
    assert "By the simulated truth. Mean over 50 prompts" in value["note"]
    assert len(drawn) == 5


def test_a_refused_gate_without_a_manifest_is_still_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", gate="failed", stages=("sft", "reward", "gate"))
    (folder / "gate" / "manifest.json").unlink()
    run = read_run(folder)
    assert "gate" not in run.stages
    assert "Gate: FAILED." in render(run)
    alone = read_run(folder / "gate")
    assert alone.stages == {}
    assert "Gate: FAILED." in render(alone)


@pytest.mark.parametrize("text", ["{", "[]", '{"checks": [1]}', '{"checks": null}'])
def test_a_damaged_gate_is_a_gap(tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "gate" / "gate.json").write_text(text)
    run = read_run(folder)
    assert run.gaps == ["gate: its gate.json is damaged, so its verdict is unknown"]
    assert "is damaged, so its verdict is unknown" in render(run)


def test_odd_values_in_a_gate_are_shown_and_stay_inert(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    details = {"curves": {"value": [HOSTILE, {"n": 1}]}, "groups": HOSTILE, "asked": HOSTILE}
    odd = {"name": "best_of_n_value", "passed": "yes", "value": HOSTILE, "words": HOSTILE}
    run.gate = {"passed": None, "override": [], "checks": [odd | {"details": details}, {}]}
    page = render(run).replace(vega_bundle(), "")
    assert "Gate: FAILED." in page
    assert "<img" not in page
    assert "<script>window.pwned" not in page


def test_the_doctors_findings_are_listed_the_worst_first(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    rows = doctor_rows(run)
    assert [row["severity"] for row in rows] == ["loss", "warning", "note"]
    assert [(row["count"], row["share"]) for row in rows] == [(4, "2%"), (1, "0.56%"), (2, "1%")]
    page = render(run)
    assert EMAIL_EXAMPLE in page
    assert "preferences.jsonl:12" in page
    assert "Reward: 4 rows dropped: longer than max_length (2%)." in warnings(run)
    assert page.count("rows that hold an e-mail address") == 1  # not in the provenance again


def test_a_manifest_tells_what_a_missing_or_damaged_doctor_file_does_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = folder / "reward" / "doctor.json"
    path.write_text("{")
    run = read_run(folder)
    assert run.gaps == ["reward: its doctor.json is damaged"]
    assert len(run.doctor["reward"]) == 3
    path.unlink()
    assert len(read_run(folder).doctor["reward"]) == 3


def test_a_stage_that_the_doctor_stopped_shows_why(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", stages=("sft",))
    (folder / "reward").mkdir()
    found = [{"name": "empty", "severity": "loss", "count": 9, "share": 0.3, "words": "rows empty"}]
    (folder / "reward" / "doctor.json").write_text(json.dumps(found))
    assert "Reward: 9 rows empty (30%)." in warnings(read_run(folder))
    (folder / "sft" / "manifest.json").unlink()
    with pytest.raises(DataError, match="no finished stage here"):
        read_run(folder / "sft")
