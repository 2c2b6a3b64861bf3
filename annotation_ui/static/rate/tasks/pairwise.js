// Two completions, one scale from "A is much better" to "B is much better". A choice saves at once.
tasks.pairwise = {
  savesAtOnce: true,
  choice: null,
  bothBad: false,

  build(form, controls) {
    const words = node("div", "sides");
    words.setAttribute("aria-hidden", "true");
    words.append(node("span", "", "\u2190 A is better"), node("span", "", "B is better \u2192"));
    const scale = node("div", "scale");
    scale.setAttribute("role", "group");
    scale.setAttribute("aria-label", "Your judgement");
    scale.style.setProperty("--points", form.scale.length);
    scale.append(...form.scale.map((point, index) => this.button(point, index + 1)));
    controls.replaceChildren(words, scale);
    this.both = buttonOf("Both are bad", { do: "both-bad" }, "b");
    part("task-extras").replaceChildren(...(form.both_bad ? [this.both] : []));
    listen(scale, "click", (event) => {
      const button = event.target.closest("[data-choice]");
      if (button) this.choose(Number(button.dataset.choice));
    });
    listen(this.both, "click", () => this.setBothBad(!this.bothBad));
  },

  button(point, key) {
    const button = node("button");
    button.type = "button";
    Object.assign(button.dataset, { choice: point.value, key });
    button.setAttribute("aria-label", point.label);
    button.setAttribute("aria-keyshortcuts", key);
    button.append(node("span", "full", point.label), node("span", "short", point.short), node("kbd", "", key));
    return button;
  },

  show(item, kept) {
    const before = (item.previous || {}).choice;
    for (const button of all("[data-choice]")) button.classList.toggle("was", Number(button.dataset.choice) === before);
    this.bothBad = Boolean(kept.both_bad);
    setPressed(this.both, this.bothBad);
    // What was said before taking it back is shown as such, and is no choice of now.
    this.mark(item.previous && kept === item.previous ? null : kept.choice ?? null);
  },

  mark(choice) {
    this.choice = choice;
    for (const button of all("[data-choice]")) setPressed(button, choice !== null && Number(button.dataset.choice) === choice);
  },

  choose(choice) {
    if (!canAnswer()) return;
    this.mark(choice);
    submitAnswer();
  },

  setBothBad(on) {
    if (!this.both.isConnected) return;
    this.bothBad = on;
    setPressed(this.both, on);
    changed();
  },

  state() {
    return { choice: this.choice, both_bad: this.bothBad };
  },

  answer() {
    if (this.choice === null) throw new Incomplete("Choose which one is better first");
    return { choice: this.choice, both_bad: this.bothBad };
  },

  onKey(key) {
    const button = root.querySelector('[data-choice][data-key="' + CSS.escape(key) + '"]');
    const tie = root.querySelector('[data-choice="0"]');
    if (button) this.choose(Number(button.dataset.choice));
    else if (key === "t" && tie) this.choose(0);
    else if (key === "b" && this.both.isConnected) this.setBothBad(!this.bothBad);
    else return false;
    return true;
  },

  get help() {
    const points = all("[data-choice]");
    const words = (button) => "\u201c" + button.getAttribute("aria-label") + "\u201d";
    const rows = [["1 to " + points.length, "from " + words(points[0]) + " to " + words(points.at(-1))]];
    if (root.querySelector('[data-choice="0"]')) rows.push(["T", "about the same"]);
    if (this.both.isConnected) rows.push(["B", "mark that both are bad, then choose"]);
    return rows;
  },
};
