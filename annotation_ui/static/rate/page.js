// What the server last told us, and how it is put on the page.

let view = null;
let form = ""; // the form that the controls were built for, as JSON
let task = null; // tasks[view.form.task]
let drafts = null;
const clock = new ActiveClock();

function show(next) {
  const rebuilt = buildForm(next.form);
  const isNew = rebuilt || !view || !view.item || !next.item || view.item.ticket !== next.item.ticket;
  view = next;
  drafts = new Drafts(view.campaign, view.annotator);
  showFrame();
  part("work").hidden = !view.item;
  part("empty").hidden = Boolean(view.item);
  if (!view.item) showEmpty(view.empty);
  else if (isNew) showItem(view.item);
  root.dataset.state = view.item ? "rating" : "empty";
}

// Builds the controls of the campaign's task, once; again only when what is asked has changed.
function buildForm(next) {
  const text = JSON.stringify(next);
  if (text === form) return false;
  form = text;
  task = tasks[next.task];
  root.dataset.task = next.task;
  part("title").textContent = next.heading;
  part("controls").replaceChildren();
  part("task-extras").replaceChildren();
  task.build(next, part("controls"));
  marks.build(next);
  part("save").hidden = Boolean(task.savesAtOnce) && next.rationale !== "required";
  return true;
}

function showFrame() {
  part("campaign").textContent = view.title;
  part("campaign").title = view.annotator + ", " + view.campaign;
  showProgress(view.progress);
  showGuideline();
  showHistory(part("history"), view.history);
  for (const button of all('[data-do="undo"]')) button.disabled = !view.history.length;
}

function showItem(item) {
  const draft = drafts.read(item.item);
  const previous = item.previous || {};
  clock.reset(draft.seconds || 0);
  showCards(item);
  task.show(item, draft.task ?? previous);
  marks.show(item, draft.marks ?? previous);
  say("");
  window.scrollTo(0, 0);
  // A button that keeps the focus would take the next Enter for the new item.
  if (document.activeElement && document.activeElement !== document.body) document.activeElement.blur();
}

function showEmpty(empty) {
  part("empty-title").textContent = empty.title;
  part("empty-text").textContent = empty.text;
  const link = part("empty-link");
  link.hidden = !empty.link;
  if (empty.link) [link.href, link.textContent] = empty.link;
}

function showProgress(progress) {
  const percent = progress.total ? Math.round((100 * progress.done) / progress.total) : 0;
  part("progress").setAttribute("aria-valuenow", percent);
  part("progress").firstElementChild.style.width = percent + "%";
  part("count").textContent = progress.done + " of " + progress.total;
}

// ---- the guideline, and whether it is another one than this rater last read ------------------

function guidelineKey() {
  return "rlhf-guideline " + JSON.stringify([view.campaign, view.annotator]);
}

function showGuideline() {
  if (part("guideline").innerHTML !== view.guideline) part("guideline").innerHTML = view.guideline;
  part("guideline-version").textContent = view.guideline_version ? "version " + view.guideline_version : "";
  const kept = Number(keptText(guidelineKey())) || 0;
  const seen = kept || view.guideline_seen || view.guideline_version; // by another browser, or never
  if (!kept) keepText(guidelineKey(), seen);
  part("guideline-changed").hidden = seen >= view.guideline_version;
}

function readGuideline() {
  keepText(guidelineKey(), view.guideline_version);
  part("guideline-changed").hidden = true;
  if (part("side").checkVisibility()) part("guideline").closest("section").focus();
  else toggleGuideline();
}

function toggleGuideline() {
  const shut = root.classList.toggle("side-toggled");
  const wide = window.matchMedia("(min-width: 1180px)").matches;
  for (const button of all('[data-do="guideline"]')) button.setAttribute("aria-expanded", String(wide ? !shut : shut));
  if (!wide && shut) part("side").scrollIntoView({ block: "nearest" });
}

// ---- words about the state of things ---------------------------------------------------------

function showSaved(state, words) {
  part("saved").dataset.saved = state;
  part("saved").textContent = words;
}

// What keeps an answer from being saved, said beside the controls; "" takes it away.
function say(words) {
  part("missing").textContent = words;
}

function showNotice(words, canRetry, canSignIn) {
  part("notice").hidden = false;
  part("notice-text").textContent = words;
  part("notice").querySelector("button").hidden = !canRetry;
  part("sign-in").hidden = !canSignIn;
}

function hideNotice() {
  part("notice").hidden = true;
}
