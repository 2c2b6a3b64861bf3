"""Near-duplicates by MinHash and locality-sensitive hashing, in time linear in the rows.

Source: Broder, "On the resemblance and containment of documents" (1997); datasketch's
MinHashLSH. What the hashes propose is confirmed by the exact Jaccard similarity.
"""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, TypeVar
from zlib import crc32

from rlhf.data.doctor.texts import normalised

DEFAULT_THRESHOLD = 0.8
MAX_COMPARED = 20_000
"""Of more rows a sample is compared, drawn by the hash of their places."""

_NUM_WORDS = 3
_NUM_CHARACTERS = 5
_FEW_WORDS = 8
_MAX_CHARACTERS = 20_000
_NUM_HASHES = 128
_Item = TypeVar("_Item")


def shingles(text: str) -> frozenset[int]:
    """Hashes of what a text is made of: its runs of 3 words, or of 5 characters when it has
    fewer than 8 words (or none to speak of: Chinese is written without blanks).

    Beyond 20,000 characters a text is not read.
    """
    text = normalised(text[:_MAX_CHARACTERS])
    words = text.split(" ")
    if len(words) < _FEW_WORDS or len(text) > 20 * len(words):
        runs = _runs(list(text), _NUM_CHARACTERS, "")
    else:
        runs = _runs(words, _NUM_WORDS, " ")
    return frozenset(crc32(run.encode(errors="replace")) for run in runs)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """The share of two texts' shingles that both have, 0 to 1."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


@cache
def _bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many hashes find texts that near, by datasketch's own search.

    The search integrates a thousand curves, in a tenth of a second: once a threshold is enough.
    """
    from datasketch import MinHashLSH

    # Missing a pair is worse than proposing one too many, which is checked anyhow.
    index = MinHashLSH(threshold=threshold, num_perm=_NUM_HASHES, weights=(0.1, 0.9))
    return index.b, index.r


class NearDuplicates:
    """Texts seen so far; `find` says which of them a text nearly repeats.

    A text that repeats an earlier one is not added itself, so that a thousand copies cost no
    more than two. Two texts are near when their Jaccard similarity is `threshold` or more.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        self._index = MinHashLSH(num_perm=_NUM_HASHES, params=_bands(threshold))
        self._known: list[frozenset[int]] = []

    def find(self, text: str) -> bool:
        """Whether an earlier text is near."""
        found = shingles(text)
        return self._is_near(found, _signature(found))

    def find_or_add(self, text: str) -> bool:
        """Whether an earlier text is near; if none is, later ones are compared with this."""
        found = shingles(text)
        signature = _signature(found)
        if self._is_near(found, signature):
            return True
        self._index.insert(len(self._known), signature, check_duplication=False)
        self._known.append(found)
        return False

    def _is_near(self, found: frozenset[int], signature: Any) -> bool:
        candidates = self._index.query(signature)
        return any(jaccard(found, self._known[index]) >= self.threshold for index in candidates)


def sampled(rows: Sequence[_Item], name: Callable[[_Item], str]) -> list[_Item]:
    """All rows in their order; of more than MAX_COMPARED those whose hashed name is lowest."""
    if len(rows) <= MAX_COMPARED:
        return list(rows)
    hashes = [blake2b(name(row).encode(errors="replace"), digest_size=8).digest() for row in rows]
    limit = sorted(hashes)[MAX_COMPARED]
    return [row for row, digest in zip(rows, hashes, strict=True) if digest < limit]


def _runs(parts: list[str], length: int, joint: str) -> list[str]:
    last = max(1, len(parts) - length + 1)
    return [joint.join(parts[start : start + length]) for start in range(last)]


def _signature(found: frozenset[int]) -> Any:
    signature = _empty_signature().copy()
    signature.update_batch(sorted(found))
    return signature


@cache
def _empty_signature() -> Any:
    """One draw of the hash functions for all; the shingles are numbers already."""
    from datasketch import MinHash

    return MinHash(num_perm=_NUM_HASHES, hashfunc=int)
