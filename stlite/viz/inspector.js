// The inspector draws one view, a plain object made by Python (sample_view.py, training_view.py).

const SIGNS = { right: "✓", misplaced: "↔", missing: "–", extra: "+" };
const HELP = [
  ["← →", "previous, next frame"], ["Home End", "first, last frame"], ["space", "play, pause"],
  ["j k", "next, previous sample"], ["n", "next wrong reply"], ["c", "walk along the first chain of thought"],
  ["1 2 3", "mark good, wrong gold, bad video"], ["4", "write a note"], ["5", "clear the mark"], ["?", "this help"],
];

const hue = (reason) => (reason === "right" ? "right" : reason === "wrong" ? "wrong" : "other");
const sign = (reason) => ({ right: "✓ ", wrong: "✗ " })[reason] || "! ";
const badge = (reason) => h("span", { class: `st-badge st-${hue(reason)}` }, sign(reason), reason);

function place(view, second) {
  // The frames stand in columns of equal width; a moment lies between the centres of its neighbours.
  const times = view.seconds;
  const last = times.length - 1;
  let i = times.findIndex((t) => t > second);
  if (i < 0) i = last + 1;
  const from = Math.max(0, i - 1), to = Math.min(last, i);
  const part = times[to] > times[from] ? (second - times[from]) / (times[to] - times[from]) : 0;
  return ((from + part * (to - from) + 0.5) / times.length) * 100;
}

function links(view, path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "st-links");
  path.cells.forEach((cell, i) => {
    if (typeof cell.second !== "number") return;
    const n = path.cells.length;
    const own = (((path.way === "reverse" ? n - 1 - i : i) + 0.5) / n) * 100;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const ends = [own, place(view, cell.second)];
    if (path.way === "reverse") ends.reverse();
    Object.entries({ x1: ends[0], y1: 0, x2: ends[1], y2: 10 }).forEach(([k, v]) => line.setAttribute(k, v));
    svg.append(line);
  });
  return h("div", { class: "st-row" }, h("span"), svg);
}

function track(view, data, jump) {
  const chip = (cell, i) => h("button", {
    class: `st-chip ${cell.state ? "st-" + cell.state : ""}`, type: "button", "data-key": `${data.name}/${i}`,
    title: [cell.state, cell.text, typeof cell.second === "number" && `${two(cell.second)} s`].filter(Boolean).join(" · "),
    onclick: () => typeof cell.second === "number" && jump(nearest(view.seconds, cell.second)),
  }, cell.state && h("b", {}, SIGNS[cell.state], " "), cell.state && h("span", { class: "st-hidden" }, cell.state, ": "), cell.text);
  const cells = data.cells.map((cell, i) => h("li", {}, chip(cell, i)));
  return h("div", { class: `st-row st-track st-${data.way}${data.thought ? " st-thought" : ""}` }, h("span", { class: "st-name" }, data.name),
    h("ol", { "aria-label": `${data.name}, ${data.way}` }, cells.length ? cells : h("li", {}, "no step")));
}

function timeline(view, sources, jump) {
  const above = view.tracks.filter((l) => l.way === "forward"), below = view.tracks.filter((l) => l.way === "reverse");
  const thumbs = sources.map((src, i) => h("button", {
    class: "st-thumb", type: "button", "data-frame": i, "data-key": `frame/${i}`, onclick: () => jump(i),
    "aria-label": `frame ${view.indices[i]} at ${two(view.seconds[i])} seconds`,
  }, h("img", { src, alt: "" }), h("small", {}, `#${view.indices[i]}`, h("br"), `${two(view.seconds[i])} s`)));
  const frames = h("div", { class: "st-row" }, h("span", { class: "st-name" }, "frames"), h("div", { class: "st-frames" }, thumbs));
  const thought = (l) => l.thought, path = (l) => !l.thought;
  return h("section", { class: "st-time", "aria-label": "frames and paths in time" },
    above.filter(thought).map((l) => track(view, l, jump)),
    above.filter(path).map((l) => [track(view, l, jump), sources.length > 0 && links(view, l)]),
    sources.length > 0 && frames,
    below.filter(path).map((l) => [sources.length > 0 && links(view, l), track(view, l, jump)]),
    below.filter(thought).map((l) => track(view, l, jump)));
}

function transport(view, jump, at, play) {
  const last = view.seconds.length - 1;
  return h("div", { class: "st-transport" },
    button("first frame", "|◀", () => jump(0)), button("previous frame", "◀", () => jump(at() - 1)),
    button("play or pause", "▶ play", play),
    button("next frame", "▶", () => jump(at() + 1)), button("last frame", "▶|", () => jump(last)),
    h("input", { type: "range", min: 0, max: last, value: 0, "aria-label": "jump to frame", "data-key": "range", class: "st-range", oninput: (e) => jump(+e.target.value) }));
}

function options(view) {
  if (!view.options.length) return h("p", { class: "st-gold" }, h("b", {}, "gold route: "), view.answer);
  const chosen = (letter, gold) => view.runs.filter((r) => r.answer === letter)
    .map((r) => h("span", { class: `st-badge st-${gold ? "right" : "wrong"}` }, gold ? "✓ " : "✗ ", r.name));
  return h("ol", { class: "st-options" }, view.options.map(([letter, text, gold]) => h("li", { class: gold ? "st-is-gold" : "" },
    h("b", {}, letter, ". "), text, gold && h("span", { class: "st-badge st-right" }, "gold"), chosen(letter, gold))));
}

function run(data) {
  const rewards = Object.entries(data.rewards || {});
  return h("article", { class: `st-run st-edge-${hue(data.reason)}` },
    h("h4", {}, data.name, " ", badge(data.reason), h("span", { class: "st-quiet" }, ` extracted: ${data.answer || "nothing"} · value ${two(data.value)}`)),
    (data.error || data.explanation) && h("p", {}, data.error || data.explanation),
    rewards.length > 0 && h("ul", { class: "st-rewards" }, rewards.map(([name, value]) => h("li", {}, `${name} `, h("b", {}, two(value))))),
    h("pre", { tabindex: 0, "aria-label": `raw reply of ${data.name}` }, data.reply || "(no reply)"));
}

function annotate(view, send) {
  const marks = ["good", "wrong gold", "bad video"];
  const note = h("input", {
    type: "text", class: "st-note", placeholder: "note (4)", "aria-label": "note", "data-key": "note", value: view.note,
    onchange: (e) => send({ do: "note", text: e.target.value }),
    onkeydown: (e) => { if (e.key === "Enter" || e.key === "Escape") e.target.closest(".st-root").focus(); },
  });
  return h("div", { class: "st-marks", role: "group", "aria-label": "annotate" },
    marks.map((mark, i) => h("button", {
      type: "button", "aria-pressed": String(view.mark === mark), "data-key": mark, onclick: () => send({ do: "mark", text: mark }),
    }, `${i + 1} ${mark}`)),
    note, h("button", { type: "button", "data-key": "clear", onclick: () => send({ do: "mark", text: "" }) }, "5 clear"));
}

function header(view, { send, explain }) {
  const facts = [view.task, view.way, view.part].filter(Boolean).map((t) => h("span", { class: "st-tag" }, t));
  return h("header", { class: "st-head" },
    !view.alone && [button("previous sample", "k previous", () => send({ do: "move", by: -1 })),
      button("next sample", "j next", () => send({ do: "move", by: 1 })), button("next wrong", "n next wrong", () => send({ do: "wrong" }))],
    button("keys", "? keys", explain),
    h("b", { class: "st-count" }, view.alone ? "" : `${view.at} of ${view.of}${view.of === view.total ? "" : ` (${view.total} in all)`}`),
    h("span", { class: "st-id" }, view.id), facts,
    view.findings.map((f) => h("span", { class: "st-tag st-finding" }, "⚑ ", f)),
    view.mark && h("span", { class: "st-tag st-marked" }, "✎ ", view.mark), h("span", { class: "st-quiet" }, view.video));
}

function sample(view, sources, ui) {
  const words = h("div", { class: "st-words" }, h("p", { class: "st-question" }, view.question), options(view),
    view.runs.map(run), !view.runs.length && h("p", { class: "st-quiet" }, "no reply to this sample"));
  const eye = h("div", { class: "st-eye" },
    sources.length ? [h("img", { class: "st-big", alt: "", src: sources[0] }), h("p", { class: "st-caption" }), transport(view, ui.jump, ui.at, ui.play)]
      : h("p", { class: "st-error", role: "alert" }, "✗ ", view.error || "no frame"),
    view.notice && h("p", { class: "st-quiet" }, view.notice));
  return [header(view, ui), timeline(view, sources, ui.jump), h("div", { class: "st-main" }, eye, words),
    !view.fixed && annotate(view, ui.send)];
}

function group(view) {
  const row = (r) => h("tr", {}, h("th", { scope: "row" }, r.name),
    view.names.map((n) => h("td", {}, two(r.rewards[n]))), h("td", {}, two(r.total)),
    h("td", { class: r.advantage > 0 ? "st-up" : r.advantage < 0 ? "st-down" : "" }, r.advantage > 0 ? "▲ " : r.advantage < 0 ? "▼ " : "", two(r.advantage)),
    h("td", { class: "st-diff" }, r.pieces.map(([text, changed]) => (changed ? h("mark", {}, text) : h("span", {}, text)))));
  return [h("p", { class: "st-question" }, view.prompt),
    h("div", { class: "st-scroll", tabindex: 0, "aria-label": "rollouts" }, h("table", {}, h("caption", {}, view.caption),
      h("thead", {}, h("tr", {}, ["rollout", ...view.names, "total", "advantage", "reply; marked where it differs from the best"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, view.rows.map(row))))];
}

function render({ model, el }) {
  const root = h("div", { class: "st-root", tabindex: 0, role: "region", "aria-label": "inspector", "data-lm-suppress-shortcuts": "true" });
  let at = 0, view = {}, sources = [], timer = null, help = false, pending = false, seen = null;
  const send = (message) => { root.setAttribute("aria-busy", "true"); model.send(message); };
  const stop = () => { clearTimeout(timer); timer = null; };

  function jump(i) {
    if (!sources.length) return;
    at = Math.max(0, Math.min(sources.length - 1, i));
    root.querySelector(".st-big").src = sources[at];
    root.querySelector(".st-range").value = at;
    root.querySelector(".st-caption").textContent =
      `frame ${at + 1} of ${sources.length} · #${view.indices[at]} · ${two(view.seconds[at])} s of ${two(view.duration)} s`;
    root.querySelectorAll(".st-thumb").forEach((t, n) => { if (n === at) t.setAttribute("aria-current", "true"); else t.removeAttribute("aria-current"); });
  }

  function play() {
    if (timer) return stop();
    if (at === sources.length - 1) jump(0);
    const tick = () => {
      if (at >= sources.length - 1) return stop();
      const gap = (view.seconds[at + 1] - view.seconds[at]) * 1000;  // at the speed it was filmed, within reason
      timer = setTimeout(() => { jump(at + 1); tick(); }, Math.max(60, Math.min(1000, gap)));
    };
    tick();
  }

  function walk() {
    stop();
    const track = root.querySelector(".st-thought") || root.querySelector(".st-track");
    const path = track ? [...track.querySelectorAll(".st-chip")] : [];
    const tick = (i) => {
      path.forEach((c, n) => c.classList.toggle("st-here", n === i));
      if (i >= path.length) return stop();
      path[i].click();
      timer = setTimeout(() => tick(i + 1), 700);
    };
    tick(0);
  }

  function load() {
    release(sources);
    sources = (view.frames || []).map(frameURL);
  }

  // Two traits may change at once: draw once, and read the frames again only when the view is another.
  const later = () => { if (!pending) { pending = true; queueMicrotask(() => { pending = false; draw(); }); } };

  function draw() {
    const held = root.contains(document.activeElement) ? document.activeElement.dataset.key || "" : null;
    stop();
    const same = model.get("view") === seen;
    seen = model.get("view");
    view = { mark: "", note: "", findings: [], runs: [], seconds: [], indices: [], ...seen, ...model.get("said") };
    if (!same) load();
    const body = view.kind === "empty" ? h("p", { class: "st-empty" }, view.text)
      : view.kind === "group" ? group(view)
      : view.kind === "training" ? [sources.length ? h("img", { class: "st-curves", src: sources[0], alt: view.caption }) : h("p", { class: "st-empty" }, "no steps logged yet"),
        view.group && group(view.group)]
      : sample(view, sources, { send, jump, play, explain, at: () => at });
    root.replaceChildren(...[body, h("p", { class: "st-status", role: "status" }, view.message || ""), help && helpPanel(HELP)].flat(Infinity).filter(Boolean));
    root.setAttribute("aria-busy", "false");
    root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
    if (view.kind === "sample") jump(same ? at : 0);
    if (held !== null) ([...root.querySelectorAll("[data-key]")].find((n) => held && n.dataset.key === held) || root).focus({ preventScroll: true });
  }

  const explain = () => { help = !help; draw(); };
  const keys = {
    ArrowRight: () => jump(at + 1), ArrowLeft: () => jump(at - 1), Home: () => jump(0), End: () => jump(sources.length - 1),
    " ": play, c: walk, j: () => send({ do: "move", by: 1 }), k: () => send({ do: "move", by: -1 }), n: () => send({ do: "wrong" }),
    1: () => send({ do: "mark", text: "good" }), 2: () => send({ do: "mark", text: "wrong gold" }), 3: () => send({ do: "mark", text: "bad video" }),
    4: () => root.querySelector(".st-note")?.focus(), 5: () => send({ do: "mark", text: "" }),
    "?": explain, Escape: () => help && explain(),
  };
  const drawn = () => view.kind === "sample" || view.kind === "empty"; // other views have frames and samples to go to
  const guard = ([key, act]) => [key, () => (drawn() || key === "?" || key === "Escape") && act()];
  listen(root, Object.fromEntries(Object.entries(keys).map(guard)));
  model.on("change:view", later);
  model.on("change:said", later);
  draw();
  el.append(root);
  return () => { stop(); model.off("change:view", later); model.off("change:said", later); load((view = {})); };
}

// An exported page: the same view without a kernel.
function openPage() {
  const data = JSON.parse(document.getElementById("views").textContent);
  const views = data.map((v) => ({ ...v, fixed: true, alone: data.length < 2 }));
  const wrong = (v) => (v.runs || []).some((r) => r.reason !== "right");
  let at = 0, said = {}, changed = () => {};
  const go = (to, message) => { if (to >= 0 && to < views.length) { at = to; said = {}; } else said = { message }; changed(); };
  const model = {
    get: (name) => (name === "said" ? said : views[at]),
    on: (name, then) => { changed = then; }, off() {},
    send: ({ do: what, by }) => {
      if (what === "move") go(at + by, "no sample further this way");
      if (what === "wrong") {
        const order = [...views.keys()].map((i) => (at + 1 + i) % views.length).slice(0, -1);
        go(order.find((i) => wrong(views[i])) ?? -1, "no other wrong reply here");
      }
    },
  };
  render({ model, el: document.querySelector("main") });
}

export default { render };
