// Optional: values under the pointer, and lines that the legend switches off. The page is complete without it.
for (const plot of document.querySelectorAll(".plot")) {
  const series = JSON.parse(plot.dataset.values);
  const readout = plot.appendChild(document.createElement("div"));
  readout.className = "readout";
  readout.hidden = true;
  const off = new Set();

  const nearest = (points, x) => points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);

  for (const svg of plot.querySelectorAll("svg.chart")) {
    const [left, right, bottom, top] = svg.dataset.frame.split(" ").map(Number);
    const [first, last] = svg.dataset.x.split(" ").map(Number);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", top);
    cursor.setAttribute("y2", bottom);
    const leave = () => { readout.hidden = true; cursor.remove(); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const pixel = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      if (pixel < left || pixel > right) return leave();
      const x = first + (pixel - left) / (right - left) * (last - first);
      const shown = series.filter((_, index) => !off.has(index)).map(([name, points]) => [name, nearest(points, x)]);
      if (!shown.length) return leave();
      const at = shown[0][1][0];
      const place = left + (at - first) / (last - first) * (right - left);
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
      svg.append(cursor);
      readout.textContent = [at.toLocaleString("en") + " " + plot.dataset.unit, ...shown.map(([name, p]) => name + "  " + p.slice(1).join("  "))].join("\n");
      readout.hidden = false;
      const side = (event.clientX - box.left) > box.width / 2;
      readout.style.left = side ? "" : event.clientX - box.left + 14 + "px";
      readout.style.right = side ? box.right - event.clientX + 14 + "px" : "";
    });
  }

  for (const item of plot.parentElement.querySelectorAll(".legend li")) {
    const index = Number(item.dataset.series);
    const toggle = () => {
      const hidden = !off.delete(index) && Boolean(off.add(index));
      item.classList.toggle("off", hidden);
      item.setAttribute("aria-pressed", String(!hidden));
      for (const line of plot.querySelectorAll(`[data-series="${index}"]`)) line.style.display = hidden ? "none" : "";
    };
    item.setAttribute("role", "button");
    item.setAttribute("aria-pressed", "true");
    item.tabIndex = 0;
    item.addEventListener("click", toggle);
    item.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } });
  }
}
