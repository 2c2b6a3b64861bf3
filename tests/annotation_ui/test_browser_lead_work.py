"""The leads' work in a real Chromium: items, disagreements, campaign, people, export."""

import io
import json
import threading
import zipfile

import pytest

from annotation_ui.lead import sampling_jobs
from rlhf.errors import ConfigError
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Prompt
from tests.annotation_ui.lead_browser import (
    SHOWN,
    lead_page,
    looks_right,
    panel,
    press,
    problem,
    show,
)
from tests.annotation_ui.lead_site import make_campaign, say
from tests.annotation_ui.payloads import HOSTILE
from tests.feedback.makers import comparison, judgement

pytestmark = pytest.mark.browser

YAML = "task: pairwise\noverlap: 1\nguideline: Be *kind*\n"
SAMPLE = "task: pairwise\nsample:\n  models: [big-model]\n  prompts: [Tea]\n"
ROWS = [{"prompt": f"Tea {number}?", "completions": ["Yes", "No"]} for number in range(3)]


@pytest.fixture(scope="module")
def site(serve, tmp_path_factory):
    """Campaign c: i0 agreed, i1 and i2 disputed, i3 open, then an item for each hostile text."""
    store = Store.open(tmp_path_factory.mktemp("lead") / "feedback.db", create=True)
    settings = {"title": "Everyday questions", "flags": ["unsafe"], "gold_share": 0.1}
    make_campaign(store, 6, overlap=2, settings=settings, guideline="Prefer the *better* one.")
    store.add_comparisons(
        "c",
        [
            Comparison(
                prompt=Prompt(content=text),
                completions=(Completion(text=text), Completion(text=f"{text} too")),
                item=f"hostile {name}",
            )
            for name, text in HOSTILE.items()
        ],
    )
    for item, one, other in (("i0", 2, 1), ("i1", 1, -1), ("i2", 3, -3)):
        say(store, item, "ann", verdict=one, rationale=f"{HOSTILE['script']} by ann")
        say(store, item, "bob", verdict=other, shown_order=(1, 0))
    first = say(store, "i3", "ann", verdict=-2)
    say(store, "i3", "ann", verdict=2, supersedes=first.id, flags=((), ("unsafe",)))
    store.add_annotator(Annotator(name="robot", simulated=True))
    return serve(store)


@pytest.fixture
def page(browser, site):
    with lead_page(browser, site) as page:
        yield page


# ---- items -----------------------------------------------------------------------------------


def test_items_are_narrowed_searched_and_opened_by_their_address(page, site):
    show(page, site, "items")
    page.locator('[data-state="disagreed"]').click()
    rows = page.locator("table.items tbody th")
    page.wait_for_function("document.querySelectorAll('table.items tbody tr').length === 2")
    assert rows.all_inner_texts() == ["i1", "i2"]
    page.locator('[data-state="all"]').click()
    page.keyboard.press("/")
    page.keyboard.type("question i3")
    page.wait_for_function("document.querySelectorAll('table.items tbody tr').length === 1")
    page.get_by_role("link", name="i3", exact=True).click()
    page.wait_for_selector("table.judgements")
    assert page.url.endswith("#items/i3")
    page.reload()
    page.wait_for_selector("table.judgements")
    states = page.locator("table.judgements tr:not(.past) .chip.good").all_inner_texts()
    assert states == ["stands"]
    assert "1 is better" in page.inner_text("table.judgements tr.past")
    page.keyboard.press("j")
    page.wait_for_function("location.hash === '#items/i4'")


def test_an_item_is_made_gold_and_ordinary_by_mouse(page, site):
    show(page, site, "items", "i4")
    page.get_by_text("Make it a gold item, to check").click()
    press(page, "Make it a gold item")
    assert "choose" in problem(page)
    press(page, "1 is better")
    press(page, "Make it a gold item")
    page.get_by_role("button", name="Turn it back into an ordinary item").wait_for()
    assert site.store.gold("c") == {"i4": {"verdict": -2}}
    press(page, "Turn it back into an ordinary item")
    page.get_by_text("Make it a gold item, to check").wait_for()
    assert site.store.gold("c") == {}


def test_hostile_texts_are_whole_and_run_nothing(page, site):
    names = [f"hostile {name}" for name in HOSTILE]
    show(page, site, "items", names[0])
    for name, text in zip(names, HOSTILE.values(), strict=True):
        page.wait_for_function(
            "name => document.querySelector('h2.name')?.innerText === name", arg=name
        )
        for key in ("m", "d", "r"):
            page.keyboard.press(key)
        raw = page.evaluate("document.querySelector('.completion .plain').textContent")
        assert raw == text, name
        page.keyboard.press("j")


# ---- disagreements ---------------------------------------------------------------------------


def test_a_disagreement_is_decided_by_keys_and_taken_back(page, site):
    show(page, site, "disagreements")
    page.keyboard.press("j")
    page.wait_for_selector('[data-part="own-answer"]')
    assert page.url.endswith("#disagreements/i2")
    said = page.inner_text(".answers-of")
    assert "Rater 1" in said
    assert "bob" not in said
    press(page, "Show names")
    page.wait_for_function("document.querySelector('.answers-of').innerText.includes('bob')")
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.keyboard.type("1 is right, and 2 is not")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector('[data-part="decision"]')
    (row,) = site.store.judgements("c", purposes=["adjudication"])
    assert (row.item, row.verdict, row.annotator) == ("i2", -3, "lea")
    assert row.rationale == "1 is right, and 2 is not"
    page.get_by_role("button", name="Withdraw").click()
    page.locator("dialog").get_by_role("button", name="Withdraw").click()
    page.wait_for_selector('[data-part="own-answer"]')
    assert site.store.adjudications("c") == []


def test_an_answer_without_a_reason_is_refused(page, site):
    show(page, site, "disagreements", "i1")
    press(page, "Record my answer")
    assert "choose" in problem(page)
    page.keyboard.press("1")
    press(page, "Record my answer")
    page.get_by_text("write a reason").wait_for()
    assert site.store.adjudications("c") == []


def rated(*values):
    return {"ratings": {"help": values}}


def test_ranks_and_ratings_are_decided_by_typing_numbers(page, site):
    store = site.store
    criteria = [{"name": "help", "title": "Helpfulness", "low": 1, "high": 5}]
    for task, settings, said in (
        ("ranking", {}, [{"ranking": (1, 2)}, {"ranking": (2, 1)}]),
        ("ratings", {"criteria": criteria}, [rated(1, 5), rated(5, 1)]),
    ):
        store.create_campaign(task, task=task, settings=settings, overlap=2)
        store.add_comparisons(task, [comparison("x", "one", "two")])
        for name, values in zip(("ann", "bob"), said, strict=True):
            store.record([judgement("x", name, campaign=task, **values)])
        show(page, site, "disagreements", "x", campaign=task)
        numbers = page.locator(".answer input.number")
        numbers.nth(0).fill("9")
        numbers.nth(1).fill("1")
        press(page, "Record my answer")
        assert "from 1 to" in problem(page)
        numbers.nth(0).fill("2")
        page.get_by_label("Why").fill("checked")
        press(page, "Record my answer")
        page.wait_for_selector('[data-part="decision"]')
        (row,) = store.judgements(task, purposes=["adjudication"])
        assert row.ranking == ((2, 1) if task == "ranking" else None)
        assert row.ratings == ({"help": (2, 1)} if task == "ratings" else None)


# ---- campaigns -------------------------------------------------------------------------------


def rows_file(rows, name="tea.jsonl"):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return {"name": name, "mimeType": "application/jsonl", "buffer": text.encode()}


def test_a_campaign_is_checked_previewed_and_made_once(page, site):
    show(page, site, "campaigns", "new")
    page.fill('[data-part="yaml"]', YAML.replace("overlap", "overlp"))
    page.fill('[data-part="name"]', "tea")
    page.set_input_files('[data-part="file"]', rows_file(ROWS))
    page.get_by_text("tea.jsonl, 3 lines").wait_for()
    press(page, "Check")
    assert "overlp" in problem(page)
    page.fill('[data-part="yaml"]', YAML)
    press(page, "Check")
    page.get_by_text("It can be made").wait_for()
    assert "3 items" in page.inner_text('[data-part="result"]')
    assert "Tea 0?" in page.inner_text('[data-part="result"]')
    page.get_by_role("button", name="Make the campaign").dblclick()
    page.wait_for_function("location.hash === '#campaigns'")
    page.wait_for_selector('[data-part="settings"]')
    assert site.store.progress("tea").num_items == 3
    assert page.input_value('[data-part="campaign"]') == "tea"


def test_a_template_fills_the_editor_and_never_drops_written_text(page, site):
    show(page, site, "campaigns", "new")
    page.select_option('[data-part="template"]', "flags")
    assert "task: flags" in page.input_value('[data-part="yaml"]')
    page.fill('[data-part="yaml"]', "my own words")
    page.select_option('[data-part="template"]', "rewrite")
    page.locator("dialog").get_by_role("button", name="Not now").click()
    page.locator("dialog").wait_for(state="detached")
    assert page.input_value('[data-part="yaml"]') == "my own words"
    assert page.input_value('[data-part="template"]') == "flags"


def test_a_name_is_asked_for_and_kept_when_the_template_changes(page, site):
    show(page, site, "campaigns", "new")
    page.select_option('[data-part="template"]', "flags")
    press(page, "Check")
    assert problem(page) == "Give the campaign a name"
    page.fill('[data-part="name"]', "mine")
    page.select_option('[data-part="template"]', "rewrite")
    assert page.locator("dialog").count() == 0  # no text of one's own is lost
    assert "task: rewrite" in page.input_value('[data-part="yaml"]')
    assert page.input_value('[data-part="name"]') == "mine"


def test_a_file_that_is_no_text_is_refused_where_it_is_read(page, site):
    show(page, site, "campaigns", "new")
    broken = {"name": "x.jsonl", "mimeType": "text/plain", "buffer": b"\xff\xfe{}"}
    page.set_input_files('[data-part="file"]', broken)
    assert "x.jsonl: not UTF-8" in problem(page)


def test_sampling_shows_its_progress_and_outlives_the_page(browser, page, site, monkeypatch):
    """The models' part is a stand-in; test_lead_campaigns runs the real command."""
    gate = threading.Event()

    def sampled_rows(_sample, _folder, say):
        say("sampling:  50%|#####     | 1/2")
        assert gate.wait(30)
        raise ConfigError("sample.models: big-model: no such model")

    monkeypatch.setattr(sampling_jobs, "sampled_rows", sampled_rows)
    show(page, site, "campaigns", "new")
    page.fill('[data-part="yaml"]', SAMPLE)
    page.fill('[data-part="name"]', "sampled")
    press(page, "Check")
    page.get_by_text("It can be made").wait_for()
    press(page, "Make the campaign")
    page.wait_for_selector('[data-part="job"] .output')
    assert "1/2" in page.inner_text('[data-part="job"]')
    page.goto("about:blank")
    with lead_page(browser, site) as again:
        show(again, site, "campaigns")
        again.wait_for_selector('[data-part="job"] .chip.warn')
        gate.set()
        again.wait_for_selector('[data-part="job"] .chip.bad')
        assert "no such model" in again.inner_text('[data-part="job"] .problem')
        press(again, "Take it off the list")
        again.wait_for_selector('[data-part="job"]', state="detached")
    assert "sampled" not in [one.name for one in site.store.campaigns()]


def test_a_guideline_is_previewed_inert_versioned_and_compared(page, site):
    site.store.create_campaign("guided", guideline="Be kind")
    show(page, site, "campaigns", campaign="guided")
    page.fill('[data-part="guideline"]', "Be *very* kind <script>window.pwned=1</script>")
    page.wait_for_selector('[data-part="preview"] em')
    assert "<script>" in page.inner_text('[data-part="preview"]')
    press(page, "Put it in force")
    page.get_by_text("version 2 in force").wait_for()
    assert site.store.campaign("guided").guideline_version == 2
    page.get_by_text("2 versions, and what changed").click()
    page.wait_for_selector("ins")
    assert "very" in page.inner_text("ins >> nth=0")


def test_settings_pause_and_a_second_lead(page, site):
    site.store.create_campaign("shared", guideline="x", overlap=1)
    show(page, site, "campaigns", campaign="shared")
    page.get_by_label("Raters for each item").fill("4")
    press(page, "Save the settings")
    page.wait_for_function(
        "document.querySelector('[data-part=said]').textContent.includes('saved')"
    )
    assert site.store.campaign("shared").overlap == 4
    campaign = site.store.campaign("shared")
    site.store.change_settings("shared", campaign.settings, overlap=2)  # another lead
    page.get_by_label("Raters for each item").fill("9")
    press(page, "Save the settings")
    assert "somebody else" in problem(page)
    assert site.store.campaign("shared").overlap == 2
    press(page, "Pause")
    page.get_by_role("button", name="Go on", exact=True).wait_for()
    assert site.store.standing_of("shared", "ann") == "paused"


# ---- people ----------------------------------------------------------------------------------


def test_an_invite_is_shown_once_and_opens_the_door_once(browser, page, site):
    show(page, site, "people")
    press(page, "Make an invite")
    link = page.input_value('[data-part="link"] input')
    assert link.startswith(f"{site.address}/join?token=")
    page.reload()
    page.wait_for_selector(SHOWN)
    assert page.locator('[data-part="link"]').count() == 0
    assert "A new rater" in page.inner_text('[data-panel="people"]')
    account = site.store.redeem_invite(link.partition("token=")[2], name="newcomer")
    assert account.role == "rater"


def test_a_person_is_made_a_lead_shut_out_and_erased(page, site):
    site.store.add_annotator(Annotator(name="eve"))
    show(page, site, "people")
    page.get_by_label("Role of eve").select_option("lead")
    page.wait_for_function("document.querySelector('[data-part=said]').textContent.includes('eve')")
    assert site.store.account("eve").role == "lead"
    page.get_by_role("button", name="Disable: eve").click()
    page.get_by_role("button", name="Let in again: eve").wait_for()
    assert site.store.account("eve").disabled
    page.get_by_role("button", name="Erase: eve").click()
    page.keyboard.type("evil")
    page.locator("dialog").get_by_role("button", name="Erase").click()
    assert "type the name" in problem(page)
    page.get_by_label("Type the name to go on").fill("eve")
    page.locator("dialog").get_by_role("button", name="Erase").click()
    page.wait_for_selector("dialog", state="detached")
    assert "eve" not in [one.name for one in site.store.accounts()]


def test_the_last_lead_is_refused_and_the_role_stays_on_screen(page, site):
    leads = [one.name for one in site.store.accounts() if one.role == "lead" and not one.disabled]
    assert leads == ["lea"]
    show(page, site, "people")
    page.get_by_label("Role of lea").select_option("rater")
    assert "only lead" in problem(page)
    assert page.get_by_label("Role of lea").input_value() == "lead"


# ---- export ----------------------------------------------------------------------------------


def test_an_export_is_previewed_and_downloaded_with_its_manifest(page, site):
    show(page, site, "exports")
    page.select_option('[data-part="format"]', "preference")
    page.get_by_text("Judgements behind them").wait_for()
    with page.expect_download() as coming:
        press(page, "Download with its manifest")
    archive = zipfile.ZipFile(io.BytesIO(coming.value.path().read_bytes()))
    assert coming.value.suggested_filename == "c-preference.zip"
    assert sorted(archive.namelist()) == [
        "c-preference.jsonl",
        "c-preference.jsonl.manifest.json",
    ]
    manifest = json.loads(archive.read("c-preference.jsonl.manifest.json"))
    assert manifest["num_rows"] == len(archive.read("c-preference.jsonl").splitlines()) > 0


def test_what_there_is_not_is_said_and_cannot_be_downloaded(page, site):
    show(page, site, "exports")
    page.select_option('[data-part="format"]', "demonstrations")
    page.get_by_text("nothing to export as demonstrations").wait_for()
    assert page.get_by_role("button", name="Download with its manifest").count() == 0


def test_a_push_to_no_repository_is_refused_in_a_line(page, site):
    show(page, site, "exports")
    press(page, "Push")
    assert "organisation/name" in problem(page)


# ---- looks -----------------------------------------------------------------------------------

PLACES = [
    ("items", ""),
    ("items", "i1"),
    ("disagreements", ""),
    ("disagreements", "i1"),
    ("campaigns", ""),
    ("campaigns", "new"),
    ("people", ""),
    ("exports", ""),
]


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_every_tab_is_accessible_and_fits(browser, site, size):
    with lead_page(browser, site, size) as page:
        for tab, detail in PLACES:
            show(page, site, tab, detail)
            looks_right(page, size)
            assert panel(page, tab).locator("h2").count() > 0
        press(page, "Push")
        looks_right(page, size)
        show(page, site, "people")
        page.get_by_role("button", name="Erase: bob").click()
        looks_right(page, size)
