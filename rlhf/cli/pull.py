"""rlhf pull NAME: fetch a named model into the cache."""

import sys

from rlhf.errors import ConfigError
from rlhf.models.registry import NAMED_MODELS, is_pulled, model_folder, named_model

SUMMARY = "fetch a named model into the cache"
EXAMPLE = "rlhf pull smollm2-135m-instruct-q4"


def main(argv: list[str]) -> None:
    """Pull the named model, unless the cache has it; print its folder on standard output."""
    if "-h" in argv or "--help" in argv:
        print(usage())
        return
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError(f"give the name of one model; see {usage().splitlines()[0]}")
    from rlhf.models.pull import pull

    model = named_model(argv[0])
    if is_pulled(model_folder(model.name)):
        print(f"{model.name}: already there", file=sys.stderr)
    print(pull(model))


def usage() -> str:
    """What `rlhf pull --help` prints: the named models with where they come from."""
    lines = ["usage: rlhf pull NAME", "", SUMMARY + "; $RLHF_CACHE, by default ~/.cache/rlhf", ""]
    for model in NAMED_MODELS.values():
        lines.append(f"  {model.name:26} {model.summary} ({model.licence})")
    return "\n".join([*lines, "", f"example: {EXAMPLE}"])
