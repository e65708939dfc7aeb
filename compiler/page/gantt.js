// The pipeline's chart: all tasks of a kind are one path, so that thousands are drawn at once. Times are in ticks.
const SPAN = 1e6, LANE = 24, GAP = 4, LEFT = 44, AXIS = 22;
const svgElement = (parent, name, attributes, text) => {
  const made = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const timeText = (seconds) => {
  const [value, unit] = seconds >= 1 ? [seconds, "s"] : seconds >= 1e-3 ? [seconds * 1e3, "ms"] : [seconds * 1e6, "µs"];
  return Number(value.toPrecision(4)) + " " + unit;
};

for (const figure of document.querySelectorAll("figure.gantt")) {
  const tick = Number(figure.dataset.tick);
  const kinds = JSON.parse(figure.dataset.kinds).map(([letter, chunk, ticks]) => ({ letter, chunk, ticks }));
  const lanes = JSON.parse(figure.dataset.tasks).map((flat, rank) => {
    const tasks = [];
    for (let at = 0, free = 0; at < flat.length; at += 3) {
      const kind = kinds[flat[at]], start = free + flat[at + 2];
      free = start + kind.ticks;
      tasks.push({ rank, kind, batch: flat[at + 1], start, end: free, place: tasks.length });
    }
    return tasks;
  });
  const chunks = 1 + Math.max(...kinds.map((kind) => kind.chunk));
  const svg = figure.querySelector("svg"), told = figure.querySelector(".told");
  const mine = figure.closest("section").dataset.stage;
  let zoom = 1, at = 0, chosen = null, width = 0;
  figure.hidden = false;
  figure.querySelector(".weights").hidden = !kinds.some((kind) => kind.letter === "W");

  const first = (tasks, tick) => { // the first task that ends after `tick`
    let low = 0, high = tasks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tasks[middle].end <= tick) low = middle + 1; else high = middle;
    }
    return low;
  };
  const view = () => ({ from: at * SPAN, size: SPAN / zoom, scale: (width - LEFT) * zoom / SPAN });
  const shade = (kind) => kind.letter.toLowerCase() + Math.min(kind.chunk, 1);

  // Calls `each` with every visible task, its lane's top and its left and right edge.
  const visit = (each) => {
    const { from, size, scale } = view();
    lanes.forEach((tasks, rank) => {
      for (let index = first(tasks, from); index < tasks.length && tasks[index].start < from + size; index++) {
        const task = tasks[index];
        const left = LEFT + Math.max((task.start - from) * scale, 0);
        const right = LEFT + Math.min((task.end - from) * scale, width - LEFT);
        each(task, rank * (LANE + GAP), left, right);
      }
    });
  };
  const boxOf = (y, left, right) => `M${left.toFixed(1)} ${y}H${right.toFixed(1)}v${LANE}H${left.toFixed(1)}z`;

  const draw = () => {
    width = svg.clientWidth;
    if (!width) return;
    const height = lanes.length * (LANE + GAP) + AXIS;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    lanes.forEach((_, rank) => {
      const y = rank * (LANE + GAP);
      svgElement(svg, "rect", { class: "lane", x: LEFT, y, width: width - LEFT, height: LANE });
      svgElement(svg, "text", { x: 0, y: y + 16 }, "pp " + rank);
    });
    const paths = new Map(), labels = [], edges = [];
    let visible = 0;
    visit((task, y, left, right) => {
      const css = shade(task.kind);
      paths.set(css, (paths.get(css) || "") + boxOf(y, left, right));
      visible++;
      if (right - left > 4) edges.push(`M${right.toFixed(1)} ${y}v${LANE}`);
      if (right - left > 22) {
        const whole = task.kind.letter + task.batch + (chunks > 1 ? "." + task.kind.chunk : "");
        const text = right - left > (chunks > 1 ? 42 : 30) ? whole : task.batch;
        labels.push([(left + right) / 2, y + 16, css === "f0" ? "batch on-dark" : "batch", text]);
      }
    });
    axis(height);
    for (const [css, d] of paths) svgElement(svg, "path", { class: css, d });
    svgElement(svg, "path", { class: "edges", d: edges.join("") });
    for (const [x, y, css, text] of labels) svgElement(svg, "text", { x: x.toFixed(1), y, class: css }, text);
    mark();
    svg.dataset.visible = visible;
    svg.dataset.zoom = zoom.toFixed(2);
  };

  // Outlines the chosen task, and with dots the others of its micro-batch.
  const mark = () => {
    svg.querySelectorAll(".same, .chosen").forEach((path) => path.remove());
    if (!chosen) return;
    const outlines = { same: "", chosen: "" };
    visit((task, y, left, right) => {
      if (task.batch === chosen.batch) outlines[task === chosen ? "chosen" : "same"] += boxOf(y, left, right);
    });
    for (const [css, d] of Object.entries(outlines)) svgElement(svg, "path", { class: css, d });
  };

  const axis = (height) => {
    const { from, size, scale } = view();
    const rough = size * tick / Math.max(2, width / 130), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
    for (let time = Math.ceil(from * tick / step - 1e-9) * step; time <= (from + size) * tick * (1 + 1e-9); time += step) {
      const x = LEFT + (time / tick - from) * scale;
      svgElement(svg, "line", { class: "line", x1: x, x2: x, y1: 0, y2: height - AXIS + 4 });
      const anchor = x > width - 30 ? "end" : x < LEFT + 20 ? "start" : "middle";
      svgElement(svg, "text", { x, y: height - 4, "text-anchor": anchor }, time ? timeText(time) : "0");
    }
  };

  const tell = () => {
    const words = { F: "forward", B: "backward", W: "weight gradients" };
    told.textContent = chosen ? `pp ${chosen.rank}: ${words[chosen.kind.letter]} of micro-batch ${chosen.batch}` +
      (chunks > 1 ? ` in chunk ${chosen.kind.chunk}` : "") +
      `, ${timeText(chosen.start * tick)} to ${timeText(chosen.end * tick)} (${timeText(chosen.kind.ticks * tick)})` : "";
  };
  const choose = (task) => { if (task !== chosen) { chosen = task; tell(); mark(); } };
  const look = (newZoom, newAt) => {
    zoom = Math.min(Math.max(newZoom, 1), 4000);
    at = Math.min(Math.max(newAt, 0), 1 - 1 / zoom);
    address.set(zoom > 1 ? { stage: mine, zoom: zoom.toPrecision(4), at: at.toFixed(5) } : { zoom: null, at: null });
    draw();
  };
  const zoomAt = (factor, share) => look(zoom * factor, at + share / zoom - share / Math.min(Math.max(zoom * factor, 1), 4000));
  const shareOf = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left - LEFT) / (box.width - LEFT), 0), 1);
  };
  const taskAt = (event) => {
    const tasks = lanes[Math.floor((event.clientY - svg.getBoundingClientRect().top) / (LANE + GAP))];
    const time = view().from + shareOf(event) * view().size;
    const task = tasks && tasks[first(tasks, time)];
    return task && task.start <= time ? task : null;
  };
  const bringIntoView = () => {
    const { from, size } = view();
    if (chosen.start < from || chosen.end > from + size) look(zoom, (chosen.start + chosen.end) / 2 / SPAN - 0.5 / zoom);
  };

  let drag = null;
  svg.addEventListener("wheel", (event) => {
    const along = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (zoom === 1 && (along || event.deltaY > 0)) return; // nothing to do here: the page scrolls
    event.preventDefault();
    if (along) look(zoom, at + (event.deltaX || event.deltaY) / (width - LEFT) / zoom);
    else zoomAt(Math.exp(-event.deltaY / 300), shareOf(event));
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, at };
    svg.setPointerCapture(event.pointerId);
    svg.classList.add("held");
  });
  svg.addEventListener("pointermove", (event) => {
    if (drag) look(zoom, drag.at - (event.clientX - drag.x) / (width - LEFT) / zoom); else choose(taskAt(event));
  });
  svg.addEventListener("pointerup", (event) => { drag = null; svg.classList.remove("held"); choose(taskAt(event)); });
  svg.addEventListener("keydown", (event) => {
    const side = { ArrowRight: 1, ArrowLeft: -1 }[event.key], lane = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const now = chosen || lanes[0][first(lanes[0], view().from)];
    const middle = chosen && zoom > 1 ? ((chosen.start + chosen.end) / 2 - view().from) / view().size : 0.5;
    if (event.key === "+" || event.key === "=") zoomAt(1.5, middle);
    else if (event.key === "-") zoomAt(1 / 1.5, middle);
    else if (event.key === "0") look(1, 0);
    else if (event.key === "Escape") choose(null);
    else if (event.shiftKey && side) look(zoom, at + side * 0.2 / zoom);
    else if (side) { choose(chosen ? lanes[now.rank][now.place + side] || now : now); bringIntoView(); }
    else if (lane && lanes[now.rank + lane]) {
      const tasks = lanes[now.rank + lane];
      choose(tasks[Math.min(first(tasks, (now.start + now.end) / 2), tasks.length - 1)]);
      bringIntoView();
    } else return;
    event.preventDefault();
  });
  for (const button of figure.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => {
      if (button.dataset.do === "all") look(1, 0); else zoomAt(button.dataset.do === "in" ? 2 : 0.5, 0.5);
    });
  }
  addEventListener("phase", draw);
  new ResizeObserver(draw).observe(svg.parentElement);
  if (address.get("stage") === mine && address.get("zoom")) look(Number(address.get("zoom")) || 1, Number(address.get("at")) || 0);
  draw();
}

