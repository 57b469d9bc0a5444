// A panel: shows the HTML it is given, and from then on changes only what has changed. So what a person has selected,
// focused, scrolled or opened stays as it is.
export default function ({ data, parentElement, setTriggerValue }) {
  let box = parentElement.querySelector(":scope > .sl-panel");
  if (!box) {
    box = document.createElement("div");
    box.className = "sl-panel stHtml";
    box.addEventListener("click", open);
    box.addEventListener("click", press);
    box.addEventListener("keydown", close);
    parentElement.append(box);
  }
  box.sluiceTell = setTriggerValue;
  const turn = (box.sluiceTurn = (box.sluiceTurn ?? 0) + 1);
  unpacked(data).then((html) => {
    if (turn !== box.sluiceTurn) return; // a later one came first
    show(box, html);
    hearEscape(box);
    if (box.querySelector(".sl-as-of")) window.sluiceHeard?.(); // the live part has come
  });
}

function unpacked(data) {
  return new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

function show(box, html) {
  const morph = window.sluiceMorph;
  if (!morph) {
    // It is on its way: until then what is shown stays, for somebody may have opened something in it.
    if (!box.firstChild) box.innerHTML = html;
    return;
  }
  morph(box, html, {
    morphStyle: "innerHTML",
    callbacks: {
      beforeNodeMorphed: (node, fresh) => !node.isEqualNode(fresh),
      // What a person has opened or closed is theirs.
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    },
  });
}

// A button with `data-press` tells its name.
function press(event) {
  const button = event.target.closest("button[data-press]");
  if (button) event.currentTarget.sluiceTell("press", button.dataset.press);
}

// A menu that is open closes at Escape.
function close(event) {
  const menu = event.key === "Escape" && event.target.closest("details.sl-pick[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
}

// A link with `data-escape` closes what it stands in: it has the focus once that is there, and Escape follows it, but
// not out of a field, where Escape has a meaning of its own.
function hearEscape(box) {
  const link = box.querySelector("a[data-escape]");
  if (!link || box.dataset.hears) return;
  box.dataset.hears = "Escape";
  link.focus();
  document.addEventListener("keydown", function follow(event) {
    if (!box.isConnected) document.removeEventListener("keydown", follow);
    else if (event.key === "Escape" && !event.target.closest("input, textarea, [role]")) link.click();
  });
}

// A plain click on a link to one of our pages opens it as the browser's own Back and Forward do: without loading it
// anew, and with one entry in the history. Any other click is the browser's.
function open(event) {
  const link = event.target.closest("a[data-page]");
  const plain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (!link || !plain || event.defaultPrevented) return;
  event.preventDefault();
  history.pushState({}, "", link.href);
  window.dispatchEvent(new PopStateEvent("popstate"));
}
