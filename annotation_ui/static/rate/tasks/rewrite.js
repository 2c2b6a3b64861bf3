// A better completion: one of those shown, mended, or one written from nothing.
tasks.rewrite = {
  build(form, controls) {
    this.editor = node("section", "editor");
    this.editor.setAttribute("aria-label", "Your completion");
    this.starts = node("div", "starts");
    this.starts.setAttribute("role", "group");
    this.starts.setAttribute("aria-label", "Start from");
    this.field = node("textarea");
    this.field.setAttribute("aria-label", "Your completion");
    this.field.setAttribute("aria-keyshortcuts", "Control+Enter");
    this.field.spellcheck = true;
    this.changes = node("div", "changes");
    this.changes.tabIndex = 0;
    this.changes.setAttribute("role", "region");
    this.changes.setAttribute("aria-label", "What you changed");
    this.count = node("span", "count-words");
    const fields = node("div", "fields");
    fields.append(this.field, this.changes);
    this.editor.append(this.starts, fields, this.buildDialog());
    part("cards").after(this.editor);
    this.asItIs = buttonOf("Good as it is", {}, "k");
    this.asItIs.addEventListener("click", () => this.keepAsItIs());
    part("task-extras").replaceChildren(this.asItIs, this.count);
    for (const button of all('[data-do="submit"] kbd')) button.textContent = "Ctrl Enter";
    listen(this.field, "input", () => { this.text = this.field.value; this.refresh(); changed(); });
    listen(this.field, "keydown", (event) => this.saveOnEnter(event));
  },

  buildDialog() {
    this.dialog = node("dialog");
    this.dialog.setAttribute("aria-label", "Throw away what you wrote?");
    this.throwAway = buttonOf("", {});
    this.throwAway.addEventListener("click", () => { this.dialog.close(); this.start(this.wanted); });
    const keep = buttonOf("Keep my text", { do: "close" }, "Esc");
    keep.autofocus = true;
    const row = node("div", "reasons");
    row.append(keep, this.throwAway);
    this.dialog.append(node("h2", "", "Throw away what you wrote?"), node("p", "", "It is not saved anywhere else."), row);
    return this.dialog;
  },

  show(item, kept) {
    this.sources = item.completions.map((completion) => completion.raw);
    this.isStarted = kept.rewrite !== undefined && kept.rewrite !== null;
    this.of = this.isStarted ? kept.rewrite_of ?? null : null;
    this.text = this.isStarted ? kept.rewrite : "";
    this.field.value = this.text;
    const choices = this.sources.map((_, index) => this.buildStart(index, LETTERS[index], LETTERS[index]));
    this.starts.replaceChildren(node("span", "label", "Start from"), ...choices, this.buildStart(null, "Write a new one", "w"));
    this.refresh();
  },

  buildStart(of, words, key) {
    const button = buttonOf(words, { start: of === null ? "new" : of }, of === null ? key : "");
    button.setAttribute("aria-keyshortcuts", key.toUpperCase());
    if (of !== null) button.setAttribute("aria-label", "Start from completion " + words);
    button.addEventListener("click", () => this.choose(of));
    return button;
  },

  // ---- starting, and starting again -------------------------------------------------------------

  // A field never holds a carriage return, so a source that has some is compared without them.
  sourceText(of) {
    return of === null ? "" : this.sources[of].replace(/\r\n?/g, "\n");
  },

  isUnchanged() {
    return this.of !== null && this.field.value === this.sourceText(this.of);
  },

  choose(of) {
    if (this.isStarted && this.of === of) return this.field.focus();
    const hasWork = this.isStarted && this.text.trim() !== "" && !this.isUnchanged();
    if (!hasWork) return this.start(of);
    this.wanted = of;
    this.throwAway.textContent = of === null ? "Start anew, with nothing" : "Start again from " + LETTERS[of];
    this.dialog.showModal();
  },

  start(of) {
    this.isStarted = true;
    this.of = of;
    this.text = this.field.value = this.sourceText(of);
    this.refresh();
    changed();
    this.field.focus();
    this.field.setSelectionRange(0, 0);
    this.field.scrollTop = 0;
  },

  keepAsItIs() {
    if (this.of !== null && this.isUnchanged()) this.isAccepted = true;
    submitAnswer();
    this.isAccepted = false;
  },

  // ---- keys -------------------------------------------------------------------------------------

  saveOnEnter(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    source = "key Enter";
    if (!event.repeat) submitAnswer();
  },

  onKey(key, event) {
    const of = completionOf(key, event, this.sources.length);
    if (of >= 0) this.choose(of);
    else if (key === "w") this.choose(null);
    else if (key === "k" && !this.asItIs.disabled) this.keepAsItIs();
    else return false;
    return true;
  },

  // ---- showing ----------------------------------------------------------------------------------

  refresh() {
    this.editor.dataset.started = String(this.isStarted);
    this.field.disabled = !this.isStarted;
    this.field.placeholder = this.isStarted ? "Write the completion that the model should have given" : "Choose above what to start from";
    for (const button of all("[data-start]", this.starts))
      setPressed(button, this.isStarted && button.dataset.start === String(this.of ?? "new"));
    this.sources.forEach((_, index) => cardOf(index).classList.toggle("now", this.isStarted && this.of === index));
    const number = countWords(this.field.value);
    this.count.textContent = number === 1 ? "1 word" : number + " words";
    this.asItIs.disabled = !this.isStarted || !this.isUnchanged() || !this.field.value.trim();
    this.fit();
    this.showChanges();
  },

  // Where the page scrolls as a whole, the field grows with its text; elsewhere it scrolls itself.
  fit() {
    this.field.style.height = "auto";
    const isGrowing = getComputedStyle(this.field).overflowY === "hidden";
    this.field.style.height = isGrowing ? this.field.scrollHeight + 2 + "px" : "";
  },

  showChanges() {
    const hint = (words) => this.changes.replaceChildren(node("p", "blank", words));
    if (!this.isStarted || this.of === null) return hint(this.isStarted ? "Nothing to compare with: this one is all yours" : "What you change shows here");
    if (this.isUnchanged()) return hint("Nothing changed yet");
    const box = node("div", "plain");
    for (const [text, kind] of wordChanges(this.sourceText(this.of), this.field.value)) {
      const piece = kind === "same" ? document.createDocumentFragment() : node(kind === "new" ? "ins" : "del");
      appendText(piece, text);
      box.append(piece);
    }
    this.changes.replaceChildren(box);
  },

  // ---- what is sent -----------------------------------------------------------------------------

  state() {
    return this.isStarted ? { rewrite: this.field.value, rewrite_of: this.of } : {};
  },

  answer() {
    if (!this.isStarted) throw new Incomplete("Nothing written yet: press the letter of a completion to start from it, or W for a new one");
    if (!this.field.value.trim()) throw new Incomplete("Nothing written yet", this.field);
    if (!this.isUnchanged()) return { rewrite: this.field.value, rewrite_of: this.of };
    if (!this.isAccepted) throw new Incomplete("Nothing changed: change it, choose \u201cGood as it is\u201d, or skip", this.field);
    return { rewrite: this.sources[this.of], rewrite_of: this.of }; // to the letter, as it was
  },

  get help() {
    return [
      ...lettersHelp(this.sources.length, "start from that completion, or go back to the text"),
      ["W", "write a new one"],
      ["Ctrl+Enter", "save, from within the text; Esc leaves the text"],
      ["K", "good as it is: save it unchanged"],
      ["Enter", "save, when outside the text"],
    ];
  },
};
