"""Engines that sample completions with the policy as it is at this moment of its training."""
