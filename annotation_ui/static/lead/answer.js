// A compact form for an answer of any task, in the store's order of completions: for leads.

// What is shown for `form` (see item_view.form_of) and `count` completions, filled with `values`;
// read() gives the values back or throws Incomplete. `withWords` adds rewrite, flags and keys.
function answerForm(form, count, values, withWords) {
  const kept = values || {};
  const parts = [];
  if (form.task === "pairwise") parts.push(verdictPart(form, kept, withWords));
  if (form.task === "ranking") parts.push(rankingPart(count, kept));
  if (form.task === "ratings") parts.push(ratingsPart(form, count, kept));
  if (form.task === "rewrite" && withWords) parts.push(rewritePart(count, kept));
  if (form.flags.length && (withWords || form.task === "flags")) parts.push(flagsPart(form, count, kept));
  const keys = Object.assign({}, ...parts.map((each) => each.keys || {}));
  return {
    element: build("div", { class: "answer stack" }, parts.map((each) => each.element)),
    keys,
    isEmpty: parts.length === 0,
    read: () => Object.assign({}, ...parts.map((each) => each.read())),
  };
}

function verdictPart(form, kept, hasKeys) {
  let verdict = kept.verdict ?? null;
  let bothBad = Boolean(kept.both_bad);
  const choose = (value) => { verdict = value; paint(); };
  const points = form.scale.map((point, index) =>
    button(numbered(point), () => choose(point.value), { "data-value": point.value, key: hasKeys ? String(index + 1) : null }));
  const bad = form.both_bad ? button("Both are bad", () => { bothBad = !bothBad; paint(); }, { key: hasKeys ? "B" : null }) : null;
  const paint = () => {
    for (const each of points) each.setAttribute("aria-pressed", String(Number(each.dataset.value) === verdict));
    if (bad) bad.setAttribute("aria-pressed", String(bothBad));
  };
  paint();
  const keys = Object.fromEntries(form.scale.map((point, index) => [String(index + 1), () => choose(point.value)]));
  if (bad) keys.b = () => bad.click();
  return {
    element: build("div", { class: "stack tight" },
      build("div", { class: "scale", role: "group", "aria-label": "Your answer" }, points), bad ? build("div", {}, bad) : null),
    keys,
    read: () => {
      if (verdict === null) throw new Incomplete("choose which one is better");
      return bothBad ? { verdict, both_bad: true } : { verdict };
    },
  };
}

// "A is better" reads "1 is better" here: letters belong to raters' screens.
function numbered(point) {
  if (!point.value) return point.label;
  return point.label.replace(/\b[AB]\b/g, (letter) => (letter === "A" ? "1" : "2"));
}

function numberInput(label, value, low, high) {
  return build("input", { type: "number", inputmode: "numeric", min: low, max: high, step: 1, value: value ?? "", "aria-label": label, class: "number" });
}

// A number that was typed; Incomplete, naming it, when there is none or it is out of bounds.
function readNumber(input, low, high) {
  const value = Number(input.value);
  const label = input.getAttribute("aria-label");
  if (input.value.trim() === "" || !Number.isInteger(value)) throw new Incomplete(label + ": a whole number is needed");
  if (value < low || value > high) throw new Incomplete(label + ": from " + low + " to " + high);
  return value;
}

function rankingPart(count, kept) {
  const inputs = Array.from({ length: count }, (_, index) =>
    numberInput("Rank of completion " + (index + 1), (kept.ranking || [])[index], 1, count));
  return {
    element: build("div", { class: "row" }, inputs.map((input, index) => field("Completion " + (index + 1), input)),
      build("span", { class: "soft" }, "1 is the best; equal ranks are a tie")),
    read: () => ({ ranking: inputs.map((input) => readNumber(input, 1, count)) }),
  };
}

function ratingsPart(form, count, kept) {
  const rows = form.criteria.map((criterion) => ({
    criterion,
    inputs: Array.from({ length: count }, (_, index) => numberInput(
      criterion.title + ", completion " + (index + 1), ((kept.ratings || {})[criterion.name] || [])[index], criterion.low, criterion.high)),
  }));
  const head = ["", ...Array.from({ length: count }, (_, index) => "Completion " + (index + 1))];
  return {
    element: build("div", { class: "scroll" }, build("table", { class: "grid" },
      build("thead", {}, build("tr", {}, head.map((words, at) => at ? build("th", { scope: "col" }, words) : build("td", {})))),
      build("tbody", {}, rows.map(({ criterion, inputs }) => build("tr", {},
        build("th", { scope: "row" }, criterion.title, build("div", { class: "soft" }, criterion.low + " to " + criterion.high)),
        inputs.map((input) => build("td", {}, input))))))),
    read: () => ({
      ratings: Object.fromEntries(rows.map(({ criterion, inputs }) =>
        [criterion.name, inputs.map((input) => readNumber(input, criterion.low, criterion.high))])),
    }),
  };
}

function rewritePart(count, kept) {
  const from = chooser([["", "written anew"], ...Array.from({ length: count }, (_, index) => [String(index), "completion " + (index + 1) + ", edited"])],
    kept.rewrite_of === null || kept.rewrite_of === undefined ? "" : String(kept.rewrite_of));
  const text = build("textarea", { rows: 8 });
  text.value = kept.rewrite || "";
  return {
    element: build("div", { class: "stack tight" }, field("Your text is", from), field("Your text", text)),
    read: () => {
      if (!text.value.trim()) throw new Incomplete("write the completion");
      return { rewrite: text.value, rewrite_of: from.value === "" ? null : Number(from.value) };
    },
  };
}

function flagsPart(form, count, kept) {
  const rows = Array.from({ length: count }, (_, index) => form.flags.map((flag) => ({
    name: flag.name,
    box: build("input", { type: "checkbox", checked: ((kept.flags || [])[index] || []).includes(flag.name) }),
    label: flag.label,
  })));
  return {
    element: build("div", { class: "flag-sets" }, rows.map((boxes, index) =>
      build("fieldset", { class: "flags" }, build("legend", {}, "Completion " + (index + 1)),
        boxes.map(({ box, label }) => build("label", { class: "tick" }, box, label))))),
    read: () => ({ flags: rows.map((boxes) => boxes.filter(({ box }) => box.checked).map(({ name }) => name)) }),
  };
}

// An expected or given answer in words, for the gold item's line.
function answerWords(form, values) {
  const said = [];
  if (values.verdict !== undefined && values.verdict !== null) {
    const ahead = values.verdict < 0 ? "completion 1 is better" : values.verdict > 0 ? "completion 2 is better" : "about the same";
    said.push(ahead);
  }
  if (values.ranking) said.push("ranks " + values.ranking.join(", "));
  for (const [name, row] of Object.entries(values.ratings || {})) said.push(name + " " + row.join(", "));
  if (values.flags) said.push("flags " + values.flags.map((names, index) => (index + 1) + ": " + (names.join(", ") || "none")).join("; "));
  return said.join("; ") || "nothing in particular";
}
