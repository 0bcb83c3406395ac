// The player: a film, its steps, the frames that the model saw, and a reply as it is written. Stands after film.js.

const KEYS = [
  ["space", "play, pause"], [", .", "one frame back, on"], ["← →", "one second back, on"], ["Home End", "start, end"],
  ["j k", "next, previous step"], ["- =", "slower, faster"], ["?", "these keys"],
];

function render({ model, el: host }) {
  const root = h("div", { class: "st-root sf-root", tabindex: 0, role: "region", "aria-label": "film player", "data-lm-suppress-shortcuts": "true" });
  const steps = h("div");
  const strip = h("div", { class: "sf-strip", role: "group", "aria-label": "frames that the model saw" });
  const frames = h("section", { class: "sf-frames", hidden: true }, h("h4", {}, "Frames that the model saw"), strip);
  const words = h("div", { class: "sf-words" });
  const heading = h("header", { class: "st-head" });
  const keys = helpPanel(KEYS);
  keys.hidden = true;
  let urls = [], seconds = [], moments = [];
  const film = createFilm(model, { onTime: highlight, focus: () => root.focus({ preventScroll: true }) });

  // The place of the last moment that has come, or -1.
  function reached(list, second) {
    let last = -1;
    list.forEach((t, i) => { if (typeof t === "number" && t <= second + 0.01 && (last < 0 || t >= list[last])) last = i; });
    return last;
  }

  function current(nodes, at) {
    [...nodes].forEach((n, i) => (i === at ? n.setAttribute("aria-current", "true") : n.removeAttribute("aria-current")));
  }

  function highlight(second) {
    current(strip.children, seconds.length ? nearest(seconds, second) : -1);
    steps.querySelectorAll("ol").forEach((list) => {
      const nodes = [...list.querySelectorAll("button")];
      current(nodes, reached(nodes.map((n) => (n.dataset.second ? Number(n.dataset.second) : null)), second));
    });
  }

  function drawView() {
    const view = model.get("view");
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = (view.frames || []).map((f) => URL.createObjectURL(new Blob([f], { type: "image/jpeg" })));
    seconds = view.seconds || [];
    strip.replaceChildren(...urls.map((src, i) => button(`frame ${i + 1} of ${urls.length}, ${clock(seconds[i])}`,
      [h("img", { src, alt: "" }), h("small", {}, clock(seconds[i]))], () => film.seek(seconds[i]), { class: "sf-thumb" })));
    frames.hidden = !urls.length;
    const paths = view.paths || [];
    moments = paths.flatMap((p) => p.steps.map((s) => s.second));
    steps.replaceChildren(...paths.map((p) => h("section", {}, h("h4", {}, p.name), h("ol", { class: "sf-steps", "aria-label": p.name }, p.steps.map(stepButton)))));
    drawWords();
  }

  function stepButton(step) {
    const known = typeof step.second === "number";
    const text = [step.text, known && h("small", {}, ` ${clock(step.second)}`)];
    return h("li", {}, button(step.text, text, () => known && film.seek(step.second), { class: `sf-step sf-${step.task}`, "data-second": known ? step.second : undefined }));
  }

  function markPaths() {
    const paths = model.get("view").paths || [];
    film.mark(paths.flatMap((p) => p.steps), (s) => film.seek(s.second));
  }

  function drawWords() {
    const view = model.get("view"), reply = model.get("reply") || {};
    words.replaceChildren(...[
      view.question && h("p", { class: "sf-question" }, view.question),
      reply.chain && h("section", { "aria-label": "chain of thought" }, h("h4", {}, "Thinking"),
        (reply.steps || []).length > 0 && h("ol", { class: "sf-chain" }, reply.steps.map((s) => h("li", {}, s))),
        h("p", { class: "sf-thought" }, reply.chain)),
      reply.answer && h("section", { "aria-label": "answer" }, h("h4", {}, "Answer"), h("p", { class: "sf-answer" }, reply.answer)),
      reply.state && h("p", { class: "sf-said", role: "status" }, reply.state),
      view.trouble && h("p", { class: "sf-said" }, view.trouble)].filter(Boolean));
  }

  function drawFilm() {
    const facts = model.get("film");
    heading.replaceChildren(h("b", {}, facts.name || ""), button("keys (?)", "? keys", explain));
    film.open(facts);
    markPaths();
  }

  function explain() { keys.hidden = !keys.hidden; }

  function jump(by) {
    const known = moments.filter((t) => typeof t === "number").sort((a, b) => a - b), now = film.position();
    const next = by > 0 ? known.find((t) => t > now + 0.01) : known.findLast((t) => t < now - 0.01);
    if (next !== undefined) film.seek(next);
  }

  const acts = {
    " ": () => film.play(), ",": () => film.step(-1), ".": () => film.step(1), ArrowLeft: () => film.seek(film.now() - 1),
    ArrowRight: () => film.seek(film.now() + 1), Home: film.home, End: film.end, j: () => jump(1), k: () => jump(-1),
    "-": () => film.faster(-1), "=": () => film.faster(1), "+": () => film.faster(1), "?": explain, Escape: () => { keys.hidden = true; },
  };
  listen(root, () => acts);
  keepKeys(root);
  root.append(heading, keys, h("div", { class: "sf-main" }, film.box, h("div", { class: "sf-side" }, words, steps)), frames);
  drawView();
  drawFilm();
  model.on("change:view", drawView);
  model.on("change:film", drawFilm);
  model.on("change:reply", drawWords);
  host.append(root);
  return () => {
    film.destroy();
    urls.forEach((url) => URL.revokeObjectURL(url));
    model.off("change:view", drawView);
    model.off("change:film", drawFilm);
    model.off("change:reply", drawWords);
  };
}

export default { render };
