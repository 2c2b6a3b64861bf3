// Completions are picked by their letters. With nine of them the letters reach I, and D, F, G and H
// are the page's own keys too: with Shift they always are.

// Which completion a key means; -1 for none.
function completionOf(key, event, count) {
  if (key.length !== 1 || event.shiftKey) return -1;
  const index = KEYED.indexOf(key);
  return index < count ? index : -1;
}

// The line of the help for it: "A to D", and what Shift is for where letters are taken twice.
function lettersHelp(count, meaning) {
  const taken = [..."DFGH"].filter((letter) => LETTERS.indexOf(letter) < count);
  const last = Math.min(count, KEYED.length) - 1;
  const rows = [[last > 0 ? "A to " + LETTERS[last] : "A", meaning]];
  if (taken.length) rows.push(["Shift " + taken.join(" "), "the page\u2019s own keys of these letters"]);
  return rows;
}

// After a press by mouse or touch the button lets go of the focus, so that Enter saves.
function letGoOfFocus(event) {
  if (event.detail > 0) event.currentTarget.blur();
}

// Scrolls to what is picked: to its beginning where the page scrolls as a whole under a fixed bar.
const isNarrow = window.matchMedia("(max-width: 1179px)");

function bringUp(element) {
  element.scrollIntoView({ block: isNarrow.matches ? "start" : "nearest" });
}

// How high that bar is, for what must not end below it (see tasks.css).
const barWatcher = new ResizeObserver(([{ target }]) => root.style.setProperty("--bar", target.offsetHeight + "px"));
barWatcher.observe(root.querySelector(".controls"));
letGo.addEventListener("abort", () => barWatcher.disconnect());
