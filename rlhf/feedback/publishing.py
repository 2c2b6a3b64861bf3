"""An export as a data set on the hub: one commit with the rows, their manifest and a card."""

import io
from typing import Any

from rlhf.errors import ConfigError, StageError
from rlhf.feedback.exports import export_bytes
from rlhf.feedback.soft_labels import LabelMethod
from rlhf.feedback.store import Store
from rlhf.manifest import json_text

DATA_PATH = "data/train-00000-of-00001.parquet"
MANIFEST_PATH = "manifest.json"


def push_export(
    store: Store,
    campaign: str,
    format_name: str,
    repo_id: str,
    *,
    private: bool = False,
    method: LabelMethod = "votes",
) -> dict[str, Any]:
    """Put a campaign's export on the hub, in a repository that is made when new; the manifest.

    Judgements go as JSON lines, which round-trip; training formats as Parquet. The token is the
    one that `hf auth login` keeps, or HF_TOKEN. Raises ConfigError where the hub does not let us,
    and for judgements in a public place: they hold the raters' names and words. StageError where
    the hub cannot be reached.
    """
    if format_name == "judgements" and not private:
        raise ConfigError(
            f"{repo_id}: judgements hold the raters' names; push a training format, or make the "
            "repository private (--private)"
        )
    suffix = ".jsonl" if format_name == "judgements" else ".parquet"
    path = DATA_PATH if suffix == ".parquet" else "data/train.jsonl"
    _, content, manifest = export_bytes(store, campaign, format_name, suffix, method=method)
    # the address of the store is nobody's business outside
    manifest = {**manifest, "file": path, "store": None}
    files = {
        path: content,
        MANIFEST_PATH: json_text(manifest).encode(),
        "README.md": card(manifest, path).encode(),
    }
    _commit(repo_id, files, private=private, message=f"{manifest['num_rows']} {format_name} rows")
    return manifest


def card(manifest: dict[str, Any], path: str) -> str:
    """The card of a pushed data set: what it holds and whether people made it."""
    simulated = [rater for rater in manifest["raters"] if rater["simulated"]]
    people = len(manifest["raters"]) - len(simulated)
    tags = ["human-feedback" if people else "simulated-feedback", "rlhf", "preference"]
    lines = ["---", "tags:", *(f"- {tag}" for tag in tags), "configs:", "- config_name: default"]
    lines += ["  data_files:", "  - split: train", f"    path: {path}", "---", ""]
    lines += [f"# {manifest['campaign']}: {manifest['format']}", ""]
    lines += [
        f"{manifest['num_rows']} rows out of {manifest['num_judgements']} judgements by {people} "
        f"people and {len(simulated)} simulated raters, under "
        f"{'their own names' if manifest['format'] == 'judgements' else 'pseudonyms'}.",
        "",
    ]
    if simulated:
        lines += ["**Simulated raters are among them: these are not (only) people's labels.**", ""]
    lines += ["`manifest.json` names the judgements, the guideline versions and what was left out."]
    return "\n".join(lines) + "\n"


def _commit(repo_id: str, files: dict[str, bytes], *, private: bool, message: str) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    operations = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=io.BytesIO(content))
        for path, content in files.items()
    ]
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset")
    except HFValidationError as error:
        raise ConfigError(f"{repo_id}: {_one_line(error)}") from None
    except HfHubHTTPError as error:
        raise ConfigError(
            f"{repo_id}: the hub refuses: {_one_line(error)}; sign in with "
            "`hf auth login`, and check the name"
        ) from None
    except Exception as error:  # the client raises a dozen kinds, all meaning: not to be had
        raise StageError(
            f"{repo_id}: the hub cannot be reached ({_one_line(error)}); try again"
        ) from None


def _one_line(error: Exception) -> str:
    """What an error says, without the client's advice on where to read more."""
    return " ".join(str(error).partition("For more information")[0].split())[:200]
