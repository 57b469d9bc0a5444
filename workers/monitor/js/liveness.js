// Liveness: notices that nothing has come from the server for some seconds, says how old the page is, and takes no
// press meanwhile: one that waits in a dead connection would take effect when nobody expects it any more.
if (!window.sluiceHeard) {
  const STALE_MS = 4000; // the page is drawn each second
  const GRACE_MS = 3000; // a tab in the background is drawn less often: it is asked as soon as it is looked at
  const FIELDS = "button, input, textarea, select, label, [role=button], [role=option], [role=radio], [data-press]";
  const ACTS = ".sl-button, .stButton button, .stPopover button, [role=dialog] button";
  let heardAt = 0;
  let graceUntil = 0;
  let bar = null;

  window.sluiceHeard = () => {
    heardAt = Date.now();
    if (bar) fresh();
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) graceUntil = Date.now() + GRACE_MS;
  });
  for (const kind of ["pointerdown", "mousedown", "click", "keydown", "submit"]) {
    window.addEventListener(kind, hold, true);
  }
  setInterval(look, 500);

  function look() {
    const isLive = document.querySelector(".sl-as-of");
    const silent = Date.now() - heardAt;
    if (!heardAt || !isLive || document.hidden || Date.now() < graceUntil) return;
    if (silent >= STALE_MS) stale(Math.round(silent / 1000));
  }

  function stale(seconds) {
    if (!bar) {
      bar = document.createElement("div");
      bar.className = "sl-stale";
      bar.setAttribute("role", "alert");
      bar.innerHTML =
        '<b>No connection.</b> <span class="sl-stale-age" aria-hidden="true"></span> ' +
        "Nothing can be pressed until it is back.";
      document.body.append(bar);
      document.documentElement.dataset.sluiceStale = "yes";
    }
    bar.querySelector(".sl-stale-age").textContent = `This is as of ${said(seconds)} ago.`;
    for (const button of document.querySelectorAll(ACTS)) {
      if (button.disabled) continue;
      button.disabled = true;
      button.dataset.sluiceOff = "yes";
    }
  }

  function fresh() {
    bar.remove();
    bar = null;
    delete document.documentElement.dataset.sluiceStale;
    for (const button of document.querySelectorAll("button[data-sluice-off]")) {
      button.disabled = false;
      delete button.dataset.sluiceOff;
    }
  }

  function hold(event) {
    if (!bar || !event.target.closest?.(FIELDS)) return;
    if (event.type === "keydown" && !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  function said(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }
}

