"""The gate: whether a reward model may be optimised against, as checks with thresholds.

Each check is a plain function on held-out rows or scores; `study` runs them all and writes the
verdict, `binding` holds it to the weights that it was made of.
"""

from rlhf.evaluation.gate.binding import require_passed as require_passed
