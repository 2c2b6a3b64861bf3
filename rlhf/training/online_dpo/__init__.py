"""Online DPO: the policy samples, rewards or a judge label, DPO learns, and so on in rounds.

`recipe.train_online_dpo(settings)` is the stage. Nothing is imported here: the settings' own checks
are in this package, and the recipe needs the settings.
"""
