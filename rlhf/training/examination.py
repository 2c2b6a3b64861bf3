"""The doctor at the start of a stage: what it knows of the model, and comparing renderings."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf.data.doctor import Finding, Side, examine
from rlhf.data.doctor.catalogue import KINDS
from rlhf.data.doctor.findings import Example
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset
from rlhf.data.tokenization import Renderer
from rlhf.errors import RlhfError
from rlhf.manifest import MANIFEST_NAME, Manifest
from rlhf.models.loading import context_tokens, load_tokenizer
from rlhf.models.reward_spec import RewardSpec
from rlhf.records import STAGES, PromptContent
from rlhf.training.arguments import Settings

_PROBES: tuple[PromptContent, ...] = (
    [{"role": "user", "content": "How do I keep bread fresh?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Bread?"},
        {"role": "assistant", "content": "In a dry box."},
        {"role": "user", "content": "And cake?"},
    ],
    "How do I keep bread fresh?",
)


def examine_stage(
    settings: Settings,
    model_sha256: str,
    datasets: Sequence[LoadedDataset],
    train: Side,
    heldout: Side,
    renderer: Renderer,
) -> list[Finding]:
    """All findings on the data of a stage, and on how it renders them beside its neighbours."""
    context = context_tokens(settings.model.model_name_or_path, settings.model.model_revision)
    found = examine(datasets, train, heldout, renderer, context)
    return found + template_findings(settings, model_sha256, renderer)


def count_cut_by_context(settings: Settings, heldout: Side, losses: DataLosses) -> None:
    """Count the held-out pairs of a reward stage that its scoring will cut to the context.

    Every rank counts them, since a loss may refuse the stage.
    """
    if settings.verb != "reward":
        return
    name, revision = settings.model.model_name_or_path, settings.model.model_revision
    context = context_tokens(name, revision)
    if context is None:
        return
    for row, ids in zip(heldout.rows, heldout.columns, strict=True):
        if max(len(ids["chosen_ids"]), len(ids["rejected_ids"])) > context:
            losses.shorten(f"held out and over the model's context of {context}", row.place)


def template_findings(settings: Settings, model_sha256: str, renderer: Renderer) -> list[Finding]:
    """A warning when a model of the same loop is rendered otherwise than this stage renders.

    Compared are the model that the stage starts from, and the stages beside its output folder
    that build on the same model (or are it).
    """
    differing: list[Example] = []
    num_compared = 0
    for place, other in _neighbours(settings, model_sha256):
        num_compared += 1
        reason = differing_rendering(renderer, other)
        if reason is not None:
            differing.append(Example(place, reason))
    if not differing:
        return []
    kind = KINDS["template_differs"]
    return [
        Finding(
            name="template_differs",
            severity=kind.severity,
            count=len(differing),
            share=round(len(differing) / num_compared, 6),
            words=kind.words,
            advice=kind.advice,
            data="tokenizers",
            examples=tuple(differing),
        )
    ]


def differing_rendering(ours: Renderer, other: Renderer) -> str | None:
    """What differs when the two render the same conversations; None when nothing does."""
    if ours.rendering != other.rendering:
        return f"--rendering {other.rendering} there, {ours.rendering} here"
    for probe in _PROBES:
        here, there = (_ids(one, probe) for one in (ours, other))
        if here != there:
            return f"{_shown(other, there)} there, {_shown(ours, here)} here"
    return None


def _neighbours(settings: Settings, model_sha256: str) -> Iterator[tuple[str, Renderer]]:
    """The renderers to compare with, each with its folder or the model's name."""
    name, revision = settings.model.model_name_or_path, settings.model.model_revision
    if settings.stage.chat_template_file or getattr(settings.training, "chat_template_path", None):
        tokenizer = load_tokenizer(name, revision=revision)
        # A template of ours beside none is no difference: the model knows of none.
        if tokenizer.chat_template:
            yield name, Renderer(tokenizer, settings.stage.rendering)
    folder = Path(settings.training.output_dir).absolute()
    for stage in STAGES:
        neighbour = folder.parent / stage
        if neighbour == folder or not _shares_base(neighbour, model_sha256):
            continue
        try:
            rendering = RewardSpec.read(neighbour).rendering
            yield str(neighbour), Renderer(load_tokenizer(neighbour), rendering)
        except RlhfError:
            continue  # damaged, or it holds no model: no concern of this stage


def _shares_base(folder: Path, model_sha256: str) -> bool:
    """Whether a finished stage in `folder` started from the same weights."""
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        inputs = Manifest.read(folder).inputs
    except RlhfError:
        return False
    return bool(inputs.get("model", {}).get("sha256") == model_sha256)


def _ids(renderer: Renderer, probe: PromptContent) -> list[int] | str:
    """The ids of a probe with a completion, or what the template says against it."""
    try:
        return renderer.transcript_ids(probe, "In a dry box.")
    except RlhfError as error:
        return type(error).__name__


def _shown(renderer: Renderer, ids: list[int] | str) -> str:
    return ids if isinstance(ids, str) else repr(renderer.tokenizer.decode(ids[:30]))
