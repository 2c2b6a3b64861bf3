// The leads' page: which campaign, which tab, when it is asked again. A tab is a script that does
//   tabs.NAME = { show(panel, campaign, detail) async, hide(), refresh(panel, campaign, detail) }
// `show` fills the panel; `refresh`, where there is one, is called every REFRESH_MS while the page
// is looked at and must change only what changed (see `morph`); both may answer with the age of
// what they show, in seconds. `detail` is what stands behind the
// tab in the address: #raters/ada shows the tab "raters" with detail "ada".

const API = "/api/lead/";
const REQUEST_TIMEOUT_MS = 60000;
const REFRESH_MS = 15000;

const root = element.querySelector(".lead");
const part = (name, within) => (within || root).querySelector('[data-part="' + name + '"]');
const tabs = {};

let campaigns = [];
let campaign = null; // the name of the one shown
let tab = null;
let detail = "";
let updatedAt = 0;
let askedAt = 0;
let asking = false;
let turn = 0; // counts what was opened: an answer that comes after the next opening is dropped

// ---- talking to the server ------------------------------------------------------------------

class Refused extends Error {}
class Unreachable extends Error {}

// GET /api/lead/PATH with `values` as its query; the JSON that came back.
function read(path, values) {
  const kept = Object.entries(values || {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return request(path + (query ? "?" + query : ""), { method: "GET" });
}

// POST (or another `method`) of `body` to /api/lead/PATH; the JSON that came back.
function send(path, body, method) {
  const headers = { "content-type": "application/json" };
  return request(path, { method: method || "POST", headers, body: JSON.stringify(body) });
}

async function request(path, options) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), REQUEST_TIMEOUT_MS);
  let reply;
  let data;
  try {
    reply = await fetch(API + path, { ...options, signal: stop.signal, cache: "no-store" });
    data = await reply.json();
  } catch (error) {
    throw new Unreachable("the server does not answer");
  } finally {
    clearTimeout(timer);
  }
  if (reply.ok) return data;
  if (reply.status === 401) throw new Unreachable("you are signed out; sign in again in another tab, then try again");
  const words = data.error || data.detail;
  if (reply.status >= 500) throw new Unreachable(typeof words === "string" ? words : "the server failed");
  throw new Refused(typeof words === "string" ? words : "the server refused it");
}

// ---- building and changing the page ---------------------------------------------------------

// build("p", { class: "soft", "data-key": "x" }, "text", otherNode, null): null is left out.
// A function as a value is an event listener: build("button", { onclick: save }, "Save").
function build(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

// Makes `old` look like `fresh` by touching only what differs: focus, selection, scroll and what a
// reader opened stay. Elements are told apart by data-key; inside [data-keep] nothing is touched.
// Listeners are not carried over: use one listener on the panel (data-do) where morph is used.
function morph(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes]; // taken now: nodes that are put in place leave `fresh`
  after.forEach((next, index) => {
    const was = before[index];
    if (!was) old.append(next);
    else if (!isAlike(was, next)) was.replaceWith(next);
    else if (was.nodeType === Node.TEXT_NODE) { if (was.data !== next.data) was.data = next.data; }
    else { copyAttributes(was, next); if (!was.hasAttribute("data-keep")) morph(was, next); }
  });
  for (const left of before.slice(after.length)) left.remove();
}

function isAlike(one, other) {
  if (one.nodeName !== other.nodeName) return false;
  return one.nodeType !== Node.ELEMENT_NODE || one.dataset.key === other.dataset.key;
}

function copyAttributes(was, next) {
  const kept = was.hasAttribute("data-keep") ? ["open", "style"] : ["open"];
  for (const { name } of [...was.attributes])
    if (!next.hasAttribute(name) && !kept.includes(name)) was.removeAttribute(name);
  for (const { name, value } of next.attributes)
    if (was.getAttribute(name) !== value) was.setAttribute(name, value);
}

// A panel's only child is its content; the first time it is put in, later it is morphed.
function fill(panel, ...children) {
  const fresh = build("div", { class: "content" }, ...children);
  if (panel.firstElementChild && panel.firstElementChild.className === "content") morph(panel.firstElementChild, fresh);
  else panel.replaceChildren(fresh);
}

// What a tab shows when there is nothing to show: a heading and a sentence that says what to do.
function emptyBox(title, text, ...more) {
  return build("div", { class: "empty" }, build("h2", {}, title), build("p", {}, text), ...more);
}

function simulatedChip(words) {
  return build("span", { class: "chip simulated" }, words || "simulated");
}

// A date as text: "today 14:05", "yesterday 09:00", "12 Mar 14:05", "12 Mar 2024 14:05".
function timeWords(iso) {
  const date = new Date(iso);
  const now = new Date();
  const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const days = Math.round((new Date(now.toDateString()) - new Date(date.toDateString())) / 86400000);
  if (days === 0) return "today " + clock;
  if (days === 1) return "yesterday " + clock;
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year }) + " " + clock;
}

function secondsWords(seconds) {
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 90) return Math.round(seconds) + " s";
  return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
}

// Says something once, in the notice line (a failure) or to screen readers alone (`say`).
function showNotice(words, canRetry) {
  part("notice").hidden = false;
  if (part("notice-text").textContent !== words) part("notice-text").textContent = words;
  part("retry").hidden = !canRetry;
}

function hideNotice() {
  part("notice").hidden = true;
}

function say(words) {
  part("said").textContent = words;
}

// ---- which tab, which campaign --------------------------------------------------------------

// Opens a tab (with a detail) as if it had been chosen; the address follows, so that back works.
function go(name, about) {
  const address = linkTo(name, about);
  if (location.hash !== new URL(address, location.href).hash) history.pushState(null, "", address);
  open();
}

// The address of a tab, for a link: <a href=...> works by mouse, keys, and in a new window.
// Whole, since the page has a <base>: "#raters" alone would lead away from this campaign.
function linkTo(name, about) {
  return location.pathname + location.search + "#" + name + (about ? "/" + encodeURIComponent(about) : "");
}

function place() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  if (!Object.hasOwn(tabs, name)) return [Object.keys(tabs)[0], ""];
  try {
    return [name, decodeURIComponent(rest.join("/"))];
  } catch (error) {
    return [name, ""]; // an address that somebody mistyped
  }
}

async function open() {
  const [name, about] = place();
  const before = tab;
  const moved = before !== null && (before !== name || detail !== about);
  if (before && before !== name && tabs[before].hide) tabs[before].hide();
  tab = name;
  detail = about;
  for (const button of part("tabs").children) {
    const isChosen = button.dataset.tab === name;
    button.setAttribute("aria-selected", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
    if (isChosen && before !== name) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  for (const panel of part("panels").children) panel.hidden = panel.dataset.panel !== name;
  document.title = part("tabs").querySelector('[data-tab="' + name + '"]').textContent + (campaign ? ": " + titleOf(campaign) : "");
  await ask("show");
  // A link that was followed is gone with what it stood in: go on at the top of what it led to.
  if (!moved || tab !== name) return;
  window.scrollTo(0, 0);
  const lost = document.activeElement === document.body || !document.activeElement;
  if (lost) root.querySelector('[data-panel="' + name + '"]').focus({ preventScroll: true });
}

// The campaign that is chosen now: an answer about another one that comes late is not shown.
const chosen = () => campaign;

function titleOf(name) {
  const found = campaigns.find((each) => each.name === name);
  return found ? found.title : name;
}

// Lets the open tab show itself, or refresh; what fails is said and can be tried again.
async function ask(what) {
  const mine = ++turn;
  asking = true;
  askedAt = Date.now();
  root.dataset.state = "asking";
  try {
    const panel = root.querySelector('[data-panel="' + tab + '"]');
    const age = await (tabs[tab][what] || tabs[tab].show).call(tabs[tab], panel, campaign, detail);
    if (mine === turn) { hideNotice(); updatedAt = Date.now() - 1000 * (typeof age === "number" ? age : 0); root.dataset.state = "shown"; }
  } catch (error) {
    if (mine !== turn) return;
    root.dataset.state = "failed";
    if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error);
    showNotice("Not up to date: " + error.message + ".", true);
  } finally {
    if (mine === turn) { asking = false; tellAge(); }
  }
}

function choose(name) {
  campaign = name;
  const address = new URL(location.href);
  address.searchParams.set("campaign", name);
  history.replaceState(null, "", address);
  const found = campaigns.find((each) => each.name === name);
  part("paused").hidden = !(found && found.paused);
  for (const panel of part("panels").children) panel.replaceChildren();
}

// Asks which campaigns there are; tabs that make or change one call this, perhaps with its name.
async function loadCampaigns(wanted) {
  const found = await read("shell");
  campaigns = found.campaigns;
  part("campaign").replaceChildren(...campaigns.map((each) =>
    build("option", { value: each.name }, each.title + (each.title === each.name ? "" : " (" + each.name + ")"))));
  part("chooser").hidden = campaigns.length === 0;
  const names = campaigns.map((each) => each.name);
  const asked = wanted || new URL(location.href).searchParams.get("campaign");
  const name = names.includes(asked) ? asked : names.includes(campaign) ? campaign : names[0];
  if (name !== undefined) { if (name !== campaign) choose(name); part("campaign").value = name; }
  return campaigns;
}

// ---- refreshing by itself -------------------------------------------------------------------

function tellAge() {
  const words = updatedAt ? "updated " + ageWords(Date.now() - updatedAt) + " ago" : "";
  const text = tab && tabs[tab].refresh ? words : "";
  if (part("updated").textContent !== text) part("updated").textContent = text;
}

function ageWords(age) {
  const seconds = Math.floor(age / 1000);
  return seconds < 60 ? seconds + " s" : seconds < 3600 ? Math.floor(seconds / 60) + " min" : Math.floor(seconds / 3600) + " h";
}

function tick() {
  if (!root.isConnected) return clearInterval(ticking);
  tellAge();
  const due = Date.now() - askedAt >= REFRESH_MS;
  if (document.hidden || asking || !due || !tab || !tabs[tab].refresh || !campaign) return;
  ask("refresh");
}

const ticking = setInterval(tick, 1000);

// ---- starting -------------------------------------------------------------------------------

part("campaign").addEventListener("change", () => {
  choose(part("campaign").value);
  history.replaceState(null, "", location.pathname + location.search + "#" + tab);
  open();
});
part("tabs").addEventListener("click", (event) => {
  const button = event.target.closest("[data-tab]");
  if (button) go(button.dataset.tab);
});
part("tabs").addEventListener("keydown", (event) => {
  const buttons = [...part("tabs").children];
  const at = buttons.indexOf(event.target);
  const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 };
  if (at < 0 || !Object.hasOwn(steps, event.key)) return;
  event.preventDefault();
  const next = buttons[(steps[event.key] + buttons.length) % buttons.length];
  next.focus();
  go(next.dataset.tab);
});
part("retry").addEventListener("click", () => start());
window.addEventListener("hashchange", () => { if (root.isConnected) open(); });
document.addEventListener("visibilitychange", tick);

async function start() {
  try {
    await loadCampaigns();
  } catch (error) {
    root.dataset.state = "failed";
    return showNotice("Not loaded: " + error.message + ".", true);
  }
  await open();
}
