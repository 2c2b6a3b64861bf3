"""Data sets by their hub id: the library's own loading, against a hub that is a function."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.data.formats import preference_pairs, unpaired_completions
from rlhf.data.sources import load_rows
from rlhf.errors import ConfigError
from tests.hub import DataHub, served, transported

PAIRS = [{"prompt": f"p{n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(3)]


def test_pairs_come_from_the_hub_with_their_hash(tmp_path: Path):
    hub = DataHub()
    hub.add("ada/pairs", PAIRS)
    hub.add("ada/pairs", PAIRS[:1], "test")
    with transported(hub, tmp_path):
        train = load_rows("ada/pairs")
        heldout = load_rows("ada/pairs", split="test")
        with pytest.raises(ConfigError, match=r"ada/nothing: neither a file here.*from the hub"):
            load_rows("ada/nothing")
    assert list(train.rows) == PAIRS
    assert len(heldout.rows) == 1
    assert train.kind == "hub"
    assert train.places[2] == "ada/pairs[train] row 2"
    assert train.sha256 != heldout.sha256
    assert len(preference_pairs(train)) == 3
    assert len(unpaired_completions(train)) == 6
    assert ("HEAD", "/datasets/ada/pairs/resolve/main/README.md") in hub.asked


def test_a_process_of_its_own_asks_the_same_hub(tmp_path: Path):
    hub = DataHub()
    hub.add("ada/pairs", PAIRS)
    code = "from rlhf.data.sources import load_rows; print(load_rows('ada/pairs').rows)"
    with served(hub, tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip().endswith(str(PAIRS))
