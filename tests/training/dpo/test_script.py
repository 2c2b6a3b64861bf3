"""scripts/train_dpo.sh on every kind of source: each leaves an adapter and says what it read."""

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import comparison, judgement
from tests.hub import DataHub, transported
from tests.training.conftest import read_json, write_rows

ROOT = Path(__file__).parents[3]
HH_FILES = sorted((ROOT.parent / "shared" / "data").glob("hh-helpful-*.jsonl.gz"))
NUM_PAIRS = 8
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path) -> list[str]:
    """What a user would give beside --dataset_name, for a model of a moment."""
    given = {
        "model_name_or_path": tiny_model,
        "output_dir": tmp_path / "out",
        "max_steps": 1,
        "gradient_accumulation_steps": 2,
        "lora_r": 2,
        "max_length": 512,
    }
    return [str(word) for key, value in given.items() for word in (f"--{key}", value)]


@pytest.fixture
def train(words: list[str], tmp_path: Path) -> Run:
    """Runs what the script runs, in this process; the manifest, with the adapter looked at."""

    def run(source: object, *more: str) -> dict[str, Any]:
        config = ["--config", str(ROOT / "configs" / "dpo.yaml")]
        code = main(["dpo", *config, "--dataset_name", str(source), *words, *more, "--debug"])
        assert code == 0
        return finished(tmp_path / "out")

    return run


def finished(folder: Path) -> dict[str, Any]:
    """The manifest of a stage that has left a trained adapter."""
    from safetensors.torch import load_file

    adapter = load_file(folder / "adapter_model.safetensors")
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in adapter.items())
    manifest = read_json(folder / "manifest.json")
    assert manifest["metrics"]["num_steps"] == 1
    assert manifest["provenance"]["losses"]["num_lost"] == 0
    return dict(manifest)


def preference_rows() -> list[dict[str, Any]]:
    """Rows of TRL's preference format, as conversations."""
    return [
        {
            "prompt": [{"role": "user", "content": f"Question {n}?"}],
            "chosen": [{"role": "assistant", "content": f"Yes, {n}."}],
            "rejected": [{"role": "assistant", "content": f"No {n}"}],
        }
        for n in range(NUM_PAIRS)
    ]


def transcripts() -> list[dict[str, str]]:
    """Rows as HH has them: both sides are whole transcripts with one beginning."""
    asked = "\n\nHuman: Hi {0}\n\nAssistant: Hello.\n\nHuman: What is {0}?\n\nAssistant: "
    return [
        {"chosen": f"{asked.format(n)}A number.", "rejected": f"{asked.format(n)}Go away."}
        for n in range(NUM_PAIRS)
    ]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


STAMP = '.venv/installed-$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d" " -f1)-run'
"""What scripts/venv.sh looks for before it installs anything."""


def in_shell(command: str, folder: Path) -> bool:
    return subprocess.run(["bash", "-c", command], cwd=folder).returncode == 0


IS_INSTALLED = in_shell(f"test -e {STAMP} -a -x .venv/bin/pip", ROOT)


@pytest.mark.long
@pytest.mark.skipif(
    not IS_INSTALLED, reason="needs .venv of the present requirements: scripts/venv.sh"
)
def test_the_script_itself_trains_on_transcripts(words: list[str], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "hh.jsonl", transcripts())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [ROOT / "scripts" / "train_dpo.sh", "--dataset_name", "hh.jsonl", *words],
        cwd=tmp_path,  # relative paths keep their meaning
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "HH transcripts" in ended.stderr
    manifest = finished(tmp_path / "out")
    assert manifest["inputs"]["data"]["sha256"] == sha256(source)
    assert manifest["inputs"]["data"]["rows"] == NUM_PAIRS
    assert "HH transcripts" in manifest["provenance"]["data"]["format"]
    assert manifest["config"]["beta"] == 0.1  # of configs/dpo.yaml


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["--beta", "0.2"], ["dpo", "--config", "ROOT/configs/dpo.yaml", "--beta", "0.2"]),
        (["--config", "my.yaml"], ["dpo", "--config", "my.yaml"]),
        (["--config=my.yaml", "a b"], ["dpo", "--config=my.yaml", "a b"]),
    ],
)
def test_the_script_passes_everything_on(
    given: list[str], passed: list[str], tmp_path: Path
) -> None:
    """In a checkout whose rlhf only says how it was called."""
    for name in ("venv.sh", "train.sh", "train_dpo.sh", "constraints.txt"):
        copied = tmp_path / "scripts" / name
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes((ROOT / "scripts" / name).read_bytes())
        copied.chmod(0o755)
    (tmp_path / "pyproject.toml").touch()
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name, text in (
        ("rlhf", "import json, sys; print(json.dumps(sys.argv[1:]))"),
        ("pip", "raise SystemExit(1)"),
    ):
        (folder / name).write_text(f"#!/usr/bin/env python3\n{text}\n")
        (folder / name).chmod(0o755)
    assert in_shell(f"touch {STAMP}", tmp_path)
    script = tmp_path / "scripts" / "train_dpo.sh"
    said = subprocess.run([script, *given], check=True, capture_output=True, text=True).stdout
    assert json.loads(said) == [word.replace("ROOT", str(tmp_path)) for word in passed]


@pytest.mark.skipif(not HH_FILES, reason="no hh-helpful-*.jsonl.gz in ../shared/data")
def test_anthropics_own_transcripts(train: Run, tmp_path: Path) -> None:
    with gzip.open(HH_FILES[0], "rt") as stream:
        lines = [line for line, _ in zip(stream, range(3000), strict=False)]
    source = tmp_path / "hh.jsonl.gz"
    with gzip.open(source, "wt") as stream:
        stream.writelines(sorted(lines, key=len)[:NUM_PAIRS])
    manifest = train(source, "--max_loss", "0")
    assert "HH transcripts" in manifest["provenance"]["data"]["format"]
    assert manifest["provenance"]["data"]["files"] == {"hh.jsonl.gz": sha256(source)}


def as_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_a_file_of_trls_format(name: str, train: Run, tmp_path: Path) -> None:
    write = as_parquet if name.endswith("parquet") else write_rows
    source = write(tmp_path / name, preference_rows())
    manifest = train(source)
    found = manifest["provenance"]["data"]
    assert found["kind"] == "file"
    assert found["files"] == {name: sha256(source)}
    assert "preference (conversational, explicit prompt)" in found["format"]
    assert manifest["inputs"]["data"]["rows"] == NUM_PAIRS


def test_a_folder_takes_the_files_of_the_split(train: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = preference_rows()
    write_rows(folder / "train-0.jsonl", rows[:4])
    as_parquet(folder / "train-1.parquet", rows[4:])
    write_rows(folder / "test.jsonl", rows[:1])
    manifest = train(folder)
    files = manifest["provenance"]["data"]["files"]
    assert files == {name: sha256(folder / name) for name in ("train-0.jsonl", "train-1.parquet")}
    assert manifest["inputs"]["data"]["rows"] == NUM_PAIRS


def test_a_feedback_store(train: Run, tmp_path: Path) -> None:
    location = tmp_path / "feedback.db"
    items = [
        comparison(f"i{n}", f"yes {n}.", "no.", prompt=f"Is it {n}?") for n in range(NUM_PAIRS)
    ]
    with Store.open(location, create=True) as store:
        store.create_campaign("c", overlap=1)
        store.add_comparisons("c", items)
        store.add_annotator(Annotator(name="ann"))
        store.record(
            [judgement(one.item, "ann", id=f"{one.item}-ann", verdict=-2) for one in items]
        )
    manifest = train(f"feedback:{location}#c", "--labels", "soft")
    found = manifest["provenance"]["data"]
    assert (found["kind"], found["campaign"]) == ("feedback", "c")
    assert (found["num_labels"], found["num_annotators"]) == (NUM_PAIRS, 1)
    assert len(found["label_ids_sha256"]) == 64
    assert manifest["simulated"] is False


def test_a_hub_id(train: Run, tmp_path: Path) -> None:
    hub = DataHub()
    name = hub.add("someone/pairs", preference_rows())
    hub.add(name, preference_rows()[:1], split="test")
    with transported(hub, tmp_path / "cache"):
        manifest = train(name)
    found = manifest["provenance"]["data"]
    assert (found["kind"], found["split"]) == ("hub", "train")
    assert manifest["inputs"]["data"]["path"] == name
    assert manifest["inputs"]["data"]["rows"] == NUM_PAIRS
    assert any(path.endswith(".parquet") for _, path in hub.asked)
