"use strict";
// The reader's choice of theme: the system's until the button is pressed; `#theme=dark` in the address sets it too.
{
  const root = document.documentElement;
  const choices = ["system", "light", "dark"];
  const button = document.querySelector("header").appendChild(document.createElement("button"));
  button.className = "theme";
  button.type = "button";
  const choose = (theme) => {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = "theme: " + theme;
    button.dataset.theme = theme;
  };
  const asked = new URLSearchParams(location.hash.slice(1)).get("theme");
  choose(choices.includes(asked) ? asked : "system");
  button.addEventListener("click", () => choose(choices[(choices.indexOf(button.dataset.theme) + 1) % choices.length]));
}

