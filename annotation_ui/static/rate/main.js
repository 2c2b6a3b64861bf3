// Wires the parts together and asks for the first item.

// First of all handlers: which button is being used, for those of the tasks as well.
listen(root, "click", (event) => {
  const button = event.target.closest("button");
  if (button) source = "click " + (button.dataset.do || "") + JSON.stringify({ ...button.dataset });
}, { capture: true });
listen(root, "click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && !button.disabled && Object.hasOwn(actions, button.dataset.do)) actions[button.dataset.do](button);
});
listen(document, "keydown", onKey);
listen(part("rationale"), "input", () => { part("rationale").removeAttribute("aria-invalid"); fitNote(); changed(); });
listen(part("history-search"), "input", () => {
  clearTimeout(historyTimer);
  historyTimer = later(searchHistory, SEARCH_AFTER_MS);
});
listen(part("other-reason"), "submit", (event) => {
  event.preventDefault();
  const reason = part("other").value.trim();
  source = "other reason";
  if (reason) skip(reason);
});
listen(part("break-dialog"), "cancel", (event) => { event.preventDefault(); endBreak(); });
listen(window, "pagehide", keepDraft);
letGo.addEventListener("abort", keepDraft);
listen(document, "visibilitychange", () => { if (!document.hidden) watch(); });

showSaved("saving", "Loading\u2026");
load().then(watchAgain);
