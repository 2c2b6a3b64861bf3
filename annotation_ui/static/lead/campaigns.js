// The campaign: make one of a template or YAML and a file of completions; see and change one.

const JOBS_EVERY_MS = 2000;
const SAMPLE_LINES = `
sample:
  models: [smollm2-135m-instruct-q4]
  num_completions: 2
  max_new_tokens: 64
  prompts:
    - Write a haiku about rain.
`;
let draft = { template: "", name: "", text: "", file: null, touched: false }; // kept while the page is open
let jobsTimer = 0;
let shown = 0; // counts what was shown: a poll for an earlier page stops

tabs.campaigns = {
  async show(panel, campaign, detail) {
    stop();
    const mine = shown;
    if (detail === "new" || !campaign) return showNew(panel, campaign, mine);
    await showChange(panel, campaign, mine);
  },
  hide() {
    stop();
  },
};

function stop() {
  shown += 1;
  clearTimeout(jobsTimer);
}

// ---- making one -----------------------------------------------------------------------------

async function showNew(panel, campaign, mine) {
  const { templates } = await read("campaigns/templates");
  const text = build("textarea", { class: "code", spellcheck: "false", "aria-label": "The campaign as YAML", "data-part": "yaml" });
  const name = build("input", { value: draft.name, autocomplete: "off", maxlength: 200, "data-part": "name" });
  const template = chooser([["", "Choose a template"], ...templates.map((each) => [each.name, each.title])], draft.template, { "data-part": "template" });
  const line = problemLine();
  const result = build("div", { class: "stack", "data-part": "result", "aria-live": "polite" });
  const jobs = build("div", { class: "stack" });
  text.value = draft.text;
  const keepName = () => { draft = { ...draft, name: name.value }; result.replaceChildren(); line.textContent = ""; };
  const keep = () => { keepName(); draft = { ...draft, text: text.value, touched: true }; };
  text.addEventListener("input", keep);
  name.addEventListener("input", keepName);
  template.addEventListener("change", () => takeTemplate(templates, template, text, result));
  const files = fileBox(() => { result.replaceChildren(); line.textContent = ""; });
  const sample = button("Add a sample section", () => {
    if (!/^sample:/m.test(text.value)) text.value = text.value.trimEnd() + "\n" + SAMPLE_LINES;
    keep();
    const at = text.value.search(/^sample:/m);
    text.focus();
    text.setSelectionRange(at, text.value.length);
    text.scrollTop = text.scrollHeight;
  });
  const check = button("Check", () => once(check, line, async () => paintCheck(result, await send("campaigns/check", body()))), {});
  const create = button("Make the campaign", () => once(create, line, async () => {
    const made = await send("campaigns/create", body());
    if (made.job) { say("Sampling has begun"); return showJobs(jobs, mine); }
    draft = { template: "", name: "", text: "", file: null, touched: false };
    await loadCampaigns(made.campaign);
    say("The campaign is made");
    go("campaigns");
  }), { class: "main" });
  const body = () => {
    if (!name.value.trim() && !/^name:/m.test(text.value)) {
      name.focus();
      throw new Incomplete("Give the campaign a name");
    }
    return { text: text.value, name: name.value, file_name: draft.file ? draft.file.name : null, rows: draft.file ? draft.file.text : null };
  };
  panel.replaceChildren(pageOf(
    build("div", { class: "row between" }, build("h2", {}, "Make a campaign"),
      campaign ? button("Back to " + titleOf(campaign), () => go("campaigns")) : null),
    jobs,
    build("div", { class: "columns" },
      build("section", { class: "card" }, build("h2", {}, "What is asked"),
        build("div", { class: "fields" }, field("Begin with", template), field("Name of the campaign", name)),
        field("The campaign as YAML", text, "Everything can be changed here. What is left out has a plain default.")),
      build("div", { class: "stack" },
        build("section", { class: "card" }, build("h2", {}, "What is rated"), files,
          build("div", { class: "row" }, build("span", { class: "soft" }, "Or let models write the completions:"), sample)),
        build("section", { class: "card" }, build("h2", {}, "Check, then make it"),
          build("div", { class: "row" }, check, create), line, result)))));
  await showJobs(jobs, mine);
}

function takeTemplate(templates, template, text, result) {
  const found = templates.find((each) => each.name === template.value);
  const take = () => {
    text.value = found ? found.text : "";
    draft = { ...draft, template: template.value, text: text.value, touched: false };
    result.replaceChildren();
  };
  if (!draft.touched || !text.value.trim()) return take();
  const box = confirmBox("Put the template in the place of your text?", ["What you have written in the editor is lost."], "Replace", async () => take());
  box.addEventListener("close", () => { template.value = draft.template; });
}

// A file is read here, in the browser: the server never opens one of its own.
function fileBox(changed) {
  const input = build("input", { type: "file", accept: ".jsonl,.json", class: "out-of-sight", "aria-label": "File of completions", "data-part": "file", tabindex: "-1" });
  const line = problemLine();
  const said = build("p", { class: "soft", role: "status" });
  const forget = button("Take it away", () => { draft.file = null; input.value = ""; paint(); changed(); }, { class: "quiet" });
  const paint = () => {
    said.textContent = draft.file ? draft.file.name + ", " + draft.file.lines + " lines" : 'JSONL or JSON, as `rlhf sample` writes it. A row: {"prompt": "…", "completions": ["…", "…"]}';
    forget.hidden = !draft.file;
  };
  const take = async (file) => {
    if (!file) return;
    line.textContent = "";
    try {
      if (file.size > 60e6) throw new Incomplete(file.name + ": more than 60 MB; use `rlhf feedback campaign create` for so much");
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      draft.file = { name: file.name, text, lines: text.split("\n").filter((row) => row.trim()).length };
      changed();
    } catch (error) {
      line.textContent = error instanceof Incomplete ? error.message : file.name + ": not UTF-8 text; convert the file";
    }
    paint();
  };
  input.addEventListener("change", () => take(input.files[0]));
  const box = build("div", { class: "drop" }, build("p", {}, "Drop a file of completions here, or"),
    button("Choose a file", () => input.click()), input, said, forget);
  box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => { event.preventDefault(); box.classList.remove("over"); take(event.dataTransfer.files[0]); });
  paint();
  return build("div", { class: "stack tight" }, box, line);
}

function countWords(number, one, many) {
  return number + " " + (number === 1 ? one : many);
}

function paintCheck(result, found) {
  const counts = [["Campaign", found.name], ["Title", found.title]];
  if (found.sample) counts.push(["Items", "made of " + countWords(found.sample.num_prompts, "prompt", "prompts") + ", " + found.sample.num_completions + " completion(s) each from " + found.sample.models.join(", ")]);
  else counts.push(["Items", countWords(found.num_items, "item", "items") + ", " + found.num_wanted + " judgements wanted (" + countWords(found.overlap, "rater", "raters") + " each)"]);
  if (found.num_gold) counts.push(["Gold", countWords(found.num_gold, "item", "items")]);
  if (found.num_qualification) counts.push(["Qualification", countWords(found.num_qualification, "item", "items")]);
  if (found.num_identical) counts.push(["Left out", countWords(found.num_identical, "pair", "pairs") + " of equal texts"]);
  if (found.num_repeated) counts.push(["Repeated", countWords(found.num_repeated, "row", "rows") + " already there"]);
  result.replaceChildren(
    build("p", {}, build("span", { class: "chip good" }, "It can be made")),
    build("dl", { class: "counts" }, counts.flatMap(([name, words]) => [build("dt", {}, name), build("dd", {}, words)])),
    found.first ? previewOf(found) : null);
}

// The first item about as a rater sees it; nothing in it can be pressed.
function previewOf(found) {
  const texts = itemTexts(found.first, true);
  const asked = [];
  const { form } = found;
  for (const each of form.criteria) asked.push(each.title + ", " + each.low + " to " + each.high + (each.question ? ": " + each.question : ""));
  if (form.flags.length) asked.push("Flags: " + form.flags.map((flag) => flag.label).join(", "));
  asked.push({ off: "No reason is asked", optional: "A reason, if they like", required: "A reason is required" }[form.rationale]);
  const points = form.task === "pairwise" ? [...form.scale.map((point) => point.label), ...(form.both_bad ? ["Both are bad"] : [])] : [];
  const guideline = build("div", { class: "text" });
  guideline.innerHTML = found.guideline; // from render_inert
  return build("div", { class: "preview stack" }, build("h3", {}, "The first item: " + form.heading), texts.element,
    points.length ? build("div", { class: "row tight" }, points.map((words) => build("span", { class: "chip" }, words))) : null,
    build("ul", {}, asked.map((words) => build("li", { class: "soft" }, words))),
    found.guideline ? build("details", {}, build("summary", {}, "Guideline"), guideline) : null,
    found.consent ? build("details", {}, build("summary", {}, "Consent text"), rawText("p", "plain", found.consent)) : null);
}

// ---- sampling jobs --------------------------------------------------------------------------

async function showJobs(box, mine) {
  clearTimeout(jobsTimer);
  let jobs;
  try {
    jobs = (await read("campaigns/jobs")).jobs;
  } catch (error) {
    jobs = null; // the next look will tell
  }
  if (mine !== shown) return;
  if (jobs) paintJobs(box, jobs, mine);
  if (!jobs || jobs.some((job) => job.state === "running")) jobsTimer = setTimeout(() => showJobs(box, mine), JOBS_EVERY_MS);
}

function paintJobs(box, jobs, mine) {
  const fresh = build("div", {}, jobs.map((job) => jobBox(job)));
  morph(box, fresh);
  if (box.dataset.listening) return;
  box.dataset.listening = "true";
  box.addEventListener("click", async (event) => {
    const pressed = event.target.closest("[data-job]");
    if (!pressed) return;
    const { job, campaign: name, act } = pressed.dataset;
    if (act === "open") {
      await loadCampaigns(name);
      return go("campaigns");
    }
    await once(pressed, problemLine(), () => send("campaigns/jobs/stop", { id: job }));
    await showJobs(box, shown);
  });
}

function jobBox(job) {
  const words = {
    running: job.stopping ? "Stopping" : "Sampling",
    done: "Done: " + job.num_items + " items",
    failed: "Failed; nothing was stored",
    stopped: "Stopped; nothing was stored",
  }[job.state];
  const looks = { running: "warn", done: "good", failed: "bad", stopped: "" }[job.state];
  const act = (name, label) => build("button", { type: "button", "data-job": job.id, "data-act": name, "data-campaign": job.campaign }, label);
  return build("section", { class: "card", "data-key": job.id, "data-part": "job" },
    build("div", { class: "row between" },
      build("h2", {}, job.campaign, build("span", { class: "chip " + looks }, words)),
      build("div", { class: "row" }, job.state === "done" ? act("open", "Open it") : null,
        job.state === "running" ? act("stop", "Stop") : act("stop", "Take it off the list"))),
    build("p", { class: "soft" }, job.models.join(", ") + "; begun by " + job.started_by + ", " + timeWords(job.started_at) + ". It goes on when this page is closed."),
    job.error ? rawText("p", "problem", job.error) : null,
    job.lines.length && job.state !== "done" ? build("pre", { class: "output", tabindex: "0", role: "region", "aria-label": "What the process says" }, job.lines.join("\n")) : null);
}

// ---- changing one ---------------------------------------------------------------------------

async function showChange(panel, campaign, mine) {
  paintChange(panel, await read("campaigns/one", { campaign }), mine);
}

function paintChange(panel, found, mine) {
  const jobs = build("div", { class: "stack" });
  const line = problemLine();
  const again = (next) => { if (mine === shown) paintChange(panel, next, mine); };
  const pause = button(found.paused ? "Go on" : "Pause", () => once(pause, line, async () => {
    const next = await send("campaigns/paused", { campaign: found.name, paused: !found.paused });
    await loadCampaigns();
    part("paused").hidden = !next.paused;
    again(next);
    say(next.paused ? "Paused" : "Going on");
  }), { "data-part": "pause" });
  panel.replaceChildren(pageOf(
    build("div", { class: "row between" },
      build("div", { class: "row" }, rawText("h2", "name", found.title), build("span", { class: "chip" }, found.task),
        found.paused ? build("span", { class: "chip warn" }, "paused: raters get nothing new") : null),
      build("div", { class: "row" }, pause, button("Make a new campaign", () => go("campaigns", "new"), { class: "main" }))),
    build("p", { class: "soft" }, countWords(found.num_items, "item", "items") + "; made " + timeWords(found.created_at) +
      (found.template ? "; after the template " + found.template : "") + (found.title === found.name ? "" : "; its name is " + found.name)),
    line, jobs, settingsBox(found, again), guidelineBox(found, again)));
  showJobs(jobs, mine);
}

function settingsBox(found, again) {
  const number = (value, step, low, high) => build("input", { type: "number", value, step, min: low, max: high });
  const overlap = number(found.overlap, 1, 1, 1000);
  const lease = number(found.lease_s / 60, "any", 0.1, 10000);
  const gold = number(Math.round(found.gold_share * 1000) / 10, "any", 0, 99);
  const retest = number(Math.round(found.retest_share * 1000) / 10, "any", 0, 99);
  const qualify = number(found.qualify_share === null ? "" : Math.round(found.qualify_share * 1000) / 10, "any", 0, 100);
  const fast = number(found.too_fast_s, "any", 0, 3600);
  const line = problemLine();
  const value = (input, label) => {
    if (input.value.trim() === "" || !Number.isFinite(Number(input.value))) throw new Incomplete(label + ": a number is needed");
    return Number(input.value);
  };
  const save = button("Save the settings", () => once(save, line, async () => {
    const next = await send("campaigns/settings", {
      campaign: found.name, revision: found.revision,
      overlap: value(overlap, "Raters for each item"), lease_s: value(lease, "Time to answer") * 60,
      gold_share: value(gold, "Gold items") / 100, retest_share: value(retest, "Retests") / 100,
      qualify_share: qualify.value.trim() === "" ? null : value(qualify, "Qualification") / 100, too_fast_s: value(fast, "Too fast"),
    });
    again(next);
    say("The settings are saved");
  }), { class: "main" });
  return build("section", { class: "card", "data-part": "settings" }, build("h2", {}, "Settings"),
    build("div", { class: "fields" },
      field("Raters for each item", overlap, "What is judged already stays"),
      field("Time to answer, minutes", lease, "Then the item goes to somebody else"),
      field("Gold items, % of a rater's", gold, "Items with a known answer"),
      field("Retests, % of a rater's", retest, "Own earlier items, shown again"),
      field("Qualification, % to pass", qualify, "Empty: nobody is turned away"),
      field("Too fast, seconds", fast, "Faster answers are counted as such")),
    line, build("div", { class: "row" }, save));
}

function guidelineBox(found, again) {
  const inForce = found.guidelines[0] || { version: 0, text: "", html: "" };
  const text = build("textarea", { rows: 16, class: "code", "aria-label": "Guideline, in Markdown", "data-part": "guideline" });
  text.value = inForce.text;
  const view = build("div", { class: "text preview", "data-part": "preview", tabindex: "0", role: "region", "aria-label": "As raters see it" });
  view.innerHTML = inForce.html; // from render_inert
  const line = problemLine();
  let timer = 0;
  let asked = 0;
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++asked;
      try {
        const { html } = await send("campaigns/preview", { text: text.value });
        if (mine === asked) view.innerHTML = html; // from render_inert
      } catch (error) {
        line.textContent = error.message;
      }
    }, 250);
  });
  const save = button("Put it in force", () => once(save, line, async () => {
    const next = await send("campaigns/guideline", { campaign: found.name, text: text.value, version: found.guideline_version });
    again(next);
    say("Version " + next.guideline_version + " is in force");
  }), { class: "main" });
  return build("section", { class: "card", "data-part": "guidelines" },
    build("h2", {}, "Guideline ", build("span", { class: "soft num" }, "version " + found.guideline_version + " in force")),
    build("p", { class: "soft" }, "A new version holds from the next item on. Each judgement keeps the version it was made under."),
    build("div", { class: "columns" }, build("div", { class: "stack tight" }, field("In Markdown", text), line, build("div", { class: "row" }, save)),
      build("div", { class: "stack tight" }, build("span", { class: "soft" }, "As raters see it"), view)),
    found.guidelines.length > 1 ? versionsBox(found) : null);
}

function versionsBox(found) {
  const choices = found.guidelines.map((each) => [String(each.version), "Version " + each.version + ", " + timeWords(each.created_at)]);
  const after = chooser(choices, choices[0][0], { "aria-label": "Later version" });
  const before = chooser(choices, choices[1][0], { "aria-label": "Earlier version" });
  const line = problemLine();
  const out = [build("div", { class: "text preview" }), build("div", { class: "text preview" })];
  const compare = async () => {
    line.textContent = "";
    try {
      const segments = await read("campaigns/difference", { campaign: found.name, before: before.value, after: after.value });
      showDiff(out[0], segments.before, "del");
      showDiff(out[1], segments.after, "ins");
    } catch (error) {
      line.textContent = error.message;
    }
  };
  before.addEventListener("change", compare);
  after.addEventListener("change", compare);
  const box = build("details", {}, build("summary", {}, countWords(found.guidelines.length, "version", "versions") + ", and what changed"),
    build("div", { class: "columns" },
      build("div", { class: "stack tight" }, before, out[0]), build("div", { class: "stack tight" }, after, out[1])), line);
  box.addEventListener("toggle", () => { if (box.open) compare(); });
  return box;
}
