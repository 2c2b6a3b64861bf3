"""docs/ppo.md names every option of PPO, each once, with the default that the code has."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from rlhf.training.ppo.config import PPOConfig
from rlhf.training.rewards.options import ScoreOptions

PAGE = Path(__file__).parents[3] / "docs" / "ppo.md"
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


def test_the_example_does_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", page(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    # prices 0.5 * 2 and 0.5 * 4 off 3 and 6: returns 2 and 4; two tokens and one token
    rollout = SimpleNamespace(
        scores=torch.tensor([3.0, 6.0]),
        logps=torch.tensor([[1.0, 1.0], [4.0, 0.0]]),
        ref_logps=torch.zeros(2, 2),
        mask=torch.tensor([[True, True], [True, False]]),
    )
    trainer = SimpleNamespace(kl=SimpleNamespace(coef=0.5), reduce=None)
    advantages, returns = names["BanditPPO"].advantages(trainer, rollout)
    assert returns.tolist() == [[2, 2], [4, 4]]
    # mean 8/3, deviation sqrt(8/9): -0.7071, -0.7071, 1.4142
    assert advantages.flatten().tolist() == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5, 0])
