
// All panels use it from here, so that it is sent once.
window.sluiceMorph = Idiomorph.morph;

// On a narrow screen the menu is a drawer: it closes after a choice.
if (!window.sluiceDrawer) {
  window.sluiceDrawer = true;
  document.addEventListener("click", (event) => {
    if (!event.target.closest('[data-testid="stSidebarNavLink"]') || window.innerWidth > 768) return;
    setTimeout(() => document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click(), 100);
  });
}

export default function () {}
