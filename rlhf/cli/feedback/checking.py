"""`rlhf feedback check`: every invariant of a store that is broken."""

import argparse

from rlhf.errors import DataError

SUMMARY = "look for anything in a store that must not be"
EXAMPLE = "rlhf feedback check --store feedback.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A check takes the whole store and nothing else."""


def run(options: argparse.Namespace) -> None:
    """Print what is broken, a line each; DataError when there is anything."""
    from rlhf.feedback.store import Store

    with Store.open(options.store) as store:
        problems = store.problems()
        if not problems:
            number = len(store.judgements(current_only=False))
            campaigns = len(store.campaigns())
            print(f"{options.store}: whole ({campaigns} campaigns, {number} judgements)")
            return
    for problem in problems:
        print(problem)
    raise DataError(
        f"{options.store}: {len(problems)} broken invariants (above); restore it from a backup, "
        "or export what stands"
    )
