// Seconds spent on an item: stands still while the tab is hidden or nobody moves for a minute.
const IDLE_AFTER_MS = @idle_ms;

class ActiveClock {
  constructor() {
    this.reset(0);
    const wake = () => this.touch();
    for (const name of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"])
      document.addEventListener(name, wake, { passive: true, capture: true });
    document.addEventListener("scroll", wake, { passive: true, capture: true });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.settle() : this.resume()));
  }
  reset(seconds) {
    this.counted = seconds * 1000;
    this.resume();
  }
  resume() {
    this.mark = this.lastInput = performance.now();
  }
  // Counts up to the last input plus the idle allowance, never while hidden.
  settle() {
    const now = performance.now();
    if (this.mark !== null) this.counted += Math.max(0, Math.min(now, this.lastInput + IDLE_AFTER_MS) - this.mark);
    this.mark = document.hidden ? null : now;
  }
  touch() {
    if (document.hidden) return;
    this.settle();
    this.mark = this.lastInput = performance.now();
  }
  seconds() {
    this.settle();
    return Math.round(this.counted) / 1000;
  }
}
