"""What DPO pays for pairs whose labels are not simply "chosen is right": tensors in and out.

Every loss here is TRL's (the formulas and their papers: trl/trainer/dpo_trainer.py) where a label
is certain, its margin 0 and its weight 1; for other labels it is derived from that one. Where rows
carry no label at all, the trainer takes TRL's own and none of this is used.

Of a pair with log-ratios r = log policy - log reference of its two sides, delta is the score of
chosen minus that of rejected, where a score is r, or f'(e^r) under another divergence than reverse
KL (f-DPO: Wang et al. 2023, arXiv 2309.16240); x = beta * delta.

**Soft labels.** With probability p chosen is the better one and costs l(chosen, rejected); with
1 - p rejected is, and costs l(rejected, chosen):

    l_soft = p l(chosen, rejected) + (1 - p) l(rejected, chosen)

For the sigmoid loss l(x) = -log s(x) this is conservative DPO with a label for each pair: the
cross-entropy between p and s(x). Its derivative in x is -p s(-x) + (1 - p) s(x) = s(x) - p, so it
is least where s(x) = p: beta * delta = logit p. A certain label pulls x to infinity, a soft one
stops at the odds that the raters gave. Of the other losses, least are: ipo at delta = (2p - 1) /
(2 beta) per token, hinge at 1 whatever p above 1/2, sppo_hard (a quadratic) at r = (p - 1/2) / beta
of chosen and its negative of rejected, which is the soft SPPO of Wu et al. (2024, arXiv 2405.00675,
equation 4.7) but for a constant.

**robust** reads the same p otherwise: one side IS better, and the label is wrong with probability
epsilon = 1 - p. With l(x) for a label and l(-x) for its opposite,

    l_robust = ((1 - epsilon) l(x) - epsilon l(-x)) / (1 - 2 epsilon)

is an unbiased estimate of the loss of the true label (Chowdhury et al. 2024, arXiv 2403.00409;
after Natarajan et al. 2013): over a label that is right with 1 - epsilon, the terms of
l(x) sum to ((1 - epsilon)^2 - epsilon^2) / (1 - 2 epsilon) = 1 and those of l(-x) cancel. It has no
least value, and its size grows as 1 / (2p - 1): a tie cannot be estimated from. `label_smoothing`
is a further chance that the label is wrong: epsilon = p smoothing + (1 - p) (1 - smoothing).

**exo_pair** compares distributions: KL(s(x) || 1 - epsilon), with the same epsilon, which is Ji et
al. (2024, arXiv 2402.00856, equation 16) with p in place of a certain label. Least at x =
logit(1 - epsilon).

**sft** imitates the better one, in expectation: the negative log-likelihood p of chosen and 1 - p
of rejected, over as many tokens as are expected.

**Margins** are offset DPO (Amini et al. 2024, arXiv 2402.10571): -log s(x - m), on both
sides, so that whichever is better must lead by m more. How strongly raters prefer says nothing of
who is right; so the loss stays the same when the two sides change places with p, and a tie stays
least at 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_LARGEST_EXPONENT = {torch.float16: 11.0}
"""As TRL: e to it still stands in that type; 80 in wider ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The losses, their weights in the sum and their constants, by TRL's names."""

    loss_types: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] = (1.0,)
    beta: float = 0.1
    label_smoothing: float = 0.0
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    discopop_tau: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLogps:
    """What the two models say of P pairs; each tensor is [P].

    `chosen` and `rejected` are the policy's log-probs of the completions (those beyond the shared
    length weighted by ld_alpha, if it is set), `ref_...` the reference's, `..._tokens` the
    completions' lengths, and `..._nll` their plain negative log-likelihood in nats.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    chosen_nll: Tensor
    rejected_nll: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Scores and log-ratios of P pairs seen from one side: `better` is taken to be the better one.

    Each is [P] or 0 for none; `margin` is in units of beta * score.
    """

    better: Tensor
    worse: Tensor
    better_tokens: Tensor
    worse_tokens: Tensor
    margin: Tensor
    objective: Objective

    @property
    def x(self) -> Tensor:
        """beta * delta - margin."""
        return self.objective.beta * (self.better - self.worse) - self.margin

    @property
    def x_by_token(self) -> Tensor:
        """The same of the scores divided by the lengths of their completions."""
        better = self.better / self.better_tokens.clamp(min=1)
        worse = self.worse / self.worse_tokens.clamp(min=1)
        return self.objective.beta * (better - worse) - self.margin

    def turned(self) -> "Sides":
        """The same pairs with the other side taken to be the better one."""
        return replace(
            self,
            better=self.worse,
            worse=self.better,
            better_tokens=self.worse_tokens,
            worse_tokens=self.better_tokens,
        )


def preference_loss(
    objective: Objective,
    pairs: PairLogps,
    *,
    p_chosen: Tensor | None = None,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
    confidence: Tensor | None = None,
    total: float | None = None,
) -> Tensor:
    """The loss of a batch, a scalar: the weighted sum of `pair_losses` over `total`.

    `p_chosen` (1 unless given), `margin` (0) and `weight` (1) are [P]; `total` is the number of
    pairs unless given. `confidence` [P] are WPO's weights of the pairs (see `wpo_weights`).
    """
    ones = torch.ones_like(pairs.chosen)
    p_chosen = ones if p_chosen is None else p_chosen
    weight = ones if weight is None else weight
    margin = torch.zeros_like(ones) if margin is None else margin
    loss = torch.zeros((), dtype=pairs.chosen.dtype, device=pairs.chosen.device)
    for loss_type, share in zip(objective.loss_types, objective.loss_weights, strict=True):
        losses = pair_losses(loss_type, objective, pairs, p_chosen, margin)
        if confidence is not None:
            losses = losses * confidence
        loss = loss + share * (weight * losses).sum()
    return loss / (total or len(ones))


def pair_losses(
    loss_type: str, objective: Objective, pairs: PairLogps, p_chosen: Tensor, margin: Tensor
) -> Tensor:
    """The losses [P] of one type; `p_chosen` and `margin` are [P].

    Of aot and aot_unpaired, which sort the batch, they belong to ranks rather than to pairs.
    """
    if loss_type == "sft":
        return imitation_losses(pairs, p_chosen)
    if loss_type in ("aot", "aot_unpaired"):
        return _transport_losses(loss_type, objective, pairs)
    sides = Sides(
        better=scores(pairs.chosen - pairs.ref_chosen, objective),
        worse=scores(pairs.rejected - pairs.ref_rejected, objective),
        better_tokens=pairs.chosen_tokens,
        worse_tokens=pairs.rejected_tokens,
        margin=margin,
        objective=objective,
    )
    if loss_type == "robust":
        return _robust(sides, p_chosen)
    if loss_type == "exo_pair":
        return _exo_pair(sides, p_chosen)
    loss = CERTAIN_LOSSES[loss_type]
    if bool((p_chosen == 1).all()):
        return loss(sides)
    return p_chosen * loss(sides) + (1 - p_chosen) * loss(sides.turned())


def scores(logratios: Tensor, objective: Objective) -> Tensor:
    """f'(t) at t = e^r for log-ratios r of any shape; r itself for reverse KL.

    Wang et al. (2023, arXiv 2309.16240); the alpha divergence has (t^(a-1) - 1) / (a - 1).
    """
    kind, alpha = objective.f_divergence_type, objective.f_alpha_divergence_coef
    if kind == "forward_kl":
        return 1 - torch.exp(-logratios)
    if kind == "js_divergence":
        return log(2) + logsigmoid(logratios)
    if kind == "alpha_divergence" and abs(alpha - 1) >= 1e-6:  # in the limit of 1 it is reverse KL
        largest = _LARGEST_EXPONENT.get(logratios.dtype, 80.0)
        exponent = ((alpha - 1) * logratios).float().clamp(max=largest)
        return (torch.exp(exponent) - 1).to(logratios.dtype) / (alpha - 1)
    assert kind in ("reverse_kl", "alpha_divergence"), kind
    return logratios


def imitation_losses(pairs: PairLogps, p_chosen: Tensor) -> Tensor:
    """Each pair's part [P] in the expected negative log-likelihood of a token of the better one.

    Their mean is that of the batch: the expected nats over the expected tokens.
    """
    nats = p_chosen * pairs.chosen_nll + (1 - p_chosen) * pairs.rejected_nll
    tokens = p_chosen * pairs.chosen_tokens + (1 - p_chosen) * pairs.rejected_tokens
    return nats * len(nats) / tokens.sum()


def flip_probability(p_chosen: Tensor, label_smoothing: float) -> Tensor:
    """How likely it is [P] that a label is wrong: it was to begin with, or smoothing turned it."""
    return p_chosen * label_smoothing + (1 - p_chosen) * (1 - label_smoothing)


def _robust(sides: Sides, p_chosen: Tensor) -> Tensor:
    epsilon = flip_probability(p_chosen, sides.objective.label_smoothing)
    right, wrong = -logsigmoid(sides.x), -logsigmoid(sides.turned().x)
    return ((1 - epsilon) * right - epsilon * wrong) / (1 - 2 * epsilon)


def _exo_pair(sides: Sides, p_chosen: Tensor) -> Tensor:
    smoothing = sides.objective.label_smoothing
    wrong = flip_probability(p_chosen, smoothing)
    right = flip_probability(1 - p_chosen, smoothing)
    return torch.sigmoid(sides.x) * (logsigmoid(sides.x) - _log_of(right, wrong)) + torch.sigmoid(
        -sides.x
    ) * (logsigmoid(-sides.x) - _log_of(wrong, right))


def _log_of(probability: Tensor, complement: Tensor) -> Tensor:
    """log p; of a p near 1 from 1 - p, whose digits a sum with 1 would lose."""
    return torch.where(complement < 0.5, torch.log1p(-complement), torch.log(probability))


def _transport_losses(loss_type: str, objective: Objective, pairs: PairLogps) -> Tensor:
    """Quantile against quantile (Melnyk et al. 2024, arXiv 2406.05882): losses [P] of the ranks."""
    if loss_type == "aot":
        ours, theirs = pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected
    else:
        ours, theirs = pairs.chosen - pairs.ref_chosen, pairs.rejected - pairs.ref_rejected
    x = objective.beta * (ours.sort().values - theirs.sort().values)
    smoothing = objective.label_smoothing
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def _sigmoid(sides: Sides) -> Tensor:
    return -logsigmoid(sides.x)


def _sigmoid_norm(sides: Sides) -> Tensor:
    return -logsigmoid(sides.x_by_token)


def _hinge(sides: Sides) -> Tensor:
    return torch.relu(1 - sides.x)


def _ipo(sides: Sides) -> Tensor:
    beta = sides.objective.beta
    return (sides.x_by_token / beta - 1 / (2 * beta)) ** 2


def _discopop(sides: Sides) -> Tensor:
    mixing = torch.sigmoid(sides.x / sides.objective.discopop_tau)
    return -logsigmoid(sides.x) * (1 - mixing) + torch.exp(-sides.x) * mixing


def _nca_pair(sides: Sides) -> Tensor:
    better, worse = sides.objective.beta * sides.better, sides.objective.beta * sides.worse
    return -logsigmoid(better) - 0.5 * logsigmoid(-better) - 0.5 * logsigmoid(-worse)


def _bco_pair(sides: Sides) -> Tensor:
    beta = sides.objective.beta
    return -logsigmoid(beta * sides.better) - logsigmoid(-beta * sides.worse)


def _sppo_hard(sides: Sides) -> Tensor:
    goal = 0.5 / sides.objective.beta
    return (sides.better - goal) ** 2 + (sides.worse + goal) ** 2


def _apo_zero(sides: Sides) -> Tensor:
    beta = sides.objective.beta
    return torch.sigmoid(-beta * sides.better) + torch.sigmoid(beta * sides.worse)


def _apo_down(sides: Sides) -> Tensor:
    beta = sides.objective.beta
    return torch.sigmoid(beta * sides.better) + torch.sigmoid(-beta * (sides.better - sides.worse))


CERTAIN_LOSSES: dict[str, Callable[[Sides], Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sigmoid_norm": _sigmoid_norm,
}
"""What is paid when it is certain which side is the better one; their expectation is taken."""


def pair_logps(
    token_logps: Tensor,
    mask: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    ld_alpha: float | None = None,
) -> PairLogps:
    """What a policy says of P pairs, from the log-probs of their tokens.

    `token_logps` [2P, T], chosen rows first, is 0 outside completions, where `mask` [2P, T] is 0;
    `ref_chosen` and `ref_rejected` are [P]. With `ld_alpha` tokens beyond the length that both
    completions reach count for so much (LD-DPO: Liu et al. 2024, arXiv 2409.06411).
    """
    tokens = mask.sum(1)  # [2P]
    plain = token_logps.sum(1)
    logps = plain
    if ld_alpha is not None:
        shared = torch.minimum(*tokens.chunk(2)).repeat(2)  # [2P]
        beyond = mask.cumsum(1) > shared[:, None]  # [2P, T]
        logps = (token_logps * torch.where(beyond, ld_alpha, 1.0)).sum(1)
    chosen, rejected = logps.chunk(2)
    chosen_tokens, rejected_tokens = tokens.chunk(2)
    chosen_nll, rejected_nll = (-plain).chunk(2)
    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        chosen_nll=chosen_nll,
        rejected_nll=rejected_nll,
    )


def wpo_weights(token_logps: Tensor, log_sum_sq_probs: Tensor, mask: Tensor) -> Tensor:
    """How likely the policy itself would have written each pair [P], without gradient.

    Zhou et al. (2024, arXiv 2406.11827, equation 2, with aligned weights): each token's
    log-prob less the log of the sum of the squared probabilities at its place, in the mean over a
    completion; the weight of a pair is the product of both sides' exponentials. All are [2P, T].
    """
    with torch.no_grad():
        aligned = (token_logps - log_sum_sq_probs) * mask
        mean = aligned.sum(1) / mask.sum(1).clamp(min=1)  # [2P]
        chosen, rejected = mean.exp().chunk(2)
    return chosen * rejected
