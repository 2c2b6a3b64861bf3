"""Online DPO from prompts to an adapter: what it leaves, and that it learns what is paid for."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rlhf.cli import main
from rlhf.training.online_dpo.rounds import Rounds
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward
from tests.training.online_dpo.conftest import lines


def test_rounds_leave_pairs_records_an_adapter_and_a_manifest(
    run, functions, tmp_path, tiny_model, capsys
):
    reward = gated_reward(tmp_path / "rewards", tiny_model, simulated=True)
    folder = run(
        *("--reward_model_name_or_path", str(reward), "--reward_funcs", f"{functions}:vowels"),
        *("--reward_weights", "1", "0.5", "--missing_eos_penalty", "0"),
    )
    assert (folder / "adapter_model.safetensors").exists()
    assert (folder / "tokenizer_config.json").exists()
    manifest, metrics = read_json(folder / "manifest.json"), metrics_of(folder)
    assert manifest["simulated"] is True
    assert manifest["inputs"]["reward reward"]["path"] == str(reward)
    weights = [(each["name"], each["weight"]) for each in manifest["provenance"]["labels"]]
    assert weights == [("reward", 1.0), ("vowels", 0.5)]
    assert manifest["provenance"]["labels"][0]["gate"]["passed"] is True
    assert metrics["num_rounds"] == 2
    assert metrics["num_steps"] == 2 * 3  # 6 prompts a round in batches of 2
    said = capsys.readouterr().err
    for number, found in enumerate(metrics["rounds"], 1):
        assert found["num_prompts"] == 6
        assert found["num_pairs"] + found["num_ties"] + found["num_identical"] == 6
        assert found["simulated"] is True
        assert f"round {number} of 2" in said
        check_pairs(folder / f"round-{number:02d}", found)
    assert "(SIMULATED labels)" in said
    assert metrics["rounds"][0]["kl"] == 0  # LoRA begins at nothing
    assert metrics["rounds"][1]["kl"] != 0
    log = read_json(folder / "log.json")
    assert [row["round"] for row in log if "round" in row] == [1, 2]
    assert [row["step"] for row in log if "loss" in row] == list(range(1, 7))


def check_pairs(folder, found):
    """What every line of a round's files has, and that they agree with the record."""
    rows = lines(folder / "pairs.jsonl")
    assert len(rows) == found["num_pairs"]
    for row in rows:
        assert row["chosen"][0]["role"] == "assistant"
        assert row["chosen_score"] > row["rejected_score"]
        assert row["margin"] == pytest.approx(row["chosen_score"] - row["rejected_score"])
        scores = row["chosen_scores"]
        total = scores["reward"] + 0.5 * scores["vowels"]
        assert row["chosen_score"] == pytest.approx(total, abs=1e-5)
        assert row["simulated"] is True
        assert "+online_dpo@" in row["source"]
        assert "p_chosen" not in row
    sampled = lines(folder / "completions.jsonl")
    assert [len(row["completions"]) for row in sampled] == [3] * 6
    scores = [score for row in sampled for score in row["score"]]
    assert found["score"] == pytest.approx(sum(scores) / len(scores))
    for row in sampled:
        pair = next((each for each in rows if each["prompt"] == row["prompt"]), None)
        if pair is not None:
            assert pair["chosen_score"] == max(row["score"])
            assert pair["rejected_score"] == min(row["score"])


@pytest.mark.parametrize("weight", [1, -1])
def test_what_is_rewarded_becomes_more_and_what_is_punished_less(weight, run, functions, tmp_path):
    rows = [{"prompt": f"question {number}?"} for number in range(40)]
    folder = run(
        *("--dataset_name", str(write_rows(tmp_path / "more.jsonl", rows))),
        *("--reward_funcs", f"{functions}:low", "--reward_weights", str(weight)),
        *("--missing_eos_penalty", "0", "--lora_target_modules", "all-linear", "--beta", "0.02"),
        *("--num_generations", "6", "--num_rounds", "7", "--prompts_per_round", "16"),
        *("--learning_rate", "2e-2", "--lr_scheduler_type", "constant", "--eval_fraction", "0.3"),
    )
    metrics = metrics_of(folder)
    shares = [each["score/low"] for each in metrics["rounds"]]
    assert weight * ((shares[-1] + shares[-2]) / 2 - shares[0]) > 0.05
    # The same on prompts that it never learnt from, beside the model that it started from.
    assert metrics["num_eval"] > 5
    assert metrics["eval_score"] > metrics["eval_ref_score"]
    assert metrics["eval_kl"] > 0
    assert not [each for each in metrics["warnings"] if each["cause"] == "score_not_rising"]


def test_the_pairs_of_a_round_are_read_by_dpo_doctor_and_score(
    run, functions, tmp_path, tiny_model
):
    folder = run("--reward_funcs", f"{functions}:vowels", "--soft_label_scale", "0.5")
    pairs = str(folder / "round-01" / "pairs.jsonl")
    count = metrics_of(folder)["rounds"][0]["num_pairs"]
    assert all(0.5 < row["p_chosen"] < 1 for row in lines(folder / "round-01" / "pairs.jsonl"))
    model = ["--model_name_or_path", str(tiny_model), "--dataset_name", pairs, "--max_loss", "1"]
    tuned = tmp_path / "dpo"
    assert main(["dpo", *model, "--output_dir", str(tuned), "--max_steps", "1", "--use_peft"]) == 0
    assert metrics_of(tuned)["num_train"] == count
    report = tmp_path / "doctor.json"
    assert main(["doctor", "--stage", "dpo", *model, "--json", str(report)]) in (0, 5)
    assert read_json(report)["stages"]["dpo"]["num_rows"] == count
    reward = gated_reward(tmp_path / "rewards", tiny_model)
    scored = ["--output", str(tmp_path / "s.jsonl"), "--json", str(tmp_path / "s.json")]
    words = ["score", "--model_name_or_path", str(reward), "--dataset_name", pairs, *scored]
    assert main(words) == 0
    assert read_json(tmp_path / "s.json")["n"] == count


def test_functions_are_given_columns_and_what_they_note_is_kept(run, functions, tmp_path):
    folder = run("--reward_funcs", f"{functions}:columns")
    for prompt, answer, _ in lines(tmp_path / "seen.jsonl"):
        assert prompt[0]["content"] == f"question {answer}?"
    assert metrics_of(folder)["rounds"][0]["asked"] == 18
    for row in lines(folder / "round-01" / "completions.jsonl"):
        assert row["prompt"][0]["content"] == f"question {row['noted_answer'][0]}?"


def test_ties_are_counted_and_a_round_of_ties_changes_nothing(run, functions, capsys):
    folder = run("--reward_funcs", f"{functions}:flat", "--missing_eos_penalty", "0")
    metrics = metrics_of(folder)
    assert [each["num_ties"] for each in metrics["rounds"]] == [6, 6]
    assert metrics["num_pairs"] == 0
    causes = [(each["cause"], each["step"]) for each in metrics["warnings"]]
    assert ("all_ties", 0) in causes
    assert ("all_ties", 3) in causes
    assert "no pair of 6 prompts (6 ties" in capsys.readouterr().err
    records = [read_json(folder / f"round-0{n}" / "round.json") for n in (1, 2)]
    assert records[0]["policy"]["sha256"] == records[1]["policy"]["sha256"]


def test_texts_are_prompts_too_and_stay_texts(run, functions, tmp_path):
    data = write_rows(tmp_path / "texts.jsonl", [{"prompt": f"Why {n}?"} for n in range(4)])
    folder = run("--reward_funcs", f"{functions}:low", "--dataset_name", str(data))
    for row in lines(folder / "round-01" / "pairs.jsonl"):
        assert isinstance(row["prompt"], str)
        assert isinstance(row["chosen"], str)


def test_all_weights_can_be_trained(run, functions, words):
    words.remove("--use_peft")
    folder = run("--reward_funcs", f"{functions}:low", "--learning_rate", "1e-3")
    assert (folder / "model.safetensors").exists()
    assert metrics_of(folder)["rounds"][0]["kl"] == 0
    assert metrics_of(folder)["rounds"][1]["kl"] != 0


def test_the_learning_rate_falls_over_all_rounds(run, functions):
    folder = run("--reward_funcs", f"{functions}:low")
    rates = [row["learning_rate"] for row in read_json(folder / "log.json") if "loss" in row]
    assert rates == pytest.approx([1e-2 * (6 - step) / 6 for step in range(6)])


def test_a_finished_run_is_left_alone_and_restart_samples_anew(run, functions, capsys):
    options = ["--reward_funcs", f"{functions}:low"]
    folder = run(*options)
    stale = folder / "round-07"
    stale.mkdir()
    run(*options)
    assert "finished already" in capsys.readouterr().out
    assert stale.exists()
    run(*options, "--restart")
    assert not stale.exists()
    assert metrics_of(folder)["num_rounds"] == 2


def test_max_steps_ends_within_a_round(run, functions):
    metrics = metrics_of(run("--reward_funcs", f"{functions}:low", "--max_steps", "2"))
    assert (metrics["num_steps"], metrics["num_rounds"]) == (2, 1)


def test_the_kl_is_that_of_the_adapter_to_the_base(run, functions, tiny_model, monkeypatch):
    """Computed again by plain models, from the checkpoint that the round was sampled from."""
    noted, kl_of = [], Rounds.kl_of

    def keeping(self, prompts, task):
        noted.append([(one.prompt_ids, one.samples[0].ids) for one in prompts])
        return kl_of(self, prompts, task)

    monkeypatch.setattr(Rounds, "kl_of", keeping)
    folder = run("--reward_funcs", f"{functions}:low", "--learning_rate", "3e-2")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    asked = noted[1]
    ref = [plain_logp(base, *each) for each in asked]
    policy = PeftModel.from_pretrained(base, folder / "checkpoint-3")
    gaps = [plain_logp(policy, *each) - r for each, r in zip(asked, ref, strict=True)]
    found = metrics_of(folder)["rounds"][1]
    assert found["kl"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-4)
    assert abs(found["kl"]) > 0.05


def plain_logp(model, prompt_ids, completion_ids):
    """The summed log-probability of one completion, by one row without any padding."""
    ids = torch.tensor([[*prompt_ids, *completion_ids]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
    return float(logps.gather(1, torch.tensor(completion_ids)[:, None]).sum())


def test_soft_labels_reach_the_loss(run, functions):
    """At the start the gradient of a pair goes with 2 p - 1: with p all but 0.5 it is nothing."""
    options = ["--reward_funcs", f"{functions}:vowels", "--max_steps", "1"]
    hard, soft = (
        read_json(run(*options, *more, out=name) / "log.json")[1]["grad_norm"]
        for name, more in (("hard", []), ("soft", ["--soft_label_scale", "1e-6"]))
    )
    assert hard > 0.1
    assert soft < 1e-5 * hard
