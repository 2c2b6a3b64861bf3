"""Kahneman-Tversky optimisation: a policy tuned on completions that are good or not, unpaired."""
