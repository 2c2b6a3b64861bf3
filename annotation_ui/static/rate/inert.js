// Text of models enters the page only through here (as text nodes) or as the server's inert HTML.

// The same characters as UNSEEN in rendering.py: no picture of their own, or they move others.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}]|\r(?!\n)|(?<![^\u0000-\u007f])[\u200c\u200d]/gu;

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Appends `text` letter by letter; unseen characters are wrapped so that CSS prints their code.
function appendText(parent, text) {
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    parent.append(text.slice(from, match.index));
    const span = node("span", "unseen", match[0]);
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    span.dataset.code = "U+" + code;
    parent.append(span);
    from = match.index + match[0].length;
  }
  parent.append(text.slice(from));
}

function showRaw(parent, text) {
  const box = node("div", "plain");
  appendText(box, text);
  parent.replaceChildren(text.trim() ? box : blankMark(text), ...(text.trim() || !text ? [] : [box]));
}

function blankMark(text) {
  return node("p", "blank", text ? "(only white space, " + text.length + " characters)" : "(empty)");
}

function showDiff(parent, segments, tag) {
  if (!segments.length) return parent.replaceChildren(blankMark(""));
  const box = node("div", "plain");
  for (const [text, changed] of segments) {
    const piece = changed ? node(tag) : document.createDocumentFragment();
    appendText(piece, text);
    box.append(piece);
  }
  parent.replaceChildren(box);
}
