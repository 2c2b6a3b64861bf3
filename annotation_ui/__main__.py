"""`python -m annotation_ui --store STORE`: rate a store's comparisons in the browser."""

import argparse
import getpass
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import quote

from rlhf.errors import ConfigError, DataError, RlhfError, StageError, nearest_hint

EXAMPLE = "python -m annotation_ui --store runs/quickstart/feedback.db"


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until interrupted and returns the exit code (see rlhf.errors)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        run(_parser().parse_args(words))
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        known = _as_rlhf_error(error)
        print(f"annotation_ui: {' '.join(str(known).split())}", file=sys.stderr)
        return known.exit_code
    return 0


def _as_rlhf_error(error: Exception) -> RlhfError:
    if isinstance(error, RlhfError):
        return error
    kind = type(error).__name__
    return StageError(f"unexpected {kind}: {error}; start it again with --debug to see where")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are ConfigError: one line that names the nearest flag."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        known = self._option_string_actions
        for word in args:
            flag = word.partition("=")[0]
            if flag.startswith("--") and len(flag) > 2 and flag not in known and " " not in flag:
                raise ConfigError(f"unknown flag {flag}{nearest_hint(flag, known)}; see --help")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        allow_abbrev=False,
        prog="annotation_ui",
        description="Rate a store's comparisons in the browser, on this machine.",
        epilog=f"example: {EXAMPLE}",
    )
    parser.add_argument("--store", required=True, help="SQLite file or database URL")
    parser.add_argument("--campaign", help="which campaign; needed where the store has several")
    parser.add_argument("--host", default="127.0.0.1", help="loopback only (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument("--annotator", help="who rates (default: your user name)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(options: argparse.Namespace) -> None:
    """Checks everything that can be wrong, prints the link, and serves."""
    from annotation_ui.guard import is_loopback
    from annotation_ui.rate import Desk
    from rlhf.feedback.store import Store

    if not is_loopback(options.host):
        raise ConfigError(
            f"--host {options.host}: only loopback is served until there is sign-in; "
            "use 127.0.0.1, and an SSH tunnel from elsewhere"
        )
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port {options.port}: not a port; choose 0 to 65535")
    annotator = annotator_name(options.annotator)
    with Store.open(options.store) as store:
        campaign = choose_campaign(store, options.store, options.campaign)
        register(store, annotator)
        _serve(Desk(store, campaign), annotator, options)


def _serve(desk, annotator: str, options: argparse.Namespace) -> None:  # type: ignore[no-untyped-def]
    # Gradio takes seconds to import: not before the arguments are known to be right.
    from annotation_ui.server import bind, build_app, serve
    from annotation_ui.session import Sessions

    listener = bind(options.host, options.port)
    port = listener.getsockname()[1]
    # Browsers share cookies among the ports of a host: two servers must not sign each other's
    # raters out.
    sessions = Sessions(f"rlhf_session_{port}")
    app = build_app(desk, sessions)
    host = f"[{options.host}]" if ":" in options.host else options.host
    link = f"http://{host}:{port}/join?token={quote(sessions.invite(annotator))}"
    print(f"Rating {desk.campaign!r} as {annotator}. Open this link in a browser (it works once):")
    print(f"\n  {link}\n\nCtrl+C stops the server; everything saved stays.", flush=True)
    serve(app, listener)


def annotator_name(wanted: str | None) -> str:
    """The name to rate under: as given, or the user of this machine."""
    if wanted is None:
        try:
            wanted = getpass.getuser()
        except (KeyError, OSError, ImportError):
            raise ConfigError("this machine does not tell who you are; give --annotator") from None
    if not wanted.strip() or not wanted.isprintable():
        raise ConfigError("--annotator: an empty or unprintable name; give one that can be read")
    return wanted.strip()


def choose_campaign(store, where: str, wanted: str | None) -> str:  # type: ignore[no-untyped-def]
    """The name of the campaign to rate; ConfigError or DataError saying which there are."""
    from rlhf.feedback.people import originals, rated_by_people

    campaigns = originals(store.campaigns())
    if wanted is None:
        if not campaigns:
            raise DataError(f"{where}: the store has no campaign; make one with `rlhf feedback`")
        if len(campaigns) > 1:
            names = ", ".join(campaign.name for campaign in campaigns)
            raise ConfigError(f"{where}: several campaigns; add --campaign with one of: {names}")
        wanted = campaigns[0].name
    campaign = rated_by_people(store, wanted)
    if campaign.name != wanted:
        print(f"Simulated raters judged {wanted!r}; people rate its pairs in {campaign.name!r}.")
        wanted = campaign.name
    if campaign.task != "pairwise":
        raise ConfigError(f"campaign {wanted!r} asks for {campaign.task}; this page rates pairwise")
    comparisons = store.comparisons(wanted)
    if not comparisons:
        raise DataError(f"campaign {wanted!r} holds no comparison; add some, then rate")
    for comparison in comparisons:
        if len(comparison.completions) != 2:
            count = len(comparison.completions)
            raise DataError(f"{wanted!r}, item {comparison.item!r}: {count} completions, not two")
    return wanted


def register(store, annotator: str) -> None:  # type: ignore[no-untyped-def]
    """Makes the annotator known as a person; DataError when the name is a simulated rater's."""
    from rlhf.records import Annotator

    store.add_annotator(Annotator(name=annotator))


if __name__ == "__main__":
    sys.exit(main())
