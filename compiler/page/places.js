// Whom a rank works with: the cells of its groups are marked, and the line below names all of them.
for (const figure of document.querySelectorAll("figure.places")) {
  const [tensor, context, data, pipeline, zero, perNode] = figure.dataset.sizes.split(" ").map(Number);
  const axes = [["tensor", "T", tensor, 1], ["context", "C", context, tensor], ["data", "D", data, tensor * context],
    ["pipeline", "P", pipeline, tensor * context * data]];
  const cells = [...figure.querySelectorAll(".cell")];
  const byRank = new Map(cells.map((cell) => [Number(cell.dataset.rank), cell]));
  const told = figure.querySelector(".told");
  const number = (value) => value.toLocaleString("en");
  const few = (ranks) => (ranks.length <= 8 ? ranks.map(number) : [...ranks.slice(0, 3).map(number), "…", number(ranks.at(-1))]).join(", ");

  const clear = () => {
    for (const cell of cells) { cell.classList.remove("me", "with"); delete cell.dataset.with; }
  };
  const show = (rank) => {
    clear();
    byRank.get(rank).classList.add("me");
    const said = [];
    for (const [name, letter, size, stride] of axes) {
      if (size === 1) continue;
      const own = Math.floor(rank / stride) % size;
      const members = Array.from({ length: size }, (_, place) => rank + (place - own) * stride);
      for (const member of members) {
        const cell = byRank.get(member);
        if (member !== rank && cell) { cell.classList.add("with"); cell.dataset.with = letter; }
      }
      const nodes = new Set(members.map((member) => Math.floor(member / perNode))).size;
      const links = nodes === 1 ? "inside the node" : "across " + number(nodes) + " nodes";
      said.push(`${name} ${own} of ${number(size)} (${letter}: ${few(members)}, ${links})`);
    }
    const node = Math.floor(rank / perNode);
    told.textContent = `rank ${number(rank)} on node ${number(node)}, device ${rank % perNode}: ` + (said.join("; ") || "alone");
  };
  const focusOn = (index) => {
    const next = cells[Math.min(Math.max(index, 0), cells.length - 1)];
    for (const cell of cells) cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  cells[0].tabIndex = 0;
  cells.forEach((cell, index) => {
    const rank = Number(cell.dataset.rank);
    cell.addEventListener("pointerenter", () => show(rank));
    cell.addEventListener("focus", () => show(rank));
    cell.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perNode, ArrowUp: -perNode }[event.key];
      if (step) { event.preventDefault(); focusOn(index + step); }
    });
  });
}
