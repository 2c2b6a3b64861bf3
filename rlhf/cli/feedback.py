"""`rlhf feedback import | export | check`: the ratings in and out of a store."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import CommandParser
from rlhf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rlhf.feedback.imports import ImportReport
    from rlhf.feedback.interchange import ParsedRow

SUMMARY = "bring ratings into a feedback store, take them out, check them"
EXAMPLE = "rlhf feedback export --store feedback.db --campaign everyday --output ratings.jsonl"

_EXAMPLES = {
    "import": "rlhf feedback import ratings.jsonl --store feedback.db --campaign everyday",
    "export": "rlhf feedback export --store feedback.db --campaign everyday --output ratings.jsonl",
    "check": "rlhf feedback check --store feedback.db",
}


def main(argv: Sequence[str]) -> int:
    """Run one of the subcommands."""
    options = _parser().parse_args(list(argv))
    run = {"import": _import, "export": _export, "check": _check}[options.command]
    run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="rlhf feedback", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _import_options(_command(commands, "import", "judgements from a file into a store"))
    _export_options(_command(commands, "export", "a campaign's judgements into a file"))
    _command(commands, "check", "look for anything in a store that must not be")
    return parser


def _command(
    commands: "argparse._SubParsersAction[CommandParser]", name: str, summary: str
) -> CommandParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {_EXAMPLES[name]}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--store", required=True, help="path of a SQLite file, or a postgresql:// URL"
    )
    return parser


def _import_options(parser: argparse.ArgumentParser) -> None:
    from rlhf.feedback.rules import TASKS

    parser.add_argument("file", type=Path, help=".jsonl, .jsonl.gz or .json of judgements")
    parser.add_argument("--campaign", help="put them here, whatever campaign the rows name")
    parser.add_argument("--task", choices=TASKS, help="task of a campaign that is made for them")


def _export_options(parser: argparse.ArgumentParser) -> None:
    from rlhf.feedback.exports import FORMATS

    parser.add_argument("--campaign", required=True, help="the campaign to export")
    parser.add_argument(
        "--output", required=True, type=Path, help="file to write: .jsonl, .jsonl.gz or .json"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="judgements",
        help="judgements as they are (default), TRL's preference pairs, or written demonstrations",
    )


def _import(options: argparse.Namespace) -> None:
    from rlhf.config import nearest_hint
    from rlhf.feedback.imports import read_judgements
    from rlhf.feedback.interchange import KNOWN_KEYS

    if not options.file.is_file():
        raise ConfigError(f"{options.file}: no such file; give a file of judgements")
    report = _import_rows(options, read_judgements(options.file, options.campaign))
    known = report.num_rows - report.num_new
    names = ", ".join(report.campaigns)
    print(
        f"{options.store}: {report.num_new} new judgements in {names} ({known} were there), "
        f"{report.num_items} new items, {report.num_annotators} new annotators, "
        f"{report.num_simulated} of the judgements simulated"
    )
    for name, number in report.renamed.items():
        print(f"note: {number} rows were of campaign {name!r} and are in {names} now")
    for key, number in report.unknown_keys.items():
        hint = nearest_hint(key, KNOWN_KEYS)
        note = f"note: {number} rows with unknown key {key!r}{hint}: kept, not used"
        print(note, file=sys.stderr)


def _import_rows(options: argparse.Namespace, rows: "list[ParsedRow]") -> "ImportReport":
    """Put rows into the store, which is made where there is none.

    A new store is filled beside its place and linked there whole: an import that fails leaves
    none behind, and a store that another process has put there meanwhile takes the rows.
    """
    from rlhf.feedback.imports import import_rows
    from rlhf.feedback.store import Store
    from rlhf.feedback.store.database import parse_location
    from rlhf.manifest import make_folder

    url, path = parse_location(options.store), Path(options.store)
    if "://" not in options.store and url.database and not path.exists():
        with tempfile.TemporaryDirectory(prefix=".rlhf-", dir=make_folder(path.parent)) as folder:
            new = Path(folder) / "feedback.db"
            with Store.open(new, create=True) as store:
                report = import_rows(store, rows, task=options.task)
            if _put(new, path):
                return report
    with Store.open(options.store, create=True) as store:
        return import_rows(store, rows, task=options.task)


def _put(new: Path, path: Path) -> bool:
    """Link a file to a place where there is none; False when there is one, or links cannot be."""
    try:
        path.hardlink_to(new)
    except OSError:
        return False
    return True


def _export(options: argparse.Namespace) -> None:
    from rlhf.feedback.exports import export_file
    from rlhf.feedback.store import Store

    with Store.open(options.store) as store:
        manifest = export_file(store, options.campaign, options.output, format_name=options.format)
    mark = "; SIMULATED raters among them" if manifest["simulated"] else ""
    print(
        f"{options.output}: {manifest['num_rows']} rows from {manifest['num_judgements']} "
        f"judgements{mark}"
    )
    for name, number in manifest.get("counts", {}).items():
        if number:
            print(f"  {name}: {number}")


def _check(options: argparse.Namespace) -> None:
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
