"""Rows from wherever `--dataset_name` points: a file, a folder, the hub or a feedback store."""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.config import nearest_hint
from rlhf.data.losses import DataLosses
from rlhf.errors import ConfigError, DataError, RlhfError
from rlhf.manifest import MANIFEST_NAME, file_sha256
from rlhf.records import content_hash

FILE_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
FEEDBACK_PREFIX = "feedback:"

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class LoadedDataset:
    """Rows with where they came from; `places[i]` says for people where row i stands."""

    name: str
    kind: str
    rows: Sequence[Row]
    places: Sequence[str]
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)
    simulated: bool = False
    losses: DataLosses = field(default_factory=DataLosses)

    @property
    def columns(self) -> list[str]:
        """Every column that some row has, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def as_input(self) -> dict[str, Any]:
        """The entry for a manifest's `inputs`."""
        return {"path": self.name, "sha256": self.sha256, "rows": len(self.rows)}


def load_rows(
    dataset_name: str, *, split: str = "train", dataset_config: str | None = None
) -> LoadedDataset:
    """The rows of a data set, with their hash and provenance.

    `dataset_name` is a file (.jsonl, .jsonl.gz, .json, .parquet), a folder of such files (those
    with `split` in their name, when there are any) or of a saved data set, a hub id, or
    `feedback:STORE#CAMPAIGN`. ConfigError when it does not exist, DataError (with file and
    line) when it cannot be read or holds no rows.
    """
    if dataset_name.startswith(FEEDBACK_PREFIX):
        loaded = _from_feedback(dataset_name)
    elif Path(dataset_name).is_dir():
        loaded = _from_folder(Path(dataset_name), split)
    elif Path(dataset_name).exists() or dataset_name.endswith(FILE_SUFFIXES):
        loaded = _from_files(dataset_name, [Path(dataset_name)])
    else:
        loaded = _from_hub(dataset_name, dataset_config, split)
    if not loaded.rows:
        raise DataError(f"{dataset_name}: holds no rows; give a data set with at least one")
    loaded.losses.num_rows += len(loaded.rows)
    loaded.simulated = loaded.simulated or any(row.get("simulated") is True for row in loaded.rows)
    return loaded


def _from_files(name: str, paths: Sequence[Path]) -> LoadedDataset:
    rows: list[Row] = []
    places: list[str] = []
    for path in paths:
        for place, row in _read_file(path):
            rows.append(row)
            places.append(place)
    hashes = {path.name: file_sha256(path) for path in paths}
    sha256 = next(iter(hashes.values())) if len(hashes) == 1 else content_hash(hashes)
    provenance = {"kind": "file", "files": hashes}
    return LoadedDataset(
        name=name, kind="file", rows=rows, places=places, sha256=sha256, provenance=provenance
    )


def _from_folder(folder: Path, split: str) -> LoadedDataset:
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        from datasets import load_from_disk

        return _from_datasets(str(folder), load_from_disk(str(folder)), split, {"kind": "folder"})
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(FILE_SUFFIXES)
        and path.name != MANIFEST_NAME
        and not path.name.startswith(".")
    )
    if not paths:
        known = ", ".join(FILE_SUFFIXES)
        raise DataError(f"{folder}: holds no data files ({known}); give the folder that does")
    named = [path for path in paths if split in path.name]
    return _from_files(str(folder), named or paths)


def _from_hub(name: str, dataset_config: str | None, split: str) -> LoadedDataset:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"{name}: no such file or folder{_nearest_file(name)}")
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, name=dataset_config, split=split)
    except Exception as error:  # the library raises a dozen kinds, all meaning: not to be had
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{name}: neither a file here{_nearest_file(name)} nor to be had from the hub "
            f"({reason}); give a path, a hub id or feedback:STORE#CAMPAIGN"
        ) from None
    return _from_datasets(name, dataset, split, {"kind": "hub", "config": dataset_config})


def _from_datasets(
    name: str, dataset: Any, split: str, provenance: dict[str, Any]
) -> LoadedDataset:
    if hasattr(dataset, "keys"):
        if split not in dataset:
            names = ", ".join(dataset)
            raise ConfigError(f"{name}: no split {split!r}; it has {names}")
        dataset = dataset[split]
    rows = list(dataset)
    places = [f"{name}[{split}] row {index}" for index in range(len(rows))]
    provenance = provenance | {"split": split, "version": str(dataset.info.version)}
    return LoadedDataset(
        name=name,
        kind=provenance["kind"],
        rows=rows,
        places=places,
        sha256=_rows_sha256(rows),
        provenance=provenance,
    )


def _from_feedback(name: str) -> LoadedDataset:
    from rlhf.data.feedback_pairs import feedback_rows

    location, separator, campaign = name.removeprefix(FEEDBACK_PREFIX).rpartition("#")
    if not separator or not location or not campaign:
        raise ConfigError(f"{name}: expected feedback:STORE#CAMPAIGN, with a path or URL as STORE")
    rows, provenance, losses = feedback_rows(location, campaign)
    return LoadedDataset(
        name=name,
        kind="feedback",
        rows=rows,
        places=[f"{campaign} item {row['item']}" for row in rows],
        sha256=_rows_sha256(rows),
        provenance=provenance,
        simulated=any(row["simulated"] for row in rows),
        losses=losses,
    )


def _read_file(path: Path) -> Iterator[tuple[str, Row]]:
    """(place, row) for each row of one file."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file{_nearest_file(str(path))}")
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    if path.name.endswith(FILE_SUFFIXES):
        return _read_json(path)
    known = ", ".join(FILE_SUFFIXES)
    raise ConfigError(f"{path}: not a data file that is known; give one of {known}")


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}); write it anew") from None
    for index, row in enumerate(rows):
        yield f"{path} row {index}", row


def _read_json(path: Path) -> Iterator[tuple[str, Row]]:
    """JSON lines, or in a .json file also one list of objects."""
    text = _read_text(path)
    if path.name.endswith(".json") and text.lstrip().startswith("["):
        yield from _read_json_list(path, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}:{number}"
            yield place, _parsed_row(place, line)


def _read_json_list(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise DataError(f"{place}: not valid JSON ({error.msg}); mend that line") from None
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{path} row {index}: not an object; each row is {{column: value}}")
        yield f"{path} row {index}", value


def _parsed_row(place: str, line: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"not valid JSON ({error.msg} at column {error.colno})"
        raise DataError(f"{place}: {problem}; mend or remove that line") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: not an object; each line is one {{column: value}}")
    return value


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read()
        return data.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); copy or write it anew") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check permissions") from None


def _rows_sha256(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _nearest_file(name: str) -> str:
    folder = Path(name).parent
    try:
        return nearest_hint(Path(name).name, [path.name for path in folder.iterdir()])
    except (OSError, RlhfError):
        return ""
