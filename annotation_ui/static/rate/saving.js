// One item at a time: judged, saved, and only then the next one. A write is sent until the server
// has it or refuses it; what is sent twice counts once, since the server keys it by what was shown.

const RETRY_AFTER_MS = 3000;
const DOUBLE_PRESS_MS = 250;

let busy = false; // a request is under way: further choices are ignored
let pending = null; // a request that did not get through
let source = ""; // which key or button the rater is using now
const NO_WRITE = { source: "", at: -Infinity };
let lastWrite = NO_WRITE; // and the one that last saved something
let retryTimer = 0;

// ---- for tasks and marks ---------------------------------------------------------------------

// Whether a choice made now would be taken: an item is up, nothing is under way, and it is no
// second press of the key that has just saved (nobody has read the new item yet).
function canAnswer() {
  const isSlip = lastWrite.source === source && performance.now() - lastWrite.at < DOUBLE_PRESS_MS;
  return Boolean(view && view.item) && !busy && !isSlip;
}

// To be called when what is chosen has changed: keeps it as a draft.
function changed() {
  say("");
  keepDraft();
}

// Saves the answer, or says what it lacks and goes there.
function submitAnswer() {
  if (!canAnswer()) return;
  keepDraft();
  try {
    const answer = { ...task.answer(), ...marks.answer() };
    marks.requireRationale();
    judge({ answer });
  } catch (error) {
    if (!(error instanceof Incomplete)) throw error;
    say(error.message + ".");
    if (error.field) {
      root.classList.add("note-open");
      error.field.focus();
    }
  }
}

// ---- writing ---------------------------------------------------------------------------------

function judge(values) {
  const item = view.item;
  write("judgements", {
    annotator: view.annotator,
    campaign: view.campaign,
    ticket: item.ticket,
    item: item.item,
    shown_order: item.shown_order,
    rationale: part("rationale").value.trim() || null,
    seconds: clock.seconds(),
    ...values,
  });
}

function skip(reason) {
  part("skip-dialog").close();
  if (canAnswer()) judge({ skip: reason, answer: {} });
}

function undo(id) {
  if (busy || !view || !view.history.length) return;
  if (lastWrite.source === source && performance.now() - lastWrite.at < DOUBLE_PRESS_MS) return;
  if (pending) return showNotice("The last choice is not saved yet, so there is nothing to take back.", true);
  write("undo", { campaign: view.campaign, judgement: id || view.history[0].id });
}

async function write(path, body) {
  if (busy) return;
  busy = true;
  lastWrite = { source, at: performance.now() };
  clearTimeout(retryTimer);
  pending = { path, body };
  keepDraft();
  say("");
  showSaved("saving", "Saving\u2026");
  try {
    const next = await call(path, body);
    if (path === "judgements") drafts.drop(body.item); // first: the draft is saved, whoever shows it
    pending = null;
    if (letGo.aborted) return;
    hideNotice();
    show(next);
    showSaved("saved", next.note || (path === "undo" ? "Taken back" : "Saved"));
  } catch (error) {
    if (!letGo.aborted) await notSaved(error);
  } finally {
    busy = false;
  }
}

async function notSaved(error) {
  lastWrite = NO_WRITE; // the same item is still up: pressing again at once is no slip
  showSaved("unsaved", "Not saved");
  const kept = "Not saved: " + error.message + ".";
  if (error instanceof Refused) {
    pending = null;
    keepDraft();
    showNotice(kept, false);
    await load(kept);
    return;
  }
  if (!(error instanceof Unreachable)) throw error; // a fault of the page itself: not to be hidden
  const signedOut = error instanceof SignedOut;
  const next = signedOut
    ? " Your work is kept in this page. Sign in again in a new tab; then it is saved by itself."
    : " Your work is kept in this page and is sent again by itself.";
  showNotice(kept + next, true, signedOut);
  retryTimer = later(retry, RETRY_AFTER_MS);
}

function retry() {
  clearTimeout(retryTimer);
  if (pending) write(pending.path, pending.body);
  else load();
}

async function load(notice) {
  try {
    const next = await call("view");
    if (letGo.aborted) return;
    hideNotice();
    show(next);
    showSaved(notice ? "unsaved" : "saved", notice ? "Not saved" : "All saved");
    if (notice) showNotice(notice, false);
    resend();
  } catch (error) {
    if (letGo.aborted) return;
    notLoaded(error, notice);
  }
}

function notLoaded(error, notice) {
  showSaved("unsaved", notice ? "Not saved" : "Not connected");
  const refused = error instanceof Refused; // asking again would change nothing
  showNotice((notice ? notice + " " : "") + "Not loaded: " + error.message + ".", true, error instanceof SignedOut);
  if (!refused) retryTimer = later(retry, RETRY_AFTER_MS);
  if (!(refused || error instanceof Unreachable)) throw error;
}

// After a reload: an answer that had not got through is sent, since the item is still ours.
function resend() {
  const draft = view.item ? drafts.read(view.item.item) : {};
  if (!draft.pending || draft.pending.path !== "judgements") return;
  write("judgements", { ...draft.pending.body, ticket: view.item.ticket });
}

function keepDraft() {
  if (!view || !view.item) return;
  const isJudgement = pending && pending.path === "judgements";
  drafts.write(view.item.item, {
    task: task.state(),
    marks: marks.state(),
    seconds: clock.seconds(),
    pending: isJudgement ? pending : null,
  });
}
