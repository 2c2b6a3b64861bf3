"""How sure it is that a completion bears a flag: by raters' votes, or by a model of the raters."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rlhf.feedback.evidence import Evidence
from rlhf.feedback.soft_labels import ADJUDICATED_P, LabelMethod, fit_flags
from rlhf.records import Judgement

Voice = tuple[Judgement, float]
"""A judgement that counts, and the weight of its rater."""

FlagShares = dict[str, list[dict[str, float]]]
"""For each item and completion the share or probability of flags; of one not named it is 0."""


def flag_method(method: LabelMethod) -> dict[str, str]:
    """The `method` that flags are labelled by where labels are asked for by `method`, and `why`.

    Crowd-Bradley-Terry knows only pairs: flags beside them follow the votes, and under "auto"
    the model that is left, one-coin Dawid-Skene.
    """
    if method in ("votes", "dawid_skene"):
        return {"method": method, "why": "asked for"}
    why = "Crowd-Bradley-Terry knows pairs, not flags"
    return {"method": "votes" if method == "crowd_bt" else "dawid_skene", "why": why}


def flag_shares(
    evidence: Evidence, voices: Mapping[str, Sequence[Voice]], *, method: LabelMethod
) -> FlagShares:
    """The shares of the flags of every item in `voices`, which all hold flags.

    By votes the weighted share of raters behind a flag; otherwise its probability by one-coin
    Dawid-Skene, where an adjudicator's word alone is `ADJUDICATED_P` sure.
    """
    if flag_method(method)["method"] == "votes":
        return {item: _shares(ones) for item, ones in voices.items()}
    return _modelled(evidence, voices)


def _shares(voices: Sequence[Voice]) -> list[dict[str, float]]:
    whole = sum(weight for _, weight in voices)
    shares: list[dict[str, float]] = [defaultdict(float) for _ in voices[0][0].shown_order]
    for judgement, weight in voices:
        for index, flags in enumerate(judgement.flags or ()):
            for flag in set(flags):
                shares[index][flag] += weight / whole
    return [dict(one) for one in shares]


def _modelled(evidence: Evidence, voices: Mapping[str, Sequence[Voice]]) -> FlagShares:
    """Of flags that somebody who counts has raised: others are nobody's label."""
    said = [one for ones in voices.values() for one, _ in ones]
    names = sorted({flag for one in said for flags in one.flags or () for flag in flags})
    fits = fit_flags(evidence)
    deciding = evidence.deciding
    shares: FlagShares = {}
    for item, ones in voices.items():
        first = ones[0][0]
        if item in deciding and deciding[item].id == first.id:
            shares[item] = [
                {name: ADJUDICATED_P if name in flags else 1 - ADJUDICATED_P for name in names}
                for flags in first.flags or ()
            ]
        else:
            # a flag that only an adjudicator has raised, elsewhere, has no fit
            shares[item] = [
                {name: fits[name].p_yes[item, at] for name in names if name in fits}
                for at in range(len(first.flags or ()))
            ]
    return shares
