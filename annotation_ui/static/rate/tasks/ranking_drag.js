// Dragging a completion to its rank, by mouse, pen or finger: between two ranks puts it there,
// onto one ties it. The ranks themselves are changed by tasks.ranking.

const DRAG_FROM_PX = 6; // less than this is a click
const BETWEEN_PX = 12; // so near the edge of a rank that is taken means beside it
const REACH_PX = 40; // further from every rank than this drops nowhere

const rankDrag = {
  now: null, // the drag under way

  start(event) {
    const item = event.target.closest(".item");
    if (!item || event.button || this.now) return;
    const stop = new AbortController();
    const on = (name, handler) => window.addEventListener(name, handler, { signal: stop.signal, capture: true });
    const ofPointer = (handler) => (other) => { if (other.pointerId === event.pointerId) handler(other); };
    on("pointermove", ofPointer((move) => this.moveTo(move.clientX, move.clientY)));
    on("pointerup", ofPointer(() => this.end(true)));
    on("pointercancel", ofPointer(() => this.end(false)));
    on("keydown", (press) => { if (press.key === "Escape") this.end(false); });
    this.now = { index: Number(item.dataset.index), item, x: event.clientX, y: event.clientY, ghost: null, aim: null, stop };
  },

  moveTo(x, y) {
    const drag = this.now;
    if (!drag.ghost && Math.hypot(x - drag.x, y - drag.y) < DRAG_FROM_PX) return;
    if (!drag.ghost) drag.ghost = this.ghostOf(drag.item);
    const left = x - drag.item.offsetWidth / 2;
    const top = y - drag.item.offsetHeight / 2;
    drag.ghost.style.transform = "translate(" + left + "px, " + top + "px)";
    drag.aim = this.aimAt(x, y, drag.index);
    this.showAim(drag.aim);
  },

  ghostOf(item) {
    const ghost = item.cloneNode(true);
    ghost.classList.add("ghost");
    ghost.style.width = item.offsetWidth + "px";
    ghost.setAttribute("aria-hidden", "true");
    ghost.tabIndex = -1;
    item.classList.add("away");
    root.append(ghost);
    return ghost;
  },

  // What a drop here would do: {rank} gives that rank, {above} goes in right below that one, {tray}
  // takes the rank away; null does nothing.
  aimAt(x, y, index) {
    if (farFrom(tasks.ranking.tray.getBoundingClientRect(), x, y) === 0) return { tray: true };
    const places = all(".slot", tasks.ranking.slots).map((slot) => {
      const box = slot.getBoundingClientRect();
      return { rank: Number(slot.dataset.rank), box, far: farFrom(box, x, y) };
    });
    const { rank, box, far } = places.reduce((near, one) => (one.far < near.far ? one : near));
    if (far > REACH_PX) return null;
    const isTaken = tasks.ranking.ranks.some((one, at) => at !== index && one === rank);
    if (!isTaken || isNarrow.matches) return { rank };
    if (y < box.top + BETWEEN_PX) return { above: rank - 1 };
    if (y > box.bottom - BETWEEN_PX) return { above: rank };
    return { rank };
  },

  showAim(aim) {
    const last = tasks.ranking.ranks.length;
    for (const slot of all(".slot", tasks.ranking.slots)) {
      const rank = Number(slot.dataset.rank);
      slot.classList.toggle("aim", aim?.rank === rank);
      slot.classList.toggle("before", aim?.above === rank - 1);
      slot.classList.toggle("after", aim?.above === last && rank === last);
    }
    tasks.ranking.tray.classList.toggle("aim", Boolean(aim?.tray));
  },

  end(drops) {
    const { ghost, item, aim, index, stop } = this.now;
    stop.abort();
    this.now = null;
    if (!ghost) return;
    ghost.remove();
    item.classList.remove("away");
    this.showAim(null);
    if (drops && aim) tasks.ranking.drop(index, aim);
  },
};

// How far a point is from a box; 0 within it.
function farFrom(box, x, y) {
  return Math.max(box.left - x, 0, x - box.right) + Math.max(box.top - y, 0, y - box.bottom);
}
