// The overview: is the work good, will it be done, who needs help; then the charts behind it.

const TONES = { good: "Good", warn: "Look", bad: "Act", unknown: "Open" };
const MARKS = { good: "\u2713", warn: "!", bad: "!", unknown: "?" };

// A line is a list of texts and moments; moments are written in the reader's own time zone.
function words(pieces) {
  return pieces.map((piece) => typeof piece === "string" ? piece : build("time", { datetime: piece.time }, momentWords(piece.time)));
}

// "Fri 27 Nov, 14:00", to the hour: a forecast is not known to the minute.
function momentWords(iso) {
  const date = new Date(Math.round(new Date(iso) / 3600000) * 3600000);
  const now = new Date();
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  const day = date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", year });
  const far = Math.abs(date - now) > 14 * 86400000;
  return far ? day : day + ", " + date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function answerCard(answer) {
  return build("section", { class: "card answer " + answer.tone, "data-key": answer.key, "aria-labelledby": "lead-answer-" + answer.key },
    build("h2", { id: "lead-answer-" + answer.key }, answer.question),
    build("p", { class: "headline" },
      build("span", { class: "mark", "aria-hidden": "true" }, MARKS[answer.tone]),
      build("span", { class: "out-of-sight" }, TONES[answer.tone] + ": "),
      build("span", {}, words(answer.headline))),
    answer.bar ? shareBar(answer.bar) : null,
    answer.people && answer.people.length ? build("ul", { class: "people" }, answer.people.map(personLine)) : null,
    answer.lines.length ? build("ul", { class: "lines" }, answer.lines.map(numberLine)) : null);
}

function numberLine(line) {
  return build("li", { class: line.value === null ? "plain" : null },
    line.value === null ? null : build("strong", { class: "num" }, line.value), " ", build("span", {}, words(line.words)));
}

function shareBar(bar) {
  const percent = Math.min(100, 100 * bar.num / bar.wanted);
  return build("div", { class: "share", role: "img", "aria-label": bar.num + " of " + bar.wanted + " judgements" },
    build("div", { style: "width: " + percent.toFixed(1) + "%" }));
}

function personLine(person) {
  return build("li", { "data-key": person.name },
    build("a", { href: linkTo("raters", person.name) }, person.name),
    person.simulated ? simulatedChip() : null,
    person.sure ? null : build("span", { class: "chip" }, "perhaps"),
    build("ul", {}, person.reasons.map((reason) => build("li", {}, reason))));
}

function nothingYet(found) {
  const title = found.num_items ? "No judgement yet" : "This campaign has no items yet";
  const text = found.num_items
    ? found.num_items + " items wait. As soon as raters judge them, this page says how good the work is and when it will be done. It looks by itself every 15 seconds."
    : "Import completions or sample them, under Campaign; raters can start as soon as there are items.";
  const to = found.num_items ? ["people", "Invite raters"] : ["campaigns", "Go to Campaign"];
  return emptyBox(title, text, build("p", {}, build("a", { href: linkTo(to[0]) }, to[1])));
}

function simulatedNote(found) {
  if (!found.num_simulated) return null;
  const all = found.num_simulated === found.num_answers;
  const text = all ? "All judgements are by simulated raters: nothing here says what people think."
    : found.num_simulated + " of " + found.num_answers + " judgements are by simulated raters; they are in every number below.";
  return build("p", { class: "remark" }, simulatedChip(), " " + text);
}

async function draw(panel, campaign) {
  if (!campaign) {
    const link = build("a", { href: linkTo("campaigns") }, "Make a campaign");
    return fill(panel, emptyBox("No campaign yet", "A campaign is a set of items that raters judge in one way. Make the first one, and this page will say how it goes.", build("p", {}, link)));
  }
  if (!panel.firstElementChild) fill(panel, build("div", { class: "empty waiting" }, build("h2", {}, "Working it out"), build("p", {}, "The first look at a campaign takes a few seconds.")));
  const found = await read("overview", { campaign });
  if (panel.hidden || campaign !== chosen()) return;
  if (!found.num_answers) return fill(panel, nothingYet(found));
  fill(panel,
    simulatedNote(found),
    build("div", { class: "answers" }, found.answers.map(answerCard)),
    build("div", { class: "charts" }, found.figures.map(chartBox)));
  await drawCharts(panel, found.figures);
  return found.age_s;
}

tabs.overview = { show: draw, refresh: draw };
