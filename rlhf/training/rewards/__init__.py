"""Rewards of the stages that learn online (PPO, RLOO, GRPO): where they come from, how shaped.

`sources.load_sources` finds the sources that the settings name and holds reward models to their
gate; `scoring.RewardSources.score` turns `episodes.Episodes` into `episodes.ScoredEpisodes`;
`options.ScoreOptions` are the settings of what lies between, `shaping` its arithmetic.
"""
