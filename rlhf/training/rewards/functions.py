"""Reward functions by name: in a package, in a file, or one of TRL's."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.config import nearest_hint
from rlhf.errors import ConfigError
from rlhf.manifest import file_sha256
from rlhf.records import content_hash

RewardFunction = Callable[..., Any]
_WAYS = "give package.module.function, FILE.py:function, or a name in trl.rewards"
_OPTION = "--reward_funcs"


def find_function(name: str) -> RewardFunction:
    """The function that `--reward_funcs` names; ConfigError when it is not there, when importing
    it fails, or when it cannot be called as TRL calls one (with `**kwargs`).
    """
    function = find_object(name) if ":" in name or "." in name else _of_trl(name)
    _refuse_uncallable(function, name)
    return function


def find_object(name: str, *, option: str = _OPTION) -> Any:
    """What `package.module.name` or `FILE.py:name` leads to; ConfigError naming `option` when it
    is not there or when importing it fails.
    """
    file, colon, inside = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _attribute(_module_at(Path(file), name, option), inside, name, option)
    if "." not in name:
        raise ConfigError(f"{option} {name}: no such function; {_ways(option)}")
    module, _, inside = name.rpartition(".")
    return _attribute(_module_called(module, name, option), inside, name, option)


def _ways(option: str) -> str:
    own = "give package.module.function or FILE.py:function"
    return _WAYS if option == _OPTION else own


def function_sha256(function: RewardFunction, name: str) -> str:
    """The sha256 (hex) of the file that defines a function; of its name where it has none."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        path = None
    return file_sha256(Path(path)) if path and Path(path).is_file() else content_hash(name)


def _module_at(path: Path, name: str, option: str) -> Any:
    """The module in a file, run anew: a file of the same name elsewhere is another module."""
    if not path.is_file():
        raise ConfigError(f"{option} {name}: no file {path}; {_ways(option)}")
    title = f"reward_function_{path.stem}_{content_hash(str(path.resolve()))[:8]}"
    spec = importlib.util.spec_from_file_location(title, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error, option) from error
    return module


def _module_called(module: str, name: str, option: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # as TRL's scripts; at the end, where it shadows nothing
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error, option) from error


def _import_failed(name: str, error: BaseException, option: str) -> ConfigError:
    reason = " ".join(str(error).split())[:160]
    return ConfigError(
        f"{option} {name}: cannot be imported ({type(error).__name__}: {reason}); {_ways(option)}"
    )


def _of_trl(name: str) -> RewardFunction:
    import trl.rewards

    known = [each for each in dir(trl.rewards) if each.endswith("_reward")]
    if name.startswith("get_") and hasattr(trl.rewards, name):
        raise ConfigError(
            f"--reward_funcs {name}: makes a reward function and needs arguments; call it in a "
            "file of yours and give FILE.py:function"
        )
    if name not in known:
        hint = nearest_hint(name, known)
        raise ConfigError(f"--reward_funcs {name}: no such function{hint}; {_WAYS}")
    return _attribute(trl.rewards, name, name)


def _attribute(module: Any, inside: str, name: str, option: str = _OPTION) -> RewardFunction:
    if not hasattr(module, inside):
        hint = nearest_hint(inside, dir(module))
        raise ConfigError(f"{option} {name}: no {inside!r} in it{hint}; {_ways(option)}")
    found: RewardFunction = getattr(module, inside)
    return found


def _refuse_uncallable(function: RewardFunction, name: str) -> None:
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"--reward_funcs {name}: not a function; {_WAYS}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in ones show none
        return
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        raise ConfigError(
            f"--reward_funcs {name}: must take **kwargs, since it is called with prompts, "
            "completions, completion_ids and every other column of the data set"
        )
