// What is not saved yet lives in the browser's storage, by campaign, annotator and item.
// Storage may be full or switched off: then the page itself still holds the work.
function keptText(key) {
  try {
    return localStorage.getItem(key);
  } catch (error) {
    return null;
  }
}

function keepText(key, text) {
  try {
    if (text === null) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch (error) {
    // as above
  }
}

class Drafts {
  constructor(campaign, annotator) {
    this.prefix = "rlhf-draft " + JSON.stringify([campaign, annotator]) + " ";
  }
  read(item) {
    try {
      return JSON.parse(keptText(this.prefix + item)) || {};
    } catch (error) {
      return {};
    }
  }
  write(item, draft) {
    keepText(this.prefix + item, JSON.stringify(draft));
  }
  drop(item) {
    keepText(this.prefix + item, null);
  }
}
