// What may stand beside any task: flags per completion, and a reason in the rater's own words.
// In a flags campaign the task itself shows the flags (tasks/flags.js), and only the reason is here.

const marks = {
  flags: [], // the campaign's flags that are asked beside the task
  rationale: "optional",
  chosen: [], // per shown completion the names of its flags
  row: 0, // in the panel: which completion the digits flag

  build(form) {
    this.flags = form.task === "flags" ? [] : form.flags;
    this.rationale = form.rationale;
    const field = part("rationale");
    const words = { optional: "Your reason, if you like (N)", required: "Your reason, needed here (N)", off: "" };
    field.placeholder = words[form.rationale];
    field.required = form.rationale === "required";
    part("rationale-label").textContent = form.rationale === "required" ? "Your reason (needed)" : "Your reason (optional)";
    part("note").hidden = form.rationale === "off";
    for (const button of all('[data-do="note"]')) button.hidden = form.rationale === "off";
    for (const button of all('[data-do="flags"]')) button.hidden = !this.flags.length;
  },

  show(item, kept) {
    this.chosen = item.completions.map((_, index) => [...((kept.flags || [])[index] || [])]);
    this.row = 0;
    part("rationale").value = kept.rationale ?? "";
    part("rationale").removeAttribute("aria-invalid");
    fitNote();
    item.completions.forEach((_, index) => {
      const buttons = this.flags.map((flag) => this.button(flag, index, ""));
      part("flags", cardOf(index)).replaceChildren(...buttons);
    });
    this.refresh();
  },

  button(flag, index, key) {
    const button = buttonOf(flag.label, { do: "flag", flag: flag.name, index }, key);
    button.className = "flag";
    button.setAttribute("aria-label", flag.label + ": completion " + LETTERS[index]);
    return button;
  },

  state() {
    const kept = { rationale: part("rationale").value };
    if (this.flags.length) kept.flags = this.chosen;
    return kept;
  },

  // What goes with the task's own answer; flags are sent where they are asked, none set or not.
  answer() {
    return this.flags.length ? { flags: this.chosen } : {};
  },

  requireRationale() {
    if (this.rationale !== "required" || part("rationale").value.trim()) return;
    part("rationale").setAttribute("aria-invalid", "true");
    throw new Incomplete("This campaign asks for a reason with every answer: write one, then press Ctrl+Enter", part("rationale"));
  },

  toggle(name, index) {
    const names = this.chosen[index];
    this.chosen[index] = names.includes(name) ? names.filter((one) => one !== name) : [...names, name];
    this.refresh();
    changed();
  },

  refresh() {
    for (const button of all('[data-do="flag"]'))
      setPressed(button, this.chosen[Number(button.dataset.index)]?.includes(button.dataset.flag));
    const count = this.chosen.reduce((sum, names) => sum + names.length, 0);
    for (const mark of all('[data-part="flag-count"]')) mark.textContent = count ? String(count) : "";
  },

  // ---- the panel: letters choose the completion, digits set its flags -------------------------

  openPanel() {
    if (!this.flags.length || !view || !view.item) return;
    this.buildPanel();
    part("flags-dialog").showModal();
  },

  buildPanel() {
    const rows = this.chosen.map((_, index) => {
      const row = node("div", "flag-row");
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", "Completion " + LETTERS[index]);
      row.append(node("strong", "", LETTERS[index]));
      if (index === this.row) row.classList.add("now");
      row.append(...this.flags.map((flag, at) => this.button(flag, index, index === this.row ? String(at + 1) : "")));
      return row;
    });
    part("flag-rows").replaceChildren(...rows);
    part("flags-hint").hidden = rows.length < 2;
    this.refresh();
  },

  onPanelKey(key) {
    const letter = KEYED.indexOf(key);
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    const count = this.chosen.length;
    if (step) this.row = (this.row + step + count) % count;
    else if (letter >= 0 && key.length === 1 && letter < count) this.row = letter;
    else if (this.flags[Number(key) - 1]) return this.toggle(this.flags[Number(key) - 1].name, this.row), true;
    else if (key === "f") return part("flags-dialog").close(), true;
    else return false;
    this.buildPanel();
    return true;
  },
};

function fitNote() {
  const note = part("rationale");
  note.style.height = "auto";
  if (!note.scrollHeight) return; // not on screen: nothing to measure
  note.style.height = Math.min(note.scrollHeight + 2, 140) + "px";
}

function openNote() {
  if (marks.rationale === "off") return;
  root.classList.add("note-open");
  part("rationale").focus();
}
