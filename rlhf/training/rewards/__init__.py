"""Rewards of the stages that learn online (PPO, RLOO, GRPO): where they come from, how shaped."""
