"""Files of rows: JSON is read with line numbers; JSON and Parquet are written whole."""

import gzip
import io
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlhf.errors import ConfigError, DataError, StageError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json")
WRITABLE = (*SUFFIXES, ".parquet")


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with where it stands (`FILE:LINE`); DataError there for one that is no object.

    Raises ConfigError when there is no such file or its suffix is none of `SUFFIXES`.
    """
    _suffix(path)
    yield from _rows(path, _read_bytes(path))


def read_text_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows in the text of a file called `name` that is not on this machine; as `read_rows`."""
    if not name.endswith((".jsonl", ".json")):
        raise ConfigError(f"{name}: neither .jsonl nor .json; convert or rename it")
    try:
        content = text.removeprefix("\ufeff").encode()
    except UnicodeEncodeError:
        raise DataError(f"{name}: holds half a character (a lone surrogate)") from None
    yield from _rows(Path(name), content)


def _rows(path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.name.endswith(".json"):
        yield from _listed(path, content)
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _mapping(_parse(line, where), where)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows through a temporary neighbour: a reader sees the old file or all of the new."""
    content = rows_as_bytes(rows, _suffix(path, WRITABLE))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StageError(
            f"{path}: cannot be written ({error.strerror}); check disk and folder"
        ) from None


def rows_as_bytes(rows: Iterable[dict[str, Any]], suffix: str) -> bytes:
    """Rows as the content of a file of one of `WRITABLE`; equal rows make equal bytes."""
    listed = list(rows)
    if suffix == ".parquet":
        return _as_parquet(listed)
    if suffix == ".json":
        return (json.dumps(listed, ensure_ascii=False, indent=1) + "\n").encode()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in listed)
    content = "".join(lines).encode()
    return gzip.compress(content, mtime=0) if suffix == ".jsonl.gz" else content


def check_writable(path: Path) -> None:
    """Raise ConfigError unless a file of this name can be written."""
    _suffix(path, WRITABLE)


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    columns = dict.fromkeys(column for row in rows for column in row)
    whole = [{column: row.get(column) for column in columns} for row in rows]
    sink = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(whole), sink)
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"no Parquet column can hold this ({reason}); write .jsonl") from None
    return sink.getvalue()


def _suffix(path: Path, known: Sequence[str] = SUFFIXES) -> str:
    """The suffix of a file's name; ConfigError when it is none of those that are known."""
    found = next((suffix for suffix in known if path.name.endswith(suffix)), None)
    if found is None:
        raise ConfigError(f"{path}: not one of {', '.join(known)}; rename or convert it")
    return found


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); copy it again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return content.removeprefix(b"\xef\xbb\xbf")


def _listed(path: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _parse(content, str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file holds one list of rows; use .jsonl for lines")
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        yield where, _mapping(row, where)


def _parse(content: bytes, where: str) -> Any:
    try:
        text = content.decode()
        return json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            object_pairs_hook=_no_key_twice,
        )
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8 text; convert the file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at {place}column {error.colno}); mend the line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON ({error}); mend the line") from None


def _mapping(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__} where an object is wanted")
    return row


def _finite(word: str) -> float:
    """JSON has no infinity, and Python makes one of 1e999."""
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:40]} is too large a number")
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        twice = next(key for key, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!a} stands twice")
    return mapping
