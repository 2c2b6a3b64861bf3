// Seconds spent on an item: stands still in a break, while the tab is hidden, or when nobody moves
// for a minute.
const IDLE_AFTER_MS = @idle_ms;

class ActiveClock {
  constructor() {
    this.isStopped = false;
    this.reset(0);
    listen(document, "keydown pointerdown pointermove wheel touchstart scroll", () => this.touch(), { passive: true, capture: true });
    listen(document, "visibilitychange", () => (this.isStill() ? this.settle() : this.resume()));
  }
  isStill() {
    return document.hidden || this.isStopped;
  }
  reset(seconds) {
    this.counted = seconds * 1000;
    this.resume();
  }
  resume() {
    this.mark = this.isStill() ? null : performance.now();
    this.lastInput = performance.now();
  }
  // Counts up to the last input plus the idle allowance, never while hidden or stopped.
  settle() {
    const now = performance.now();
    if (this.mark !== null) this.counted += Math.max(0, Math.min(now, this.lastInput + IDLE_AFTER_MS) - this.mark);
    this.mark = this.isStill() ? null : now;
  }
  touch() {
    if (this.isStill()) return;
    this.settle();
    this.mark = this.lastInput = performance.now();
  }
  stop() {
    this.settle();
    this.isStopped = true;
    this.mark = null;
  }
  start() {
    this.isStopped = false;
    this.resume();
  }
  // Whether somebody is at the page now.
  isActive() {
    return !this.isStill() && performance.now() - this.lastInput < IDLE_AFTER_MS;
  }
  seconds() {
    this.settle();
    return Math.round(this.counted) / 1000;
  }
}
