"""Several processes: one result, one voice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.errors import ConfigError
from rlhf.training.launching import accelerate_config_path
from tests.training.conftest import read_json

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_two_processes_share_a_run_and_only_one_writes_or_speaks(tiny_model, pairs, tmp_path):
    folder = tmp_path / "out"
    words = ["dpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(pairs)]
    words += ["--output_dir", str(folder), "--use_peft", "--max_steps", "4", "--save_steps", "2"]
    words += ["--per_device_train_batch_size", "3", "--logging_steps", "1"]
    config = str(ROOT / "configs" / "accelerate" / "cpu_2.yaml")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rlhf", *words, "--accelerate_config", config, *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )

    process = run()
    assert process.returncode == 0, process.stderr
    # 24 pairs in steps of 2 processes x 3 pairs: four steps are one pass.
    assert read_json(folder / "log.json")[-1]["epoch"] == 1.0
    assert read_json(folder / "run.json")["num_processes"] == 2
    assert (folder / "checkpoint-4" / "rng_state_1.pth").exists()
    assert process.stdout.count("'train_runtime'") == 1
    assert process.stderr.count("24 rows, preference") == 1

    refused = run("--learning_rate", "0.5")
    assert refused.returncode == 2
    errors = [line for line in refused.stderr.splitlines() if line.startswith("rlhf dpo: ")]
    assert len(errors) == 1
    assert re.search(r"holds another run \(learning_rate: .* there, 0.5 here\)", errors[0])
    assert "Traceback" not in refused.stderr


def test_configs_of_trl_by_name_or_a_path(tmp_path: Path):
    assert accelerate_config_path("fsdp2").name == "fsdp2.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text("num_processes: 1\n")
    assert accelerate_config_path(str(mine)) == mine
    with pytest.raises(ConfigError, match=r"zero33: neither a file.*did you mean 'zero3'"):
        accelerate_config_path("zero33")
