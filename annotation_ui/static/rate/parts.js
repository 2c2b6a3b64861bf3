// What every other script uses: the parts of the page, and listeners that go when the page goes.
// All files are one function body: `root` is the page's element, `letGo` the signal to stop.

// A to Z, then AA, AB...: an import may bring more completions than a ranking may have.
const LETTERS = Array.from({ length: 64 }, (_, index) =>
  (index < 26 ? "" : String.fromCharCode(64 + Math.floor(index / 26))) + String.fromCharCode(65 + (index % 26)));
const KEYED = "abcdefghi"; // so many are reached by their letter; the others by arrows or pointer
const tasks = {}; // per task type: how it is built, shown, answered (see tasks/pairwise.js)

const part = (name, within) => (within || root).querySelector('[data-part="' + name + '"]');
const all = (selector, within) => [...(within || root).querySelectorAll(selector)];
const cardOf = (index) => root.querySelector('[data-card="' + index + '"]');

// An answer that cannot be saved yet: what is missing, in words, and where to put it.
class Incomplete extends Error {
  constructor(words, field) {
    super(words);
    this.field = field;
  }
}

function listen(target, names, handler, options) {
  for (const name of names.split(" ")) target.addEventListener(name, handler, { ...options, signal: letGo });
}

// A timer that does nothing once the page has been taken over by another mount.
function later(work, ms) {
  return setTimeout(() => { if (!letGo.aborted) work(); }, ms);
}

// A button of the page; `values` are its data-* attributes, `key` is printed on it.
function buttonOf(words, values, key) {
  const button = node("button", "", words);
  button.type = "button";
  Object.assign(button.dataset, values);
  if (key) {
    button.append(node("kbd", "", key.toUpperCase()));
    button.setAttribute("aria-keyshortcuts", key.toUpperCase());
  }
  return button;
}

function setPressed(button, on) {
  button.setAttribute("aria-pressed", String(Boolean(on)));
}
