// Detects that the server has sent nothing for some seconds, shows how old the page is, and blocks presses meanwhile:
// one that waits in a dead connection would take effect at an unexpected time. The name `sluiceHeard` must not change:
// in a tab that stays open while the monitor is upgraded, panels call the function that is there.
if (!window.sluiceHeard) {
  const STALE_MS = 4000; // the page is drawn each second
  const GRACE_MS = 3000; // a tab in the background is drawn less often; give it time when it becomes visible
  const FIELDS = "button, input, textarea, select, label, [role=button], [role=option], [role=radio], [data-press]";
  const ACTS = ".sl-button, .stButton button, .stPopover button, [role=dialog] button";
  let tickAt = document.querySelector(".sl-as-of") ? Date.now() : 0; // the first tick can come before this code
  let graceUntil = 0;
  let bar = null;

  window.sluiceHeard = () => {
    tickAt = Date.now();
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
    const silent = Date.now() - tickAt;
    if (!tickAt || !isLive || document.hidden || Date.now() < graceUntil) return;
    if (silent >= STALE_MS) stale(Math.round(silent / 1000));
  }

  function stale(seconds) {
    if (!bar) {
      bar = document.createElement("div");
      bar.className = "sl-stale";
      bar.setAttribute("role", "alert");
      bar.innerHTML =
        '<b>No connection.</b> <span class="sl-stale-age" aria-hidden="true"></span> ' +
        "Buttons are off until it is back.";
      document.body.append(bar);
      document.documentElement.dataset.sluiceStale = "yes";
    }
    bar.querySelector(".sl-stale-age").textContent = `Last update ${duration(seconds)} ago.`;
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

  function duration(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }
}

