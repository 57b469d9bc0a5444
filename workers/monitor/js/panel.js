// A panel: shows HTML, and from then on changes only what differs. So what a person has selected, focused, scrolled or
// opened stays as it is.
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
  box.sluiceSend = setTriggerValue;
  const turn = (box.sluiceTurn = (box.sluiceTurn ?? 0) + 1);
  unpacked(data).then((html) => {
    if (turn !== box.sluiceTurn) return; // a later one arrived first
    show(box, html);
    listenForEscape(box);
    if (box.querySelector(".sl-as-of")) window.sluiceHeard?.(); // the live part has arrived
  });
}

function unpacked(data) {
  return new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

function show(box, html) {
  const morph = window.sluiceMorph;
  if (!morph) {
    // It is still loading: until then the content stays, because the viewer can have opened a part of it.
    if (!box.firstChild) box.innerHTML = html;
    return;
  }
  morph(box, html, {
    morphStyle: "innerHTML",
    callbacks: {
      beforeNodeMorphed: (node, fresh) => !node.isEqualNode(fresh),
      // The viewer decides what is open or closed.
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    },
  });
}

// A button with `data-press` sends its name.
function press(event) {
  const button = event.target.closest("button[data-press]");
  if (button) event.currentTarget.sluiceSend("press", button.dataset.press);
}

// A menu that is open closes at Escape.
function close(event) {
  const menu = event.key === "Escape" && event.target.closest("details.sl-pick[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
}

// A link with `data-escape` closes the form around it: it gets the focus, and Escape follows it, but not from a field,
// where Escape has another meaning.
function listenForEscape(box) {
  const link = box.querySelector("a[data-escape]");
  if (!link || box.dataset.listens) return;
  box.dataset.listens = "Escape";
  link.focus();
  document.addEventListener("keydown", function follow(event) {
    if (!box.isConnected) document.removeEventListener("keydown", follow);
    else if (event.key === "Escape" && !event.target.closest("input, textarea, [role]")) link.click();
  });
}

// A plain click on a link to a page opens it as the browser's Back and Forward do: without a full load, and with one
// entry in the history. The browser handles any other click.
function open(event) {
  const link = event.target.closest("a[data-page]");
  const plain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
  if (!link || !plain || event.defaultPrevented) return;
  event.preventDefault();
  history.pushState({}, "", link.href);
  window.dispatchEvent(new PopStateEvent("popstate"));
}
