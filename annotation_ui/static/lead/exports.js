// Export: choose a format, see what comes out and what does not, download it, or push it.

const PUSHES_EVERY_MS = 2000;
const formatWords = {
  judgements: ["Judgements", "Every judgement as it is, superseded ones too. Raters' names are in it. It can be imported again."],
  preference: ["Preference pairs", "Chosen and rejected with margin and soft label, for reward models and DPO. Raters are pseudonymised."],
  unpaired: ["Unpaired preference", "One completion and whether it is liked, for KTO. Raters are pseudonymised."],
  ranking: ["Rankings as pairs", "Each ranking expanded to its pairs, its prompt kept as group. Raters are pseudonymised."],
  demonstrations: ["Demonstrations", "What raters wrote, for supervised fine-tuning. Raters are pseudonymised."],
  rated: ["Rated completions", "Each completion with its ratings. Raters are pseudonymised."],
};
const methodWords = { votes: "by votes", auto: "by what the data allow", dawid_skene: "by raters' reliability (Dawid-Skene)", crowd_bt: "by Crowd-Bradley-Terry" };
const suffixWords = { ".jsonl": "JSONL", ".jsonl.gz": "JSONL, compressed", ".json": "JSON", ".parquet": "Parquet" };
const labelled = ["preference", "unpaired", "ranking", "rated"];

let asked = { format: "", suffix: ".jsonl", method: "votes" };
let pushTimer = 0;
let shown = 0;

tabs.exports = {
  async show(panel, campaign) {
    stop();
    if (!campaign) return panel.replaceChildren(noCampaign());
    const mine = shown;
    const format = asked.format || "judgements";
    const found = await read("export/preview", { campaign, format, method: asked.method });
    if (mine === shown) paint(panel, campaign, { ...asked, format }, found, mine);
  },
  hide() {
    stop();
  },
};

function stop() {
  shown += 1;
  clearTimeout(pushTimer);
}

function paint(panel, campaign, chosen, found, mine) {
  const line = problemLine();
  const result = build("div", { class: "stack", "data-part": "result", "aria-live": "polite" });
  const format = chooser(found.formats.map((name) => [name, (formatWords[name] || [name])[0]]), chosen.format, { "data-part": "format" });
  const suffix = chooser(found.suffixes.map((name) => [name, suffixWords[name] || name]), chosen.suffix, { "data-part": "suffix" });
  const method = chooser(found.methods.map((name) => [name, methodWords[name] || name]), chosen.method, { "data-part": "method" });
  const methodField = field("Labels are made", method);
  const values = () => ({ campaign, format: format.value, method: method.value, suffix: suffix.value });
  let turn = 0;
  const look = async () => {
    asked = { format: format.value, suffix: suffix.value, method: method.value };
    methodField.hidden = !labelled.includes(format.value);
    const now = ++turn;
    line.textContent = "";
    try {
      const next = await read("export/preview", { campaign, format: format.value, method: method.value });
      if (now === turn && mine === shown) paintResult(result, next, format.value, values, line);
    } catch (error) {
      line.textContent = error.message;
    }
  };
  format.addEventListener("change", look);
  method.addEventListener("change", look);
  suffix.addEventListener("change", () => { asked.suffix = suffix.value; });
  methodField.hidden = !labelled.includes(chosen.format);
  const pushes = build("div", { class: "stack tight", "data-part": "pushes" });
  panel.replaceChildren(pageOf(build("h2", {}, "Export"),
    build("div", { class: "columns" },
      build("section", { class: "card" }, build("h2", {}, "A file"),
        build("div", { class: "fields" }, field("What", format), field("File type", suffix), methodField), line, result),
      pushBox(values, pushes, mine))));
  paintResult(result, found, chosen.format, values, line);
  showPushes(pushes, mine);
}

function paintResult(result, found, format, values, line) {
  const about = build("p", { class: "soft" }, (formatWords[format] || ["", ""])[1]);
  if (found.problem) return result.replaceChildren(about, rawText("p", "nothing", found.problem));
  const take = (part, words, attributes) => {
    const made = button(words, () => once(made, line, () => fetchFile({ ...values(), part })), attributes);
    return made;
  };
  result.replaceChildren(build("div", { class: "stack" }, about,
    found.simulated ? build("p", {}, simulatedChip(), " Simulated raters are among them; every row says so.") : null,
    countList(comingOut(found)),
    build("div", {}, build("h3", {}, "What became of the rest"),
      leftOut(found).length ? countList(leftOut(found)) : build("p", { class: "soft" }, "Nothing is left out.")),
    build("div", { class: "row" }, take("both", "Download with its manifest", { class: "main" }), take("file", "The file alone"), take("manifest", "The manifest alone")),
    build("details", {}, build("summary", {}, "The first row"), rawText("pre", "output", found.first_row))));
}

function countList(counts) {
  return build("dl", { class: "counts" }, counts.flatMap(([name, words]) => [build("dt", {}, name), build("dd", {}, String(words))]));
}

function comingOut(found) {
  const guideline = found.guideline_versions.map((each) =>
    (each.version === null ? "unknown" : "version " + each.version) + " (" + each.num_judgements + ")").join(", ");
  const method = (name, used) => used ? [[name, (methodWords[used.method] || used.method) + (used.why === "asked for" ? "" : ": " + used.why)]] : [];
  return [
    ["Rows", found.num_rows],
    ["Judgements behind them", found.num_judgements],
    ["Raters", found.num_raters + (found.num_simulated_raters ? ", " + found.num_simulated_raters + " of them simulated" : "")],
    ["Guideline", guideline],
    ...method("Labels", found.label_method),
    ...method("Flags", found.flag_method),
    ...(found.num_items_adjudicated ? [["Items decided by leads", found.num_items_adjudicated]] : []),
    ...(found.num_raters_down_weighted ? [["Raters down-weighted", found.num_raters_down_weighted]] : []),
  ];
}

// Why something is not among the rows, in words; what these do not know is named as it is.
const leftOutWords = {
  num_skipped: "Skipped by raters",
  num_without_preference: "Judgements without a preference (ratings, rewrites, flags)",
  num_repeated: "Earlier answers of the same rater to the same item",
  num_equal_votes: "Pairs whose votes are equal: no side is better",
  num_identical: "Pairs of equal texts",
  num_checks: "Gold, qualification and retests: they check raters",
  num_excluded: "Judgements of excluded raters",
  num_empty: "Empty texts",
  num_in_the_middle: "Completions neither good nor bad",
  num_without_scale: "Items whose criterion has no scale",
  num_both_bad: "Items where both are bad: both rows are marked as bad",
};
const toldElsewhere = ["num_judgements", "num_votes", "num_pairs", "num_simulated", "num_adjudicated"];

function leftOut(found) {
  const counts = Object.entries(found.counts).filter(([name, number]) => number && !toldElsewhere.includes(name) && !name.startsWith("num_by_"));
  const raters = found.num_raters_excluded ? [["Raters excluded by leads", found.num_raters_excluded]] : [];
  return [...counts.map(([name, number]) => [leftOutWords[name] || countName(name), number]), ...raters];
}

// "num_equal_votes" reads "Equal votes".
function countName(name) {
  const words = name.replace(/^num_/, "").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

// Fetched first, so that a refusal is told here and never saved as a file.
async function fetchFile(values) {
  const reply = await fetch(API + "export?" + new URLSearchParams(values), { cache: "no-store" }).catch(() => {
    throw new Unreachable("the server does not answer");
  });
  if (!reply.ok) {
    const data = await reply.json().catch(() => ({}));
    throw new Refused(data.error || "the server refused it");
  }
  const named = /filename\*=UTF-8''([^;]+)/.exec(reply.headers.get("content-disposition") || "");
  const url = URL.createObjectURL(await reply.blob());
  const link = build("a", { href: url, download: named ? decodeURIComponent(named[1]) : "export" });
  root.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  say("The file is on its way");
}

// ---- the hub --------------------------------------------------------------------------------

function pushBox(values, pushes, mine) {
  const repository = build("input", { placeholder: "organisation/name", autocomplete: "off", spellcheck: "false", maxlength: 200, "data-part": "repository" });
  const open = build("input", { type: "checkbox" });
  const line = problemLine();
  const push = button("Push", () => once(push, line, async () => {
    if (!repository.value.trim()) throw new Incomplete("name the repository, as in organisation/name");
    const { suffix, ...rest } = values();
    const data = await send("export/push", { ...rest, repository: repository.value, public: open.checked });
    paintPushes(pushes, data.pushes);
    pushTimer = setTimeout(() => showPushes(pushes, mine), PUSHES_EVERY_MS);
    say("The push has begun");
  }), {});
  return build("section", { class: "card" }, build("h2", {}, "To the hub"),
    build("p", { class: "soft" }, "Sends the same rows, as a dataset with its manifest, to a repository of the Hugging Face hub. The server signs in there with its own token (HF_TOKEN)."),
    field("Repository", repository), build("label", { class: "tick" }, open, "Everybody may read it"),
    line, build("div", { class: "row" }, push), pushes);
}

async function showPushes(box, mine) {
  clearTimeout(pushTimer);
  let pushes = null;
  try {
    pushes = (await read("export/pushes")).pushes;
  } catch (error) {
    // the next look will tell
  }
  if (mine !== shown) return;
  if (pushes) paintPushes(box, pushes);
  if (!pushes || pushes.some((each) => each.state === "running")) pushTimer = setTimeout(() => showPushes(box, mine), PUSHES_EVERY_MS);
}

function paintPushes(box, pushes) {
  const looks = { running: ["warn", "on its way"], done: ["good", "done"], failed: ["bad", "failed"] };
  const rows = pushes.map((each) => build("li", { "data-key": each.id },
    build("div", { class: "row" }, rawText("strong", "", each.repository), build("span", { class: "chip " + looks[each.state][0] }, looks[each.state][1]),
      build("span", { class: "soft" }, each.format + " of " + each.campaign + ", " + timeWords(each.started_at))),
    each.words ? rawText("p", each.state === "failed" ? "problem" : "soft", each.words) : null));
  morph(box, build("div", {}, rows.length ? build("ul", { class: "stack tight" }, rows) : null));
}
