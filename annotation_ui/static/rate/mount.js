// Gradio may put the component on the page a second time, or draw its markup anew: the script would
// then speak to an element that nobody sees. Whichever comes last takes over; the one before it
// lets go of its listeners and timers, and leaves what was chosen in the drafts.

const TAKEN_OVER = "rlhf-rating-taken-over";
let current = null;

function mount() {
  const found = element.querySelector(".rate");
  if (!found || (current && current.root === found)) return;
  window.dispatchEvent(new Event(TAKEN_OVER));
  const stop = new AbortController();
  current = { root: found };
  window.addEventListener(TAKEN_OVER, () => stop.abort(), { once: true });
  startPage(found, stop.signal);
}

const watcher = new MutationObserver(mount);
watcher.observe(element, { childList: true, subtree: false });
mount();
