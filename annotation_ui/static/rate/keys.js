// Buttons and keys. The page's own letters; everything else goes to the task first.

const actions = {
  undo: () => undo(),
  history: openHistory,
  change: (button) => { part("history-dialog").close(); undo(button.dataset.id); },
  guideline: toggleGuideline,
  "read-guideline": readGuideline,
  help: openHelp,
  retry,
  refresh: () => load(),
  view: (button) => setView(button.dataset.view),
  base: (button) => compareWith(Number(button.dataset.index)),
  large: (button) => openLarge(Number(button.dataset.index)),
  "large-step": (button) => showLarge(largeIndex + Number(button.dataset.step)),
  flags: () => marks.openPanel(),
  flag: (button) => marks.toggle(button.dataset.flag, Number(button.dataset.index)),
  skip: openSkip,
  note: openNote,
  submit: submitAnswer,
  break: takeBreak,
  resume: endBreak,
  close: (button) => button.closest("dialog").close(),
  reason: (button) => skip(button.dataset.reason),
};

const keys = {
  s: openSkip,
  u: () => undo(),
  h: openHistory,
  n: openNote,
  f: () => marks.openPanel(),
  m: () => setView("rendered"),
  r: () => setView("raw"),
  d: () => setView("diff"),
  o: () => openLarge(0),
  g: toggleGuideline,
  p: takeBreak,
  "?": openHelp,
  Enter: () => { if (part("save").checkVisibility()) submitAnswer(); },
};

const COMMON_HELP = [
  ["N", "write a reason; Ctrl+Enter saves, Esc leaves it"],
  ["F", "flag a completion", () => marks.flags.length],
  ["S", "skip, with a reason"],
  ["U", "undo the last judgement"],
  ["H", "all your last judgements, to search and change"],
  ["M, R, D", "formatted, raw, differences"],
  ["O", "read a completion over the whole page"],
  ["G", "show or hide the guideline"],
  ["P", "take a break: the clock stops"],
  ["?", "these keys"],
];

function openHelp() {
  const own = task ? task.help : [];
  const enter = !part("save").hidden && !own.some(([names]) => names.includes("Enter")) ? [["Enter", "save"]] : [];
  const rows = [...own, ...enter, ...COMMON_HELP.filter(([, , applies]) => !applies || applies())];
  part("help-keys").replaceChildren(...rows.flatMap(([names, meaning]) => [keyCaps(names), node("dd", "", meaning)]));
  part("help-dialog").showModal();
}

// "1 to 7" or "M, R, D" as key caps; joining words stay words.
function keyCaps(names) {
  const cell = node("dt");
  for (const word of names.split(/[\s,]+/).filter(Boolean))
    cell.append(/^(to|or|then|and)$/.test(word) ? word : node("kbd", "", word), " ");
  return cell;
}

function openSkip() {
  if (!view || !view.item) return;
  part("other").value = "";
  part("skip-dialog").showModal();
}

// The key by what it types; where that is no Latin letter or digit (another script, or digits
// that need Shift), by where it lies. Letters are lower case, named keys ("ArrowUp") as they are.
function keyOf(event) {
  const typed = event.key;
  if (typed.length > 1 || typed === " " || typed === "?") return typed;
  const place = /^(Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code || "");
  const isOdd = /^[^\x21-\x7e]$/u.test(typed) || (place && place[1] === "Digit" && !event.shiftKey);
  return (place && isOdd ? place[2] : typed).toLowerCase();
}

// A field that is being typed in. One in a dialog that has just closed keeps the focus until the
// next frame is drawn: what is pressed then is meant for the page.
function isTyping(target) {
  const field = target instanceof Element && target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  return Boolean(field) && field.checkVisibility();
}

// Enter and Space on a button or link press that, and nothing else.
function isPressing(event) {
  const onButton = event.target instanceof Element && event.target.closest("button, a[href], summary");
  return Boolean(onButton) && onButton.checkVisibility() && (event.key === "Enter" || event.key === " ");
}

function onKey(event) {
  if (isOnBreak()) return onBreakKey(event);
  if (event.target === part("rationale") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    source = "key Enter";
    if (!event.repeat) submitAnswer();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape" && !event.target.closest("dialog")) event.target.blur();
    return;
  }
  if (isPressing(event)) return;
  const key = keyOf(event);
  source = "key " + key;
  const dialog = root.querySelector("dialog[open]");
  if (dialog ? onDialogKey(dialog, key) : onPageKey(key, event)) event.preventDefault();
}

function onPageKey(key, event) {
  if (view && view.item && task.onKey(key, event)) return true;
  if (!Object.hasOwn(keys, key)) return false;
  keys[key]();
  return true;
}

function onDialogKey(dialog, key) {
  if (dialog === part("flags-dialog")) return marks.onPanelKey(key);
  if (dialog === part("large-dialog")) return onLargeKey(key);
  const reason = dialog.querySelector('[data-do="reason"][data-key="' + CSS.escape(key) + '"]');
  if (reason) skip(reason.dataset.reason);
  return Boolean(reason);
}

function onLargeKey(key) {
  const views = { m: "rendered", r: "raw", d: "diff" };
  const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (step) showLarge(largeIndex + step);
  else if (views[key]) setView(views[key]);
  else if (key === "o") part("large-dialog").close();
  else return false;
  return true;
}

// Any key ends a break, except those that only reach for another window.
function onBreakKey(event) {
  if (["Shift", "Control", "Alt", "Meta", "Tab"].includes(event.key) || event.repeat) return;
  event.preventDefault();
  if (!event.ctrlKey && !event.metaKey && !event.altKey) endBreak();
}
