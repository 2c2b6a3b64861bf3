// What is not saved yet lives in the browser's storage, by campaign, annotator and item.
class Drafts {
  constructor(campaign, annotator) {
    this.prefix = "rlhf-draft " + JSON.stringify([campaign, annotator]) + " ";
  }
  read(item) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + item)) || {};
    } catch (error) {
      return {};
    }
  }
  write(item, draft) {
    try {
      localStorage.setItem(this.prefix + item, JSON.stringify(draft));
    } catch (error) {
      // Storage full or switched off: the page itself still holds the work.
    }
  }
  drop(item) {
    try {
      localStorage.removeItem(this.prefix + item);
    } catch (error) {
      // as above
    }
  }
}
