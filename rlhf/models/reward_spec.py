"""`reward.json`: what a reward model's folder says of its heads, members, text and base."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from rlhf.data.tokenization import RENDERINGS
from rlhf.errors import DataError, nearest_hint
from rlhf.manifest import write_json
from rlhf.models.adapters import WEIGHTS_NAMES
from rlhf.models.registry import resolve_model, weight_hashes
from rlhf.records import content_hash

SPEC_NAME = "reward.json"
_TRAINERS_OWN = "training_args.bin"  # lies beside the weights and holds none
_PROBE = (
    "The quick brown fox didn't jump over 13 lazy dogs in 2024; it  ran\n\n\t(3.14159 km/h)! "
    "Caf\u00e9 na\u00efve stra\u00dfe \u017b\u00f3\u0142w \u041c\u043e\u0441\u043a\u0432\u0430"
    " \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f"
    " \u0645\u0631\u062d\u0628\u0627 \ud55c\uad6d\uc5b4 \U0001f600 x\u00b2 \u2260 y\n"
    "def f(self, **kwargs): return [i for i in range(10) if i % 2 == 0]  # CamelCase snake_case\r\n"
    "\n\nHuman: unbelievably internationalisation?\n\nAssistant: Yes."
)
HEAD_NAME = "score"
"""What transformers calls the module of all heads."""
DEFAULT_HEAD = "score"
"""The name of a head that is the only one."""
DEFAULT_MEMBER = "default"
"""PEFT's own name of an adapter that was given none; it saves that one at the folder's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSpec:
    """How to score with a reward model's folder.

    `heads`: criterion -> its weight in the scalar, in the order of the head's outputs.
    `members`: the adapters of an ensemble ("default" lies at the folder's root, each other in a
    folder of its name); a single reward model has one. `rendering`: how messages become text.
    `base`: {"path", "sha256"} of the model under the adapters, sha256 None where its weights
    are not in a folder. `max_length` (tokens) bounded training only. `score_mean` and
    `score_std` are over the scores of its held-out completions. None: not recorded.
    """

    heads: dict[str, float] = field(default_factory=lambda: {DEFAULT_HEAD: 1.0})
    members: list[str] = field(default_factory=lambda: [DEFAULT_MEMBER])
    rendering: str = RENDERINGS[0]
    base: dict[str, Any] | None = None
    tokenizer_sha256: str | None = None
    max_length: int | None = None
    score_mean: float | None = None
    score_std: float | None = None

    @classmethod
    def read(cls, folder: str | Path) -> "RewardSpec":
        """The spec in `folder`; the defaults (one head, one member) when it has none.

        DataError when the file is damaged, has a key or value that it cannot have, or names a
        member whose adapter is not there.
        """
        path = Path(folder) / SPEC_NAME
        if not path.is_file():
            return cls()
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damaged(path, f"damaged ({error})") from None
        if not isinstance(values, dict):
            raise _damaged(path, "damaged (not an object)")
        spec = cls(**_checked(path, values))
        spec.require_members(Path(folder))
        return spec

    def write(self, folder: str | Path) -> None:
        """Write `reward.json` into `folder`; DataError when read would refuse it."""
        path = Path(folder) / SPEC_NAME
        _checked(path, asdict(self))
        write_json(path, asdict(self))

    def member_folder(self, folder: Path, member: str) -> Path:
        """Where `folder` keeps a member's adapter."""
        return folder if member == DEFAULT_MEMBER else folder / member

    def require_members(self, folder: Path) -> None:
        """DataError naming a member whose adapter weights are not in `folder`."""
        if self.members == [DEFAULT_MEMBER]:
            return  # may be a whole model; loading says what is missing
        for member in self.members:
            place = self.member_folder(folder, member)
            if not any((place / name).is_file() for name in WEIGHTS_NAMES):
                raise DataError(
                    f"{folder}: {SPEC_NAME} names {len(self.members)} members, but the adapter of "
                    f"{member!r} is gone ({place / WEIGHTS_NAMES[0]}); put it back, or train anew"
                )


def base_record(name: str | Path) -> dict[str, Any]:
    """The spec's `base` for a model name, hub id or folder: its path and its weights' sha256."""
    location = resolve_model(name)
    sha256 = base_sha256(Path(location)) if Path(location).is_dir() else None
    return {"path": str(name), "sha256": sha256}


def base_sha256(folder: Path) -> str:
    """The sha256 (hex) of a base's weights, wherever its folder lies."""
    hashes = weight_hashes(folder)
    return content_hash({name: hashes[name] for name in hashes if name != _TRAINERS_OWN})


def tokenizer_sha256(tokenizer: Any) -> str:
    """The sha256 (hex) of what decides which ids a text becomes: vocabulary, special tokens, chat
    template, and the ids of a text that shows how words, blanks, digits and scripts are split.

    By what it does, not by its file, which another version of the library writes differently.
    The pad token has no part in it.
    """
    ids = tokenizer(_PROBE, padding=False, truncation=False, verbose=False)["input_ids"]
    ends = [tokenizer.bos_token, tokenizer.eos_token]
    return content_hash([tokenizer.get_vocab(), list(ids), ends, tokenizer.chat_template])


def _checked(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each of the kind that its key must have; DataError at `path` otherwise."""
    known = [each.name for each in fields(RewardSpec)]
    for key in values:
        if key not in known:
            raise _damaged(path, f"unknown key {key!r}{nearest_hint(key, known)}")
    checked = dict(values)
    if "heads" in values:
        checked["heads"] = _heads(path, values["heads"])
    if "members" in values:
        checked["members"] = _members(path, values["members"])
    if values.get("rendering", RENDERINGS[0]) not in RENDERINGS:
        raise _damaged(path, f"rendering must be {' or '.join(RENDERINGS)}")
    base = values.get("base")
    if base is not None and not (isinstance(base, dict) and isinstance(base.get("path"), str)):
        raise _damaged(path, "base must be null or hold the base's path and sha256")
    for key in ("max_length", "score_mean", "score_std"):
        value = values.get(key)
        if value is not None and not _is_number(value):
            raise _damaged(path, f"{key} must be a number or null, not {value!r}")
    digest = values.get("tokenizer_sha256")
    if digest is not None and not isinstance(digest, str):
        raise _damaged(path, "tokenizer_sha256 must be text or null")
    return checked


def _heads(path: Path, heads: Any) -> dict[str, float]:
    if not isinstance(heads, dict) or not heads:
        raise _damaged(path, "heads must name at least one head and its weight")
    for name, weight in heads.items():
        if not _is_number(weight):
            raise _damaged(path, f"the weight of head {name!r} must be a number, not {weight!r}")
    if not any(heads.values()):
        raise _damaged(path, "all heads have weight 0, so every score would be 0")
    return {name: float(weight) for name, weight in heads.items()}


def _members(path: Path, members: Any) -> list[str]:
    if not isinstance(members, list) or not members:
        raise _damaged(path, "members must be a list of at least one adapter's name")
    for name in members:
        if not isinstance(name, str) or not name or Path(name).name != name or name == "..":
            raise _damaged(path, f"member {name!r} is not the name of a folder")
    if len(set(members)) < len(members):
        raise _damaged(path, "members names one adapter twice")
    if members[0] != DEFAULT_MEMBER:
        raise _damaged(path, f"the first of members must be {DEFAULT_MEMBER!r}")
    return list(members)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; mend it, or run the reward stage again")
