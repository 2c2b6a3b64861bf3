"""What docs/reward.md promises: its example runs, its thresholds are real, its tests are there."""

import ast
import json
import re
from pathlib import Path

import pytest

from rlhf.cli import main

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "reward.md").read_text()


@pytest.fixture
def reward_folder(tiny_model, tmp_path, monkeypatch):
    """runs/reward of the working folder, which the examples read."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"question {number}?", "chosen": f"yes, {number}.", "rejected": "no " * number}
        for number in range(2, 10)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model_name_or_path", str(tiny_model), "--dataset_name", "pairs.jsonl"]
    options += ["--max_steps", "1", "--use_peft", "--eval_fraction", "0.4"]
    assert main(["reward", *options, "--output_dir", "runs/reward"]) == 0
    return Path("runs/reward")


def test_the_python_example_runs(reward_folder):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names = {}
    exec(compile(example, "docs/reward.md", "exec"), names)
    assert names["scores"].shape == (2,)
    assert names["members"].shape == (1, 2)
    assert names["as_trl_calls_it"] != names["scores"].tolist()  # no `ended` was given there
    assert names["as_trl_calls_it"][0] == pytest.approx(float(names["scores"][0]), abs=1e-5)


def test_the_tests_that_the_table_of_pains_names_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUIDE)
    assert len(named) >= 8
    missing = [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)]
    assert missing == []


def functions_of(path):
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_threshold_of_the_gate_stands_in_the_guide_with_its_default():
    from rlhf.evaluation.gate.arguments import GateArguments, threshold_names

    told = dict(re.findall(r"^\| `(\w+)` \| ([-\d.]+) \|", GUIDE, re.MULTILINE))
    defaults = GateArguments(reward_dir="in", output_dir="out")
    assert {name: float(value) for name, value in told.items()} == {
        name: getattr(defaults, name) for name in threshold_names()
    }
