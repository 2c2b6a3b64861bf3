// Talking to the server: every answer is data, or an error that says what a person can do.

const API = "/api/";
const REQUEST_TIMEOUT_MS = 15000;

class Refused extends Error {}
class Unreachable extends Error {}
class SignedOut extends Unreachable {}

// The campaign in the page's address; without one the server takes the only one there is.
const campaign = new URLSearchParams(window.location.search).get("campaign");

function addressOf(path, query) {
  const values = new URLSearchParams(query);
  if (campaign !== null) values.set("campaign", campaign);
  const text = String(values);
  return API + path + (text ? "?" + text : "");
}

async function call(path, body, query) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), REQUEST_TIMEOUT_MS);
  let reply;
  let data;
  try {
    reply = await fetch(body ? API + path : addressOf(path, query), {
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json" } : {},
      body: body ? JSON.stringify(body) : undefined,
      signal: stop.signal,
      cache: "no-store",
    });
    data = await reply.json();
  } catch (error) {
    throw new Unreachable("the server does not answer");
  } finally {
    clearTimeout(timer);
  }
  if (reply.ok) return data;
  if (reply.status === 401) throw new SignedOut("you are signed out");
  if (reply.status >= 500) throw new Unreachable(data.error || "the server failed");
  throw new Refused(data.error || "the server refused it");
}
