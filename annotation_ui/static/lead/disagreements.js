// The adjudication queue: worst first, raters' answers side by side, and the lead's own answer.

let queue = []; // of the campaign shown last, to know what comes next
let named = false; // raters' names are hidden until asked for
let openedAt = 0;
let stopKeys = () => {};

tabs.disagreements = {
  async show(panel, campaign, detail) {
    stopKeys();
    if (!campaign) return panel.replaceChildren(noCampaign());
    const found = await read("disagreements", { campaign });
    queue = found.items;
    if (!detail) return showQueue(panel, found);
    await showCase(panel, campaign, detail);
  },
  hide() {
    stopKeys();
    named = false;
  },
};

function showQueue(panel, found) {
  stopKeys = listen({ j: () => queue.length && go("disagreements", queue[0].item) });
  if (!queue.length) {
    return panel.replaceChildren(pageOf(emptyBox("No disagreements",
      "Where two or more raters judge the same item and do not say the same, it comes up here.")));
  }
  const rows = queue.map((each) => build("tr", { class: each.adjudicated ? "past" : "" },
    build("th", { scope: "row" }, build("a", { href: linkTo("disagreements", each.item) }, each.item)),
    build("td", { class: "excerpt" }, rawText("span", "", each.excerpt)),
    build("td", {}, build("span", { class: "num" }, String(each.num_raters)), each.num_simulated ? build("span", { class: "chip simulated" }, each.num_simulated + " simulated") : null),
    build("td", {}, spreadBar(each.spread)),
    build("td", {}, each.adjudicated ? build("span", { class: "chip good" }, "decided") : build("span", { class: "chip warn" }, "waits"))));
  const head = ["Item", "Prompt", "Raters", "Disagreement", "State"];
  panel.replaceChildren(pageOf(
    build("div", { class: "row between" }, build("h2", {}, "Disagreements"),
      build("span", { class: "soft num" }, found.num_waiting + " wait for a decision, " + (queue.length - found.num_waiting) + " decided")),
    build("div", { class: "row" }, button("Begin with the worst", () => go("disagreements", queue[0].item), { class: "main", key: "J" }),
      build("span", { class: "soft" }, "Your answer takes the place of the raters' in the labels; theirs stay on record.")),
    build("div", { class: "scroll card", tabindex: "0", role: "region", "aria-label": "Disagreements" },
      build("table", { class: "items" }, build("caption", { class: "out-of-sight" }, "Disagreements"),
        build("thead", {}, build("tr", {}, head.map((words) => build("th", { scope: "col" }, words)))), build("tbody", {}, rows)))));
}

function spreadBar(spread) {
  const percent = Math.round(spread * 100) + "%";
  const inner = build("div", {});
  inner.style.width = percent;
  return build("div", { class: "row nowrap" }, build("div", { class: "spread", "aria-hidden": "true" }, inner), build("span", { class: "num" }, percent));
}

// ---- one item -------------------------------------------------------------------------------

async function showCase(panel, campaign, item) {
  const found = await read("disagreements/one", { campaign, item, names: named ? "true" : "" });
  openedAt = performance.now();
  paintCase(panel, campaign, found);
  beginAt(panel.querySelector("h2.name"));
}

function neighbours(item) {
  const at = queue.findIndex((each) => each.item === item);
  const waiting = queue.filter((each, index) => index > at && !each.adjudicated);
  const next = waiting[0] || queue.find((each) => !each.adjudicated && each.item !== item);
  return { next: next ? next.item : null, before: at > 0 ? queue[at - 1].item : null };
}

function paintCase(panel, campaign, found) {
  stopKeys();
  const texts = itemTexts(found);
  const { next, before } = neighbours(found.item);
  const goTo = (other) => other !== null && go("disagreements", other);
  const toggle = button(named ? "Hide names" : "Show names", async () => {
    named = !named;
    await ask("show");
    const again = panel.querySelector("[data-names]");
    if (again) again.focus();
  }, { "aria-pressed": String(named), "data-names": "true" });
  const decision = found.adjudication ? decisionBox(panel, campaign, found) : answerBox(panel, campaign, found);
  stopKeys = listen({ ...texts.keys, ...decision.keys, j: () => goTo(next), k: () => goTo(before), l: () => go("disagreements") });
  panel.replaceChildren(pageOf(
    build("div", { class: "row between" },
      build("div", { class: "row" }, button("The queue", () => go("disagreements"), { key: "L" }), rawText("h2", "name", found.item)),
      build("div", { class: "row" },
        button("Before", () => goTo(before), { key: "K", disabled: before === null }),
        button("Next", () => goTo(next), { key: "J", disabled: next === null }))),
    texts.element,
    build("section", { class: "card" },
      build("div", { class: "row between" }, build("h2", {}, "What the raters said"), toggle),
      found.answers.length ? build("ul", { class: "answers-of" }, found.answers.map(answerCard)) : build("p", { class: "soft" }, "No answer stands.")),
    decision.element));
}

function answerCard(row) {
  return build("li", { class: "said-by" },
    build("h3", {}, row.annotator, row.simulated ? simulatedChip() : null,
      purposeWords[row.purpose] ? build("span", { class: "chip" }, purposeWords[row.purpose]) : null),
    rawText("p", "words", row.words),
    row.rationale ? rawText("p", "reason", row.rationale) : build("p", { class: "soft" }, "No reason given."),
    rewriteBox(row),
    build("p", { class: "soft num" }, screenWords(row.screen) + "; " + secondsWords(row.seconds)));
}

// "2 1" reads "A was 2, B was 1": a rater's reason speaks of letters.
function screenWords(screen) {
  return screen.split(" ").map((number, index) => LETTERS[index] + " was " + number).join(", ");
}

function answerBox(panel, campaign, found) {
  const answer = answerForm(found.form, found.completions.length, {}, true);
  const reason = build("textarea", { rows: 3, maxlength: 4000 });
  const line = problemLine();
  let nonce = newNonce();
  const save = button("Record my answer", () => once(save, line, async () => {
    const values = answer.read();
    if (!reason.value.trim()) throw new Incomplete("write a reason: others will read it");
    const seconds = Math.min(86400, Math.round(performance.now() - openedAt) / 1000);
    try {
      await send("disagreements/answer", { campaign, item: found.item, nonce, reason: reason.value, seconds, ...values });
    } catch (error) {
      if (error instanceof Refused) nonce = newNonce(); // nothing was written: what comes next is new
      throw error;
    }
    say("Recorded");
    await ask("show");
  }), { class: "main" });
  reason.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save.click(); }
    if (event.key === "Escape") reason.blur();
  });
  return {
    keys: { ...answer.keys, n: () => reason.focus() },
    element: build("section", { class: "card", "data-part": "own-answer" }, build("h2", {}, "Your answer"), answer.element,
      field("Why (others will read it; N to write, Ctrl+Enter to record)", reason), line, build("div", { class: "row" }, save)),
  };
}

function decisionBox(panel, campaign, found) {
  const made = found.adjudication;
  const withdraw = () => {
    const why = build("textarea", { rows: 2, maxlength: 4000 });
    confirmBox("Withdraw this decision?", ["The raters' own answers make the label again. The decision stays on record."],
      "Withdraw", async () => {
        await send("disagreements/withdraw", { campaign, item: found.item, reason: why.value });
        say("Withdrawn");
        await ask("show");
      }, field("Why (if you like)", why));
  };
  return {
    keys: {},
    element: build("section", { class: "card good", "data-part": "decision" },
      build("h2", {}, "Decided ", build("span", { class: "chip good" }, "in force")),
      rawText("p", "words", made.words), rewriteBox(made), rawText("p", "reason", made.reason),
      build("p", { class: "soft" }, "by " + made.decided_by + ", " + timeWords(made.created_at)),
      build("div", { class: "row" }, button("Withdraw", withdraw, { class: "danger" }))),
  };
}
