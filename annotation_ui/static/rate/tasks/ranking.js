// Two to nine completions put in order, ties allowed. Nothing is ranked at the start, so that the
// order on screen is never saved by accident. A rank may hold several; one left empty closes up.

// The ranks as they are saved: 1 is best, equal ones are tied, none is left out (1, 2, 2, 3).
function denseRanks(ranks) {
  const used = [...new Set(ranks)].sort((a, b) => a - b);
  return ranks.map((rank) => used.indexOf(rank) + 1);
}

// One gets a rank of its own right below rank `above`; others make room towards the nearest empty rank.
function insertRank(ranks, index, above) {
  const next = ranks.map((rank, at) => (at === index ? null : rank));
  const isFree = (rank) => !next.includes(rank);
  let below = above + 1;
  while (below <= ranks.length && !isFree(below)) below++;
  let over = above;
  while (over >= 1 && !isFree(over)) over--;
  const isDown = below <= ranks.length && (over < 1 || below - above - 1 <= above - over);
  const moved = next.map((rank) => {
    if (rank === null) return null;
    if (isDown) return rank > above && rank < below ? rank + 1 : rank;
    return rank <= above && rank > over ? rank - 1 : rank;
  });
  moved[index] = isDown ? above + 1 : above;
  return moved;
}

tasks.ranking = {
  build(form, controls) {
    this.tray = node("div", "tray");
    this.slots = node("div", "slots");
    this.line = node("p", "ranks-line");
    this.said = node("p", "out-of-sight");
    this.said.setAttribute("role", "status");
    const rule = node("p", "rule");
    const byKey = node("span", "mouse");
    byKey.append("Press a letter, then its rank: ", node("kbd", "", "A"), " ", node("kbd", "", "1"), ", 1 is best. Or drag: between two ranks for its own, onto one for a tie.");
    rule.append(byKey, node("span", "touch", "Tap a letter, then its rank: 1 is best. The same rank twice is a tie."));
    this.board = node("div", "board");
    this.board.append(rule, this.tray, this.slots, this.line, this.said);
    controls.replaceChildren(this.board);
    listen(isNarrow, "change", () => { if (this.ranks) this.refresh(); });
    listen(this.board, "pointerdown", (event) => rankDrag.start(event));
    listen(part("cards"), "focusin click", (event) => this.pickCardOf(event.target));
  },

  show(item, kept) {
    this.texts = item.completions.map((completion) => [...completion.raw.trim().slice(0, 180)].slice(0, 90).join(""));
    const count = this.texts.length;
    this.ranks = item.completions.map((_, index) => (kept.ranks || [])[index] ?? null);
    this.picked = Math.max(this.ranks.indexOf(null), 0);
    this.board.dataset.count = count;
    this.slots.replaceChildren(...this.ranks.map((_, index) => this.buildSlot(index + 1)));
    this.said.textContent = "";
    this.refresh();
  },

  buildSlot(rank) {
    const box = node("div", "slot");
    box.dataset.rank = rank;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Rank " + rank);
    const give = buttonOf(String(rank), { give: rank });
    give.className = "give";
    give.setAttribute("aria-label", "Give rank " + rank);
    give.append(node("span", "", rank === 1 ? "best" : ""));
    give.addEventListener("click", (event) => { letGoOfFocus(event); this.give(rank); });
    box.append(give, node("div", "held"));
    return box;
  },

  buildItem(index) {
    const rank = this.ranks[index];
    const button = buttonOf("", { index });
    button.className = "item";
    const start = node("span", "start");
    appendText(start, this.texts[index] || "(empty)");
    button.append(node("strong", "", LETTERS[index]), start);
    button.setAttribute("aria-label", LETTERS[index] + ", " + (rank ? "rank " + rank : "not ranked") + ": " + this.texts[index]);
    setPressed(button, index === this.picked);
    button.addEventListener("click", (event) => { letGoOfFocus(event); this.pick(index, true); });
    return button;
  },

  // ---- picking and ranking ----------------------------------------------------------------------

  pick(index, opens) {
    this.picked = index;
    this.refresh();
    if (opens) bringUp(cardOf(index));
  },

  pickCardOf(target) {
    const card = target.closest("[data-card]");
    if (!card || !this.ranks || Number(card.dataset.card) === this.picked) return;
    this.pick(Number(card.dataset.card), false);
  },

  give(rank) {
    const next = [...this.ranks];
    next[this.picked] = rank;
    this.put(next);
    this.pickNext();
  },

  put(ranks) {
    const before = this.ranks[this.picked];
    this.ranks = ranks;
    this.refresh();
    if (before !== null || ranks[this.picked] !== null) this.announce(this.picked);
    changed();
  },

  // The next one without a rank, so that digits alone rank all of them in turn.
  pickNext() {
    const count = this.ranks.length;
    for (let step = 1; step < count; step++) {
      const index = (this.picked + step) % count;
      if (this.ranks[index] !== null) continue;
      this.pick(index, true);
      return this.say(this.said.textContent + ". Next: " + LETTERS[index]);
    }
  },

  // Better (-1) or worse (1): out of a tie into a rank of its own, else past the neighbour.
  move(by) {
    const rank = this.ranks[this.picked];
    const others = this.ranks.filter((one, index) => one !== null && index !== this.picked);
    if (rank === null) return this.put(insertRank(this.ranks, this.picked, Math.max(0, ...others)));
    const isTied = others.includes(rank);
    const beyond = others.filter((other) => (by < 0 ? other < rank : other > rank));
    if (isTied) return this.put(insertRank(this.ranks, this.picked, by < 0 ? rank - 1 : rank));
    if (!beyond.length) return this.announce(this.picked);
    const neighbour = by < 0 ? Math.max(...beyond) : Math.min(...beyond);
    this.put(insertRank(this.ranks, this.picked, by < 0 ? neighbour - 1 : neighbour));
  },

  tieWithAbove() {
    const rank = this.ranks[this.picked] ?? Infinity;
    const above = this.ranks.filter((other, index) => other !== null && index !== this.picked && other < rank);
    if (!above.length) return this.say("There is none above " + LETTERS[this.picked] + " to tie it with");
    const next = [...this.ranks];
    next[this.picked] = Math.max(...above);
    this.put(next);
  },

  remove() {
    const next = [...this.ranks];
    next[this.picked] = null;
    this.put(next);
  },

  drop(index, aim) {
    this.picked = index;
    if (aim.tray) this.remove();
    else if (aim.rank) this.put(this.ranks.map((rank, at) => (at === index ? aim.rank : rank)));
    else this.put(insertRank(this.ranks, index, aim.above));
  },

  onKey(key, event) {
    const index = completionOf(key, event, this.ranks.length);
    const count = this.ranks.length;
    const rank = Number(key);
    if (index >= 0) this.pick(index, true);
    else if (/^[1-9]$/.test(key) && rank <= count) this.give(rank);
    else if (key === "ArrowLeft" || key === "ArrowRight") this.pick((this.picked + (key === "ArrowLeft" ? count - 1 : 1)) % count, true);
    else if (key === "ArrowUp" || key === "+") this.move(-1);
    else if (key === "ArrowDown" || key === "-") this.move(1);
    else if (key === "=") this.tieWithAbove();
    else if (["0", "Backspace", "Delete"].includes(key)) this.remove();
    else return false;
    return true;
  },

  // ---- showing ----------------------------------------------------------------------------------

  refresh() {
    const isCompact = isNarrow.matches;
    const items = this.ranks.map((_, index) => this.buildItem(index));
    const focused = document.activeElement?.closest?.(".board .item");
    this.tray.replaceChildren(...items.filter((_, index) => isCompact || this.ranks[index] === null));
    this.tray.dataset.empty = String(!this.tray.children.length);
    for (const slot of all(".slot", this.slots)) {
      const held = items.filter((_, index) => this.ranks[index] === Number(slot.dataset.rank));
      const letters = held.map((item) => LETTERS[item.dataset.index]).join(" ");
      slot.querySelector(".held").replaceChildren(...(isCompact ? [letters] : held));
      slot.classList.toggle("taken", held.length > 0);
    }
    if (focused) items[this.picked].focus({ preventScroll: true });
    this.ranks.forEach((rank, index) => this.showCard(index, rank));
    this.line.replaceChildren(...this.wordsOf());
  },

  showCard(index, rank) {
    const card = cardOf(index);
    card.classList.toggle("now", index === this.picked);
    const chip = part("rank", card) || node("span", "chip rank-chip");
    chip.dataset.part = "rank";
    chip.textContent = rank === null ? "not ranked" : "rank " + rank;
    if (!chip.isConnected) card.querySelector("h2").after(chip);
  },

  // The order so far in one line, with the ranks that would be saved.
  wordsOf() {
    const left = this.ranks.flatMap((rank, index) => (rank === null ? [LETTERS[index]] : []));
    const ranked = this.ranks.filter((rank) => rank !== null);
    const groups = [...new Set(ranked)].sort((a, b) => a - b).map((rank, at) => {
      const group = node("span", "group");
      const letters = [...LETTERS.slice(0, this.ranks.length)].filter((_, index) => this.ranks[index] === rank);
      group.append(node("b", "", String(at + 1)), letters.join(" = "));
      return group;
    });
    return left.length ? [...groups, node("span", "left", "Not ranked yet: " + left.join(", "))] : groups;
  },

  announce(index) {
    const rank = this.ranks[index];
    const tied = [...LETTERS].filter((_, at) => at !== index && at < this.ranks.length && this.ranks[at] === rank);
    const words = rank === null ? "not ranked" : "rank " + rank + (tied.length ? ", tied with " + tied.join(" and ") : "");
    this.say(LETTERS[index] + ": " + words);
  },

  say(words) {
    this.said.textContent = words;
  },

  // ---- what is sent -----------------------------------------------------------------------------

  state() {
    return { ranks: this.ranks };
  },

  answer() {
    const missing = this.ranks.indexOf(null);
    if (missing < 0) return { ranks: denseRanks(this.ranks) };
    const left = [...LETTERS].filter((_, index) => this.ranks[index] === null);
    this.pick(missing, true);
    throw new Incomplete("Not ranked yet: " + left.join(", "));
  },

  get help() {
    const count = this.ranks.length;
    return [
      ...lettersHelp(count, "pick a completion (also \u2190 \u2192)"),
      ["1 to " + count, "give it that rank, 1 best; the same rank ties. Empty ranks close up: 1, 2, 2, 3"],
      ["\u2191 \u2193", "move it up or down (also + and -)"],
      ["=", "tie it with the one above"],
      ["0", "take its rank away"],
      ["Enter", "save, when all are ranked"],
    ];
  },
};
