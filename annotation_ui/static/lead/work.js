// What the tabs of items, disagreements, campaign, people and export build with.

const modeWords = { rendered: "Formatted", raw: "Raw", diff: "Differences" };

// Runs `work` once: what was pressed is off until it is done, and a refusal stands beside it.
async function once(button, line, work) {
  if (button.disabled) return;
  button.disabled = true;
  line.textContent = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable || error instanceof Incomplete)) console.error(error);
    line.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

// What a person has left out; the message says what.
class Incomplete extends Error {}

function problemLine() {
  return build("p", { class: "problem", role: "alert" });
}

function pageOf(...children) {
  return build("div", { class: "content work" }, ...children);
}

// After going on to another item: at its top, and read aloud from its name.
function beginAt(heading) {
  heading.tabIndex = -1;
  window.scrollTo(0, 0);
  heading.focus({ preventScroll: true });
}

function noCampaign() {
  return pageOf(emptyBox("No campaign yet", "Make one first; then this page has something to show.",
    build("a", { href: linkTo("campaigns", "new") }, "Make a campaign")));
}

function button(words, onclick, attributes) {
  const { key, ...rest } = attributes || {};
  return build("button", { type: "button", onclick, "aria-keyshortcuts": key || null, ...rest },
    words, key ? build("kbd", {}, key) : null);
}

function field(label, control, note) {
  return build("label", { class: "field" }, build("span", {}, label), control,
    note ? build("span", { class: "note" }, note) : null);
}

function chooser(values, chosen, attributes) {
  return build("select", attributes, values.map(([value, words]) =>
    build("option", { value, selected: value === chosen }, words)));
}

function isTyping(target) {
  return target instanceof Element && Boolean(target.closest("input, textarea, select, [contenteditable]"));
}

// Listens for single keys until the returned function is called: { j: next, k: before }.
function listen(keys) {
  const onKey = (event) => {
    if (!root.isConnected) return document.removeEventListener("keydown", onKey);
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    if (isTyping(event.target) || root.querySelector("dialog[open]")) return;
    const action = Object.hasOwn(keys, event.key.toLowerCase()) ? keys[event.key.toLowerCase()] : null;
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}

// A dialog that asks before something is done; `work` may fail, and then it stays and says why.
function confirmBox(title, words, doIt, work, extra) {
  const line = problemLine();
  const yes = button(doIt, () => once(yes, line, async () => { await work(); box.close(); }), { class: "main" });
  const titleId = "ask-" + Math.random().toString(36).slice(2);
  const box = build("dialog", { class: "ask", "aria-labelledby": titleId },
    build("h2", { id: titleId }, title), ...words.map((each) => build("p", {}, each)), extra || null, line,
    build("div", { class: "row end" }, button("Not now", () => box.close()), yes));
  box.addEventListener("close", () => box.remove());
  root.append(box);
  box.showModal();
  return box;
}

// ---- texts of an item -----------------------------------------------------------------------

const modeKeys = { rendered: "M", raw: "R", diff: "D" };

// A switch between the ways to show texts; `paint(mode)` draws them anew.
function viewSwitch(hasDiff, hasKeys, paint) {
  const buttons = Object.keys(modeWords).filter((mode) => mode !== "diff" || hasDiff).map((mode) =>
    button(modeWords[mode], () => choose(mode), { "data-mode": mode, "aria-pressed": "false", key: hasKeys ? modeKeys[mode] : null }));
  const choose = (mode) => {
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.mode === mode));
    paint(mode);
  };
  const keys = { m: () => choose("rendered"), r: () => choose("raw"), ...(hasDiff ? { d: () => choose("diff") } : {}) };
  return { element: build("div", { class: "views", role: "group", "aria-label": "How to show the completions" }, buttons), choose, keys };
}

function paintText(box, text, mode, index) {
  if (mode === "raw") return showRaw(box, text.raw);
  if (mode === "diff" && text.diff) return showDiff(box, text.diff, index ? "ins" : "del");
  box.innerHTML = text.html; // from render_inert
}

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

// The prompt and the completions of an item, numbered as the store has them; in a preview with the
// letters that raters see, and without keys.
function itemTexts(item, isPreview) {
  const turns = item.turns.map((turn) => {
    const text = build("div", { class: "text" });
    return { box: build("div", { class: "turn " + turn.role }, build("h3", {}, turn.label), text), text, turn };
  });
  const cards = item.completions.map((completion, index) => {
    const name = isPreview ? LETTERS[index] : "Completion " + (index + 1);
    const text = build("div", { class: "text", role: "region", "aria-label": isPreview ? "Completion " + name : name, tabindex: "0" });
    const box = build("article", { class: "card completion" },
      build("h3", {}, name, completion.source ? sourceWords(completion.source) : null,
        completion.ended === false ? build("span", { class: "chip warn" }, "cut at the length limit") : null), text);
    return { box, text, completion };
  });
  const paint = (mode) => {
    for (const { text, turn } of turns) paintText(text, turn, mode === "raw" ? "raw" : "rendered");
    cards.forEach(({ text, completion }, index) => paintText(text, completion, mode, index));
  };
  const views = viewSwitch(Boolean(item.completions[0].diff), !isPreview, paint);
  views.choose("rendered");
  const element = build("div", { class: "stack" },
    build("section", { class: "prompt", "aria-label": "Prompt" }, turns.map(({ box }) => box)),
    views.element, build("div", { class: "completions", "data-count": Math.min(cards.length, 3) }, cards.map(({ box }) => box)));
  return { element, keys: views.keys };
}

function sourceWords(source) {
  const words = build("span", { class: "soft source" });
  appendText(words, source);
  return words;
}

function rawText(tag, className, text) {
  const made = build(tag, { class: className });
  appendText(made, text);
  return made;
}

// ---- judgements -----------------------------------------------------------------------------

const purposeWords = { rate: "", gold: "gold check", qualification: "qualification", retest: "retest", adjudication: "adjudication" };

// Everything said of an item: by rater, the newest first, what no longer stands below it.
function judgementTable(rows, title) {
  const groups = new Map();
  for (const row of [...rows].reverse()) {
    const key = row.annotator + (row.purpose === "adjudication" ? " adjudication" : "");
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  const ordered = [...groups.values()].reverse().flat();
  const head = ["Who", "Said", "On screen, A first", "When", "Took", "Guideline", "State"];
  return build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    build("table", { class: "judgements" }, build("caption", { class: "out-of-sight" }, title),
      build("thead", {}, build("tr", {}, head.map((words) => build("th", { scope: "col" }, words)))),
      build("tbody", {}, ordered.map(judgementRow))));
}

function judgementRow(row) {
  const stands = row.standing === "stands";
  const purpose = purposeWords[row.purpose];
  return build("tr", { class: stands ? "" : "past" },
    build("th", { scope: "row" }, row.annotator, row.simulated ? simulatedChip() : null),
    build("td", { class: "said" }, rawText("div", "", row.words),
      row.rationale ? rawText("div", "reason", row.rationale) : null, rewriteBox(row)),
    build("td", { class: "num" }, row.screen),
    build("td", { class: "num" }, timeWords(row.created_at)),
    build("td", { class: "num" }, secondsWords(row.seconds)),
    build("td", { class: "num" }, row.guideline_version ? "version " + row.guideline_version : "none"),
    build("td", {}, build("span", { class: "chip" + (stands ? " good" : "") }, row.standing),
      purpose ? build("span", { class: "chip" }, purpose) : null));
}

function rewriteBox(row) {
  if (row.rewrite_html === null) return null;
  const text = build("div", { class: "text" });
  text.innerHTML = row.rewrite_html; // from render_inert
  return build("details", {}, build("summary", {}, "The text"), text);
}

function stateChip(name) {
  const looks = { open: "", complete: "good", disagreed: "warn", gold: "gold", flagged: "bad", skipped: "" };
  return build("span", { class: "chip " + (looks[name] || "") }, name);
}

function download(href) {
  const link = build("a", { href, download: "" });
  root.append(link);
  link.click();
  link.remove();
}

function newNonce() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
