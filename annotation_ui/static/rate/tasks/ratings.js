// Each completion on each criterion of a rubric. One place (completion, criterion) is the current
// one: digits rate it and move on, and its question and words stand in full above the buttons.
tasks.ratings = {
  build(form, controls) {
    this.criteria = form.criteria;
    this.legend = this.buildLegend();
    this.legend.dataset.long = String(this.criteria.some((one) => Object.values(one.anchors).some((words) => words.length > 110)));
    this.big = node("div", "big-row");
    part("cards").style.setProperty("--criteria", this.criteria.length);
    this.tally = node("span", "tally");
    controls.replaceChildren(this.legend, this.big);
    part("task-extras").replaceChildren(this.tally);
  },

  buildLegend() {
    const box = node("div", "legend");
    this.legendTitle = node("strong");
    this.legendQuestion = node("span", "question");
    this.legendWords = node("div", "words");
    const words = buttonOf("All values in words", {});
    words.className = "quiet all-words";
    words.addEventListener("click", () => this.showAllWords(this.allWords.hidden));
    words.setAttribute("aria-expanded", "false");
    this.allWordsButton = words;
    this.allWords = node("ul", "all-values");
    this.allWords.hidden = true;
    const head = node("div", "legend-head");
    const ask = node("p");
    ask.append(this.legendTitle, " ", this.legendQuestion);
    head.append(ask, words);
    box.append(head, this.legendWords, this.allWords);
    return box;
  },

  show(item, kept) {
    this.count = item.completions.length;
    this.values = {};
    for (const { name } of this.criteria) {
      const before = (kept.ratings || {})[name] || [];
      this.values[name] = item.completions.map((_, index) => before[index] ?? null);
    }
    item.completions.forEach((_, index) => {
      const rows = this.criteria.map((_, at) => this.buildRow(index, at));
      const box = node("div", "rubric");
      box.append(...rows);
      part("task", cardOf(index)).replaceChildren(box);
    });
    this.looked = null; // the value under the pointer or the focus
    this.at = this.firstMissing() || { index: 0, at: 0 };
    this.refresh();
  },

  // ---- one criterion of one completion --------------------------------------------------------

  buildRow(index, at) {
    const criterion = this.criteria[at];
    const row = node("div", "criterion");
    Object.assign(row.dataset, { index, at });
    const ask = node("div", "ask");
    ask.append(node("strong", "", criterion.title), node("span", "question", criterion.question));
    const jump = buttonOf("", {});
    jump.className = "jump";
    jump.addEventListener("click", () => this.goTo({ index, at }, false));
    row.append(ask, this.buildValues(index, at), jump);
    row.addEventListener("focusin", () => { if (!this.isAt(index, at)) this.goTo({ index, at }, false); });
    return row;
  },

  // The buttons, as radio buttons are: one stop for Tab, and the chosen one is said to be checked.
  buildValues(index, at, rated) {
    const criterion = this.criteria[at];
    const box = node("div", "scale-of");
    const group = node("div", "values");
    group.tabIndex = -1; // takes the focus when its place becomes the current one
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", criterion.title + " of completion " + LETTERS[index]);
    group.setAttribute("aria-description", criterion.question);
    group.addEventListener("keydown", (event) => this.saveOnEnter(event));
    for (let value = criterion.low; value <= criterion.high; value++)
      group.append(this.buildValue(index, at, value, rated));
    const ends = node("div", "ends");
    ends.append(node("span", "", criterion.anchors[criterion.low] || ""), node("span", "", criterion.anchors[criterion.high] || ""));
    box.append(group, ends);
    return box;
  },

  buildValue(index, at, value, rated) {
    const words = this.criteria[at].anchors[value];
    const key = digitFor(this.criteria[at], value);
    const button = buttonOf(String(value), { value }, key === String(value) ? "" : key);
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", words ? value + ": " + words : String(value));
    button.addEventListener("click", () => {
      this.rate(index, at, value);
      if (rated) rated();
      else this.goTo({ index, at }, false);
    });
    const look = (on) => () => { this.looked = on ? { index, at, value } : null; this.showLegend(); };
    for (const name of ["pointerenter", "focus"]) button.addEventListener(name, look(true));
    for (const name of ["pointerleave", "blur"]) button.addEventListener(name, look(false));
    return button;
  },

  // ---- rating and moving ------------------------------------------------------------------------

  rate(index, at, value) {
    this.values[this.criteria[at].name][index] = value;
    this.refresh();
    changed();
  },

  isAt(index, at) {
    return this.at.index === index && this.at.at === at;
  },

  // Makes a place the current one; with `focus` the keyboard (and what reads aloud) goes with it.
  goTo(place, focus) {
    const isOther = place.index !== this.at.index;
    this.at = place;
    this.refresh();
    const row = this.rowAt(place);
    const isInBar = this.groupOf(row).closest(".big-row"); // a phone: the texts are read above it
    if (!isInBar) row.scrollIntoView({ block: "nearest" });
    else if (isOther) bringUp(cardOf(place.index));
    if (focus) this.groupOf(row).focus({ preventScroll: true });
  },

  rowAt({ index, at }) {
    return root.querySelector('.criterion[data-index="' + index + '"][data-at="' + at + '"]');
  },

  // The buttons that are on screen: in the card, or on a phone in the bar.
  groupOf(row) {
    const inCard = row.querySelector(".values");
    return inCard.offsetParent ? inCard : this.big.querySelector(".values");
  },

  step(by, focus) {
    const last = this.count * this.criteria.length - 1;
    const now = this.at.index * this.criteria.length + this.at.at;
    const next = Math.min(Math.max(now + by, 0), last);
    this.goTo({ index: Math.floor(next / this.criteria.length), at: next % this.criteria.length }, focus);
  },

  // Looks at the next value of the current criterion, without choosing it: Space does that.
  look(by) {
    const radios = all('[role="radio"]', this.groupOf(this.rowAt(this.at)));
    const now = radios.indexOf(document.activeElement);
    const next = now < 0 ? radios.findIndex((radio) => radio.tabIndex === 0) : now + by;
    radios[Math.min(Math.max(next, 0), radios.length - 1)].focus({ preventScroll: true });
  },

  firstMissing() {
    for (let index = 0; index < this.count; index++)
      for (let at = 0; at < this.criteria.length; at++)
        if (this.values[this.criteria[at].name][index] === null) return { index, at };
    return null;
  },

  // As in a form: Space chooses the radio button that has the focus, Enter sends all of it.
  saveOnEnter(event) {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    source = "key Enter";
    if (!event.repeat) submitAnswer();
  },

  onKey(key, event) {
    const value = valueFor(this.criteria[this.at.at], key);
    const index = completionOf(key, event, this.count);
    if (value !== null) { this.rate(this.at.index, this.at.at, value); this.step(1, true); }
    else if (key === "ArrowDown") this.step(1, true);
    else if (key === "ArrowUp") this.step(-1, true);
    else if (key === "ArrowRight") this.look(1);
    else if (key === "ArrowLeft") this.look(-1);
    else if (index >= 0) this.goTo({ index, at: 0 }, true);
    else return false;
    return true;
  },

  // ---- showing ----------------------------------------------------------------------------------

  refresh() {
    for (const row of all(".criterion")) this.showRow(row, Number(row.dataset.index), Number(row.dataset.at));
    for (let index = 0; index < this.count; index++) cardOf(index).classList.toggle("now", index === this.at.index);
    const numRated = Object.values(this.values).flat().filter((value) => value !== null).length;
    const total = this.count * this.criteria.length;
    this.tally.textContent = numRated + " of " + total + " rated";
    this.tally.classList.toggle("whole", numRated === total);
    this.showBig();
    this.showLegend();
  },

  showRow(row, index, at) {
    const value = this.values[this.criteria[at].name][index];
    row.classList.toggle("now", this.isAt(index, at));
    row.classList.toggle("rated", value !== null);
    this.check(row, value);
    const jump = row.querySelector(".jump");
    jump.replaceChildren(node("span", "", this.criteria[at].title), node("strong", "", value === null ? "\u2013" : String(value)));
    jump.setAttribute("aria-label", this.nameOf({ index, at }) + ": " + (value === null ? "not rated" : value));
  },

  check(box, value) {
    const radios = all('[role="radio"]', box);
    for (const radio of radios) {
      const isChosen = value !== null && Number(radio.dataset.value) === value;
      radio.setAttribute("aria-checked", String(isChosen));
      radio.tabIndex = isChosen || (value === null && radio === radios[0]) ? 0 : -1;
    }
  },

  // On a phone: the current place alone, with big buttons, in the bar below the completions.
  showBig() {
    const { index, at } = this.at;
    if (this.big.dataset.place !== index + " " + at || !this.big.isConnected) {
      this.big.dataset.place = index + " " + at;
      this.big.replaceChildren(this.buildValues(index, at, () => this.step(1, false)));
    }
    this.check(this.big, this.values[this.criteria[at].name][index]);
  },

  showLegend() {
    const { index, at } = this.looked || this.at;
    const criterion = this.criteria[at];
    const value = this.looked ? this.looked.value : this.values[criterion.name][index];
    this.legendTitle.textContent = this.nameOf({ index, at });
    this.legendQuestion.textContent = criterion.question;
    this.legendWords.replaceChildren(...wordsAround(criterion, value));
    this.legendWords.classList.toggle("both-ends", value === null);
    if (!this.allWords.hidden) this.showAllWords(true);
  },

  nameOf({ index, at }) {
    return LETTERS[index] + " \u00b7 " + this.criteria[at].title;
  },

  showAllWords(on) {
    const criterion = this.criteria[this.at.at];
    this.allWords.hidden = !on;
    this.allWordsButton.setAttribute("aria-expanded", String(on));
    const rows = namedValues(criterion).map((value) => {
      const row = node("li");
      row.append(...wordsOfValue(criterion, value));
      return row;
    });
    this.allWords.replaceChildren(...rows);
  },

  // ---- what is sent -----------------------------------------------------------------------------

  state() {
    return { ratings: this.values };
  },

  answer() {
    const missing = this.firstMissing();
    if (!missing) return { ratings: this.values };
    const left = Object.values(this.values).flat().filter((value) => value === null).length;
    this.goTo(missing, true);
    const more = left > 1 ? ", and " + (left - 1) + " more" : "";
    throw new Incomplete("Not rated yet: " + this.criteria[missing.at].title + " of completion " + LETTERS[missing.index] + more);
  },

  get help() {
    const one = this.criteria[this.at.at];
    return [
      [digitFor(one, one.low) + " to " + digitFor(one, one.high), "rate the marked criterion, and go to the next"],
      ["\u2191 \u2193", "criterion before, criterion after"],
      ["\u2190 \u2192", "read the words of each value; Space chooses it"],
      ...lettersHelp(this.count, "go to that completion"),
      ["Enter", "save, when all are rated"],
    ];
  },
};
