// The item browser: a list that can be searched and narrowed, and one item with all its judgements.

const STATES = ["all", "open", "complete", "disagreed", "gold", "flagged", "skipped"];
let asked = { campaign: null, state: "all", search: "", offset: 0 };
let stopKeys = () => {};

tabs.items = {
  async show(panel, campaign, detail) {
    stopKeys();
    if (!campaign) return panel.replaceChildren(noCampaign());
    if (asked.campaign !== campaign) asked = { campaign, state: "all", search: "", offset: 0 };
    if (detail) await showItem(panel, campaign, detail);
    else await showList(panel, campaign);
  },
  hide() {
    stopKeys();
  },
};

// ---- the list -------------------------------------------------------------------------------

async function showList(panel, campaign) {
  const search = build("input", { type: "search", value: asked.search, placeholder: "Words in a prompt, a completion or a name", "aria-label": "Search items" });
  const chips = build("div", { class: "row", role: "group", "aria-label": "Which items" });
  const found = build("div", { class: "stack" });
  const line = problemLine();
  let waiting = 0;
  const fetchPage = async (change) => {
    asked = { ...asked, offset: 0, ...change };
    const mine = ++waiting;
    const { state, offset } = asked;
    try {
      const data = await read("items", { campaign, state, search: asked.search, offset: offset || "" });
      if (mine !== waiting) return;
      line.textContent = "";
      paintChips(chips, data.counts, (name) => fetchPage({ state: name }));
      found.replaceChildren(...listOf(data, (next) => fetchPage({ offset: next })));
    } catch (error) {
      if (mine === waiting) line.textContent = error.message;
    }
  };
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => fetchPage({ search: search.value }), 200);
  });
  stopKeys = listen({ "/": () => search.focus() });
  panel.replaceChildren(pageOf(build("div", { class: "row between" }, build("h2", {}, "Items"), search), chips, line, found));
  await fetchPage({ offset: asked.offset });
}

function paintChips(chips, counts, choose) {
  const focused = chips.contains(document.activeElement) ? document.activeElement.dataset.state : null;
  chips.replaceChildren(...STATES.map((name) => button(name[0].toUpperCase() + name.slice(1) + " ", () => choose(name),
    { "data-state": name, class: "narrow", "aria-pressed": String(asked.state === name) })));
  for (const each of chips.children) {
    each.append(build("span", { class: "soft num" }, String(counts[each.dataset.state])));
    if (each.dataset.state === focused) each.focus();
  }
}

function listOf(data, turnTo) {
  if (!data.total) return [emptyBox("No such items", asked.search ? "Nothing matches these words. Try fewer." : "No item is in this state now.")];
  const rows = data.items.map((each) => build("tr", {},
    build("th", { scope: "row" }, build("a", { href: linkTo("items", each.item) }, each.item)),
    build("td", { class: "excerpt" }, rawText("span", "", each.excerpt)),
    build("td", { class: "num count" }, String(each.num_completions)),
    build("td", { class: "num" }, each.purpose === "rate" ? each.num_raters + " of " + data.overlap : String(each.num_raters)),
    build("td", {}, each.purpose === "qualification" ? build("span", { class: "chip" }, "qualification") : null, each.states.map(stateChip))));
  const head = ["Item", "Prompt", "Completions", "Raters", "State"];
  const last = data.offset + data.items.length;
  return [
    build("div", { class: "scroll card", tabindex: "0", role: "region", "aria-label": "Items" },
      build("table", { class: "items" }, build("caption", { class: "out-of-sight" }, "Items"),
        build("thead", {}, build("tr", {}, head.map((words) => build("th", { scope: "col", class: words === "Completions" ? "count" : null }, words)))), build("tbody", {}, rows))),
    build("div", { class: "row between" },
      build("span", { class: "soft num", role: "status" }, data.offset + 1 + " to " + last + " of " + data.total),
      build("div", { class: "row" },
        button("Earlier", () => turnTo(Math.max(0, data.offset - data.page_size)), { disabled: data.offset === 0 }),
        button("Later", () => turnTo(last), { disabled: last >= data.total }))),
  ];
}

// ---- one item -------------------------------------------------------------------------------

async function showItem(panel, campaign, name) {
  const item = await read("items/one", { campaign, item: name });
  paintItem(panel, campaign, item);
  beginAt(panel.querySelector("h2.name"));
}

function paintItem(panel, campaign, item) {
  stopKeys();
  const texts = itemTexts(item);
  const goTo = (other) => other !== null && go("items", other);
  const standing = item.judgements.filter((row) => row.standing === "stands").length;
  const past = item.judgements.length - standing;
  stopKeys = listen({ ...texts.keys, j: () => goTo(item.after), k: () => goTo(item.before), l: () => go("items") });
  const heading = rawText("h2", "name", item.item);
  panel.replaceChildren(pageOf(
    build("div", { class: "row between" },
      build("div", { class: "row" }, button("All items", () => go("items"), { key: "L" }), heading,
        item.purpose === "rate" ? null : build("span", { class: "chip gold" }, item.purpose),
        build("span", { class: "soft num" }, item.position + " of " + item.num_items)),
      build("div", { class: "row" },
        button("Before", () => goTo(item.before), { key: "K", disabled: item.before === null }),
        button("Next", () => goTo(item.after), { key: "J", disabled: item.after === null }))),
    texts.element,
    build("section", { class: "card" },
      build("h2", {}, "Judgements ", build("span", { class: "soft num" }, standing + (past ? ", and " + past + " earlier" : ""))),
      item.judgements.length ? judgementTable(item.judgements, "Judgements of this item")
        : build("p", { class: "soft" }, "Nobody has judged this item yet.")),
    goldBox(panel, campaign, item)));
}

function goldBox(panel, campaign, item) {
  if (item.purpose === "qualification") return build("section", { class: "card" }, build("h2", {}, "Qualification item"),
    build("p", { class: "soft" }, "Every rater gets it first. Expected: " + answerWords(item.form, item.expected || {}) + "."));
  const isGold = item.purpose === "gold";
  const answer = answerForm(item.form, item.completions.length, item.expected || {}, false);
  const line = problemLine();
  const save = async (expected) => {
    const next = await send("items/gold", { campaign, item: item.item, expected });
    paintItem(panel, campaign, next);
    say(expected ? "This is a gold item now" : "This is an ordinary item now");
  };
  const make = button(isGold ? "Change the expected answer" : "Make it a gold item", () => once(make, line, () => save(answer.read())), { class: "main" });
  const undo = isGold ? button("Turn it back into an ordinary item", () => once(undo, line, () => save(null))) : null;
  if (answer.isEmpty) return null; // a rewrite has no expected answer
  const inside = [build("p", { class: "soft" }, isGold
      ? "Its answers check raters and make no labels. Expected: " + answerWords(item.form, item.expected || {}) + ". Raters are never told."
      : "A gold item has a known answer. It is shown to every rater among the others, checks them, and makes no labels. Raters are never told."),
    answer.element, line, build("div", { class: "row" }, make, undo)];
  if (isGold) return build("section", { class: "card" }, build("h2", {}, "Gold item"), inside);
  return build("details", { class: "card" }, build("summary", {}, "Make it a gold item, to check raters with"), build("div", { class: "stack" }, inside));
}
