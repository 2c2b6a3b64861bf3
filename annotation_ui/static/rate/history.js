// The rater's own judgements: the last few beside the work, the last fifty in a dialog with search.

function showHistory(list, history) {
  const rows = history.map(historyRow);
  list.replaceChildren(...(rows.length ? rows : [node("li", "none", "None yet")]));
}

function historyRow(entry) {
  const row = node("li");
  row.append(node("span", "words", entry.words), node("span", "excerpt", entry.prompt));
  const change = buttonOf("Change", { do: "change", id: entry.id });
  change.className = "quiet";
  change.setAttribute("aria-label", "Change: " + entry.words + ", " + entry.prompt);
  row.append(change);
  return row;
}

function openHistory() {
  if (!view) return;
  part("history-search").value = "";
  part("history-dialog").showModal();
  searchHistory();
}

const SEARCH_AFTER_MS = 150; // after the last letter
let historyTimer = 0;
let historyCall = 0; // only the answer to the last question is shown

async function searchHistory() {
  const number = ++historyCall;
  try {
    const found = await call("history", null, { search: part("history-search").value });
    if (number !== historyCall || letGo.aborted) return;
    showHistory(part("history-all"), found.history);
    part("history-note").textContent = found.note;
  } catch (error) {
    part("history-note").textContent = "Not loaded: " + error.message + ".";
  }
}
