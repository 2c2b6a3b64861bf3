"""What docs/ppo.md promises: every option with its default, its places and tests, its examples."""

import ast
import dataclasses
import functools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from rlhf.training.ppo.config import PPOConfig
from rlhf.training.rewards.options import ScoreOptions
from tests.training.ppo.conftest import BASIC, column, prompts

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "ppo.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def written() -> list[tuple[str, str, str]]:
    """(option, default, reason) of every row of an options table."""
    return [(name, default.strip(), why.strip()) for name, default, why in ROW.findall(page())]


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def options() -> dict[str, object]:
    """Every option of ours with its default, those of transformers only where ours differs."""
    theirs = {one.name: one.default for one in dataclasses.fields(TrainingArguments)}
    fields = {
        one.name: one for each in (PPOConfig, ScoreOptions) for one in dataclasses.fields(each)
    }
    own = {*PPOConfig.__annotations__, *ScoreOptions.__annotations__}
    return {
        name: one.default
        for name, one in fields.items()
        if name in own and (name not in theirs or theirs[name] != one.default)
    }


def in_words(default: object) -> str:
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_there_are_options():
    assert {"kl_coef", "missing_eos_penalty", "lam"} <= set(options())


def test_every_option_is_in_the_tables_once_and_nothing_else_is():
    assert sorted(name for name, _, _ in written()) == sorted(options())


@pytest.mark.parametrize("name", sorted(options()))
def test_its_default_is_the_one_in_the_code_and_has_a_reason(name):
    default, why = {name: (default, why) for name, default, why in written()}[name]
    assert default == in_words(options()[name])
    assert len(why.split()) >= 4


def test_every_file_that_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page())
    assert len(links) > 5
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def functions_of(path: Path) -> set[str]:
    """The names of functions, methods and classes that a file defines; none where it is not."""
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {one.name for one in nodes if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def test_the_tests_that_hold_the_pitfalls_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page())
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)]
    assert missing == []


def test_what_it_says_is_somewhere_is_there():
    named = re.findall(r"`((?!tests/)[\w/]+\.py)::(\w+)`", page())
    assert len(named) > 20
    missing = []
    for path, name in named:
        folder = ROOT if path.startswith("rlhf/") else ROOT / "rlhf" / "training" / "ppo"
        if name not in functions_of(folder / path):
            missing.append(f"{path}::{name}")
    assert missing == []


@pytest.fixture
def examples() -> dict[str, Any]:
    """What the page's Python defines, but for the last block, which uses all of it."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page(), re.DOTALL)[:-1]:
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_the_reward_of_ones_own_is_called(examples, make_trainer):
    trainer = make_trainer(rewards=examples["brevity"], missing_eos_penalty=0.0)
    trainer.train()
    lengths = column(trainer, "completion_length")
    assert column(trainer, "score") == pytest.approx([-one / 100 for one in lengths])


def test_demonstrations_are_learnt_from(examples, make_trainer):
    rows = [{"prompt": "Question:", "demonstration": "please answer"} for _ in range(8)]
    trainer = make_trainer(examples["FromDemonstrations"], dataset=rows)
    trainer.train()
    length = len(trainer.renderer.completion_ids("please answer"))
    assert column(trainer, "completion_length") == [length]
    assert column(trainer, "ended_rate") == [1.0]
    assert column(trainer, "first_ratio_error") == [0.0]


def test_a_score_of_ones_own_comes_on_top(examples, make_trainer):
    trainer = make_trainer(examples["AgainstTheReference"], missing_eos_penalty=0.0)
    trainer.train()
    (score,), (other,) = column(trainer, "score"), column(trainer, "score/variety")
    assert score < other  # log-probabilities are below 0


def test_the_bandits_advantage_by_hand(examples):
    # prices 0.5 * 2 and 0.5 * 4 off 3 and 6: returns 2 and 4; two tokens and one token
    rollout = SimpleNamespace(
        scores=torch.tensor([3.0, 6.0]),
        logps=torch.tensor([[1.0, 1.0], [4.0, 0.0]]),
        ref_logps=torch.zeros(2, 2),
        mask=torch.tensor([[True, True], [True, False]]),
    )
    trainer = SimpleNamespace(kl=SimpleNamespace(coef=0.5), reduce=None)
    advantages, returns = examples["BanditPPO"].advantages(trainer, rollout)
    assert returns.tolist() == [[2, 2], [4, 4]]
    # mean 8/3, deviation sqrt(8/9): -0.7071, -0.7071, 1.4142
    assert advantages.flatten().tolist() == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5, 0])


def test_the_whole_example_trains(examples, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "model": AutoModelForCausalLM.from_pretrained(tiny_model),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
        "prompts": prompts(),
        "LoraConfig": LoraConfig,
        "PPOConfig": functools.partial(PPOConfig, **BASIC),
    }
    code = re.findall(r"```python\n(.*?)```", page(), re.DOTALL)[-1]
    names = examples | given
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["trainer"].state.global_step == 4
    assert column(names["trainer"], "score/brevity")
