"""What the verbs of training share: parse, launch under accelerate if asked, run the recipe."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf.errors import RlhfError


def run_stage(
    verb: str, argv: Sequence[str], example: str, recipe: Callable[[], Any], *, summary: str
) -> int:
    """Run `rlhf VERB ARGV`; `recipe` gives the function of rlhf.training that does the stage.

    It is called late, since importing a recipe imports torch.
    """
    # Read at import by the libraries: no run of ours reports to anyone unless told to.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rlhf.training.arguments import parse_settings
    from rlhf.training.launching import is_launched, is_main_process, launch, leave
    from rlhf.training.trackers import go_offline_where_needed

    settings = parse_settings(verb, list(argv), example=example, summary=summary)
    if settings.stage.accelerate_config and not is_launched():
        return launch(verb, list(argv), settings.stage.accelerate_config)
    go_offline_where_needed(settings.training.report_to, Path(settings.training.output_dir))
    try:
        recipe()(settings)
    except RlhfError as error:
        if not is_main_process():
            sys.exit(error.exit_code)  # rank 0 says it for all
        raise
    if is_launched():
        leave()
    return 0
