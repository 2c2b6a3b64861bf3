// One criterion of a rubric: which key stands for which value, and a value's words.

// The digit for a value: itself where all are digits, else its place (0 is the tenth).
function digitFor({ low, high }, value) {
  return String(low >= 0 && high <= 9 ? value : (value - low + 1) % 10);
}

// The value that a key stands for; null for none.
function valueFor(criterion, key) {
  for (let value = criterion.low; value <= criterion.high; value++)
    if (digitFor(criterion, value) === key) return value;
  return null;
}

// The values that have words, in order.
function namedValues({ anchors }) {
  return Object.keys(anchors).map(Number).sort((a, b) => a - b);
}

function wordsOfValue({ anchors }, value) {
  return [node("b", "", String(value)), node("span", "", anchors[value])];
}

// A value in its own words, or between which words it lies; without a value, those of both ends.
function wordsAround(criterion, value) {
  const named = namedValues(criterion);
  const lines = (values) => values.filter((one) => one !== undefined).flatMap((one) => wordsOfValue(criterion, one));
  if (value === null) return lines(named.length > 1 ? [named[0], named.at(-1)] : named);
  if (criterion.anchors[value]) return wordsOfValue(criterion, value);
  const around = lines([named.filter((one) => one < value).at(-1), named.find((one) => one > value)]);
  return [node("b", "now", String(value)), node("span", "", around.length ? "between" : ""), ...around];
}
