
// Every panel finds it here, so that it is sent once and not with each of them.
window.sluiceMorph = Idiomorph.morph;

// On a narrow screen the pages stand in a drawer: who has chosen one wants to see it.
if (!window.sluiceDrawer) {
  window.sluiceDrawer = true;
  document.addEventListener("click", (event) => {
    if (!event.target.closest('[data-testid="stSidebarNavLink"]') || window.innerWidth > 768) return;
    setTimeout(() => document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click(), 100);
  });
}

export default function () {}
