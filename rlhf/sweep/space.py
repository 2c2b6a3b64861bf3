"""What may be searched: a range or a list of choices for each key, checked before anything runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isclose, isfinite
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import Trial

from rlhf.config import decides_result, refuse_unknown
from rlhf.errors import ConfigError

_SPEC_KEYS = ("low", "high", "log", "step", "choices")
_EXAMPLE = "for example `learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}`"
_SAME_FOR_ALL = ("eval_fraction", "eval_dataset_name", "split_seed", "dataset_test_split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One searched key of the stage, and the values that it may take.

    A choice that is a list (`loss_type: [sigmoid, sft]`) is proposed under its JSON text.
    """

    name: str
    distribution: BaseDistribution
    values: Mapping[str, Any]

    def suggest(self, trial: Trial) -> Any:
        """The value that a trial is proposed, or was proposed before."""
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return self.value_of(trial.suggest_categorical(self.name, one.choices))
        if isinstance(one, IntDistribution):
            return trial.suggest_int(self.name, one.low, one.high, step=one.step, log=one.log)
        assert isinstance(one, FloatDistribution)
        return trial.suggest_float(self.name, one.low, one.high, step=one.step, log=one.log)

    def value_of(self, proposed: Any) -> Any:
        """The stage's value for what the study calls `proposed`."""
        return self.values.get(proposed, proposed) if isinstance(proposed, str) else proposed

    @property
    def is_log(self) -> bool:
        """Whether it is searched, and drawn, on a logarithmic scale."""
        return bool(getattr(self.distribution, "log", False))

    @property
    def is_choice(self) -> bool:
        """Whether it has choices rather than a range."""
        return isinstance(self.distribution, CategoricalDistribution)

    def ends(self) -> list[Any]:
        """Both ends of the range, or every choice: what the stage's own parser is asked about."""
        if isinstance(self.distribution, CategoricalDistribution):
            return [self.value_of(one) for one in self.distribution.choices]
        assert isinstance(self.distribution, FloatDistribution | IntDistribution)
        return [self.distribution.low, self.distribution.high]

    def grid(self) -> list[Any]:
        """Every value as the study proposes it; ConfigError for a range without a step."""
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return list(one.choices)
        assert isinstance(one, FloatDistribution | IntDistribution)
        if one.step is None or one.log:
            raise ConfigError(
                f"search: {self.name}: sampler grid needs each value; give choices, or a step"
            )
        count = round((one.high - one.low) / one.step) + 1
        if isinstance(one, IntDistribution):
            return [one.low + index * one.step for index in range(count)]
        # twelve digits: 0.1 + 2 * 0.1 is 0.30000000000000004
        return [float(f"{one.low + index * one.step:.12g}") for index in range(count)]

    @property
    def words(self) -> str:
        """What is searched, for people: `1e-05 to 0.001, logarithmic`."""
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return "one of " + ", ".join(str(choice) for choice in one.choices)
        assert isinstance(one, FloatDistribution | IntDistribution)
        steps = f" in steps of {one.step:g}" if one.step not in (None, 1) else ""
        return f"{one.low:g} to {one.high:g}{steps}{', logarithmic' if one.log else ''}"

    def as_dict(self) -> dict[str, Any]:
        """What `of_dict` makes it from again."""
        return {
            "words": self.words,
            "distribution": distribution_to_json(self.distribution),
            "values": dict(self.values),
        }

    @classmethod
    def of_dict(cls, name: str, value: Mapping[str, Any]) -> "Parameter":
        """The parameter that `as_dict` described."""
        distribution = json_to_distribution(value["distribution"])
        return cls(name=name, distribution=distribution, values=value["values"])


def grid_points(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Every combination of the parameters' values, the last one changing fastest."""
    names = [parameter.name for parameter in parameters]
    columns = [parameter.grid() for parameter in parameters]
    return [dict(zip(names, point, strict=True)) for point in product(*columns)]


def parameters_of(search: object, where: str) -> tuple[Parameter, ...]:
    """The searched keys in the order in which they are written; ConfigError for what is none.

    `where` is what errors call the section.
    """
    if not isinstance(search, dict) or not search:
        raise ConfigError(f"{where}: names no key to search; {_EXAMPLE}")
    return tuple(_parameter(str(key), spec, f"{where}: {key}") for key, spec in search.items())


def _parameter(name: str, spec: object, where: str) -> Parameter:
    if name in _SAME_FOR_ALL:
        raise ConfigError(
            f"{where}: trials measured on other rows cannot be compared; put it into settings"
        )
    if not decides_result(name):
        raise ConfigError(f"{where}: does not change what is learnt; put it into settings")
    if isinstance(spec, list):
        spec = {"choices": spec}
    if not isinstance(spec, dict):
        raise ConfigError(f"{where}: neither a range nor choices but {spec!r}; {_EXAMPLE}")
    refuse_unknown(map(str, spec), _SPEC_KEYS, where)
    if "choices" in spec:
        if len(spec) > 1:
            raise ConfigError(f"{where}: choices and a range at once; give one of them")
        return _choice(name, spec["choices"], where)
    return Parameter(name=name, distribution=_range(spec, where), values={})


def _choice(name: str, choices: object, where: str) -> Parameter:
    if not isinstance(choices, list) or not choices:
        raise ConfigError(f"{where}: choices is an empty list or none; for example [0.05, 0.1]")
    values: dict[str, Any] = {}
    proposed: list[Any] = []
    for choice in choices:
        one = number_or_text(choice)
        if isinstance(one, list | dict):
            text = json.dumps(one)
            values[text] = one
            one = text
        if any(one == other and type(one) is type(other) for other in proposed):
            raise ConfigError(f"{where}: the choice {choice!r} stands twice; name each once")
        proposed.append(one)
    return Parameter(name=name, distribution=CategoricalDistribution(proposed), values=values)


def number_or_text(value: Any) -> Any:
    """A YAML value with texts such as 1e-4, which YAML 1.1 takes for text, as numbers."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if isfinite(number) else value


def _range(spec: Mapping[str, Any], where: str) -> IntDistribution | FloatDistribution:
    log = spec.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log is true or false, not {log!r}")
    numbers = {key: _number(spec, key, where) for key in ("low", "high", "step") if key in spec}
    if "low" not in numbers or "high" not in numbers:
        raise ConfigError(f"{where}: a range has low and high; {_EXAMPLE}")
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    _refuse_impossible(low, high, step, log, where)
    if all(isinstance(number, int) for number in numbers.values()):
        return IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    return FloatDistribution(low, high, log=log, step=step)


def _refuse_impossible(low: float, high: float, step: float | None, log: bool, where: str) -> None:
    if low > high:
        raise ConfigError(f"{where}: low {low:g} is above high {high:g}; exchange them")
    if low == high:
        raise ConfigError(f"{where}: low is high, so there is nothing to search; see settings")
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithmic range starts above 0, not at {low:g}")
    if step is None:
        return
    if log:
        raise ConfigError(f"{where}: a logarithmic range has no step; take one of them away")
    if step <= 0:
        raise ConfigError(f"{where}: step {step:g}: must be above 0")
    steps = (high - low) / step
    if not isclose(steps, round(steps), abs_tol=1e-6) or round(steps) < 1:
        last = low + int(steps + 1e-6) * step
        raise ConfigError(
            f"{where}: steps of {step:g} from {low:g} do not meet high {high:g}; "
            f"the last before it is {last:g}"
        )


def _number(spec: Mapping[str, Any], key: str, where: str) -> float:
    value = number_or_text(spec[key])
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{where}: {key} must be a number, not {spec[key]!r}")
    return value


def as_float(parameter: Parameter) -> Parameter:
    """The same range over all numbers: `low: 1, high: 2` of a key that takes fractions."""
    one = parameter.distribution
    if not isinstance(one, IntDistribution):
        return parameter
    step = None if one.step == 1 else float(one.step)
    wide = FloatDistribution(float(one.low), float(one.high), log=one.log, step=step)
    return Parameter(name=parameter.name, distribution=wide, values=parameter.values)
