// People: accounts, invites, sign-in links, roles, and erasure.

const roles = [["rater", "Rater"], ["lead", "Lead"]];

tabs.people = {
  async show(panel) {
    paint(panel, await read("people"));
  },
  hide() {},
};

function paint(panel, data, link) {
  const people = data.accounts.filter((each) => !each.simulated);
  const simulated = data.accounts.filter((each) => each.simulated);
  panel.replaceChildren(pageOf(
    build("h2", {}, "People"),
    inviteBox(panel, link),
    accountTable(panel, people, data.you),
    openInvites(panel, data.invites),
    simulated.length ? simulatedList(simulated) : null));
  if (link) panel.querySelector('[data-part="link"] input').select();
}

// ---- links ----------------------------------------------------------------------------------

function inviteBox(panel, link) {
  const role = chooser(roles, "rater");
  const days = chooser([["1", "1 day"], ["7", "7 days"], ["30", "30 days"]], "7");
  const line = problemLine();
  const make = button("Make an invite", () => once(make, line, async () =>
    showLink(panel, { role: role.value, days: Number(days.value) })), { class: "main" });
  return build("section", { class: "card" }, build("h2", {}, "Invite somebody"),
    build("p", { class: "soft" }, "The link lets one person in, once. They choose their own name. Send it by a way only they can read."),
    build("div", { class: "row end-line" }, field("Role", role), field("Good for", days), make), line, link ? linkBox(link) : null);
}

async function showLink(panel, body) {
  const data = await send("people/invite", body);
  paint(panel, data, { url: data.url, name: body.annotator || null });
  say("The link is made; copy it now");
}

function linkBox(link) {
  const input = build("input", { readonly: true, value: link.url, "aria-label": "The link" });
  const copied = build("span", { class: "soft", role: "status" });
  const copy = button("Copy", async () => {
    input.select();
    try {
      await navigator.clipboard.writeText(link.url);
      copied.textContent = "Copied";
    } catch (error) {
      copied.textContent = "It is marked: copy it with Ctrl+C";
    }
  });
  return build("div", { class: "made", "data-part": "link" },
    build("p", {}, link.name ? "A link that signs " + link.name + " in, once:" : "The new invite:"),
    build("div", { class: "row stretch" }, input, copy), build("p", { class: "soft" }, "It is shown this once and kept nowhere. ", copied));
}

function openInvites(panel, invites) {
  if (!invites.length) return null;
  const line = problemLine();
  const rows = invites.map((each) => {
    const revoke = button("Revoke", () => once(revoke, line, async () => paint(panel, await send("people/revoke", { id: each.id }))),
      { class: "quiet danger", "aria-label": "Revoke the invite for " + (each.annotator || "a new " + each.role) });
    return build("tr", {},
      build("th", { scope: "row" }, each.annotator ? "Sign-in of " + each.annotator : "A new " + each.role),
      build("td", {}, each.created_by || "the server"),
      build("td", { class: "num" }, timeWords(each.created_at)), build("td", { class: "num" }, timeWords(each.expires_at)), build("td", {}, revoke));
  });
  return build("section", { class: "card" }, build("h2", {}, "Open invites"), line,
    table("Open invites", ["For", "Made by", "Made", "Ends", "Do"], rows));
}

function table(title, head, rows) {
  return build("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    build("table", {}, build("caption", { class: "out-of-sight" }, title),
      build("thead", {}, build("tr", {}, head.map((words) => build("th", { scope: "col" }, words)))), build("tbody", {}, rows)));
}

// ---- accounts -------------------------------------------------------------------------------

function accountTable(panel, people, you) {
  const line = problemLine();
  const rows = people.map((each) => accountRow(panel, line, each, you));
  return build("section", { class: "card" }, build("h2", {}, "Accounts ", build("span", { class: "soft num" }, String(people.length))), line,
    table("Accounts", ["Name", "Role", "Signs in by", "Last judgement", "Since", "Do"], rows));
}

function accountRow(panel, line, each, you) {
  const name = each.name;
  const role = chooser(roles, each.role, { "aria-label": "Role of " + name });
  role.addEventListener("change", () => once(role, line, async () => {
    try {
      paint(panel, await send("people/role", { name, role: role.value }));
      say(name + " is a " + role.value + " now");
    } catch (error) {
      role.value = each.role;
      throw error;
    }
  }));
  const act = (words, work, danger) => {
    const made = button(words, () => once(made, line, work), { class: "quiet" + (danger ? " danger" : ""), "aria-label": words + ": " + name });
    return made;
  };
  const isYou = name === you;
  const disable = async () => paint(panel, await send("people/disable", { name, disabled: !each.disabled }));
  const actions = [
    each.disabled ? null : act("Sign-in link", () => showLink(panel, { annotator: name, role: each.role, days: 1 })),
    isYou ? null : act(each.disabled ? "Let in again" : "Disable", disable),
    isYou ? null : act("Erase", async () => askErase(panel, name), true),
  ];
  return build("tr", { class: each.disabled ? "past" : "" },
    build("th", { scope: "row" }, rawText("span", "", name), isYou ? build("span", { class: "chip" }, "you") : null,
      each.disabled ? build("span", { class: "chip bad" }, "disabled") : null),
    build("td", {}, role),
    build("td", {}, each.ways.join(", ") || "links only"),
    build("td", { class: "num" }, each.last_judged_at ? timeWords(each.last_judged_at) : "never"),
    build("td", { class: "num" }, timeWords(each.created_at)),
    build("td", {}, build("div", { class: "row nowrap tight" }, actions)));
}

function askErase(panel, name) {
  const typed = build("input", { autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  confirmBox("Erase the data of " + name + "?", [
    "Gone for good: the name, the password and sign-ins, and every text this person wrote (reasons, rewrites, words of skips).",
    "Kept, under a pseudonym that leads nowhere: verdicts, ranks, ratings, flags, times. The statistics and labels stay as they are.",
    "This cannot be undone.",
  ], "Erase", async () => {
    const data = await send("people/erase", { name, typed: typed.value });
    paint(panel, data);
    say("Erased; the judgements stand under " + data.pseudonym);
  }, field("Type the name to go on", typed));
  typed.focus();
}

function simulatedList(simulated) {
  const rows = simulated.map((each) => build("tr", {},
    build("th", { scope: "row" }, rawText("span", "", each.name), simulatedChip()),
    build("td", { class: "num" }, each.last_judged_at ? timeWords(each.last_judged_at) : "never")));
  return build("section", { class: "card" }, build("h2", {}, "Simulated raters ", build("span", { class: "soft num" }, String(simulated.length))),
    build("p", { class: "soft" }, "Programs, not people: they cannot sign in, and what they judged is marked everywhere."),
    table("Simulated raters", ["Name", "Last judgement"], rows));
}
