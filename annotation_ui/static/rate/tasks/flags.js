// What is wrong with each completion, if anything. Silence is no answer: a completion without a
// flag is to be marked "nothing wrong".
tasks.flags = {
  build(form, controls) {
    this.flags = form.flags;
    this.tally = node("span", "tally");
    const rule = node("p", "rule");
    rule.append("Marked completion: ", node("kbd", "", "1"), this.flags.length > 1 ? " to " : "");
    if (this.flags.length > 1) rule.append(node("kbd", "", String(Math.min(this.flags.length, 9))));
    rule.append(" tick a flag, ", node("kbd", "", "0"), " nothing wrong. A letter goes to another one.");
    controls.replaceChildren(rule);
    part("task-extras").replaceChildren(this.tally);
    listen(part("cards"), "focusin click", (event) => this.goToCardOf(event.target));
  },

  show(item, kept) {
    // null: not answered; []: nothing wrong
    this.found = item.completions.map((_, index) => (kept.flags || [])[index] ?? null);
    this.at = Math.max(this.found.indexOf(null), 0);
    item.completions.forEach((_, index) => {
      const box = node("div", "flag-choices");
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "What is wrong with completion " + LETTERS[index]);
      box.append(...this.flags.map((flag, at) => this.buildFlag(index, flag, at)), this.buildNothing(index));
      part("task", cardOf(index)).replaceChildren(box);
    });
    this.refresh();
  },

  buildFlag(index, flag, at) {
    const button = buttonOf(flag.label, { tick: flag.name }, at < 9 ? String(at + 1) : "");
    button.addEventListener("click", (event) => { letGoOfFocus(event); this.tick(index, flag.name); });
    return button;
  },

  buildNothing(index) {
    const button = buttonOf("Nothing wrong", { tick: "" }, "0");
    button.classList.add("nothing");
    button.addEventListener("click", (event) => { letGoOfFocus(event); this.tickNothing(index); });
    return button;
  },

  tick(index, name) {
    const names = this.found[index] || [];
    const next = names.includes(name) ? names.filter((one) => one !== name) : [...names, name];
    this.set(index, next.length ? next : null);
  },

  tickNothing(index) {
    const isNothing = this.found[index] !== null && !this.found[index].length;
    this.set(index, isNothing ? null : []);
  },

  set(index, names) {
    this.found[index] = names;
    this.at = index;
    this.refresh();
    changed();
  },

  goTo(index) {
    this.at = index;
    this.refresh();
    bringUp(cardOf(index));
  },

  goToCardOf(target) {
    const card = target.closest("[data-card]");
    if (!card || !this.found || Number(card.dataset.card) === this.at) return;
    this.at = Number(card.dataset.card);
    this.refresh();
  },

  onKey(key, event) {
    const count = this.found.length;
    const index = completionOf(key, event, count);
    const flag = /^[1-9]$/.test(key) ? this.flags[Number(key) - 1] : null;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
    if (index >= 0) this.goTo(index);
    else if (flag) this.tick(this.at, flag.name);
    else if (key === "0") this.sayNothing();
    else if (step) this.goTo((this.at + step + count) % count);
    else return false;
    return true;
  },

  // By key: nothing more is to be said of this one, so the next open one is marked.
  sayNothing() {
    this.tickNothing(this.at);
    const open = this.found.indexOf(null);
    if (this.found[this.at] !== null && open >= 0) this.goTo(open);
  },

  refresh() {
    this.found.forEach((names, index) => {
      const card = cardOf(index);
      card.classList.toggle("now", index === this.at);
      card.classList.toggle("answered", names !== null);
      for (const button of all("[data-tick]", card)) {
        const name = button.dataset.tick;
        setPressed(button, names !== null && (name ? names.includes(name) : !names.length));
      }
    });
    const numDone = this.found.filter((names) => names !== null).length;
    this.tally.textContent = numDone + " of " + this.found.length + " answered";
    this.tally.classList.toggle("whole", numDone === this.found.length);
  },

  state() {
    return { flags: this.found };
  },

  answer() {
    const open = this.found.indexOf(null);
    if (open < 0) return { flags: this.found };
    const left = [...LETTERS].filter((_, index) => this.found[index] === null);
    this.goTo(open);
    throw new Incomplete("Not answered yet: " + left.join(", ") + ". Tick a flag, or \u201cNothing wrong\u201d");
  },

  get help() {
    const last = Math.min(this.flags.length, 9);
    return [
      ...lettersHelp(this.found.length, "go to that completion (also the arrows)"),
      [last > 1 ? "1 to " + last : "1", "tick a flag, or take it away"],
      ["0", "nothing wrong, and go to the next open one"],
      ["Enter", "save, when every completion is answered"],
    ];
  },
};
