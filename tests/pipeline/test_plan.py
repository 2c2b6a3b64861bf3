from pathlib import Path

import pytest

from rlhf.cli.run import read_overrides
from rlhf.errors import ConfigError
from rlhf.pipeline.plan import load_plan
from rlhf.records import STAGES

LOOP = """
model_name_or_path: some-base
dtype: bfloat16
seed: 3
sft: {dataset_name: demos.jsonl}
sample: {dataset_name: prompts.jsonl}
ratings: simulated
reward:
gate: {min_accuracy: 0.55}
dpo: {beta: 0.2, seed: 4}
ppo: {kl_coef: 0.1}
evaluate: {dataset_name: heldout.jsonl}
"""


@pytest.fixture
def loop(tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text(LOOP)
    return path


def configs(path, **overrides):
    plan = load_plan(path, Path("runs/x"), overrides)
    return {stage.name: stage.config for stage in plan.stages}


def test_stages_come_in_the_order_of_the_loop(loop):
    assert tuple(configs(loop)) == STAGES


def test_every_stage_reads_what_the_ones_before_it_wrote(loop):
    stage = configs(loop)
    assert stage["sft"]["model_name_or_path"] == "some-base"
    assert stage["sample"]["model_name_or_path"] == "runs/x/sft"
    assert stage["ratings"]["completions"] == "runs/x/sample/completions.jsonl"
    assert stage["ratings"]["campaign"] == "loop"
    assert stage["reward"]["dataset_name"] == "runs/x/ratings/judgements.jsonl"
    assert stage["gate"]["reward_dir"] == "runs/x/reward"
    assert stage["gate"]["min_accuracy"] == 0.55
    assert stage["gate"]["dtype"] == "bfloat16"
    assert stage["dpo"]["dataset_name"] == stage["reward"]["dataset_name"]
    assert stage["dpo"]["model_name_or_path"] == "runs/x/sft"
    assert stage["ppo"] == {
        "model_name_or_path": "runs/x/sft",
        "dataset_name": "prompts.jsonl",  # of the sample stage
        "reward_model_name_or_path": ["runs/x/reward"],
        "gate_dir": ["runs/x/gate"],
        "output_dir": "runs/x/ppo",
        "max_loss": 0,
        "dtype": "bfloat16",
        "seed": 3,
        "kl_coef": 0.1,
    }
    policies = ["base=some-base", "sft=runs/x/sft", "dpo=runs/x/dpo", "ppo=runs/x/ppo"]
    assert stage["evaluate"]["policies"] == policies


def test_ppo_may_have_prompts_of_its_own(loop):
    assert (
        configs(loop, **{"ppo.dataset_name": "more.jsonl"})["ppo"]["dataset_name"] == "more.jsonl"
    )
    changed = configs(loop, **{"sample.dataset_name": "short.jsonl"})
    assert changed["ppo"]["dataset_name"] == "short.jsonl"


@pytest.mark.parametrize("left_out", ["dpo", "ppo"])
def test_an_evaluation_compares_the_policies_that_are_tuned(loop, left_out):
    lines = [line for line in LOOP.splitlines() if not line.startswith(f"{left_out}:")]
    loop.write_text("\n".join(lines))
    plan = load_plan(loop, Path("runs/x"), {})
    (tuned,) = {"dpo", "ppo"} - {left_out}
    evaluate = plan.stages[plan.index("evaluate")]
    assert evaluate.requires == ("sft", "reward", tuned)
    assert evaluate.config["policies"][1:] == ["sft=runs/x/sft", f"{tuned}=runs/x/{tuned}"]


def test_without_a_policy_an_evaluation_asks_for_one(loop):
    lines = [line for line in LOOP.splitlines() if line[:3] not in ("dpo", "ppo")]
    loop.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="evaluate reads what dpo or ppo writes; add a section"):
        load_plan(loop, Path("runs/x"), {})


def test_ppo_needs_the_gate(loop):
    lines = [line for line in LOOP.splitlines() if not line.startswith("gate:")]
    loop.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="ppo reads what gate writes; add a section `gate:`"):
        load_plan(loop, Path("runs/x"), {})


def test_no_stage_of_a_pipeline_loses_a_row_unasked(loop):
    stages = configs(loop, **{"sample.max_loss": 0.1})
    told = {name: stage["max_loss"] for name, stage in stages.items() if "max_loss" in stage}
    assert told == {"sft": 0, "sample": 0.1, "reward": 0, "dpo": 0, "ppo": 0, "evaluate": 0}


def test_a_section_wins_over_shared_keys_and_the_command_line_over_both(loop):
    assert configs(loop)["sft"]["seed"] == 3
    assert configs(loop)["dpo"]["seed"] == 4
    changed = configs(loop, **{"dpo.seed": 5, "dpo.beta": 0.3, "seed": 6})
    assert (changed["dpo"]["seed"], changed["dpo"]["beta"], changed["sft"]["seed"]) == (5, 0.3, 6)


def test_ratings_may_be_a_word_or_a_section(loop):
    assert configs(loop)["ratings"]["ratings"] == "simulated"
    human = configs(loop, ratings="human", **{"ratings.overlap": 5})
    assert human["ratings"]["ratings"] == "human"
    assert human["ratings"]["overlap"] == 5


def test_truth_judges_only_where_the_raters_are_simulated(loop):
    assert "truth" in configs(loop)["evaluate"]["judges"]
    assert "truth" not in configs(loop, ratings="human")["evaluate"]["judges"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stf: {}\nsft: {}", "unknown key 'stf'; did you mean 'sft'"),
        ("seed: 1", "names no stage"),
        ("dpo: {}", "dpo reads what sft writes"),
        ("gate: {}", "gate reads what reward writes"),
        ("ppo: {}", "ppo reads what sft writes"),
        ("evaluate: {}", "evaluate reads what sft writes"),
        ("sft: 3", "sft: expected the stage's keys below it"),
        ("sft: [", "loop.yaml:1"),
        ("- sft", "holds no `key: value` lines"),
    ],
)
def test_a_wrong_pipeline_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "loop.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_plan(path, tmp_path, {})
    assert message in str(error.value)


def test_a_missing_pipeline_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_plan(tmp_path / "none.yaml", tmp_path, {})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-4", 1e-4),
        ("-2", -2),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("010", "010"),
        ("A or B: which?", "A or B: which?"),
        ("be nice #1", "be nice #1"),
        ("[1", "[1"),
    ],
)
def test_a_word_is_a_number_or_itself(word, value):
    assert read_overrides([f"--k={word}"]) == {"k": value}


def test_overrides_are_keys_with_one_value_several_or_none():
    words = ["--dpo.beta", "0.2", "--seed=1", "--evaluate.judges", "truth", "shorter", "--x"]
    assert read_overrides(words) == {
        "dpo.beta": 0.2,
        "seed": 1,
        "evaluate.judges": ["truth", "shorter"],
        "x": True,
    }
    with pytest.raises(ConfigError, match="expected --KEY VALUE"):
        read_overrides(["0.2"])


def test_one_rendering_reaches_every_stage_that_renders(loop):
    stage = configs(loop, rendering="plain")
    for name in ("sft", "sample", "reward", "dpo", "ppo", "evaluate"):
        assert stage[name]["rendering"] == "plain"
    assert "rendering" not in stage["gate"]  # reward.json says it
