"""Ready campaigns, as YAML: published protocols of collecting ratings, in our own words."""

from importlib.resources import files
from typing import Any

from rlhf.config import parse_yaml
from rlhf.errors import ConfigError, nearest_hint

_SUFFIX = ".yaml"


def template_names() -> list[tuple[str, str]]:
    """The names of the templates, each with its title."""
    return [(name, str(template(name).get("title", name))) for name in _names()]


def template_text(name: str) -> str:
    """The YAML of a template, comments too; ConfigError naming the nearest when there is none."""
    names = _names()
    if name not in names:
        hint = nearest_hint(name, names)
        raise ConfigError(f"no template {name!r}{hint}; there are {', '.join(names)}")
    return files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")


def template(name: str) -> dict[str, Any]:
    """The keys of a template."""
    return parse_yaml(template_text(name), f"template {name}")


def _names() -> list[str]:
    found = (each.name for each in files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))
