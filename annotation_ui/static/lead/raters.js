// The raters: a table of who rates how, one of them closely, and decisions on whose answers count.

const COLUMNS = [
  { key: "name", title: "Rater", value: (row) => row.name.toLowerCase() },
  { key: "num_judged", title: "Judged", number: true },
  { key: "gold_accuracy", title: "Gold", hint: "share of gold items answered as expected" },
  { key: "reliability", title: "Reliability", hint: "how often right, judged by the others" },
  { key: "agreement", title: "Agreement", hint: "how often the same answer as another rater" },
  { key: "self_consistency", title: "Repeats", hint: "how often the same answer when shown again" },
  { key: "side_bias", title: "First side", hint: "share of decided answers for the one shown first" },
  { key: "length_bias", title: "Longer", hint: "share of decided answers for the longer one" },
  { key: "median_seconds", title: "Time", hint: "median for an answer", number: true },
  { key: "too_fast_share", title: "Too fast", number: true },
  { key: "weight", title: "Weight", number: true },
  { key: "last_at", title: "Last answer", value: (row) => row.last_at || "" },
];
let order = { key: "num_judged", down: true };
let table = null; // what was last shown, to be sorted anew
let open = null; // the rater who is looked at closely, as last shown

const percent = (share) => Math.round(100 * share) + "%";

function sortValue(row, key) {
  const column = COLUMNS.find((each) => each.key === key);
  if (column.value) return column.value(row);
  const value = row[key];
  return value === null ? null : typeof value === "object" ? value.value : value;
}

// What is not known comes last, whichever way the rest is sorted.
function sorted(rows) {
  return [...rows].sort((one, other) => {
    const [a, b] = [sortValue(one, order.key), sortValue(other, order.key)];
    if (a === null || b === null) return (a === null) - (b === null);
    return (a < b ? -1 : a > b ? 1 : 0) * (order.down ? -1 : 1) || one.name.localeCompare(other.name);
  });
}

function estimate(value) {
  if (!value) return [build("span", { class: "soft" }, "\u2013", build("span", { class: "out-of-sight" }, "not known"))];
  return [build("span", { class: "num" }, percent(value.value)),
    build("small", { class: "num soft" }, percent(value.low) + " to " + percent(value.high) + ", n " + value.n)];
}

function weightWords(weight) {
  return weight === 0 ? "excluded" : weight < 1 ? "weighs " + weight.toFixed(2) : "full";
}

function cellOf(row, key) {
  const value = row[key];
  if (key === "name") return [build("a", { href: linkTo("raters", row.name) }, row.name), marks(row)];
  if (key === "num_judged") return [build("span", { class: "num" }, String(value)), row.num_skipped ? build("small", { class: "num soft" }, row.num_skipped + " skipped") : null];
  if (key === "median_seconds") return [value === null ? "\u2013" : secondsWords(value)];
  if (key === "too_fast_share") return [value === null ? "\u2013" : percent(value)];
  if (key === "weight") return [value === 1 ? "1" : build("span", { class: "chip " + (value ? "warn" : "bad") }, weightWords(value))];
  if (key === "last_at") return [value === null ? "never" : timeWords(value)];
  return estimate(value);
}

function marks(row) {
  const found = row.concerns.filter((concern) => concern.sure).length ? "bad" : "warn";
  return build("span", { class: "marks" },
    row.simulated ? simulatedChip() : null,
    row.concerns.length ? build("span", { class: "chip " + found, title: row.concerns.map((each) => each.words).join("; ") }, found === "bad" ? "needs a look" : "perhaps") : null);
}

function concernOf(row, key) {
  const about = { gold_accuracy: "gold", reliability: "reliability", self_consistency: "consistency", side_bias: "side", length_bias: "length", too_fast_share: "pace" }[key];
  return row.concerns.find((each) => each.about === about);
}

function headCell(column) {
  const direction = order.key !== column.key ? "none" : order.down ? "descending" : "ascending";
  const arrow = { none: "", descending: " \u2193", ascending: " \u2191" }[direction];
  return build("th", { scope: "col", "aria-sort": direction, "data-key": column.key },
    build("button", { type: "button", class: "sort", "data-do": "sort", "data-column": column.key, title: column.hint },
      column.title, build("span", { "aria-hidden": "true" }, arrow)));
}

function bodyRow(row) {
  return build("tr", { "data-key": row.name, class: row.weight === 0 ? "out" : null },
    COLUMNS.map((column) => {
      const found = concernOf(row, column.key);
      const known = row[column.key] === null ? "unknown" : null;
      const attributes = { "data-label": column.title, class: found ? (found.sure ? "is-bad" : "is-warn") : known };
      return column.key === "name" ? build("th", { scope: "row", ...attributes }, cellOf(row, "name")) : build("td", attributes, cellOf(row, column.key));
    }));
}

function tableBox(found) {
  return build("section", { class: "card flush" },
    build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Raters" },
      build("table", { class: "raters" },
        build("caption", { class: "out-of-sight" }, "Raters; the titles of the columns sort"),
        build("thead", {}, build("tr", {}, COLUMNS.map(headCell))),
        build("tbody", {}, sorted(found.raters).map(bodyRow)))),
    build("p", { class: "legend soft" }, "Under each share its 95% interval and the number of answers behind it. Too fast is under " + found.too_fast_s + " s. \u201cLonger\u201d is no fault by itself: longer completions may be better."));
}

function decisionsBox(decisions, title) {
  return build("section", { class: "card" }, build("h2", {}, title),
    decisions.length
      ? build("ol", { class: "decisions" }, decisions.map((each) => build("li", {},
          build("strong", {}, each.annotator + " "), decisionWords(each),
          build("span", { class: "soft" }, " by " + each.decided_by + ", " + timeWords(each.created_at) + ": "),
          build("q", {}, each.reason))))
      : build("p", { class: "soft" }, "None yet. A decision can be taken back: each is kept with its reason, and the last one holds."));
}

function decisionWords(decision) {
  if (decision.weight === 0) return decision.reopen ? "excluded, and their items given to others," : "excluded";
  return decision.weight < 1 ? "weighs " + decision.weight.toFixed(2) : "counts in full";
}

async function showTable(panel, campaign) {
  open = null;
  const found = await read("raters", { campaign });
  if (panel.hidden || campaign !== chosen()) return;
  table = found;
  drawTable(panel);
}

function drawTable(panel) {
  if (!table.raters.length) return fill(panel, emptyBox("No rater yet", "Nobody has judged anything in this campaign. Invite raters under People; each of them gets a row here.", build("p", {}, build("a", { href: linkTo("people") }, "Invite raters"))));
  const alone = table.raters.length === 1
    ? build("p", { class: "remark" }, "One rater only: agreement and reliability take two or more on the same items.") : null;
  fill(panel, build("div", { class: "stack", "data-key": "table" }, alone, tableBox(table), decisionsBox(table.decisions, "Decisions")));
}

// ---- one rater closely ------------------------------------------------------------------------

function tile(title, ...content) {
  return build("div", { class: "tile" }, build("dt", {}, title), build("dd", {}, content));
}

function tiles(row) {
  return build("dl", { class: "tiles" },
    tile("Judged", cellOf(row, "num_judged")),
    ...COLUMNS.slice(2, 8).map((column) => tile(column.title, estimate(row[column.key]), build("span", { class: "soft hint" }, column.hint))),
    tile("Time", cellOf(row, "median_seconds"), build("span", { class: "soft hint" }, row.too_fast_share === null ? "median" : "median; " + percent(row.too_fast_share) + " too fast")));
}

function headBox(row) {
  const standings = { unqualified: "did not qualify", excluded: "excluded", paused: "campaign paused", consent: "has not agreed to the consent text" };
  return build("div", { class: "rater-head" },
    build("p", {}, build("a", { href: linkTo("raters") }, "\u2190 All raters")),
    build("h2", {}, row.name, row.simulated ? simulatedChip() : null,
      build("span", { class: "chip" + (row.weight === 0 ? " bad" : row.weight < 1 ? " warn" : "") }, row.weight === 1 ? "counts in full" : weightWords(row.weight)),
      Object.hasOwn(standings, row.standing) && row.standing !== "excluded" ? build("span", { class: "chip warn" }, standings[row.standing]) : null),
    row.last_at ? build("p", { class: "soft" }, "Last answer " + timeWords(row.last_at)) : null,
    row.concerns.length ? build("ul", { class: "concerns" }, row.concerns.map((each) => build("li", { class: each.sure ? "is-bad" : "is-warn" }, capital(each.words) + "."))) : null);
}

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

function decideForm(row) {
  const chosen = row.weight === 0 ? "0" : row.weight < 1 ? "part" : "1";
  const choice = (value, title, text) => build("label", { class: "pick" },
    build("input", { type: "radio", name: "lead-weight", value, checked: value === chosen }),
    build("span", {}, build("strong", {}, title), build("span", { class: "soft" }, text)));
  return build("form", { class: "decide", "data-part": "decide", "data-keep": true, "data-key": "decide " + row.name + " " + row.weight },
    build("fieldset", {},
      build("legend", {}, "How much do the answers of " + row.name + " count?"),
      choice("1", "In full", "as for everybody"),
      choice("part", "Less", "labels weigh them with the number below"),
      choice("0", "Not at all", "excluded: no label rests on them, and no item is given to this rater")),
    build("label", { class: "field", "data-part": "weight-field", hidden: chosen !== "part" }, "Weight, from 0.05 to 0.95",
      build("input", { type: "number", min: "0.05", max: "0.95", step: "0.05", value: chosen === "part" ? String(row.weight) : "0.5", "data-part": "weight" })),
    build("label", { class: "check", "data-part": "reopen-field", hidden: chosen !== "0" },
      build("input", { type: "checkbox", "data-part": "reopen" }), "Give the items of this rater to others as well"),
    build("label", { class: "field" }, "Reason (kept with the decision)",
      build("textarea", { rows: "2", maxlength: "2000", required: true, "data-part": "reason" })),
    build("p", { class: "problem", role: "alert", "data-part": "problem" }),
    build("button", { type: "submit", class: "main" }, "Decide"));
}

function goldBox(rows) {
  if (!rows.length) return null;
  return build("section", { class: "card flush" }, build("h2", {}, "Gold and qualification items"),
    build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Gold answers" }, build("table", {},
      build("thead", {}, build("tr", {}, ["Item", "Expected", "Answered", "As expected", "When"].map((title) => build("th", { scope: "col" }, title)))),
      build("tbody", {}, rows.map((row) => build("tr", { "data-key": row.item },
        build("th", { scope: "row" }, build("a", { href: linkTo("items", row.item) }, row.prompt)),
        build("td", {}, row.expected), build("td", {}, row.answered),
        build("td", {}, row.share === null ? "\u2013" : build("span", { class: "chip " + (row.share === 1 ? "good" : row.share ? "warn" : "bad") }, row.share === 1 ? "yes" : row.share ? percent(row.share) : "no")),
        build("td", { class: "num" }, timeWords(row.created_at))))))));
}

function historyBox(found) {
  const more = found.num_history > found.history.length ? ", the last " + found.history.length + " of " + found.num_history : "";
  return build("section", { class: "card flush" }, build("h2", {}, "Answers" + more),
    build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answers" }, build("table", { class: "history" },
      build("thead", {}, build("tr", {}, ["When", "Item", "Answer", "Time"].map((title) => build("th", { scope: "col" }, title)))),
      build("tbody", {}, found.history.map((row) => build("tr", { "data-key": row.id, class: row.standing ? "out" : null },
        build("td", { class: "num" }, timeWords(row.created_at)),
        build("td", {}, build("a", { href: linkTo("items", row.item) }, row.prompt)),
        build("td", {}, row.words, row.purpose ? build("span", { class: "chip" }, row.purpose) : null,
          row.standing ? build("span", { class: "chip" }, row.standing) : null,
          row.rationale ? build("q", { class: "soft" }, row.rationale) : null),
        build("td", { class: "num" }, secondsWords(row.seconds))))))));
}

async function showOne(panel, campaign, name) {
  const found = await read("raters/one", { campaign, annotator: name });
  if (panel.hidden || campaign !== chosen()) return;
  await drawOne(panel, found);
}

async function drawOne(panel, found) {
  open = found.rater;
  fill(panel, build("div", { class: "stack", "data-key": "one " + found.rater.name },
    headBox(found.rater), tiles(found.rater),
    build("div", { class: "two" },
      build("section", { class: "card" }, build("h2", {}, "Decide"), decideForm(found.rater)),
      decisionsBox(found.decisions, "Decisions so far")),
    build("div", { class: "charts" }, found.figures.map(chartBox)),
    goldBox(found.gold), historyBox(found)));
  await drawCharts(panel, found.figures);
}

// ---- doing ------------------------------------------------------------------------------------

function weightChosen(form) {
  const value = form.querySelector('[name="lead-weight"]:checked').value;
  return value === "part" ? Number(part("weight", form).value) : Number(value);
}

async function decide(panel, form) {
  const reason = part("reason", form).value.trim();
  if (!reason) { part("problem", form).textContent = "Write a reason: it is kept with the decision."; return part("reason", form).focus(); }
  const weight = weightChosen(form);
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const body = { campaign: chosen(), annotator: open.name, weight, reason, reopen: weight === 0 && part("reopen", form).checked };
    const found = await send("raters/decide", body);
    part("problem", form).textContent = "";
    part("reason", form).value = "";
    await drawOne(panel, found);
    say("Decided: " + found.rater.name + " " + weightWords(found.rater.weight));
  } catch (error) {
    part("problem", form).textContent = "Not decided: " + error.message + ".";
  } finally {
    button.disabled = false;
  }
}

const panel = root.querySelector('[data-panel="raters"]');
panel.addEventListener("click", (event) => {
  const button = event.target.closest('[data-do="sort"]');
  if (!button) return;
  const key = button.dataset.column;
  order = { key, down: order.key === key ? !order.down : key !== "name" };
  drawTable(panel);
});
panel.addEventListener("change", (event) => {
  const form = event.target.closest(".decide");
  if (!form || event.target.name !== "lead-weight") return;
  part("weight-field", form).hidden = event.target.value !== "part";
  part("reopen-field", form).hidden = event.target.value !== "0";
});
panel.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.matches(".decide")) decide(panel, event.target);
});

async function show(panel, campaign, name) {
  if (!campaign) return fill(panel, emptyBox("No campaign yet", "Raters are looked at within a campaign. Make the first one under Campaign."));
  await (name ? showOne(panel, campaign, name) : showTable(panel, campaign));
}

tabs.raters = { show, refresh: show };
