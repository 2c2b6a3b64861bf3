"""The whole loop with real stage processes on a tiny model, unbroken and killed in DPO."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PIPELINE = "configs/pipeline/quickstart.yaml"
SHORT = [
    # the tiny tokenizer needs several times the tokens
    *("--sft.max_length=512", "--reward.max_length=512", "--dpo.max_length=512"),
    *("--sft.max_steps=2", "--sample.max_new_tokens=12", "--evaluate.max_new_tokens=12"),
    *("--sample.dataset_name=prompts.jsonl", "--evaluate.dataset_name=heldout.jsonl"),
    *("--reward.max_steps=2", "--dpo.max_steps=40", "--dpo.save_steps=4", "--dpo.logging_steps=1"),
]
RUNS = ("whole", "broken")
NUM_PROMPTS = 30
CONTRACT_POLICY = {"win_rate_vs_sft", "judges", "kl_to_sft", "mean_tokens", "ended_rate"}
CONTRACT_REWARD = {"accuracy", "accuracy_ci", "n", "ece", "noise_ceiling"}


def run_loop(folder: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rlhf", "run", PIPELINE, "--output_dir", folder]
    return subprocess.Popen([*command, *SHORT, *options], stderr=subprocess.DEVNULL)


def metrics(folder: str, stage: str) -> dict:
    return json.loads(Path(folder, stage, "manifest.json").read_text())["metrics"]


def wait_for_checkpoint(stage: Path, process: subprocess.Popen, timeout_s: float = 120) -> None:
    """Any whole checkpoint will do: each is soon removed for newer ones, and on a busy machine
    one that was named here came and went between two looks.
    """
    deadline = time.monotonic() + timeout_s
    while not any(stage.glob("checkpoint-*/complete.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_loop_killed_in_dpo_ends_as_an_unbroken_one(tiny_checkout):
    for target, source in (("prompts", "train_prompts"), ("heldout", "heldout_prompts")):
        rows = Path(f"configs/quickstart/{source}.jsonl").read_text().splitlines()[:NUM_PROMPTS]
        Path(f"{target}.jsonl").write_text("\n".join(rows) + "\n")
    assert run_loop("whole").wait() == 0
    check_contract("whole")

    shutil.copytree("whole", "broken")
    for stage in ("dpo", "evaluate"):
        shutil.rmtree(f"broken/{stage}")
    killed = run_loop("broken")
    wait_for_checkpoint(Path("broken/dpo"), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not Path("broken/dpo/manifest.json").exists()

    assert run_loop("broken").wait() == 0
    for stage in ("dpo", "evaluate"):
        assert metrics("broken", stage) == metrics("whole", stage)
    adapters = [Path(run, "dpo/adapter_model.safetensors").read_bytes() for run in RUNS]
    assert adapters[0] == adapters[1]


def check_contract(folder: str) -> None:
    """summary.json has the names that other programs read, and says that raters were simulated."""
    summary = json.loads(Path(folder, "summary.json").read_text())
    assert set(summary["stages"]) >= {"sft", "reward", "dpo"}
    assert set(summary["stages"]["reward"]) >= CONTRACT_REWARD
    gate = json.loads(Path(folder, "gate/gate.json").read_text())
    assert summary["stages"]["gate"]["passed"] is gate["passed"]
    assert gate["simulated"] is True
    measured = {check["name"] for check in gate["checks"] if check["passed"] is not None}
    assert measured >= {"accuracy", "overfitting", "reload", "roundtrip", "side_of_labels"}
    for name in ("sft", "reward", "gate", "dpo"):
        assert {"seconds", "peak_rss_gb"} <= set(summary["stages"][name])
    assert set(summary["policies"]["dpo"]) >= CONTRACT_POLICY
    rate = summary["policies"]["dpo"]["win_rate_vs_sft"]
    assert set(rate) >= {"value", "low", "high", "n", "judge"}
    assert "simulated" in rate["judge"]
    assert summary["stages"]["dpo"]["simulated"] is True
    assert "raters were simulated" in Path(folder, "report.html").read_text()
