"""`rlhf feedback import`: ratings made elsewhere into a store."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import ConfigError, nearest_hint

if TYPE_CHECKING:
    from rlhf.feedback.foreign import Converted, ForeignOptions
    from rlhf.feedback.imports import ImportReport
    from rlhf.feedback.store import Store

SUMMARY = "ratings from a file into a store: our own, TRL's, Argilla's or Label Studio's"
EXAMPLE = "rlhf feedback import ratings.jsonl --store feedback.db --campaign everyday"

_FOREIGN_ONLY = ("annotator", "prompt_field", "completion_fields", "question")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and what it does not say itself."""
    from rlhf.feedback.foreign import FOREIGN_FORMATS
    from rlhf.feedback.rules import TASKS

    add = parser.add_argument
    add("file", type=Path, help=".jsonl, .jsonl.gz or .json of ratings")
    add("--campaign", help="put them here, whatever campaign the rows name")
    add("--task", choices=TASKS, help="task of a campaign that is made for them")
    add(
        "--format",
        choices=("judgements", *FOREIGN_FORMATS),
        help="what the file holds; by default that is recognised",
    )
    add("--annotator", help="who judged, where the file names nobody")
    add("--simulated", action="store_true", help="no person judged: mark every judgement so")
    add("--unrated", action="store_true", help="take the comparisons alone, to be rated here")
    add("--prompt_field", help="the field with the prompt (Argilla, Label Studio)")
    add("--completion_fields", help="the fields with the completions, with commas between them")
    add(
        "--question",
        action="append",
        metavar="NAME=KIND",
        help="what a question asks: verdict, ranking, rating, flag, rewrite, rationale or ignore",
    )


def run(options: argparse.Namespace) -> None:
    """Import the file and say what came of it."""
    from rlhf.feedback.files import read_rows
    from rlhf.feedback.foreign import JUDGEMENTS, recognise

    if not options.file.is_file():
        raise ConfigError(f"{options.file}: no such file; give a file of judgements")
    rows = list(read_rows(options.file))
    format_name = options.format or recognise(rows, str(options.file))
    if format_name == JUDGEMENTS:
        _import_judgements(options)
    else:
        _import_foreign(options, rows, format_name)


def _import_judgements(options: argparse.Namespace) -> None:
    from rlhf.cli.feedback.filling import fill_store
    from rlhf.feedback import imports
    from rlhf.feedback.interchange import KNOWN_KEYS

    given = [key for key in _FOREIGN_ONLY if getattr(options, key) is not None]
    given += [key for key in ("simulated", "unrated") if getattr(options, key)]
    if given:
        raise ConfigError(
            f"--{given[0]}: {options.file} is a file of judgements, which say that themselves; "
            "leave the option out"
        )
    rows = imports.read_judgements(options.file, options.campaign)
    report = fill_store(
        options.store, lambda store: imports.import_rows(store, rows, task=options.task)
    )
    _print_report(options.store, report)
    names = ", ".join(report.campaigns)
    for name, number in report.renamed.items():
        print(f"note: {number} rows were of campaign {name!r} and are in {names} now")
    for key, number in report.unknown_keys.items():
        hint = nearest_hint(key, KNOWN_KEYS)
        note = f"note: {number} rows with unknown key {key!r}{hint}: kept, not used"
        print(note, file=sys.stderr)


def _import_foreign(
    options: argparse.Namespace, rows: list[tuple[str, dict[str, Any]]], format_name: str
) -> None:
    from rlhf.cli.feedback.filling import fill_store
    from rlhf.feedback.foreign import convert

    if not options.campaign:
        raise ConfigError("--campaign is missing; name the campaign that the ratings shall be in")
    converted = convert(rows, format_name, _foreign_options(options))
    print(f"{options.file}: {len(rows)} rows, {converted.what}")
    report = fill_store(options.store, lambda store: _put(store, options, converted))
    if options.unrated:
        print(f"{options.store}: {report.num_items} new items in {options.campaign}, unrated")
    else:
        _print_report(options.store, report)
    for reason, number in converted.left_out.items():
        print(f"note: {number} {reason}")


def _put(store: "Store", options: argparse.Namespace, converted: "Converted") -> "ImportReport":
    from rlhf.feedback.foreign_imports import import_converted, import_unrated

    if options.unrated:
        return import_unrated(store, converted, campaign=options.campaign, task=options.task)
    written = datetime.fromtimestamp(int(options.file.stat().st_mtime), UTC)
    return import_converted(
        store, converted, campaign=options.campaign, judged_at=written, task=options.task
    )


def _foreign_options(options: argparse.Namespace) -> "ForeignOptions":
    from rlhf.feedback.foreign import ForeignOptions
    from rlhf.feedback.foreign.reading import ANSWER_KINDS

    questions = {}
    for word in options.question or ():
        name, equals, kind = word.partition("=")
        if not equals or kind not in ANSWER_KINDS:
            hint = nearest_hint(kind, ANSWER_KINDS)
            raise ConfigError(
                f"--question {word}{hint}: NAME=KIND, one of {', '.join(ANSWER_KINDS)}"
            )
        questions[name] = kind
    fields = options.completion_fields or ""
    return ForeignOptions(
        annotator=options.annotator,
        simulated=options.simulated,
        unrated=options.unrated,
        prompt_field=options.prompt_field,
        completion_fields=tuple(one.strip() for one in fields.split(",") if one.strip()),
        questions=questions,
    )


def _print_report(store: str, report: "ImportReport") -> None:
    known = report.num_rows - report.num_new
    print(
        f"{store}: {report.num_new} new judgements in {', '.join(report.campaigns)} "
        f"({known} were there), {report.num_items} new items, {report.num_annotators} new "
        f"annotators, {report.num_simulated} of the judgements simulated"
    )
