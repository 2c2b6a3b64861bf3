"""Pairs from elsewhere: does the reward model still side with people out of its domain?

What is named is a data set, or a folder each of whose files is a subset, as RewardBench and
BIG-bench's HHH task have them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf.data.formats import Pair, preference_pairs
from rlhf.data.sources import FILE_SUFFIXES, load_rows
from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.evaluation.gate.checks import Check, judged, number_text, unmeasured
from rlhf.evaluation.win_rate import outcomes, share_of_wins
from rlhf.feedback.transcripts import is_transcript, parse_transcript
from rlhf.manifest import file_sha256
from rlhf.records import Message, PromptContent, content_hash

Score = Callable[[Sequence[PromptContent], Sequence[str], Sequence[bool | None]], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """A named set of pairs, and the hash of what it was read from."""

    name: str
    path: str
    sha256: str
    pairs: list[Pair]


def find_subsets(words: Sequence[str]) -> list[Subset]:
    """The subsets that `--out_of_domain` names: NAME=LOCATION, a data set, or a folder of files.

    A column `subset` in the rows divides them further. ConfigError for what does not exist and
    for a name that stands twice, DataError for files without pairs.
    """
    found: list[Subset] = []
    for word in words:
        name, equals, location = word.partition("=")
        location = location if equals else word
        prefix = name if equals else ""
        if Path(location).is_dir():
            found += _folder(prefix, Path(location))
        else:
            found += _divided(prefix or _stem(location), location)
    names = [subset.name for subset in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--out_of_domain: the subset {name!r} stands twice; name it anew")
    return found


def score_subsets(
    subsets: Sequence[Subset], score: Score, *, as_messages: bool
) -> list[dict[str, Any]]:
    """A scored row for each pair: subset, prompt, both sides, both scores.

    `as_messages`: prompts that are plain text are put as a user's turn, since the reward model
    was trained on conversations.
    """
    placed = [(subset.name, pair) for subset in subsets for pair in subset.pairs]
    if as_messages:
        placed = [(name, _as_conversation(pair)) for name, pair in placed]
    pairs = [pair for _, pair in placed]
    prompts = [pair.prompt for pair in pairs]
    prompts += [pair.rejected_prompt or pair.prompt for pair in pairs]
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    ended = [pair.chosen_ended for pair in pairs] + [pair.rejected_ended for pair in pairs]
    scores = [float(value) for value in score(prompts, texts, ended)]
    return [
        {
            "subset": name,
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen_score": scores[index],
            "rejected_score": scores[index + len(pairs)],
        }
        for index, (name, pair) in enumerate(placed)
    ]


def out_of_domain_check(
    rows: Sequence[Mapping[str, Any]], threshold: float | None, min_pairs: int = 10
) -> Check:
    """Accuracy over all subsets' pairs, and on each with its interval.

    Fails when that over all is shown to lie below the threshold, and also when that of a subset
    with at least `min_pairs` pairs is: a large set must not hide a small one that goes wrong.
    """
    name, title = "out_of_domain", "Out of domain"
    if not rows:
        reason = "no sets were named (--out_of_domain FOLDER or NAME=DATASET)"
        return unmeasured(name, title, reason, threshold)
    groups = []
    for subset in dict.fromkeys(row["subset"] for row in rows):
        of = [row for row in rows if row["subset"] == subset]
        groups.append({"group": subset, **_accuracy(of).as_dict()})
    found = _accuracy(rows)
    each = ", ".join(f"{group['group']} {group['value']:.2f} n={group['n']}" for group in groups)
    below = [group["group"] for group in groups if _shown_below(group, threshold, min_pairs)]
    words = f"{number_text(found)} over {len(groups)} subsets: {each}"
    if below:
        words += f"; shown to be below: {', '.join(below)}"
    check = judged(
        name,
        title,
        found,
        threshold,
        words=words,
        rule="not shown below",
        details={"groups": groups},
    )
    return replace(check, passed=False) if below else check


def _shown_below(group: Mapping[str, Any], threshold: float | None, min_pairs: int) -> bool:
    """Whether a subset's whole interval lies below; NaN, of one prompt, shows nothing."""
    return threshold is not None and group["n"] >= min_pairs and bool(group["high"] < threshold)


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> Any:
    right = outcomes(
        [row["chosen_score"] for row in rows],
        [row["rejected_score"] for row in rows],
        tie_tolerance=0.0,
    )
    return share_of_wins(right, clusters=[content_hash(row["prompt"]) for row in rows])


def _folder(prefix: str, folder: Path) -> list[Subset]:
    files = sorted(path for path in folder.iterdir() if path.name.endswith(FILE_SUFFIXES))
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise DataError(f"{folder}: no subset files ({', '.join(FILE_SUFFIXES)}) in that folder")
    before = f"{prefix}/" if prefix else ""
    return [subset for path in files for subset in _divided(before + _stem(path), str(path))]


def _divided(name: str, location: str) -> list[Subset]:
    """A data set's pairs, by their `subset` column where they have one."""
    task = _big_bench_task(Path(location))
    if task is not None:
        return [Subset(name=name, path=location, sha256=file_sha256(Path(location)), pairs=task)]
    if not Path(location).exists() and "/" in location:
        _refuse_missing(Path(location))
    dataset = load_rows(location)
    by_place = dict(zip(dataset.places, dataset.rows, strict=True))
    groups: dict[str, list[Pair]] = {}
    for pair in preference_pairs(dataset):
        part = by_place.get(pair.place, {}).get("subset")
        groups.setdefault(f"{name}/{part}" if isinstance(part, str) else name, []).append(pair)
    return [
        Subset(name=group, path=location, sha256=dataset.sha256, pairs=pairs)
        for group, pairs in groups.items()
    ]


def _refuse_missing(path: Path) -> None:
    """A path whose folder is there is a misspelt one, not a hub id."""
    if path.parent.is_dir():
        hint = nearest_hint(path.name, [entry.name for entry in path.parent.iterdir()])
        raise ConfigError(f"{path}: no such subset file or folder{hint}")


def _big_bench_task(path: Path) -> list[Pair] | None:
    """The pairs of a BIG-bench task file (multiple choice of two); None for other files."""
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        task = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # JSON lines, or broken: the data sources say which
    examples = task.get("examples") if isinstance(task, dict) else None
    if not isinstance(examples, list):
        return None
    return [_big_bench_pair(f"{path} example {i}", row) for i, row in enumerate(examples, 1)]


def _big_bench_pair(place: str, row: Any) -> Pair:
    targets = row.get("target_scores") if isinstance(row, dict) else None
    if not isinstance(targets, dict) or sorted(targets.values()) != [0, 1]:
        raise DataError(f"{place}: expected one answer scored 1 and one scored 0")
    chosen = next(text for text, score in targets.items() if score == 1)
    rejected = next(text for text, score in targets.items() if score == 0)
    return Pair(
        prompt=_asked(place, str(row.get("input", ""))),
        chosen=chosen,
        rejected=rejected,
        place=place,
    )


def _asked(place: str, text: str) -> list[Message]:
    """A task's input as messages: one question, or a dialogue of Human and Assistant."""
    marked = text if text.startswith("\n\n") else f"\n\nHuman: {text}"
    if not is_transcript(marked):
        return [{"role": "user", "content": text.strip()}]
    turns = parse_transcript(place, "input", marked)
    if len(turns) > 1 and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    return turns


def _as_conversation(pair: Pair) -> Pair:
    def put(prompt: PromptContent | None) -> PromptContent | None:
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

    prompt = put(pair.prompt)
    assert prompt is not None
    return replace(pair, prompt=prompt, rejected_prompt=put(pair.rejected_prompt))


def _stem(path: str | Path) -> str:
    return Path(path).name.partition(".")[0] or str(path)
