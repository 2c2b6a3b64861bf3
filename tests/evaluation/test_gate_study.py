"""The whole gate on a tiny reward model: its files, its verdict, and whose verdict it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.errors import ConfigError, DataError, GateError
from rlhf.evaluation.gate import require_passed
from rlhf.evaluation.gate.arguments import GateArguments, threshold_names
from rlhf.evaluation.gate.binding import reward_sha256
from rlhf.evaluation.gate.checks import exact, judged, unmeasured
from rlhf.evaluation.gate.study import Study, run_gate, verdict_of
from rlhf.manifest import Manifest, file_sha256, write_json
from rlhf.models.scoring import RewardModel
from tests.evaluation.gate_rows import write_rows
from tests.evaluation.models import make_reward_adapter

NUM_PAIRS = 24
OPEN = dict.fromkeys(threshold_names())
"""No threshold at all: what is not asked cannot fail."""


@pytest.fixture(scope="module")
def reward_dir(tmp_path_factory, tiny_model) -> Path:
    """A random reward model whose labels are its own scores, so that it is right on all pairs."""
    folder = tmp_path_factory.mktemp("run") / "reward"
    make_reward_adapter(tiny_model, folder, seed=1)
    prompts = [[{"role": "user", "content": f"Question {n}?"}] for n in range(NUM_PAIRS)]
    texts = [f"Answer {n} is long enough." for n in range(NUM_PAIRS)]
    others = [f"No {n}." for n in range(NUM_PAIRS)]
    model = RewardModel.load(folder)
    scores = zip(model.score(prompts, texts), model.score(prompts, others), strict=True)
    rows = []
    for prompt, text, other, (one, two) in zip(prompts, texts, others, scores, strict=True):
        swapped = bool(one < two)
        sides = [(text, float(one)), (other, float(two))]
        (chosen, high), (rejected, low) = sides[:: -1 if swapped else 1]
        rows.append(
            {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "chosen_score": high,
                "rejected_score": low,
                "chosen_ended": True,
                "rejected_ended": True,
                "simulated": True,
            }
        )
    write_rows(folder / "heldout.jsonl", rows)
    write_rows(folder / "train_sample.jsonl", rows)
    stage = Manifest(stage="reward", config={"dtype": "float32", "early_stopping_patience": 2})
    stage.metrics = {"noise_ceiling": 0.9, "noise_ceiling_ci": [0.85, 0.95]}
    stage.write(folder)
    return folder


def settings(reward_dir: Path, output_dir: Path, **asked) -> GateArguments:
    asked = OPEN | {"measure_roundtrip": False, "num_probes": 4, "min_accuracy": 0.5} | asked
    return GateArguments(reward_dir=str(reward_dir), output_dir=str(output_dir), **asked)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_gate_leaves_its_verdict_and_a_manifest(reward_dir, tmp_path):
    verdict = run_gate(settings(reward_dir, tmp_path, min_accuracy=0.9, min_ceiling_share=0.9))
    written = json.loads((tmp_path / "gate.json").read_text())
    assert written["passed"] is verdict["passed"] is True
    assert written["reward"] == {"path": str(reward_dir), "sha256": reward_sha256(reward_dir)}
    checks = {check["name"]: check for check in written["checks"]}
    assert checks["accuracy"]["value"] == 1.0
    assert checks["accuracy"]["low"] > 0.8  # Wilson's: equal outcomes are no certainty
    assert checks["ceiling"]["value"] == pytest.approx(1 / 0.9)
    assert checks["reload"]["value"] < 1e-5
    assert checks["padding"]["value"] < 1e-4
    assert checks["overfitting"]["details"]["early_stopping"] is True
    assert checks["spread"]["passed"] is None
    for check in checks.values():
        assert check["words"]
        assert {"title", "low", "high", "n", "threshold", "details"} <= set(check)
    manifest = Manifest.read(tmp_path)
    assert (manifest.stage, manifest.simulated) == ("gate", True)
    assert manifest.inputs["reward"] == written["reward"]
    assert "sha256" in manifest.inputs["heldout.jsonl"]
    assert manifest.metrics["passed"] is True
    assert manifest.metrics["checks"]["accuracy"]["n"] == NUM_PAIRS
    assert require_passed(tmp_path, reward_dir)["override"] is None


def test_saving_and_merging_are_measured_in_float32(reward_dir, tmp_path):
    (tmp_path / "rlhf-reward-left" / "saved").mkdir(parents=True)  # by a gate that was killed
    asked = settings(reward_dir, tmp_path, measure_roundtrip=True, max_roundtrip_shift=0.01)
    checks = {check["name"]: check for check in run_gate(asked)["checks"]}
    assert checks["roundtrip"]["passed"] is True
    assert {"padding", "batch", "loaded", "merged"} <= set(checks["roundtrip"]["details"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "manifest.json"]


def test_a_failed_gate_says_so_and_an_override_stands_beside_it(reward_dir, tmp_path):
    # the model is right on all of its own labels; of these scores none is calibrated like that
    asked = settings(reward_dir, tmp_path, max_ece=0.0)
    assert run_gate(asked)["passed"] is False
    with pytest.raises(GateError, match=r"the gate failed \(calibration\)"):
        require_passed(tmp_path, reward_dir)
    why = "a dry run of the next stage"
    verdict = run_gate(replace(asked, override_reason=why))
    assert verdict["passed"] is True
    assert verdict["refused_by"] == ["calibration"]
    assert require_passed(tmp_path, reward_dir)["override"] == {"reason": why}
    assert Manifest.read(tmp_path).metrics["override"] == {"reason": why}
    assert Manifest.read(tmp_path).provenance["override"] == {"reason": why}


def test_an_override_that_was_not_needed_is_none(reward_dir, tmp_path):
    asked = settings(reward_dir, tmp_path, override_reason="just in case it fails")
    assert run_gate(asked)["override"] is None


def test_a_gate_is_of_the_weights_that_it_saw(reward_dir, tmp_path):
    with pytest.raises(GateError, match="no finished gate"):
        require_passed(tmp_path, reward_dir)
    run_gate(settings(reward_dir, tmp_path / "gate"))
    moved = tmp_path / "elsewhere" / "reward"
    shutil.copytree(reward_dir, moved)
    assert require_passed(tmp_path / "gate", moved)["passed"] is True
    weights = moved / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(GateError, match="of another reward model"):
        require_passed(tmp_path / "gate", moved)
    (moved / "adapter_model.safetensors").write_bytes(
        (reward_dir / "adapter_model.safetensors").read_bytes()
    )
    assert require_passed(tmp_path / "gate", moved)["passed"] is True
    config = json.loads((moved / "adapter_config.json").read_text())
    write_json(moved / "adapter_config.json", config | {"lora_alpha": 2 * config["lora_alpha"]})
    with pytest.raises(GateError, match="of another reward model"):
        require_passed(tmp_path / "gate", moved)
    (tmp_path / "gate" / "gate.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        require_passed(tmp_path / "gate", reward_dir)


def test_a_reward_model_trained_anew_meanwhile_is_not_judged(reward_dir, tmp_path, monkeypatch):
    folder = tmp_path / "reward"
    shutil.copytree(reward_dir, folder)
    checks = Study.checks

    def train_meanwhile(study):
        made = checks(study)
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        return made

    monkeypatch.setattr(Study, "checks", train_meanwhile)
    with pytest.raises(DataError, match="trained anew while"):
        run_gate(settings(folder, tmp_path / "gate"))
    assert not (tmp_path / "gate" / "manifest.json").exists()


def test_what_could_not_be_measured_fails_only_where_all_is_required(reward_dir, tmp_path):
    asked = settings(reward_dir, tmp_path, min_spread_auroc=0.6)
    checks = [unmeasured("spread", "t", "one member", 0.6), unmeasured("x", "t", "-", None)]
    checks.append(judged("held", "t", exact(0.9, 9), 0.6, words="-"))
    assert verdict_of(checks, asked, False)["passed"] is True
    strict = verdict_of(checks, replace(asked, require_all=True), False)
    assert (strict["passed"], strict["refused_by"]) == (False, ["spread"])


def test_a_gate_that_asks_nothing_is_not_passed_by_it(reward_dir, tmp_path):
    asked = settings(reward_dir, tmp_path, min_accuracy=None)
    verdict = run_gate(asked)
    assert (verdict["passed"], verdict["refused_by"]) == (False, ["evidence"])
    with pytest.raises(GateError, match=r"the gate failed \(evidence\)"):
        require_passed(tmp_path, reward_dir)
    nothing_measured = [unmeasured("spread", "t", "one member", 0.6)]
    assert verdict_of(nothing_measured, asked, False)["passed"] is False
    overridden = run_gate(replace(asked, override_reason="a dry run only"))
    assert overridden["passed"] is True


@pytest.mark.parametrize(
    "edit",
    [
        lambda gate: gate | {"passed": True},
        lambda gate: gate | {"passed": True, "refused_by": []},
        lambda gate: gate | {"passed": True, "override": {"reason": " "}},
        lambda gate: gate | {"passed": True, "override": {"reason": "one of my own"}},
        lambda gate: (
            gate
            | {
                "passed": True,
                "refused_by": [],
                "checks": [c | {"passed": True} for c in gate["checks"]],
            }
        ),
    ],
)
def test_a_verdict_that_was_edited_is_none(edit, reward_dir, tmp_path):
    run_gate(settings(reward_dir, tmp_path, max_ece=0.0))
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(DataError, match="damaged"):
        require_passed(tmp_path, reward_dir)


def test_rows_changed_since_training_and_an_unfinished_stage_are_refused(reward_dir, tmp_path):
    folder = tmp_path / "reward"
    shutil.copytree(reward_dir, folder)
    stage = Manifest.read(folder)
    stage.outputs = {"heldout.jsonl": file_sha256(folder / "heldout.jsonl")}
    stage.write(folder)
    assert run_gate(settings(folder, tmp_path / "gate"))["passed"] is True
    whole = lines_of(folder / "heldout.jsonl")
    (folder / "heldout.jsonl").write_text("\n".join(whole[:-1]) + "\n")
    with pytest.raises(DataError, match="changed since training wrote it"):
        run_gate(settings(folder, tmp_path / "gate"))
    (folder / "manifest.json").unlink()
    (folder / "run.json").write_text("{}")
    with pytest.raises(DataError, match="its training did not end"):
        run_gate(settings(folder, tmp_path / "gate"))


def test_other_sets_and_best_of_n_leave_their_scored_rows(reward_dir, tmp_path):
    write_rows(tmp_path / "ood.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    texts = ["Take 2 spoons.", "No.", "Because it helps.", "x"]
    rows = [{"prompt": f"p{n}", "completions": texts, "ended": [True] * 4} for n in range(3)]
    write_rows(tmp_path / "drawn.jsonl", rows)
    verdict = run_gate(
        settings(
            reward_dir,
            tmp_path / "gate",
            out_of_domain=[f"mine={tmp_path / 'ood.jsonl'}"],
            best_of_n=str(tmp_path / "drawn.jsonl"),
        )
    )
    checks = {check["name"]: check for check in verdict["checks"]}
    assert checks["out_of_domain"]["details"]["groups"][0]["group"] == "mine"
    value = checks["best_of_n_value"]
    assert value["details"]["value_source"] == "simulated truth"
    assert value["details"]["simulated"] is True
    assert "SIMULATED" in value["words"]
    (scored,) = lines_of(tmp_path / "gate" / "out_of_domain.jsonl")
    assert json.loads(scored)["prompt"] == [{"role": "user", "content": "a"}]
    drawn = [json.loads(line) for line in lines_of(tmp_path / "gate" / "best_of_n.jsonl")]
    assert [len(row["scores"]) for row in drawn] == [4, 4, 4]
    assert "out_of_domain mine" in Manifest.read(tmp_path / "gate").inputs


def test_another_reward_model_or_a_column_may_value_completions(reward_dir, tmp_path):
    row = {"prompt": "p", "completions": ["a", "b"], "value": [0.0, 1.0]}
    write_rows(tmp_path / "drawn.jsonl", [row, row | {"prompt": "q"}])
    drawn = {"best_of_n": str(tmp_path / "drawn.jsonl")}
    sources = {}
    for asked in (None, "column", "truth", f"peer={reward_dir}"):
        gate = settings(reward_dir, tmp_path / "gate", **drawn, best_of_n_value=asked)
        checks = {check["name"]: check for check in run_gate(gate)["checks"]}
        sources[asked] = checks["best_of_n_value"]["details"]["value_source"]
    column = "the rows' value column"
    assert list(sources.values()) == [column, column, "simulated truth", "peer"]


def test_the_truth_of_people_is_nobody_s(reward_dir, tmp_path):
    people = tmp_path / "reward"
    shutil.copytree(reward_dir, people)
    rows = [json.loads(line) for line in lines_of(people / "heldout.jsonl")]
    write_rows(people / "heldout.jsonl", [row | {"simulated": False} for row in rows])
    write_rows(tmp_path / "drawn.jsonl", [{"prompt": "p", "completions": ["a", "b"]}])
    asked = settings(people, tmp_path / "gate", best_of_n=str(tmp_path / "drawn.jsonl"))
    with pytest.raises(ConfigError, match="truth"):
        run_gate(replace(asked, best_of_n_value="truth"))
    with pytest.raises(DataError, match="no column `value`"):
        run_gate(replace(asked, best_of_n_value="column"))
    checks = {check["name"]: check for check in run_gate(asked)["checks"]}
    assert checks["best_of_n_value"]["passed"] is None
    assert Manifest.read(tmp_path / "gate").simulated is False


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"min_accuracy": 1.5}, "--min_accuracy 1.5: must be from 0 to 1"),
        ({"max_temperature": 0.0}, "--max_temperature 0: must be above 0"),
        ({"max_padding_shift": -0.1}, "--max_padding_shift -0.1: must be 0 or more"),
        ({"min_best_of_n_gain": float("nan")}, "must be a finite number"),
        ({"min_gain_over_length": -2.0}, "must be from -1 to 1"),
        ({"min_pairs": 1}, "--min_pairs 1"),
        ({"override_reason": "  "}, "say in a few words"),
        ({"override_reason": "because"}, "say in a few words"),
        ({"reward_dir": ""}, "--reward_dir is missing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(asked, message):
    with pytest.raises(ConfigError, match=message):
        GateArguments(**({"reward_dir": "r", "output_dir": "o"} | asked))


def test_every_threshold_may_be_null():
    assert len(threshold_names()) > 15
    gate = GateArguments(reward_dir="r", output_dir="o", **OPEN)
    assert all(getattr(gate, name) is None for name in threshold_names())
