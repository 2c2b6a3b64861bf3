"""`rlhf export`: a finished stage as a model that any tool loads, with a card that says how it came
to be. Weights, the stages behind them, the card and the hub are a module each.
"""
