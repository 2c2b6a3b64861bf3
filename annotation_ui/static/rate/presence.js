// Being there: breaks, the lease of the item that is kept while somebody works on it, and whether
// the session still stands (a rater learns of its end before the next answer, not by it).

const WATCH_EVERY_MS = @watch_ms;
let watchTimer = 0;

function takeBreak() {
  if (!view || part("break-dialog").open) return;
  for (const dialog of all("dialog[open]")) dialog.close();
  clock.stop();
  keepDraft();
  part("break-dialog").showModal();
}

function endBreak() {
  part("break-dialog").close();
  clock.start();
  watch();
}

function isOnBreak() {
  return part("break-dialog").open;
}

async function watch() {
  clearTimeout(watchTimer);
  if (!document.hidden && !busy && !pending && view) await lookAround();
  watchAgain();
}

function watchAgain() {
  clearTimeout(watchTimer);
  watchTimer = later(watch, Math.min(WATCH_EVERY_MS, (view && view.renew_ms) || Infinity));
}

async function lookAround() {
  const item = view.item;
  try {
    const reply = await call("session");
    if (busy || letGo.aborted) return;
    if (reply.annotator !== view.annotator) return signedInAsAnother(reply.annotator);
    if (part("notice").dataset.about === "session") { hideNotice(); showSaved("saved", "All saved"); }
    part("notice").dataset.about = "";
    if (item && clock.isActive()) await keepLease(item);
  } catch (error) {
    if (error instanceof SignedOut && !busy) sayExpired();
  }
}

async function keepLease(item) {
  const reply = await call("renew", { campaign: view.campaign, ticket: item.ticket });
  if (reply.kept || busy || view.item !== item) return;
  await load();
  if (view.item !== item) showNotice("That item was open for too long and went to another rater; this is the next one.", false);
}

function sayExpired() {
  part("notice").dataset.about = "session";
  showSaved("unsaved", "Signed out");
  showNotice("You are signed out. What you have chosen is kept in this page; sign in again in a new tab.", false, true);
  watchTimer = later(watch, RETRY_AFTER_MS);
}

function signedInAsAnother(name) {
  part("notice").dataset.about = "session";
  showSaved("unsaved", "Not yours");
  showNotice("This browser is signed in as " + name + " now, and this page was opened by " + view.annotator + ". Load the page again to go on as " + name + ".", false);
}
