"""Sampled completions into comparisons: which completions of a prompt are judged together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal, get_args

from rlhf.errors import DataError
from rlhf.feedback.rules import check_comparison
from rlhf.records import Comparison, Completion, Prompt, content_hash

Pairing = Literal["adjacent", "all", "random"]
"""Which pairs are made of a prompt's completions: each with the next, all, or some by the seed."""

PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)

Pair = tuple[Completion, Completion]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeComparisons:
    """The comparisons made of sampled completions.

    Left out were `num_identical` pairs of equal texts and `num_repeated` that are there already.
    """

    comparisons: list[Comparison]
    completions: list[tuple[Prompt, Completion]]
    num_prompts: int
    num_identical: int
    num_repeated: int = 0


def make_comparisons(
    rows: Iterable[tuple[str, dict[str, Any]]],
    *,
    num_per_prompt: int,
    seed: int,
    pairs: Pairing = "random",
) -> MadeComparisons:
    """Pairs of distinct completions of each prompt, the same for equal rows and seed.

    `rows` are those of `rlhf sample`, each with where it stands. With `pairs="random"`,
    `num_per_prompt` of a prompt's pairs are taken, whose completions were used least. Every
    prompt's first pair comes before any second. A row that names its `item` gives its pairs the
    names ITEM, or ITEM#0-1, ITEM#0-2, ... where it makes several.
    """
    ranked: list[tuple[int, Comparison]] = []
    sampled: list[tuple[Prompt, Completion]] = []
    num_prompts = num_identical = num_repeated = 0
    seen: set[str] = set()
    for where, row in rows:
        prompt, completions = sample_row(row, where)
        num_prompts += 1
        sampled += [(prompt, completion) for completion in completions]
        candidates = list(
            pairwise(completions) if pairs == "adjacent" else combinations(completions, 2)
        )
        distinct = [pair for pair in candidates if pair[0].text != pair[1].text]
        num_identical += len(candidates) - len(distinct)
        if pairs == "random":
            distinct = _spread(prompt, distinct, num_per_prompt, seed)
        for rank, pair in enumerate(distinct):
            comparison = _comparison(prompt, pair, _pair_name(row, completions, pair, where))
            if comparison.item in seen:
                num_repeated += 1
                continue
            seen.add(comparison.item)
            ranked.append((rank, comparison))
    ranked.sort(key=lambda entry: entry[0])  # stable: within a rank the order of the file
    return MadeComparisons(
        comparisons=[comparison for _, comparison in ranked],
        completions=sampled,
        num_prompts=num_prompts,
        num_identical=num_identical,
        num_repeated=num_repeated,
    )


def whole_comparison(row: dict[str, Any], where: str) -> Comparison:
    """All completions of a row as one item: the row's own `item`, or a name from its texts."""
    prompt, completions = sample_row(row, where)
    if not completions:
        raise DataError(f"{where}: no completions; give at least one")
    name = item_name(row, where)
    if name is None:
        identity = content_hash([prompt.content, *(completion.text for completion in completions)])
        name = f"set-{identity[:24]}"
    return Comparison(prompt=prompt, completions=tuple(completions), item=name)


def sample_row(row: dict[str, Any], where: str) -> tuple[Prompt, list[Completion]]:
    """Prompt and completions of a row as `rlhf sample` writes them; DataError where it is broken.

    A completion is a text, with `source`, `ended` and `seed` in columns beside `completions`, or
    an object `{"text", "source", "ended", "seed"}` itself.
    """
    given = row.get("completions")
    if "prompt" not in row or not isinstance(given, list):
        missing = "prompt" if "prompt" not in row else "completions"
        wanted = '{"prompt": ..., "completions": [...]}'
        raise DataError(f"{where}: no {missing!r}; give {wanted}, as `rlhf sample` writes it")
    parts = [_part(one, where) for one in given]
    columns = {
        "source": _column(row, ("source", "sources"), parts, str, where),
        "ended": _column(row, ("ended",), parts, bool, where),
        "seed": _column(row, ("seed", "seeds"), parts, int, where),
    }
    completions = [
        Completion(text=part["text"], **{name: column[index] for name, column in columns.items()})
        for index, part in enumerate(parts)
    ]
    prompt = Prompt(content=row["prompt"])
    if completions:
        try:
            check_comparison(Comparison(prompt=prompt, completions=tuple(completions), item="-"))
        except (DataError, KeyError, TypeError) as error:
            raise DataError(f"{where}: {error}") from None
    return prompt, completions


def item_name(row: dict[str, Any], where: str) -> str | None:
    """The name that a row gives its item, or None; DataError where it is no text."""
    name = row.get("item")
    if name is not None and (not isinstance(name, str) or not name):
        raise DataError(f"{where}: item {name!a} is no name; give a text, or leave it out")
    return name


def _part(given: Any, where: str) -> dict[str, Any]:
    """A completion as an object with its text, whichever way it was given."""
    part = {"text": given} if isinstance(given, str) else given
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        raise DataError(f"{where}: a completion is not text; give what `rlhf sample` writes")
    return part


def _column(
    row: dict[str, Any],
    names: Sequence[str],
    parts: Sequence[dict[str, Any]],
    kind: type,
    where: str,
) -> list[Any]:
    """A value for each completion: its own, from a list, or one for all; None where is none."""
    count = len(parts)
    value = next((row[name] for name in names if row.get(name) is not None), None)
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise DataError(f"{where}: {names[0]} has {len(values)} values for {count} completions")
    values = [
        common if part.get(names[0]) is None else part[names[0]]
        for part, common in zip(parts, values, strict=True)
    ]
    if any(one is not None and not isinstance(one, kind) for one in values):
        raise DataError(f"{where}: {names[0]} holds a value that is no {kind.__name__}")
    return values


def _spread(prompt: Prompt, pairs: list[Pair], number: int, seed: int) -> list[Pair]:
    """`number` of the pairs, in an order drawn by the seed, each completion as rarely as can be."""
    waiting = sorted(
        pairs,
        key=lambda pair: content_hash(
            [seed, prompt.id, *((one.text, one.seed, one.source) for one in pair)]
        ),
    )
    used: dict[str, int] = {}
    taken: list[Pair] = []
    while waiting and len(taken) < number:
        pair = min(waiting, key=lambda one: sum(used.get(each.text, 0) for each in one))
        waiting = [one for one in waiting if {e.text for e in one} != {e.text for e in pair}]
        taken.append(pair)
        for each in pair:
            used[each.text] = used.get(each.text, 0) + 1
    return taken


def _pair_name(
    row: dict[str, Any], completions: list[Completion], pair: Pair, where: str
) -> str | None:
    name = item_name(row, where)
    if name is None or len(completions) == 2:
        return name
    places = [next(i for i, each in enumerate(completions) if each is one) for one in pair]
    return f"{name}#{places[0]}-{places[1]}"


def _comparison(prompt: Prompt, pair: Pair, name: str | None) -> Comparison:
    identity = content_hash([prompt.content, *(completion.text for completion in pair)])
    return Comparison(prompt=prompt, completions=pair, item=name or f"pair-{identity[:24]}")
