"""Puts a run's findings, charts and completions into one self-contained HTML page."""

import functools
import html
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from rlhf.evaluation.drift import num_words
from rlhf.manifest import Manifest, write_text
from rlhf.records import STAGES, content_hash
from rlhf.report import findings as found
from rlhf.report.doctor import doctor_rows
from rlhf.report.dpo import dpo_sections
from rlhf.report.figures import figures
from rlhf.report.gate import verdict_of
from rlhf.report.judgements import anchor_of, judgement_rows, raters_names
from rlhf.report.length import lengths_of, told
from rlhf.report.misjudged import worst_cards
from rlhf.report.pairs import heldout_pairs
from rlhf.report.ppo import ppo_section
from rlhf.report.reading import Run, is_not_asked_for
from rlhf.report.wording import interval, known, label_of, number, percent, prompt_text, score_text

NUM_SHOWN = 10
MAX_CHARACTERS = 1_200_000  # of completions, escaped: the page stays under 3 MB
_MAX_IDS = 2000
_MARKUP = 700  # characters around one completion
_PURPOSES = {
    "sft": "learns to answer from demonstrations",
    "sample": "writes the completions to compare",
    "ratings": "raters compare completions",
    "reward": "learns which completion raters prefer",
    "gate": "says whether the reward model may be tuned against",
    "dpo": "tunes the policy to what raters prefer",
    "kto": "tunes the policy to single ratings, good or bad",
    "online_dpo": "tunes the policy on pairs of its own completions",
    "ppo": "tunes the policy to the reward model",
    "evaluate": "compares the policies on held-out prompts",
}
_COUNTS = (
    "num_prompts",
    "num_completions",
    "num_items",
    "num_judgements",
    "num_annotators",
    "num_labels",
    "num_train",
    "num_eval",
    "num_steps",
)


def write_report(run: Run, output: Path) -> Path:
    """Render the run to `output`, one HTML file that asks nothing of any network."""
    write_text(output, render(run))
    return output


def render(run: Run) -> str:
    """The page's HTML."""
    template = _environment().get_template("report.html")
    names, pairs = raters_names(run), heldout_pairs(run)
    pairs = pairs.decided if pairs is not None else None  # a tie can be no mistake
    worst = worst_cards(run, pairs, names)
    judgements = judgement_rows(run, worst, names)
    return template.render(
        title=f"Report: {run.folder.resolve().name}",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        run=run,
        findings=found.findings(run),
        warnings=found.warnings(run),
        chain=chain(run),
        labels=label_ids(run, {row["voice"].id for row in judgements}),
        verdict=verdict_of(run),
        worst=worst,
        num_wrong=0 if pairs is None else int((pairs.gaps < 0).sum()),
        num_pairs=0 if pairs is None else len(pairs),
        judgements=judgements,
        doctor=doctor_rows(run),
        figures=figures(run),
        dpo_sections=dpo_sections(run),
        ppo=ppo_section(run),
        policies=policy_table(run),
        baseline=found.baseline_of(run),
        judges=run.metrics("evaluate").get("judges") or {},
        prompts=prompt_cards(run),
        num_shown=NUM_SHOWN,
        num_prompts=len(run.rows),
        max_ids=_MAX_IDS,
        bundle=vega_bundle(),
    )


def chain(run: Run) -> list[dict[str, Any]]:
    """A card for each stage in the order of the loop, those that have not run among them.

    Of a stage alone, only its own.
    """
    extra = [name for name in run.stages if name not in STAGES]
    names = [*STAGES[:-1], *extra, STAGES[-1]]
    undone = [name for name in names if not run.alone and not is_not_asked_for(run, name)]
    return [_card(run, name) for name in names if name in run.stages or name in undone]


def _card(run: Run, name: str) -> dict[str, Any]:
    manifest = run.stages.get(name)
    card: dict[str, Any] = {"name": name, "purpose": _PURPOSES.get(name, ""), "done": False}
    if manifest is None:
        return card
    return card | {
        "done": True,
        "manifest": manifest,
        "simulated": manifest.simulated,
        "counts": _counts(manifest),
        "reads": [_source_stage(run, entry) for entry in manifest.inputs.items()],
        "config": yaml.safe_dump(manifest.config, sort_keys=True, allow_unicode=True),
        "provenance": _without(manifest.provenance, "doctor"),  # it has a section of its own
        "metrics": _without(manifest.metrics, "policies"),
    }


def _without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def label_ids(run: Run, written_out: Container[str]) -> list[dict[str, Any]]:
    """The judgements behind the reward model's held-out pairs in order: each one's `id`,
    `anchor`, and whether it is `written_out` elsewhere on the page.
    """
    ids = sorted({str(one) for row in run.heldout for one in row.get("judgement_ids") or ()})
    return [{"id": one, "anchor": anchor_of(one), "written_out": one in written_out} for one in ids]


def _counts(manifest: Manifest) -> list[tuple[str, Any]]:
    data = manifest.provenance.get("data")
    merged = {**(data if isinstance(data, dict) else {}), **manifest.metrics}
    named = [(key, merged[key]) for key in _COUNTS if isinstance(merged.get(key), int)]
    return [(key.removeprefix("num_"), value) for key, value in named]


def _source_stage(run: Run, entry: tuple[str, Any]) -> dict[str, Any]:
    """An input with its hash and, when an earlier stage of this run wrote it, that stage."""
    name, details = entry
    details = details if isinstance(details, dict) else {"path": details}
    path = str(details.get("path", ""))
    parts = Path(path.partition("#")[0].removeprefix("feedback:")).parts
    stage = next((part for part in reversed(parts) if part in run.stages), None)
    if "feedback.db" in path:
        stage = "ratings"
    return {"name": name, "path": path, "stage": stage, **details}


def policy_table(run: Run) -> list[dict[str, Any]]:
    """Each policy's numbers for the table under the win rates."""
    baseline = found.baseline_of(run)
    rows = []
    for name, policy in found.policies_of(run).items():
        rate = policy.get(f"win_rate_vs_{baseline}")
        row = {
            "name": name,
            "rate": rate if known(rate) else None,
            "kl": policy.get(f"kl_to_{baseline}"),
            "kl_se": policy.get(f"kl_to_{baseline}_se"),
            "simulated": bool(policy.get("trained_on_simulated")),
            "words": _words(run, name, baseline),
        }
        rows.append({**policy, **row})
    return rows


def _words(run: Run, name: str, baseline: str) -> str | None:
    lengths = lengths_of(run, name, baseline)
    return None if lengths is None else told(lengths.policy)


def prompt_cards(run: Run) -> list[dict[str, Any]]:
    """The prompts with every policy's completion, in the order of the prompts' hashes.

    The hash decides which ten are shown first, so that nobody has picked the flattering ones.
    """
    rows = [row for row in run.rows if isinstance(row.get("policies"), dict)]
    rows.sort(key=lambda row: content_hash(row.get("prompt")))
    cards: list[dict[str, Any]] = []
    room = MAX_CHARACTERS
    for row in rows:
        card = {"prompt": prompt_text(row.get("prompt")), "policies": _texts(row["policies"])}
        room -= len(html.escape(card["prompt"]))
        room -= sum(len(html.escape(answer["text"])) + _MARKUP for answer in card["policies"])
        if room < 0 and cards:
            break
        cards.append(card)
    return cards


def _texts(policies: Mapping[str, Any]) -> list[dict[str, Any]]:
    cards = []
    for name, completion in policies.items():
        text = str(completion.get("text", ""))
        scores = completion.get("scores") or {}
        cards.append({**completion, "name": name, "text": text, "words": num_words(text)})
        # Its score is the number of words, which stands above the text.
        cards[-1]["scores"] = {
            judge: score for judge, score in scores.items() if judge != "shorter"
        }
    return cards


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, safe inside a script element."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def page_environment(*packages: str) -> Any:
    """Where the templates of pages are: those of `packages`, then the report's own, for all."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name) for name in (*packages, "rlhf.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _environment() -> Any:
    environment = page_environment()
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    environment.filters["number"] = number
    environment.filters["score"] = score_text
    environment.filters["label"] = label_of
    return environment
