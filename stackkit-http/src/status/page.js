"use strict";
(() => {
  // As SILENCE_MAX of the server: without an event for so long the stream is lost.
  const SILENCE_MAX_MS = 30000;
  // Between two tries after the server refused; a stream that merely broke is opened again by the browser.
  const RETRY_MIN_MS = 2000;
  const RETRY_MAX_MS = 15000;
  const page = document.getElementById("page");
  const link = document.getElementById("link");
  const linkText = document.getElementById("link-text");
  // What the server's clock is ahead of this one, in milliseconds.
  let ahead = 0;
  let heardAt = Date.now();
  let retryMs = RETRY_MIN_MS;
  let stream = null;

  const span = (seconds) => {
    const pair = (whole, unit, rest, lesser) => `${whole} ${unit}` + (rest ? ` ${rest} ${lesser}` : "");
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return pair(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "min");
    return pair(Math.floor(seconds / 86400), "d", Math.floor((seconds % 86400) / 3600), "h");
  };
  const setText = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };
  const age = (root) => {
    const now = Date.now() + ahead;
    for (const time of root.querySelectorAll("time[data-age]")) {
      setText(time, span(Math.max(0, Math.floor((now - Date.parse(time.dateTime)) / 1000))));
    }
  };

  // Makes `shown` like `next` and keeps every node that can stay: focus, selection and scrolling stay with them.
  const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  const morph = (shown, next) => {
    if (shown.isEqualNode(next)) return;
    if (shown.nodeType !== Node.ELEMENT_NODE) {
      shown.nodeValue = next.nodeValue;
      return;
    }
    const turns = shown.classList.contains("row") && shown.classList[1] !== next.classList[1];
    if (turns || shown.classList.contains("turned")) next.classList.add("turned");
    for (const { name } of [...shown.attributes]) if (!next.hasAttribute(name)) shown.removeAttribute(name);
    for (const { name, value } of next.attributes) if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
    morphChildren(shown, next);
  };
  const morphChildren = (shown, next) => {
    const named = new Map([...shown.children].filter((child) => child.id).map((child) => [child.id, child]));
    let at = shown.firstChild;
    for (const wanted of [...next.childNodes]) {
      let match = wanted.id ? named.get(wanted.id) : at;
      if (match && isSame(match, wanted)) {
        if (match === at) at = at.nextSibling;
        else shown.insertBefore(match, at);
        morph(match, wanted);
      } else {
        shown.insertBefore(wanted, at);
      }
    }
    while (at) {
      const after = at.nextSibling;
      at.remove();
      at = after;
    }
  };

  const show = (html) => {
    const next = document.createElement("template");
    next.innerHTML = html;
    const told = next.content.querySelector("#overall");
    if (!told) return;
    ahead = Date.parse(told.dataset.now) - Date.now();
    age(next.content);
    morphChildren(page, next.content);
    const overall = document.getElementById("overall");
    const word = overall.querySelector("h1 span").textContent;
    const title = `${word} · ${overall.querySelector(".stack").textContent}`;
    if (document.title !== title) document.title = title;
    const icon = overall.dataset.icon;
    const favicon = document.getElementById("favicon");
    if (favicon.getAttribute("href") !== icon) favicon.setAttribute("href", icon);
  };

  page.addEventListener("animationend", (event) => event.target.classList.remove("turned"));

  const heard = () => {
    heardAt = Date.now();
    retryMs = RETRY_MIN_MS;
    link.className = "live";
    document.documentElement.classList.remove("lost-now");
    setText(linkText, "Live: what changes is shown at once.");
  };
  const lost = () => {
    if (link.className === "lost") return;
    link.className = "lost";
    document.documentElement.classList.add("lost-now");
    const seen = new Date(heardAt).toLocaleTimeString();
    setText(linkText, `Connection lost, last seen ${seen}. Trying again.`);
  };
  const open = () => {
    stream = new EventSource("status/events" + location.search);
    stream.onmessage = (event) => {
      show(event.data);
      heard();
    };
    stream.addEventListener("ping", heard);
    stream.onerror = () => {
      lost();
      if (stream.readyState === EventSource.CLOSED) again();
    };
  };
  const again = () => {
    stream.close();
    setTimeout(open, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
  };

  setInterval(() => {
    age(page);
    if (Date.now() - heardAt > SILENCE_MAX_MS && stream.readyState === EventSource.OPEN) {
      lost();
      again();
    }
  }, 1000);
  setText(linkText, "Connecting.");
  ahead = Date.parse(document.getElementById("overall").dataset.now) - Date.now();
  open();
})();
