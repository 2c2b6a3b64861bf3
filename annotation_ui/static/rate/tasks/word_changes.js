// What was changed in a text, word by word, while it is being written.

const WORDS = new Intl.Segmenter(undefined, { granularity: "word" });
const MAX_CELLS = 4000000; // of the table below: about 2,000 words against 2,000

function wordsOf(text) {
  return [...WORDS.segment(text)].map((piece) => piece.segment);
}

function countWords(text) {
  let count = 0;
  for (const piece of WORDS.segment(text)) if (piece.isWordLike) count++;
  return count;
}

// [[text, "same" | "gone" | "new"], ...]: a longest common subsequence of words. Where the changed
// middle is too long for that, all of it counts as changed.
function wordChanges(before, after) {
  const [a, b] = [wordsOf(before), wordsOf(after)];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const changes = [];
  const add = (text, kind) => {
    if (!text) return;
    if (changes.length && changes.at(-1)[1] === kind) changes.at(-1)[0] += text;
    else changes.push([text, kind]);
  };
  add(a.slice(0, head).join(""), "same");
  addMiddle(a.slice(head, a.length - tail), b.slice(head, b.length - tail), add);
  add(a.slice(a.length - tail).join(""), "same");
  return changes;
}

function addMiddle(a, b, add) {
  const width = b.length + 1;
  if ((a.length + 1) * width > MAX_CELLS) {
    add(a.join(""), "gone");
    add(b.join(""), "new");
    return;
  }
  // common[i * width + j]: the length of the longest common subsequence of a[i:] and b[j:]
  const common = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) {
      const at = i * width + j;
      common[at] = a[i] === b[j] ? common[at + width + 1] + 1 : Math.max(common[at + width], common[at + 1]);
    }
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const at = i * width + j;
    if (i < a.length && j < b.length && a[i] === b[j]) add(a[i], "same"), i++, j++;
    else if (j >= b.length || (i < a.length && common[at + width] >= common[at + 1])) add(a[i++], "gone");
    else add(b[j++], "new");
  }
}
