// One phase at a time; without a script they all stand one after the other.
{
  const tabs = [...document.querySelectorAll(".tabs [role=tab]")];
  const panels = [...document.querySelectorAll("section.phase")];
  const choose = (index, byHand) => {
    panels.forEach((panel, each) => { panel.hidden = each !== index; });
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === index));
      tab.tabIndex = each === index ? 0 : -1;
    });
    if (byHand) address.set({ stage: panels[index].dataset.stage, zoom: null, at: null });
    dispatchEvent(new Event("phase"));
  };
  if (tabs.length > 1) {
    tabs[0].parentElement.hidden = false;
    panels.forEach((panel, index) => {
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tabs[index].id);
    });
    tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => choose(index, true));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = (index + step + tabs.length) % tabs.length;
        choose(next, true);
        tabs[next].focus();
      });
    });
    const asked = panels.findIndex((panel) => panel.dataset.stage === address.get("stage"));
    choose(Math.max(asked, 0), false);
  }
}

