"""A sweep's YAML: what is refused before anything runs, and what is decided where it is silent."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import FloatDistribution, IntDistribution

from rlhf.cli import main, verb_module
from rlhf.cli.sweep import plan as plan_of
from rlhf.errors import ConfigError
from rlhf.training.arguments import TRAINING_STAGES

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
RATE = {"low": 1e-5, "high": 1e-3, "log": True}
SETTINGS = {"model_name_or_path": "m", "dataset_name": "d", "eval_fraction": 0.2}
DPO: dict[str, Any] = {"stage": "dpo", "settings": SETTINGS, "search": {"learning_rate": RATE}}


def planned(folder: Path, *words: str, **changes: Any) -> Any:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**DPO, **changes}))
    return plan_of([str(path), "--output_dir", str(folder / "out"), *words])


def test_there_are_configs_to_begin_with():
    assert {path.stem for path in FILES} >= {"dpo", "reward"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_is_parsed_by_the_command(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = plan_of([str(path), "--output_dir", str(tmp_path)])
    assert plan.stage == path.stem
    assert plan.metric == yaml.safe_load(path.read_text())["metric"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serch": {}}, "s.yaml: unknown key 'serch'; did you mean 'search'"),
        ({"stage": "dpoo"}, "s.yaml: stage: unknown key 'dpoo'; did you mean 'dpo'"),
        (
            {"search": {"learning_rat": RATE}},
            "unknown key 'learning_rat'; did you mean 'learning_r",
        ),
        ({"settings": {**SETTINGS, "bta": 1}}, "s.yaml: dpo: unknown key 'bta'; did you mean"),
        ({"search": {"lora_r": [8, 1.5]}}, "lora_r must be a whole number, not 1.5"),
        ({"search": {"optim": ["adamw_torch", "nonsense"]}}, "nonsense"),
        ({"search": {"beta": {"low": 2, "high": 1}}}, "s.yaml: search: beta: low 2 is above"),
        ({"settings": {**SETTINGS, "learning_rate": 1e-4}}, "searched and set at once"),
        ({"settings": {**SETTINGS, "output_dir": "x"}}, "a folder of its own"),
        ({"settings": {**SETTINGS, "restart": True}}, "a folder of its own"),
        ({"settings": [1]}, "settings: expected the stage's keys"),
        ({"settings": {"model_name_or_path": "m", "dataset_name": "d"}}, "none are; add eval_frac"),
        ({"pruner": "median"}, "add eval_strategy: steps"),
        ({"pruner": "hyperband"}, "pruner 'hyperband': must be one of median, none"),
        ({"sampler": "grid"}, "learning_rate: sampler grid needs each value"),
        ({"sampler": "grid", "search": {"beta": [0.1]}, "num_trials": 2}, "the grid has 1 points"),
        ({"direction": "up"}, "direction 'up': must be one of minimize, maximize"),
        ({"num_trials": 0}, "num_trials 0: must be a whole number of at least 1"),
        ({"seed": -1}, "seed -1"),
        ({"metric": "eval_foo"}, "cannot be told by its name; add direction"),
        ({"metric": 3}, "metric 3: must be a name"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: No such file"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(changes, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_ends_with_exit_code_2(tmp_path, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(DPO))
    assert main(["sweep", str(path), "--output_dir", str(tmp_path), "--max_stepps", "3"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "unknown key 'max_stepps'; did you mean 'max_steps'?" in line
    assert main(["sweep", "--show", str(tmp_path / "x")]) == 2
    assert main(["sweep", "--show", str(tmp_path), str(path)]) == 2
    assert main(["sweep", str(path)]) == 2


def test_the_command_line_wins_over_settings_and_they_over_the_config(tmp_path):
    (tmp_path / "c.yaml").write_text("max_steps: 1\nlora_r: 4\nbeta: 0.7\noutput_dir: runs/dpo\n")
    plan = planned(
        tmp_path,
        *("--max_steps", "3", "--num_trials", "7", "--seed", "5", "--sampler", "random"),
        config=str(tmp_path / "c.yaml"),
        settings={**SETTINGS, "max_steps": 2, "lora_r": 5},
        search={"beta": [0.1, 0.2]},
    )
    assert plan.settings == {**SETTINGS, "max_steps": 3, "lora_r": 5}
    assert (plan.num_trials, plan.seed, plan.sampler) == (7, 5, "random")
    with pytest.raises(ConfigError, match="searched and set at once"):
        planned(tmp_path, "--beta", "0.3", search={"beta": [0.1, 0.2]})


def test_what_is_left_open_is_decided_by_the_stage(tmp_path):
    plan = planned(tmp_path)
    assert (plan.metric, plan.direction, plan.pruner) == ("eval_loss", "minimize", "none")
    evaluated = {**SETTINGS, "eval_strategy": "steps", "eval_steps": 5}
    plan = planned(tmp_path, settings=evaluated, metric="eval_rewards/accuracies")
    assert (plan.direction, plan.pruner) == ("maximize", "median")
    assert plan.pruner_metric == "eval_rewards/accuracies"
    assert planned(tmp_path, settings=evaluated, metric="accuracy").pruner_metric == "eval_accuracy"


def test_the_type_of_a_range_is_that_of_its_key(tmp_path):
    plan = planned(
        tmp_path,
        search={
            "learning_rate": {"low": 1, "high": 2},
            "lora_r": {"low": 8, "high": 16, "step": 4},
        },
    )
    rate, rank = plan.parameters
    assert rate.distribution == FloatDistribution(1.0, 2.0)
    assert rank.distribution == IntDistribution(8, 16, step=4)


def test_the_grid_says_how_many_trials_there_are(tmp_path):
    search = {"beta": [0.1, 0.2, 0.3], "lora_r": [4, 8]}
    assert planned(tmp_path, sampler="grid", search=search).num_trials == 6


def test_data_that_changed_makes_another_sweep(tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text("{}\n")
    settings = {**SETTINGS, "dataset_name": str(data)}
    first = planned(tmp_path, settings=settings).reads
    data.write_text("{}\n{}\n")
    assert list(first) == [f"dataset_name {data}"]
    assert planned(tmp_path, settings=settings).reads != first


@pytest.mark.parametrize("stage", TRAINING_STAGES)
def test_every_training_stage_can_be_searched(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = ROOT / "configs" / f"{stage}.yaml"
    assert config.exists()
    held_out = {"eval_fraction": 0.2}
    plan = planned(tmp_path, stage=stage, config=str(config), settings=held_out)
    assert plan.metric in ("eval_loss", "accuracy", "eval_score", "eval_reward")
    assert plan.settings["eval_fraction"] == 0.2
    settings = plan.trial_settings({"learning_rate": 3e-4}, tmp_path / "trial")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(settings))
    parsed = verb_module(stage).parse(["--config", str(tmp_path / "t.yaml")])
    assert parsed.training.learning_rate == 3e-4
    assert parsed.training.output_dir == str(tmp_path / "trial")
