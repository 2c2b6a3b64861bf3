"""Tokenised columns: what is kept, cut and dropped at a length limit, each counted."""

from rlhf.data.columns import IGNORED, dpo_columns, reward_columns, sft_columns
from rlhf.data.formats import Demo, Pair
from rlhf.data.losses import DataLosses
from rlhf.data.tokenization import Renderer
from tests.tiny import make_tokenizer

END = 2
RENDERER = Renderer(make_tokenizer())
ASKED = [{"role": "user", "content": "bread?"}]
PROMPT_IDS = RENDERER.prompt_ids(ASKED)
N = len(PROMPT_IDS)


def ids(text: str) -> list[int]:
    return RENDERER.tokenizer(text, add_special_tokens=False)["input_ids"]


def pair(**changes) -> Pair:
    return Pair(
        **({"prompt": ASKED, "chosen": "xyz", "rejected": "qqqqqq", "place": "f:1"} | changes)
    )


def test_dpo_rows_are_a_rollouts_ids():
    [row], kept = dpo_columns([pair(rejected_ended=False)], RENDERER, None, DataLosses())
    assert row == {
        "prompt_ids": PROMPT_IDS,
        "chosen_ids": [*ids("xyz"), END],
        "rejected_ids": ids("qqqqqq"),
    }
    assert len(kept) == 1


def test_dpo_drops_what_is_over_max_length():
    losses = DataLosses(num_rows=2)
    limit = N + len(ids("xyz")) + 1
    [row], [kept] = dpo_columns([pair(), pair(rejected="q", place="f:2")], RENDERER, limit, losses)
    assert (row["rejected_ids"], kept.place) == ([*ids("q"), END], "f:2")
    assert losses.dropped == {f"over --max_length {limit}": 1}
    assert losses.examples == {f"over --max_length {limit}": ["f:1"]}
    assert losses.cut == {}


def test_dpo_cuts_the_ends_of_completions_where_the_start_is_kept():
    losses = DataLosses(num_rows=1)
    limit = N + len(ids("xyz")) + 1
    [row], _ = dpo_columns([pair()], RENDERER, limit, losses, "keep_start")
    assert row["prompt_ids"] == PROMPT_IDS
    assert row["chosen_ids"] == [*ids("xyz"), END]
    assert row["rejected_ids"] == ids("qqqqqq")[: limit - N]  # cut, so without its end
    assert losses.cut == {f"over --max_length {limit}, end of a completion cut": 1}
    assert losses.share == 1.0


def test_dpo_cuts_the_beginning_of_the_one_prompt_where_the_end_is_kept():
    losses = DataLosses(num_rows=1)
    limit = 3 + len(ids("qqqqqq")) + 1  # the longer side with its end and three of the prompt
    [row], _ = dpo_columns([pair()], RENDERER, limit, losses, "keep_end")
    assert row["prompt_ids"] == PROMPT_IDS[-3:]
    assert row["chosen_ids"] == [*ids("xyz"), END]
    assert row["rejected_ids"] == [*ids("qqqqqq"), END]
    assert losses.cut == {f"over --max_length {limit}, beginning of the prompt cut": 1}
    assert dpo_columns([pair()], RENDERER, limit - 3, losses, "keep_end") == ([], [])
    assert losses.dropped == {f"completion fills --max_length {limit - 3}": 1}


def test_dpo_drops_what_a_cut_leaves_nothing_of():
    losses = DataLosses(num_rows=3)
    same_start = pair(chosen="xyz", rejected="xyzqqq")
    rows, _ = dpo_columns([pair()], RENDERER, N, losses, "keep_start")
    cut_rows, _ = dpo_columns([same_start], RENDERER, N + 1, losses, "keep_start")
    same = dpo_columns([pair(chosen="x", rejected="x")], RENDERER, None, losses)
    assert rows == cut_rows == []
    assert same == ([], [])
    assert losses.dropped == {
        f"prompt fills --max_length {N}": 1,
        f"identical once cut to --max_length {N + 1}": 1,
        "identical tokens in chosen and rejected": 1,
    }


def test_dpo_takes_what_differing_prompts_share():
    other = [{"role": "user", "content": "bread, now?"}]
    [row], _ = dpo_columns([pair(rejected_prompt=other)], RENDERER, None, DataLosses())
    chosen, rejected = (row["prompt_ids"] + row[key] for key in ("chosen_ids", "rejected_ids"))
    assert chosen == RENDERER.transcript_ids(ASKED, "xyz")
    assert rejected == RENDERER.transcript_ids(other, "qqqqqq")
    assert row["chosen_ids"][0] != row["rejected_ids"][0]


def test_reward_rows_are_transcripts_and_long_pairs_are_dropped():
    losses = DataLosses(num_rows=2)
    long = pair(place="f:2", rejected="q" * 40)
    limit = N + 10
    [row], [kept] = reward_columns([pair(), long], RENDERER, limit, losses)
    assert row["chosen_ids"] == [*PROMPT_IDS, *ids("xyz"), END]
    assert kept.place == "f:1"
    assert losses.dropped == {f"over --max_length {limit}": 1}
    assert losses.examples == {f"over --max_length {limit}": ["f:2"]}


def test_reward_scores_differing_prompts_as_two_transcripts():
    other = [{"role": "user", "content": "bread, now?"}]
    [row], _ = reward_columns([pair(rejected_prompt=other)], RENDERER, None, DataLosses())
    assert row["rejected_ids"] == RENDERER.transcript_ids(other, "qqqqqq")


def test_sft_labels_ignore_the_prompt():
    demo = Demo(prompt=ASKED, completion="xyz", place="f:1")
    [row], _ = sft_columns([demo], RENDERER, None, DataLosses())
    assert row["input_ids"] == [*PROMPT_IDS, *ids("xyz"), END]
    assert row["labels"] == [IGNORED] * N + [*ids("xyz"), END]
    [row], _ = sft_columns([demo], RENDERER, None, DataLosses(), completion_only=False)
    assert row["labels"] == row["input_ids"]


def test_sft_cuts_and_drops_at_max_length():
    demo = Demo(prompt=ASKED, completion="xyz", place="f:1")
    losses = DataLosses(num_rows=2)
    [row], _ = sft_columns([demo], RENDERER, N + 1, losses)
    assert row["labels"][N:] == ids("xyz")[:1]
    assert sft_columns([demo], RENDERER, N, losses)[0] == []
    assert losses.cut.total() == 1
    assert losses.dropped.total() == 1


def test_a_role_that_plain_transcripts_do_not_know_is_dropped_and_counted():
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "bread?"}]
    pairs = [Pair(prompt=turns, chosen="yes", rejected="no", place="f:1")]
    losses = DataLosses(num_rows=1)
    assert reward_columns(pairs, Renderer(make_tokenizer(), "plain"), None, losses) == ([], [])
    reason = "a turn by 'system': transcripts know user and assistant only"
    assert losses.dropped == {reason: 1}
