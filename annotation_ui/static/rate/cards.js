// The prompt and the completions: N cards labelled A, B, C..., formatted, raw or with differences.

let mode = "rendered"; // rendered | raw | diff
let diffBase = 0; // where there are more than two: the card that the others are compared with
const HINTS = {
  rendered: "",
  raw: "Every character as it was written",
  diff: "Marked: words that the other one lacks",
};

function showCards(item) {
  const count = item.completions.length;
  if (all("[data-card]").length !== count) buildCards(count);
  diffBase = 0;
  root.querySelector('[data-view="diff"]').hidden = count < 2;
  if (mode === "diff" && count !== 2) mode = "rendered"; // of more than two they are asked for
  part("prompt").replaceChildren(...item.turns.map(turnBox));
  item.completions.forEach((completion, index) => {
    part("cut", cardOf(index)).hidden = completion.ended !== false;
  });
  showTexts();
  part("prompt").scrollTop = part("cards").scrollTop = 0;
  for (let index = 0; index < count; index++) part("text", cardOf(index)).scrollTop = 0;
}

function buildCards(count) {
  part("cards").dataset.count = count;
  part("cards").replaceChildren(...[...LETTERS.slice(0, count)].map(buildCard));
}

function buildCard(letter, index) {
  const card = node("article", "card");
  card.dataset.card = index;
  const head = node("h2", "", letter);
  const cut = node("span", "chip", "cut at the limit");
  cut.dataset.part = "cut";
  cut.title = "The model was stopped at the length limit";
  const large = buttonOf("Larger", { do: "large", index });
  large.className = "quiet larger";
  large.setAttribute("aria-label", "Read completion " + letter + " larger");
  const top = node("div", "top");
  top.append(head, cut, large);
  const text = node("div", "text");
  text.dataset.part = "text";
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", "Completion " + letter);
  card.append(top, text, slot("task", "card-task"), slot("flags", "card-flags"));
  return card;
}

// A place in a card that a task (`part("task", card)`) or the marks fill.
function slot(name, className) {
  const box = node("div", className);
  box.dataset.part = name;
  return box;
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

function showTexts() {
  const item = view.item;
  const several = item.completions.length > 2;
  const isBase = mode === "diff" && several;
  part("hint").textContent = isBase ? "Marked: words that " + LETTERS[diffBase] + " lacks" : HINTS[mode];
  for (const button of all("[data-view]")) setPressed(button, button.dataset.view === mode);
  part("bases").hidden = !isBase;
  if (isBase) part("bases").replaceChildren(...item.completions.map((_, index) => baseButton(index)));
  item.completions.forEach((completion, index) => showText(part("text", cardOf(index)), completion, index));
  if (part("large-dialog").open) showLarge(largeIndex);
}

function showText(box, completion, index) {
  if (mode === "rendered") box.innerHTML = completion.html;
  else if (mode === "raw") showRaw(box, completion.raw);
  else showDiff(box, completion.diff, index ? "ins" : "del");
}

function baseButton(index) {
  const button = buttonOf(LETTERS[index], { do: "base", index });
  button.setAttribute("aria-label", "Compare with " + LETTERS[index]);
  setPressed(button, index === diffBase);
  return button;
}

function setView(name) {
  if (!view || !view.item) return;
  const several = view.item.completions.length;
  if (name === "diff" && several < 2) return;
  // The key again, where there are more than two, moves on to the next one to compare with.
  if (name === "diff" && several > 2)
    return compareWith(mode === "diff" ? (diffBase + 1) % several : 0);
  setMode(name);
}

function setMode(name) {
  mode = name;
  showTexts();
  part("prompt").replaceChildren(...view.item.turns.map(turnBox));
}

async function compareWith(index) {
  const item = view.item;
  try {
    const reply = await call("diff", null, { ticket: item.ticket, base: index });
    if (view.item !== item) return;
    reply.diffs.forEach((diff, at) => { item.completions[at].diff = diff; });
    diffBase = index;
    setMode("diff");
  } catch (error) {
    showNotice("The differences were not loaded: " + error.message + ".", false);
  }
}

// ---- one completion over the whole page, to read it ------------------------------------------

let largeIndex = 0;

function openLarge(index) {
  if (!view || !view.item) return;
  if (!part("large-dialog").open) part("large-dialog").showModal();
  showLarge(index);
}

function showLarge(index) {
  const count = view.item.completions.length;
  largeIndex = (index + count) % count;
  const completion = view.item.completions[largeIndex];
  part("large-title").textContent = "Completion " + LETTERS[largeIndex];
  part("large-cut").hidden = completion.ended !== false;
  for (const button of all('[data-do="large-step"]')) button.hidden = count < 2;
  showText(part("large-text"), completion, largeIndex);
  part("large-text").scrollTop = 0;
}
