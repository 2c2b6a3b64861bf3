"""`rlhf ratings`: the stage between sampling and training in which completions are judged."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import CommandParser, read_yaml, refuse_unknown, take_option
from rlhf.errors import ConfigError, PendingError

if TYPE_CHECKING:
    from rlhf.feedback.collection import CollectionSettings, MadeComparisons
    from rlhf.feedback.store import Store
    from rlhf.manifest import Manifest

SUMMARY = "have sampled completions judged: by simulated raters, by people, or from a file"
EXAMPLE = (
    "rlhf ratings --ratings simulated --completions runs/quickstart/sample/completions.jsonl "
    "--store runs/quickstart/feedback.db --output_dir runs/quickstart/ratings"
)
JUDGEMENTS_NAME = "judgements.jsonl"


def main(argv: Sequence[str]) -> int:
    """Collect ratings and write the manifest, or say what is missing and write none."""
    from rlhf.feedback.collection import collect, prepare
    from rlhf.feedback.exports import ids_hash
    from rlhf.feedback.store import Store
    from rlhf.manifest import invalidate, recorded_stage

    options = parse(argv)
    settings = _settings(options)
    for path in (options.completions, _ratings_file(settings)):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path}: no such file; run `rlhf sample` first, or mend the path")
    try:
        with (
            recorded_stage("ratings", options.output_dir, vars(options)) as manifest,
            Store.open(options.store, create=True) as store,
        ):
            settings, made = prepare(store, options.completions, settings)
            if settings.campaign != options.campaign:
                print(
                    f"campaign {options.campaign!r} holds other completions and stays as it is; "
                    f"these are campaign {settings.campaign!r}"
                )
            collect(store, settings)
            invalidate(options.output_dir)
            with store.atomically():  # raters who go on meanwhile: file and numbers still agree
                ids = _freeze(manifest, store, settings.campaign, options.output_dir)
                _describe(manifest, store, options, settings, made)
                manifest.provenance["judgement_ids_sha256"] = ids_hash(ids)
    except PendingError as pending:
        invalidate(options.output_dir)  # of an earlier run: it speaks of fewer comparisons
        print(pending)
        return 0
    _print_result(manifest.metrics, manifest.simulated)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The settings in --config and on the command line; ConfigError for what is wrong there."""
    words = list(argv)
    parser = _parser()
    known = {action.dest for action in parser._actions} - {"help", "config"}
    from_files: dict[str, Any] = {}
    while (path := take_option(words, "config")) is not None:
        settings = read_yaml(Path(path))
        refuse_unknown(settings, known, path)
        from_files |= settings
    from_yaml = [word for key, value in from_files.items() for word in _words(key, value)]
    options = parser.parse_args([*from_yaml, *words])
    from rlhf.feedback.collection import check_settings

    check_settings(_settings(options))
    return options


def _words(key: str, value: Any) -> list[str]:
    """A line of YAML as words of a command line."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{key}" if value else f"--no-{key}"]
    return [f"--{key}={value}"]


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="rlhf ratings", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    add = parser.add_argument
    add("--config", help="YAML file with any of these keys; of several the later wins")
    add("--ratings", default="simulated", help="simulated (default), human, or a judgement file")
    add("--completions", type=Path, required=True, help="the rows that `rlhf sample` wrote")
    add("--store", required=True, help="path of a SQLite file (made when new), or a URL")
    add("--output_dir", type=Path, required=True, help="folder for judgements.jsonl, manifest.json")
    add("--campaign", default="quickstart", help="campaign in the store (default: quickstart)")
    add("--overlap", type=int, default=3, help="raters for each comparison (default: 3)")
    add(
        "--num_comparisons_per_prompt", type=int, default=2, help="pairs of each prompt (default 2)"
    )
    add("--quorum", type=_quorum, help="judgements that are enough: 300, or 0.8 of all")
    add("--lease_s", type=float, default=1800, help="seconds a rater has for an item (1800)")
    add("--guideline", help="what raters are told to look for")
    add("--seed", type=int, default=0, help="draws pairs, sides and raters (default: 0)")
    add(
        "--allow_mixed",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let simulated raters and people judge in one campaign",
    )
    return parser


def _quorum(text: str) -> int | float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        message = f"{text!r} is neither a number of judgements (300) nor a share of all (0.8)"
        raise argparse.ArgumentTypeError(message) from None


def _settings(options: argparse.Namespace) -> "CollectionSettings":
    from rlhf.feedback.collection import CollectionSettings

    return CollectionSettings(
        ratings=options.ratings,
        campaign=options.campaign,
        overlap=options.overlap,
        num_comparisons_per_prompt=options.num_comparisons_per_prompt,
        quorum=options.quorum,
        seed=options.seed,
        lease_s=options.lease_s,
        guideline=options.guideline,
        allow_mixed=options.allow_mixed,
    )


def _ratings_file(settings: "CollectionSettings") -> Path | None:
    return None if settings.ratings in ("simulated", "human") else Path(settings.ratings)


def _freeze(manifest: "Manifest", store: "Store", campaign: str, folder: Path) -> list[str]:
    """Write the judgements that stand now, and return their ids: later stages train on these."""
    from rlhf.feedback.exports import frozen_rows
    from rlhf.feedback.files import write_rows
    from rlhf.manifest import file_sha256

    path = folder / JUDGEMENTS_NAME
    rows = frozen_rows(store, campaign)
    write_rows(path, rows)
    manifest.outputs[JUDGEMENTS_NAME] = file_sha256(path)
    return [row["id"] for row in rows]


def _describe(
    manifest: "Manifest",
    store: "Store",
    options: argparse.Namespace,
    settings: "CollectionSettings",
    made: "MadeComparisons",
) -> None:
    """Fill the manifest with what was judged, by whom, and how good it can be."""
    from rlhf.feedback.quality import rating_metrics, truth_metrics, truth_settings
    from rlhf.feedback.simulation import DEFAULT_PANEL
    from rlhf.manifest import file_sha256

    judgements = store.judgements(settings.campaign)
    inputs = {"completions": (options.completions, made.num_prompts)}
    ratings_file = _ratings_file(settings)
    if ratings_file is not None:
        inputs["ratings"] = (ratings_file, len(judgements))
    for name, (path, rows) in inputs.items():
        manifest.inputs[name] = {"path": str(path), "sha256": file_sha256(path), "rows": rows}
    manifest.simulated = any(one.simulated for one in judgements)
    manifest.provenance = {
        "store": store.location,
        "campaign": settings.campaign,
        "ratings": settings.ratings,
        "settings": asdict(settings),
        "guideline_version": store.campaign(settings.campaign).guideline_version,
    }
    manifest.metrics = rating_metrics(store, settings.campaign)
    manifest.metrics["num_identical"] = made.num_identical
    if manifest.simulated:
        manifest.metrics["truth"] = truth_metrics(store, settings.campaign, made.completions)
        manifest.provenance["truth"] = truth_settings(DEFAULT_PANEL)


def _print_result(metrics: dict[str, Any], simulated: bool) -> None:
    whose = "SIMULATED raters" if simulated else "raters"
    agreement, ceiling = metrics["percent_agreement"]["value"], metrics["noise_ceiling"]
    print(
        f"{metrics['num_judgements']} judgements on {metrics['num_items']} comparisons by "
        f"{metrics['num_annotators']} {whose}: {metrics['num_pairs']} labelled pairs, "
        f"{metrics['num_equal_votes']} with equal votes, {metrics['num_identical']} pairs of "
        "equal texts left out"
    )
    if agreement is not None:
        beyond = f"; labels agree with the truth at most {ceiling:.0%}" if ceiling else ""
        print(f"two raters agree on {agreement:.0%} of the comparisons{beyond}")
    if "truth" in metrics:
        truth = metrics["truth"]
        accuracy = truth["labels"]["accuracy"]
        right = "unknown" if accuracy is None else f"{accuracy:.0%}"
        print(f"labels right by the simulated truth: {right}; ", end="")
        print(f"length explains {truth['length_share']:.0%} of its variance")
