"""The fast passes log and learn what TRL's own do, and leave nothing behind."""

from contextlib import nullcontext

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as PeftLinear
from safetensors.torch import load_file
from trl import DPOConfig

from rlhf.models import fused_head, vocabulary_tiles
from rlhf.models.cpu_attention import NAME
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.lora_compute import BaseDtypeLinear
from rlhf.models.trl_compat import TokenizedDPOTrainer
from rlhf.training import fast_forward as fast
from rlhf.training.arguments import parse_settings
from rlhf.training.preferences.grouping import lengths_of
from rlhf.training.stage import measured
from tests.training.conftest import read_json

NOT_OF_THE_LOSS = ("runtime", "per_second", "learning_rate", "step", "epoch")
STEPS = 3

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_")  # TRL says so itself


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The vocabulary takes several tiles."""
    monkeypatch.setitem(vocabulary_tiles.TILE_SIZES, "cpu", 64)


def drawn_pairs(number: int = 4 * STEPS) -> list[dict]:
    """Tokenised pairs with prompts of 3 to 25 tokens and completions of 1 to 7."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 290, (count,), generator=generator).tolist()

    return [
        {
            "prompt_ids": tokens(3 + 2 * (5 * index % 12)),
            "chosen_ids": tokens(1 + index % 7),
            "rejected_ids": tokens(1 + 3 * index % 5),
        }
        for index in range(number)
    ]


def made(base, folder, rows, *, lora=True, attention="sdpa", ref=False, **options):
    """A trainer by plain gradient descent: its weights then say what the gradients were."""
    reference = None
    if ref:
        reference = load_policy(base, attn_implementation=attention, device="cpu")
        with torch.no_grad():
            for weight in reference.parameters():
                weight.mul_(0.9)
    arguments = DPOConfig(
        output_dir=str(folder),
        report_to="none",
        use_cpu=True,
        bf16=False,
        optim="sgd",
        learning_rate=0.1,
        logging_steps=1,
        max_steps=STEPS,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        save_strategy="no",
        **({"activation_checkpointing": False} | options),
    )
    return TokenizedDPOTrainer(
        model=load_policy(base, attn_implementation=attention, device="cpu").train(),
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:4]),
        processing_class=load_tokenizer(base),
        # B begins away from zero: else the policy is its reference, and A learns nothing
        peft_config=LoraConfig(
            r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        if lora
        else None,
    )


def learnt(trainer, passes) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """What was logged in training and evaluation, and the weights after it."""
    torch.manual_seed(0)
    with passes as sharing:
        trainer.train()
        trainer.evaluate()
    if sharing is not None:
        assert sharing[0].num_shared > 0
    rows = [
        {key: value for key, value in row.items() if not key.endswith(NOT_OF_THE_LOSS)}
        for row in trainer.state.log_history
    ]
    named = trainer.model.named_parameters()
    return rows, {name: each.detach().clone() for name, each in named if each.requires_grad}


def assert_alike(ours, theirs) -> None:
    (rows, weights), (expected_rows, expected) = ours, theirs
    assert len(rows) == len(expected_rows) == STEPS + 2
    for row, other in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(other, abs=1e-5, rel=1e-5)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=1e-5)
    losses = [row["loss"] for row in expected_rows if "loss" in row]
    assert max(losses) - min(losses) > 1e-3  # it moves, so a slip would show


CASES = [
    {},
    {"attention": "eager"},
    {"activation_checkpointing": True},
    {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
    {"lora": False, "ref": True},
    {"lora": False, "ref": True, "attention": "eager", "activation_checkpointing": True},
    {"ref": True},
    {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    {"use_weighting": True},
    {"ld_alpha": 0.5},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dpo_logs_and_learns_what_stock_does(case, tiny_model, tmp_path):
    found = []
    for passes in (None, fast.fast_passes):
        torch.manual_seed(1)
        trainer = made(tiny_model, tmp_path, drawn_pairs(), **case)
        models = fast.models_of(trainer)
        found.append(learnt(trainer, passes(models, share=True) if passes else nullcontext()))
    assert_alike(found[1], found[0])


def test_precomputed_references_too(tiny_model, tmp_path):
    columns = ("ref_chosen_logps", "ref_rejected_logps")
    rows = [
        row | dict(zip(columns, (-3.0 * i, -40.0 + i), strict=True))
        for i, row in enumerate(drawn_pairs())
    ]
    found = []
    for is_fast in (False, True):
        torch.manual_seed(1)
        trainer = made(tiny_model, tmp_path, rows)
        trainer.precompute_ref_logps = True
        trainer._precompute_ref_logps = lambda dataset, *_: dataset
        models = fast.models_of(trainer)
        passes = fast.fast_passes(models, share=True) if is_fast else nullcontext()
        found.append(learnt(trainer, passes))
    assert_alike(found[1], found[0])


def test_the_pass_of_the_reference_alone_is_fast_and_the_same(tiny_model, tmp_path, monkeypatch):
    trainer = made(tiny_model, tmp_path, drawn_pairs())
    batch = trainer.data_collator(drawn_pairs()[:2])
    plain = trainer.compute_ref_log_probs(trainer.model, dict(batch))
    num_scored, original = [], fused_head.token_scores

    def counting(head, hidden, *rest, **options):
        num_scored.append(len(hidden))
        return original(head, hidden, *rest, **options)

    monkeypatch.setattr(fused_head, "token_scores", counting)
    with fast.fast_passes(fast.models_of(trainer), share=True) as sharing:
        quick = trainer.compute_ref_log_probs(trainer.model, dict(batch))
    assert sharing[0].num_shared == 1
    assert num_scored == [int(batch["completion_mask"].sum())]
    for one, other in zip(quick, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def settings_for(base, folder, *options, verb="dpo"):
    words = ["--model_name_or_path", str(base), "--dataset_name", "none.jsonl"]
    words += ["--output_dir", str(folder), *options]
    return parse_settings(verb, words, example="rlhf dpo")


def is_plain(trainer) -> bool:
    layers = [each for each in trainer.model.modules() if isinstance(each, PeftLinear)]
    backbone = trainer.model.get_base_model().base_model
    return (
        bool(layers)
        and all(type(each) is PeftLinear for each in layers)
        and "forward" not in vars(backbone)
        and backbone.config._attn_implementation == "sdpa"
    )


def test_a_block_says_what_came_of_it_and_leaves_nothing(tiny_model, tmp_path, capsys):
    settings = settings_for(tiny_model, tmp_path)
    trainer = made(tiny_model, tmp_path, drawn_pairs())
    layer = next(each for each in trainer.model.modules() if isinstance(each, PeftLinear))
    with fast.fast_forward(trainer, settings):
        assert type(layer) is BaseDtypeLinear
        assert trainer.model.get_base_model().config._attn_implementation == NAME
        with fast.fast_forward(trainer, settings):
            assert not is_plain(trainer)
        assert not is_plain(trainer)  # the inner block has not ended the outer one
        trainer.evaluate()
    assert capsys.readouterr().err.count("shared their prompt in") == 1
    assert is_plain(trainer)
    with pytest.raises(KeyError), fast.fast_forward(trainer, settings):
        raise KeyError
    assert is_plain(trainer)
    assert "shared" not in capsys.readouterr().err


def test_evaluation_after_training_is_fast_too(tiny_model, tmp_path, monkeypatch):
    settings = settings_for(tiny_model, tmp_path)
    trainer = made(tiny_model, tmp_path, drawn_pairs())
    plain = {key: value for key, value in trainer.evaluate().items() if "loss" in key}
    calls, original = [], fused_head.token_scores
    monkeypatch.setattr(
        fused_head, "token_scores", lambda *a, **o: calls.append(1) or original(*a, **o)
    )
    assert measured(trainer, settings)["eval_loss"] == pytest.approx(plain["eval_loss"], abs=1e-5)
    assert calls


@pytest.mark.parametrize(("verb", "shares"), [("dpo", True), ("reward", True), ("sft", False)])
def test_pairs_alone_share_and_only_unless_told_not_to(verb, shares, tiny_model, tmp_path):
    settings = settings_for(tiny_model, tmp_path, verb=verb)
    assert fast.is_sharing(settings) == shares
    never = settings_for(tiny_model, tmp_path, "--share_prefixes", "never", verb=verb)
    assert not fast.is_sharing(never)


def test_adapters_saved_within_are_plain_ones(tiny_model, tmp_path):
    trainer = made(tiny_model, tmp_path, drawn_pairs())
    trainer.save_model(str(tmp_path / "plain"))
    with fast.fast_passes(fast.models_of(trainer), share=True):
        trainer.save_model(str(tmp_path / "fast"))
    plain, quick = (tmp_path / name for name in ("plain", "fast"))
    assert {each.name for each in quick.iterdir()} == {each.name for each in plain.iterdir()}
    config = "adapter_config.json"
    assert read_json(quick / config) == read_json(plain / config)
    weights, expected = (load_file(each / "adapter_model.safetensors") for each in (quick, plain))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("verb", ["sft", "reward"])
def test_other_stages_log_what_they_log_without(verb, run_stage, demos, pairs, monkeypatch):
    data = demos if verb == "sft" else pairs
    words = ("--use_peft", "--learning_rate", "1e-2", "--eval_fraction", "0.25")
    quick = run_stage(verb, data, *words, out="fast")
    monkeypatch.setattr(fast, "fast_passes", lambda *_args, **_rest: nullcontext())
    plain = run_stage(verb, data, *words, out="plain")
    ours, theirs = (read_json(folder / "log.json") for folder in (quick, plain))
    assert len(ours) == len(theirs) >= STEPS
    for row, expected in zip(ours, theirs, strict=True):
        kept = {key: value for key, value in expected.items() if not key.endswith(NOT_OF_THE_LOSS)}
        assert kept.items()
        assert {key: row[key] for key in kept} == pytest.approx(kept, abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_micro_batches_by_length_learn_what_those_as_drawn_do(verb, run_stage, pairs):
    words = ("--use_peft", "--learning_rate", "1e-2", "--gradient_accumulation_steps", "4")
    found = {
        choice: read_json(
            run_stage(verb, pairs, *words, "--batch_by_length", choice, out=choice) / "log.json"
        )
        for choice in ("auto", "never")
    }
    ours, theirs = ([row["loss"] for row in rows if "loss" in row] for rows in found.values())
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert max(theirs) - min(theirs) > 1e-3


@pytest.mark.parametrize(
    ("options", "is_cut"),
    [
        ((), True),
        (("--batch_by_length", "never"), False),
        (("--loss_type", "aot"), False),  # sorts the margins of a micro-batch
        (("--gradient_accumulation_steps", "1"), False),  # a step is one micro-batch
    ],
)
def test_steps_are_cut_by_length_where_no_loss_would_notice(options, is_cut, tiny_model, tmp_path):
    words = ("--gradient_accumulation_steps", "2", *options)
    assert bool(lengths_of(rows_by_hand(), settings_for(tiny_model, tmp_path, *words))) == is_cut


def rows_by_hand() -> list[dict]:
    return [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}]
