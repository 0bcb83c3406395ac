// The time line: paths above and below the frames, all in one scroller,
// and a line from each annotated step to the frame in which it happens.

const SIGNS = { right: "✓", misplaced: "↔", missing: "–", extra: "+" };

// Draw a view's tracks and frames; `jump` goes to a frame by its number.
function timeline(view, urls, jump) {
  const rows = (way, thought) =>
    view.tracks
      .filter((track) => track.way === way && track.thought === thought)
      .map((track) => trackRow(view, track, urls.length > 0, jump));
  const links = svg("svg", { class: "st-links", preserveAspectRatio: "none", "aria-hidden": "true" });
  const canvas = h("div", { class: "st-canvas", style: `--frames: ${urls.length}` },
    rows("forward", true), rows("forward", false),
    urls.length > 0 && frameRow(view, urls, jump),
    rows("reverse", false), rows("reverse", true));
  canvas.prepend(links);
  new ResizeObserver(() => drawLinks(canvas, links)).observe(canvas);
  return h("div", { class: "st-scroller", tabindex: 0, role: "group", "aria-label": "frames and paths in time" }, canvas);
}

function trackRow(view, track, framed, jump) {
  const kind = `st-track st-${track.way}${track.thought ? " st-thought" : ""}`;
  const steps = track.cells.map((cell, i) => h("li", {}, chip(view, track, cell, i, framed, jump)));
  return h("div", { class: kind },
    h("span", { class: "st-name" }, track.way === "forward" ? `${track.name} →` : `${track.name} ←`),
    h("ol", { "aria-label": `${track.name}, ${track.way}` }, steps));
}

function chip(view, track, cell, i, framed, jump) {
  const timed = framed && typeof cell.second === "number";
  const frame = timed ? nearest(view.seconds, cell.second) : null;
  const title = [cell.state, cell.text, timed && `${two(cell.second)} s`].filter(Boolean).join(" · ");
  return h("button", {
    class: `st-chip ${cell.state ? "st-" + cell.state : ""}`, type: "button", dir: "auto", title,
    "data-key": `${track.name}/${i}`, "data-link": timed && !track.thought ? frame : null,
    onclick: () => timed && jump(frame),
  },
  cell.state && h("b", { "aria-hidden": "true" }, SIGNS[cell.state], " "),
  cell.state && h("span", { class: "st-hidden" }, cell.state, ": "),
  cell.text,
  timed && h("span", { class: "st-hidden" }, `, at ${two(cell.second)} seconds`));
}

function frameRow(view, urls, jump) {
  const thumbs = urls.map((src, i) => h("button", {
    class: "st-thumb", type: "button", "data-frame": i, "data-key": `frame/${i}`, onclick: () => jump(i),
    "aria-label": `frame ${view.indices[i]} at ${two(view.seconds[i])} seconds`,
  }, h("img", { src, alt: "" }), h("small", {}, `#${view.indices[i]}`, h("br"), `${two(view.seconds[i])} s`)));
  return h("div", { class: "st-frames", role: "group", "aria-label": "frames" }, thumbs);
}

// Lines are measured where the steps and frames stand, in a picture as large as the canvas:
// they hold at every width and zoom, and when a path takes two lines.
function drawLinks(canvas, links) {
  const box = canvas.getBoundingClientRect();
  if (!box.width || !box.height) return;
  links.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const lines = [];
  for (const step of canvas.querySelectorAll("[data-link]")) {
    const from = step.getBoundingClientRect();
    const to = canvas.querySelector(`[data-frame="${step.dataset.link}"]`).getBoundingClientRect();
    const above = from.top < to.top;
    lines.push(svg("line", {
      x1: from.left + from.width / 2 - box.left,
      y1: (above ? from.bottom : from.top) - box.top,
      x2: to.left + to.width / 2 - box.left,
      y2: (above ? to.top : to.bottom) - box.top,
      "data-frame-of": step.dataset.link,
    }));
  }
  links.replaceChildren(...lines);
}

// Mark the current frame in the time line, and scroll it into view.
function showThumb(scroller, i) {
  scroller.querySelectorAll(".st-thumb").forEach((thumb, n) => {
    if (n === i) thumb.setAttribute("aria-current", "true");
    else thumb.removeAttribute("aria-current");
  });
  const thumb = scroller.querySelector(`[data-frame="${i}"]`);
  if (thumb) reveal(scroller, thumb);
}

// Scroll sideways until a child is in view, without moving the page.
function reveal(scroller, child) {
  const outer = scroller.getBoundingClientRect();
  const inner = child.getBoundingClientRect();
  const scale = outer.width / scroller.offsetWidth || 1; // of a zoomed page
  if (inner.left < outer.left) scroller.scrollLeft -= (outer.left - inner.left) / scale + 8;
  else if (inner.right > outer.right) scroller.scrollLeft += (inner.right - outer.right) / scale + 8;
}
