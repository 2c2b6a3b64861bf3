// The rating page. One item at a time: shown, judged, saved, and only then the next one.
// The server decides what is shown and on which side; the page sends what was seen and chosen.

const API = "/api/";
const REQUEST_TIMEOUT_MS = 15000;
const RETRY_AFTER_MS = 3000;
const DOUBLE_PRESS_MS = 250;

const root = element.querySelector(".rate");
const part = (name, within) => (within || root).querySelector('[data-part="' + name + '"]');
const all = (selector) => [...root.querySelectorAll(selector)];
const clock = new ActiveClock();

let view = null; // what the server last told us
let drafts = null;
let mode = "rendered"; // rendered | raw | diff
let busy = false; // a request is under way: further choices are ignored
let pending = null; // a request that did not get through
let bothBad = false;
let source = ""; // which key or button the rater is using now
let lastPress = { source: "", at: -Infinity }; // the one that last saved something
let retryTimer = 0;

// ---- talking to the server ------------------------------------------------------------------

class Refused extends Error {}
class Unreachable extends Error {}

async function call(path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), REQUEST_TIMEOUT_MS);
  let reply;
  let data;
  try {
    reply = await fetch(API + path, {
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
      signal: stop.signal,
      cache: "no-store",
    });
    data = await reply.json();
  } catch (error) {
    throw new Unreachable("the server does not answer");
  } finally {
    clearTimeout(timer);
  }
  if (reply.ok) return data;
  if (reply.status === 401) throw new Unreachable("you are signed out; open a new printed link in another tab");
  if (reply.status >= 500) throw new Unreachable(data.error || "the server failed");
  throw new Refused(data.error || "the server refused it");
}

// Sends a write until the server has it. What is sent twice counts once: the server keys it by item.
async function write(path, body) {
  if (busy) return;
  busy = true;
  clearTimeout(retryTimer);
  pending = { path, body };
  keepDraft();
  showSaved("saving", "Saving\u2026");
  try {
    const next = await call(path, body);
    pending = null;
    if (path === "judgements" && drafts) drafts.drop(body.item);
    hideNotice();
    show(next);
    showSaved("saved", next.note || (path === "undo" ? "Taken back" : "Saved"));
  } catch (error) {
    await notSaved(error);
  } finally {
    busy = false;
  }
}

async function notSaved(error) {
  showSaved("unsaved", "Not saved");
  const kept = "Not saved: " + error.message + ".";
  if (error instanceof Refused) {
    pending = null;
    keepDraft();
    await load(kept);
    return;
  }
  showNotice(kept + " Your work is kept in this page and is sent again by itself.", true);
  retryTimer = setTimeout(retry, RETRY_AFTER_MS);
}

function retry() {
  clearTimeout(retryTimer);
  if (pending) write(pending.path, pending.body);
  else load();
}

async function load(notice) {
  try {
    const next = await call("view");
    hideNotice();
    show(next);
    showSaved(notice ? "unsaved" : "saved", notice ? "Not saved" : "All saved");
    if (notice) showNotice(notice, false);
    resend();
  } catch (error) {
    showNotice("Not loaded: " + error.message + ".", true);
    showSaved("unsaved", "Not connected");
    retryTimer = setTimeout(retry, RETRY_AFTER_MS);
  }
}

// After a reload: a choice that had not got through is sent, since the item is still ours.
function resend() {
  const draft = view.item ? drafts.read(view.item.item) : {};
  if (draft.pending && draft.pending.path === "judgements") {
    const body = { ...draft.pending.body, ticket: view.item.ticket };
    markChoice(body.choice);
    write("judgements", body);
  }
}

// ---- drafts ---------------------------------------------------------------------------------

function keepDraft() {
  if (!view || !view.item) return;
  const rationale = part("rationale").value;
  const isJudgement = pending && pending.path === "judgements";
  drafts.write(view.item.item, {
    rationale, bothBad, seconds: clock.seconds(), pending: isJudgement ? pending : null,
  });
}

// ---- showing --------------------------------------------------------------------------------

function show(next) {
  const isNew = !view || !view.item || !next.item || view.item.ticket !== next.item.ticket;
  view = next;
  drafts = new Drafts(view.campaign, view.annotator);
  root.dataset.state = view.item ? "rating" : "empty";
  part("campaign").textContent = view.campaign;
  showProgress(view.progress);
  part("guideline").innerHTML = view.guideline;
  showHistory(view.history);
  part("work").hidden = !view.item;
  part("empty").hidden = Boolean(view.item);
  if (!view.item) {
    part("empty-title").textContent = view.empty.title;
    part("empty-text").textContent = view.empty.text;
  } else if (isNew) {
    showItem(view.item);
  }
  for (const button of all('[data-do="undo"]')) button.disabled = !view.history.length;
}

function showItem(item) {
  const draft = drafts.read(item.item);
  const previous = item.previous || {};
  part("rationale").value = draft.rationale ?? previous.rationale ?? "";
  fitNote();
  setBothBad(draft.bothBad ?? previous.both_bad ?? false);
  clock.reset(draft.seconds || 0);
  markChoice(null);
  for (const button of all("[data-choice]"))
    button.classList.toggle("was", Number(button.dataset.choice) === previous.choice);
  part("prompt").replaceChildren(...item.turns.map(turnBox));
  item.completions.forEach((completion, index) => {
    part("cut", cardOf(index)).hidden = completion.ended !== false;
  });
  showTexts();
  part("prompt").scrollTop = 0;
  for (const card of [0, 1]) part("text", cardOf(card)).scrollTop = 0;
  window.scrollTo(0, 0);
  // A button that keeps the focus would take the next Enter for the new pair.
  if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
}

function turnBox(turn) {
  const box = node("div", "turn " + turn.role);
  box.append(node("h2", "", turn.label));
  const text = node("div", "text");
  if (mode === "rendered") text.innerHTML = turn.html;
  else showRaw(text, turn.raw);
  box.append(text);
  return box;
}

function cardOf(index) {
  return root.querySelector('[data-card="' + index + '"]');
}

function showTexts() {
  const hints = { rendered: "", raw: "Every character as it was written", diff: "Marked: words that the other one lacks" };
  part("hint").textContent = hints[mode];
  view.item.completions.forEach((completion, index) => {
    const box = part("text", cardOf(index));
    if (mode === "rendered") box.innerHTML = completion.html;
    else if (mode === "raw") showRaw(box, completion.raw);
    else showDiff(box, completion.diff, index ? "ins" : "del");
  });
}

function showProgress(progress) {
  const percent = progress.total ? Math.round((100 * progress.done) / progress.total) : 0;
  part("progress").setAttribute("aria-valuenow", percent);
  part("progress").firstElementChild.style.width = percent + "%";
  part("count").textContent = progress.done + " of " + progress.total;
}

function showHistory(history) {
  const rows = history.map((entry) => {
    const row = node("li");
    row.append(node("span", "words", entry.words), node("span", "excerpt", entry.prompt));
    const change = node("button", "quiet", "Change");
    change.type = "button";
    change.setAttribute("aria-label", "Change: " + entry.words + ", " + entry.prompt);
    change.addEventListener("click", () => { source = "change"; undo(entry.id); });
    row.append(change);
    return row;
  });
  part("history").replaceChildren(...(rows.length ? rows : [node("li", "none", "None yet")]));
}

function showSaved(state, words) {
  part("saved").dataset.saved = state;
  part("saved").textContent = words;
}

function showNotice(words, canRetry) {
  part("notice").hidden = false;
  part("notice-text").textContent = words;
  part("notice").querySelector("button").hidden = !canRetry;
}

function hideNotice() {
  part("notice").hidden = true;
}

function markChoice(choice) {
  for (const button of all("[data-choice]"))
    button.setAttribute("aria-pressed", String(choice !== null && Number(button.dataset.choice) === choice));
}

function setBothBad(on) {
  bothBad = on;
  root.querySelector('[data-do="both-bad"]').setAttribute("aria-pressed", String(on));
}

function fitNote() {
  const note = part("rationale");
  note.style.height = "auto";
  if (!note.scrollHeight) return; // not on screen: nothing to measure
  note.style.height = Math.min(note.scrollHeight + 2, 140) + "px";
}

// ---- doing ----------------------------------------------------------------------------------

// A second press of the same key or button this soon is a slip: nobody has read the new pair yet.
function isDoublePress() {
  const now = performance.now();
  const isDouble = lastPress.source === source && now - lastPress.at < DOUBLE_PRESS_MS;
  if (!isDouble) lastPress = { source, at: now };
  return isDouble;
}

function judge(values) {
  if (busy || !view || !view.item || isDoublePress()) return;
  const item = view.item;
  if (values.choice !== undefined) markChoice(values.choice);
  write("judgements", {
    annotator: view.annotator,
    campaign: view.campaign,
    ticket: item.ticket,
    item: item.item,
    shown_order: item.shown_order,
    both_bad: values.skip === undefined && bothBad,
    rationale: part("rationale").value.trim() || null,
    seconds: clock.seconds(),
    ...values,
  });
}

function choose(choice) {
  judge({ choice });
}

function skip(reason) {
  part("skip-dialog").close();
  judge({ skip: reason });
}

function undo(id) {
  if (busy || !view || !view.history.length || isDoublePress()) return;
  if (pending) return showNotice("The last choice is not saved yet, so there is nothing to take back.", true);
  write("undo", { judgement: id || view.history[0].id });
}

function setView(name) {
  mode = name;
  for (const button of all("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === name));
  if (!view || !view.item) return;
  showTexts();
  part("prompt").replaceChildren(...view.item.turns.map(turnBox));
}

function toggleGuideline() {
  const shut = root.classList.toggle("side-toggled");
  const wide = window.matchMedia("(min-width: 1180px)").matches;
  root.querySelector('[data-do="guideline"]').setAttribute("aria-expanded", String(wide ? !shut : shut));
  if (!wide && shut) part("side").scrollIntoView({ block: "nearest" });
}

function openSkip() {
  if (!view || !view.item) return;
  part("other").value = "";
  part("skip-dialog").showModal();
}

function openNote() {
  root.classList.add("note-open");
  part("rationale").focus();
}

const actions = {
  undo: () => undo(),
  guideline: toggleGuideline,
  help: () => part("help-dialog").showModal(),
  retry,
  refresh: () => load(),
  view: (button) => setView(button.dataset.view),
  "both-bad": () => { setBothBad(!bothBad); keepDraft(); },
  skip: openSkip,
  note: openNote,
  close: (button) => button.closest("dialog").close(),
  choose: (button) => choose(Number(button.dataset.choice)),
  reason: (button) => skip(button.dataset.reason),
};

root.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (!button || button.disabled) return;
  source = "click " + button.dataset.do + (button.dataset.choice || "");
  actions[button.dataset.do](button);
});

// ---- keys -----------------------------------------------------------------------------------

const keys = {
  t: () => choose(0),
  b: actions["both-bad"],
  s: openSkip,
  u: () => undo(),
  n: openNote,
  m: () => setView("rendered"),
  r: () => setView("raw"),
  d: () => setView("diff"),
  g: toggleGuideline,
  "?": actions.help,
};

function isTyping(target) {
  return target instanceof Element && Boolean(target.closest("input, textarea, select, [contenteditable]"));
}

function onKey(event) {
  if (!root.isConnected) return document.removeEventListener("keydown", onKey);
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  const dialog = root.querySelector("dialog[open]");
  if (dialog) {
    const reason = dialog.querySelector('[data-key="' + CSS.escape(key) + '"]');
    if (reason) { event.preventDefault(); source = "key " + key; skip(reason.dataset.reason); }
    return;
  }
  const choice = root.querySelector('[data-choice][data-key="' + CSS.escape(key) + '"]');
  const action = choice ? () => actions.choose(choice) : Object.hasOwn(keys, key) ? keys[key] : null;
  if (!action) return;
  event.preventDefault();
  source = "key " + key;
  action();
}

document.addEventListener("keydown", onKey);
part("rationale").addEventListener("input", () => { fitNote(); keepDraft(); });
part("other-reason").addEventListener("submit", (event) => {
  event.preventDefault();
  const reason = part("other").value.trim();
  source = "other reason";
  if (reason) skip(reason);
});
window.addEventListener("pagehide", keepDraft);

showSaved("saving", "Loading\u2026");
load();
