"""SFT on a tiny policy: what is trained, and that the merge is exact."""

import pytest
import torch
from safetensors.torch import load_file

from rlhf.models.adapters import attach_adapter
from rlhf.models.loading import load_policy
from tests.training.conftest import metrics_of, read_json

IDS = torch.tensor([[1, 5, 6, 7]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_output_is_the_fp32_base_with_the_adapter_merged(run_stage, demos, tiny_model, dtype):
    options = ("--use_peft", "--learning_rate", "1e-2", "--dtype", dtype)
    folder = run_stage("sft", demos, *options)
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    with torch.no_grad():
        merged = load_policy(folder)(IDS).logits
        base = load_policy(tiny_model)(IDS).logits
        unmerged = attach_adapter(load_policy(tiny_model), folder / "adapter")(IDS).logits
    assert torch.allclose(merged, unmerged, atol=1e-5)
    assert (merged - base).abs().max() > 0.1


def test_one_seed_gives_one_adapter(run_stage, demos):
    def adapter(seed: str, out: str) -> bytes:
        options = ("--use_peft", "--lora_dropout", "0.1", "--seed", seed)
        folder = run_stage("sft", demos, *options, out=out)
        return (folder / "adapter" / "adapter_model.safetensors").read_bytes()

    assert adapter("1", "a") == adapter("1", "b")
    assert adapter("1", "c") != adapter("2", "d")


def test_loss_falls_and_is_taken_on_completions_only(run_stage, demos):
    options = ("--use_peft", "--learning_rate", "3e-2", "--max_steps", "40")
    folder = run_stage("sft", demos, *options, "--eval_fraction", "0.3")
    losses = [row["loss"] for row in read_json(folder / "log.json") if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    metrics = metrics_of(folder)
    assert metrics["train_loss"] == pytest.approx(sum(losses) / len(losses))
    assert metrics["eval_loss"] < 0.7 * losses[0]
    # The rates of single steps, over a handful of tokens, are curves and no result.
    assert {name for name in metrics if name.startswith("train_")} == {"train_loss"}


def test_full_fine_tuning_with_packing(run_stage, demos):
    folder = run_stage("sft", demos, "--packing", "--max_length", "64", "--learning_rate", "1e-2")
    assert not (folder / "adapter").exists()
    assert load_policy(folder)(IDS).logits.isfinite().all()


def test_conversations_train_every_assistant_turn(run_stage, tmp_path):
    from tests.training.conftest import write_rows

    turns = [{"role": "user", "content": "bread?"}, {"role": "assistant", "content": "a box"}]
    data = write_rows(tmp_path / "talk.jsonl", [{"messages": turns + turns}] * 4)
    folder = run_stage("sft", data, "--use_peft", "--assistant_only_loss")
    assert metrics_of(folder)["num_train"] == 4


def test_a_chat_template_of_ones_own_is_used_and_saved(run_stage, demos, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}bot:"
    )
    folder = run_stage("sft", demos, "--use_peft", "--chat_template_file", str(template))
    assert (folder / "chat_template.jinja").read_text() == template.read_text()


def test_a_run_does_not_go_on_with_another_chat_template(run_stage, demos, tmp_path, capsys):
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    options = ("--use_peft", "--chat_template_file", str(template))
    (run_stage("sft", demos, *options) / "manifest.json").unlink()
    template.write_text("{% for m in messages %}{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}")
    run_stage("sft", demos, *options, expect=2)
    assert "holds another run (chat_template_file (content)" in capsys.readouterr().err
