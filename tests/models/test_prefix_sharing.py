"""The shared path gives the plain path's states, losses and gradients, or stays away."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn.functional import logsigmoid

from rlhf.models.cpu_attention import attending_short_rows
from rlhf.models.loading import backbone_of
from rlhf.models.prefix_sharing import (
    common_prefix_lengths,
    pack_rows,
    put_back,
    share_rows,
    sharing_prefixes,
)

PAD, VOCABULARY = 0, 97
FAMILIES = ("Llama", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3Text", "GPT2", "Mistral")


def tiny_scorer(family: str, attention: str, **changes):
    """A random classifier with weights so large that a wrong position shows."""
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
    }
    if family == "GPT2":
        sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0}
        sizes |= {"attn_pdrop": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        pad_token_id=PAD,
        initializer_range=0.3,
        num_labels=1,
        **(sizes | changes),
    )
    torch.manual_seed(0)
    build = transformers.AutoModelForSequenceClassification.from_config
    return build(config, attn_implementation=attention).train()


def paired_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three ragged pairs [chosen; rejected]: long and short prompts, one completion of a token."""
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    prompts = [tokens(20), tokens(5), tokens(33)]
    chosen = [prompt + tokens(count) for prompt, count in zip(prompts, (7, 12, 1), strict=True)]
    rejected = [prompt + tokens(count) for prompt, count in zip(prompts, (3, 2, 9), strict=True)]
    return padded([*chosen, *rejected])


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def loss_and_gradients(model, ids, mask) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    chosen, rejected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.chunk(2)
    loss = -logsigmoid(chosen - rejected).mean()
    loss.backward()
    named = model.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def assert_equal_paths(model, ids, mask) -> None:
    plain_loss, plain = loss_and_gradients(model, ids, mask)
    with sharing_prefixes(backbone_of(model), pays_below=1.0) as sharing:
        loss, gradients = loss_and_gradients(model, ids, mask)
    assert (sharing.num_shared, sharing.num_batches) == (1, 1)
    assert sharing.num_tokens < sharing.num_plain_tokens
    torch.testing.assert_close(loss, plain_loss, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in plain.values()) > 0.01


def test_a_shared_row_by_hand():
    # prompt 5 6 7; chosen goes on 8 9, rejected 4
    ids, mask = padded([[5, 6, 7, 8, 9], [5, 6, 7, 4]])
    assert common_prefix_lengths(ids, mask).tolist() == [3]
    rows = share_rows(ids, mask, PAD)
    assert rows.ids.tolist() == [[5, 6, 7, 8, 9, 4]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert rows.visible[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],  # rejected sees the prompt and itself, nothing of chosen
    ]
    assert rows.sources[0].tolist() == [0, 1, 2, 3, 4]
    assert rows.sources[1].tolist()[:4] == [0, 1, 2, 5]
    states = torch.arange(6.0)[None, :, None]
    assert put_back(states, rows.sources)[1, :4, 0].tolist() == [0, 1, 2, 5]


def test_a_packed_row_by_hand():
    # pairs 5 6 | 7 | 8 and 9 | 4 | 3 2: shared rows 5 6 7 8 and 9 4 3 2, the shorter one padded
    ids, mask = padded([[5, 6, 7], [9, 4], [5, 6, 8, 1], [9, 3]])
    rows = pack_rows(share_rows(ids, mask, PAD))
    assert rows.ids.tolist() == [[5, 6, 7, 8, 1, 9, 4, 3]]
    assert rows.positions.tolist() == [[0, 1, 2, 2, 3, 0, 1, 1]]
    assert rows.visible[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],  # the second pair sees nothing of the first
        [0, 0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 0, 1],
    ]
    states = torch.arange(8.0)[None, :, None]
    back = put_back(states, rows.sources)[..., 0]
    assert back[0, :3].tolist() == [0, 1, 2]
    assert back[1, :2].tolist() == [5, 6]
    assert back[2].tolist() == [0, 1, 3, 4]
    assert back[3, :2].tolist() == [5, 7]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_pairs_give_the_plain_loss_and_gradients(attention):
    model, (ids, mask) = tiny_scorer("Llama", attention), paired_batch()
    plain_loss, plain = loss_and_gradients(model, ids, mask)
    options = {"pays_below": 1.0, "packs_always": True}
    with sharing_prefixes(backbone_of(model), **options) as sharing:
        loss, gradients = loss_and_gradients(model, ids, mask)
    assert sharing.num_tokens == (20 + 7 + 3) + (5 + 12 + 2) + (33 + 1 + 9)
    torch.testing.assert_close(loss, plain_loss, atol=1e-5, rtol=1e-5)
    for name, gradient in plain.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_pairs_are_packed_in_bf16_on_a_cpu_alone():
    for dtype, packed in ((torch.bfloat16, True), (torch.float32, False)):
        model, (ids, mask) = tiny_scorer("Llama", "sdpa").to(dtype), paired_batch()
        with attending_short_rows(model), sharing_prefixes(backbone_of(model)) as sharing:
            model(input_ids=ids, attention_mask=mask)
        assert sharing.num_shared == 1
        assert (sharing.num_tokens == 30 + 19 + 43) == packed


def test_pairs_that_share_nothing_or_everything_are_rows_too():
    ids, mask = padded([[5, 6], [7], [8, 9], [8, 9, 3]])  # pairs (5 6 | 8 9) and (7 | 8 9 3)
    assert common_prefix_lengths(ids, mask).tolist() == [0, 0]
    ids, mask = padded([[5, 6, 7], [5, 6]])  # rejected is the beginning of chosen
    rows = share_rows(ids, mask, PAD)
    assert rows.ids.tolist() == [[5, 6, 7]]
    assert rows.sources[1].tolist()[:2] == [0, 1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_plain_loss_and_gradients(family, attention):
    if (family, attention) == ("Gemma2", "sdpa"):
        attention = "eager"  # transformers offers no other for this family
    assert_equal_paths(tiny_scorer(family, attention), *paired_batch())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant):
    model = tiny_scorer("Llama", "sdpa")
    model.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert_equal_paths(model, *paired_batch())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_gets_the_same_gradients(checkpointing):
    lora = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=["score"])
    model = get_peft_model(tiny_scorer("Llama", "sdpa"), lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at the start, which would hide the other half
            torch.nn.init.normal_(weight, std=0.3)
    if checkpointing:
        model.enable_input_require_grads()
        model.activation_checkpointing_enable({"use_reentrant": False})
    assert_equal_paths(model, *paired_batch())


def test_positions_matter_to_what_is_compared():
    """The comparison above would see it if the positions were left out."""
    model, (ids, mask) = tiny_scorer("Llama", "sdpa"), paired_batch()
    rows = share_rows(ids, mask, PAD)
    backbone = backbone_of(model)
    options = {"input_ids": rows.ids, "attention_mask": rows.visible, "use_cache": False}
    right = backbone(**options, position_ids=rows.positions).last_hidden_state
    wrong = backbone(**options).last_hidden_state
    assert (right - wrong).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"family": "Bloom", "n_head": 4, "hidden_size": 32, "n_layer": 2}, "takes no positions"),
        ({"family": "Lfm2", "num_hidden_layers": 2}, "layers of conv"),
    ],
)
def test_families_that_cannot_share_say_so(options, reason):
    family = options.pop("family")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY, pad_token_id=PAD, **options
    )
    if family == "Lfm2":
        config.layer_types = ["conv", "full_attention"]
        config.hidden_size, config.intermediate_size = 32, 32
        config.num_attention_heads, config.num_key_value_heads = 4, 2
    backbone = transformers.AutoModel.from_config(config)
    ids, mask = paired_batch()
    with sharing_prefixes(backbone) as sharing:
        backbone(input_ids=ids, attention_mask=mask)
    assert sharing.num_shared == 0
    assert reason in sharing.summary()


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("Bert", {}, "computes something else"),  # sees later tokens
        ("Falcon", {"alibi": True, "head_dim": None}, "does not take shared rows"),
    ],
)
def test_what_a_probe_finds_to_be_another_model_takes_the_plain_path(family, changes, reason):
    changes = {key: value for key, value in changes.items() if value is not None}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        pad_token_id=PAD,
        **changes,
    )
    torch.manual_seed(0)
    backbone = transformers.AutoModel.from_config(config).train()
    ids, mask = paired_batch()
    drawn = torch.get_rng_state()
    with sharing_prefixes(backbone, pays_below=1.0) as sharing:
        backbone(input_ids=ids, attention_mask=mask)
        changed = torch.get_rng_state()
    assert sharing.num_shared == 0
    assert reason in sharing.summary()
    assert backbone.training
    torch.set_rng_state(drawn)
    backbone(input_ids=ids, attention_mask=mask)
    assert torch.equal(torch.get_rng_state(), changed)  # a probe draws no random number


def test_layers_that_see_so_many_places_share_no_longer_rows():
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=45,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=PAD,
        resid_dropout=0,
        embed_dropout=0,
        attention_dropout=0,
    )
    torch.manual_seed(0)
    backbone = transformers.AutoModel.from_config(config, attn_implementation="eager")
    ids, mask = paired_batch()  # 43 tokens at most in a shared row
    with torch.no_grad(), sharing_prefixes(backbone, pays_below=1.0) as sharing:
        for window in (45, 42):
            config.window_size = window
            found = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
            assert sharing.num_shared == 1
            plain = sharing._plain(input_ids=ids, attention_mask=mask).last_hidden_state
            real = mask.bool()
            torch.testing.assert_close(found[real], plain[real], atol=1e-4, rtol=1e-4)


def test_what_is_asked_of_each_token_is_asked_of_plain_rows():
    backbone = backbone_of(tiny_scorer("Llama", "sdpa"))
    ids, mask = paired_batch()
    with sharing_prefixes(backbone, pays_below=1.0) as sharing:
        states = backbone(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        assert states[0].shape[:2] == ids.shape
        # A mixture's balance is counted over the tokens that the attention mask of the batch has.
        backbone(input_ids=ids, attention_mask=mask, output_router_logits=True)
        backbone(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
    assert sharing.num_batches == sharing.num_shared == 0


def test_a_forward_that_others_had_put_there_stays():
    backbone = backbone_of(tiny_scorer("Llama", "sdpa"))
    theirs = backbone.forward
    backbone.forward = theirs
    with pytest.raises(KeyError), sharing_prefixes(backbone):
        raise KeyError
    assert vars(backbone)["forward"] is theirs


def test_a_window_shorter_than_the_rows_takes_the_plain_path():
    model, (ids, mask) = tiny_scorer("Mistral", "sdpa", sliding_window=8), paired_batch()
    with sharing_prefixes(backbone_of(model), pays_below=1.0) as sharing:
        model(input_ids=ids, attention_mask=mask)
    assert (sharing.num_shared, sharing.num_batches) == (0, 1)


def test_it_stays_away_where_little_is_shared_and_where_rows_are_no_pairs():
    model = tiny_scorer("Llama", "sdpa")
    backbone = backbone_of(model)
    ids, mask = padded([[5, *range(10, 20)], [5, *range(20, 30)]])  # 21 of 22 tokens left
    with sharing_prefixes(backbone) as sharing:
        model(input_ids=ids, attention_mask=mask)
        assert (sharing.num_shared, sharing.num_batches) == (0, 1)
        model(input_ids=ids[:1], attention_mask=mask[:1])  # one row
        left = mask.flip(1).clone()
        left[0, 0] = 0  # padded on the left
        model(input_ids=ids, attention_mask=left)
        assert sharing.num_batches == 1
    assert "forward" not in vars(backbone)  # put back
