"""Where rewards come from: what is found, what is refused, and what is noted of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from rlhf.errors import ConfigError, GateError
from rlhf.evaluation.gate.binding import reward_sha256
from rlhf.manifest import Manifest, file_sha256
from rlhf.models.reward_spec import RewardSpec
from rlhf.training.rewards.episodes import Episodes
from rlhf.training.rewards.functions import find_function, function_sha256
from rlhf.training.rewards.options import ScoreOptions
from rlhf.training.rewards.sources import load_sources
from tests.training.gated_reward import gated_reward, write_gate


class Stage(ScoreOptions):
    """What load_sources reads of an OnlineArguments with its ScoreOptions."""

    def __init__(self, models=(), funcs=(), gates=(), separate=False, **options):
        super().__init__(**options)
        self.reward_model_name_or_path = [str(each) for each in models]
        self.reward_funcs = list(funcs)
        self.gate_dir = [str(each) for each in gates]
        self.separate_reward_model = separate


def training(weights=None):
    return SimpleNamespace(reward_weights=weights, device=torch.device("cpu"))


def load(stage, weights=None, *, shared=True):
    return load_sources(stage, training(weights), shared=shared)


@pytest.fixture
def functions(tmp_path):
    """FILE.py with two reward functions and things that are none."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "def length(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"
        "async def later(completions, **kwargs):\n    return [2.0 for _ in completions]\n"
        "def strict(prompts, completions):\n    return [0.0 for _ in completions]\n"
        "number = 3\n"
    )
    return path


def one_episode():
    return Episodes(prompts=["p"], completions=["abc"], completion_ids=[[5, 6]], ended=[True])


def test_a_reward_model_with_its_gate_beside_it_is_shared(tmp_path, tiny_model):
    folder = gated_reward(tmp_path, tiny_model)
    (source,) = load(Stage([folder])).sources
    assert (source.name, source.weight, source.is_shared) == ("reward", 1.0, True)
    assert source.folder == folder
    assert source.gate.folder == tmp_path / "gate"
    assert source.gate.sha256 == file_sha256(tmp_path / "gate" / "gate.json")


@pytest.mark.parametrize(("shared", "separate"), [(False, False), (True, True)])
def test_a_reward_model_is_loaded_whole_where_it_cannot_or_shall_not_be_shared(
    shared, separate, tmp_path, tiny_model
):
    from rlhf.models.scoring import RewardModel

    folder = gated_reward(tmp_path, tiny_model)
    sources = load(Stage([folder], separate=separate, missing_eos_penalty=0.0), shared=shared)
    assert not sources.sources[0].is_shared
    scored = sources.score(one_episode())
    expected = RewardModel.load(folder).score(["p"], ["abc"], [True])
    assert torch.equal(scored.scores, expected)


def test_without_a_gate_it_is_refused_with_5(tmp_path, tiny_model):
    folder = gated_reward(tmp_path, tiny_model)
    with pytest.raises(GateError, match="no finished gate there; run rlhf gate"):
        load(Stage([folder], gates=[tmp_path / "elsewhere"]))
    assert GateError.exit_code == 5


def test_a_failed_gate_is_refused_unless_a_person_wrote_why(tmp_path, tiny_model):
    folder = gated_reward(tmp_path, tiny_model, passed=False)
    with pytest.raises(GateError, match="the gate failed"):
        load(Stage([folder]))
    write_gate(tmp_path / "gate", folder, passed=False, override="to see it run")
    (noted,) = load(Stage([folder])).provenance()
    assert noted["gate"]["override"] == {"reason": "to see it run"}
    assert noted["gate"]["refused_by"] == ["accuracy"]


def test_a_gate_of_other_weights_is_refused(tmp_path, tiny_model):
    folder = gated_reward(tmp_path / "one", tiny_model)
    other = gated_reward(tmp_path / "two", tiny_model, num_members=2)
    with pytest.raises(GateError, match="of another reward model"):
        load(Stage([folder], gates=[other.parent / "gate"]))


def test_one_gate_for_each_reward_model(tmp_path, tiny_model):
    one = gated_reward(tmp_path / "one", tiny_model)
    two = gated_reward(tmp_path / "two", tiny_model)
    assert load(Stage([one, two])).names == ["reward", "reward-2"]
    with pytest.raises(ConfigError, match="--gate_dir: 1 for 2 reward models"):
        load(Stage([one, two], gates=[tmp_path / "one" / "gate"]))


def test_functions_need_no_gate_and_the_manifest_says_so(functions):
    sources = load(Stage(funcs=[f"{functions}:length"]))
    (noted,) = sources.provenance()
    assert noted["kind"] == "function"
    assert noted["gate"].startswith("none")
    assert noted["sha256"] == file_sha256(functions)
    assert sources.inputs() == {}  # or a run that it stopped could not go on with it mended


def test_a_reward_model_is_an_input_by_its_weights(tmp_path, tiny_model):
    folder = gated_reward(tmp_path, tiny_model)
    assert load(Stage([folder])).inputs() == {
        "reward reward": {
            "path": str(folder),
            "sha256": reward_sha256(folder),
            "simulated": False,
        }
    }


def test_simulated_labels_stay_simulated(tmp_path, tiny_model):
    simulated = gated_reward(tmp_path / "one", tiny_model, simulated=True)
    people = gated_reward(tmp_path / "two", tiny_model)
    assert load(Stage([people, simulated])).simulated is True
    assert load(Stage([people])).simulated is False
    assert Manifest.read(simulated).simulated is True


def test_weights_in_the_order_of_the_settings_reward_models_first(tmp_path, tiny_model, functions):
    folder = gated_reward(tmp_path, tiny_model)
    sources = load(Stage([folder], [f"{functions}:length"]), [0.5, -2.0]).sources
    assert [(each.name, each.weight) for each in sources] == [("reward", 0.5), ("length", -2.0)]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "--reward_weights: 1 for 2 sources"),
        ([0.0, 0.0], "must be finite, and not all 0"),
        ([float("nan"), 1.0], "must be finite, and not all 0"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(weights, message, functions):
    stage = Stage(funcs=[f"{functions}:length", f"{functions}:later"])
    with pytest.raises(ConfigError, match=message):
        load(stage, weights)


def test_no_source_and_one_source_twice_are_refused(tmp_path, tiny_model, functions):
    with pytest.raises(ConfigError, match="no source of rewards"):
        load(Stage())
    with pytest.raises(ConfigError, match="named twice"):
        load(Stage(funcs=[f"{functions}:length"] * 2))
    folder = gated_reward(tmp_path, tiny_model)
    with pytest.raises(ConfigError, match="named twice"):
        load(Stage([folder, folder.parent / "." / "reward"]))


@pytest.mark.parametrize(
    ("named", "expected"),
    [(None, "float32"), ("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")],
)
def test_one_rule_for_the_dtype_of_reward_models(named, expected, tmp_path, tiny_model):
    folder = gated_reward(tmp_path, tiny_model)
    (source,) = load_sources(Stage([folder]), training(), shared=False, dtype=named).sources
    backbone = next(iter(source.model.model.base_model.parameters()))
    assert backbone.dtype == getattr(torch, expected)


def test_no_such_reward_model(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        load(Stage([tmp_path / "nowhere"]))


def test_a_reference_that_was_not_recorded_is_refused(tmp_path, tiny_model):
    from dataclasses import replace

    folder = gated_reward(tmp_path, tiny_model)
    replace(RewardSpec.read(folder), score_std=None).write(folder)
    write_gate(tmp_path / "gate", folder)
    with pytest.raises(ConfigError, match="no score_mean and score_std"):
        load(Stage([folder], reward_normalization="reference"))


def test_a_function_of_a_package_and_one_of_trl():
    from trl.rewards import think_format_reward

    assert find_function("trl.rewards.think_format_reward") is think_format_reward
    assert find_function("think_format_reward") is think_format_reward


def test_a_module_beside_the_command_is_found(functions, monkeypatch):
    monkeypatch.chdir(functions.parent)
    functions.rename(functions.with_name("my_rewards_here.py"))
    assert find_function("my_rewards_here.length")(completions=["ab"]) == [2.0]


def test_two_files_of_one_name_are_two(functions, tmp_path):
    other = tmp_path / "other" / "rewards.py"
    other.parent.mkdir()
    other.write_text("def length(completions, **kwargs):\n    return [-1.0 for _ in completions]\n")
    assert find_function(f"{functions}:length")(completions=["abc"]) == [3.0]
    assert find_function(f"{other}:length")(completions=["abc"]) == [-1.0]
    names = load(Stage(funcs=[f"{functions}:length", f"{other}:length"])).names
    assert names == ["length", "length-2"]


def test_an_async_function_is_awaited(functions):
    assert asyncio.iscoroutinefunction(find_function(f"{functions}:later"))
    scored = load(Stage(funcs=[f"{functions}:later"])).score(one_episode())
    assert scored.scores.tolist() == [2.0]


def test_an_async_function_is_awaited_where_a_loop_runs_already(functions):
    sources = load(Stage(funcs=[f"{functions}:later"]))

    async def in_a_notebook():
        return sources.score(one_episode())

    assert in_a_loop_of_its_own(in_a_notebook).scores.tolist() == [2.0]


def in_a_loop_of_its_own(function):
    """Other tests of this process may have left a running loop in this thread."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(function())).result()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:f", "no file nowhere.py"),
        ("{file}:lenght", "did you mean 'length'"),
        ("{file}:number", "not a function"),
        ("{file}:strict", r"must take \*\*kwargs"),
        ("no_such_package.f", "cannot be imported .ModuleNotFoundError"),
        ("think_format_rewards", "did you mean 'think_format_reward'"),
        ("get_soft_overlong_punishment", "makes a reward function"),
    ],
)
def test_what_names_no_reward_function_is_refused(name, message, functions):
    with pytest.raises(ConfigError, match=message):
        find_function(name.format(file=functions))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise OSError('no such disk')", r"OSError: no such disk"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),  # a script, run as it is imported
    ],
)
def test_a_file_that_breaks_when_imported(text, message, functions):
    functions.write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=rf"cannot be imported \({message}\)"):
        find_function(f"{functions}:length")


def test_the_hash_is_of_the_file_that_defines_the_function(functions):
    name = f"{functions}:length"
    before = function_sha256(find_function(name), name)
    functions.write_text(functions.read_text() + "# changed\n")
    assert function_sha256(find_function(name), name) != before
