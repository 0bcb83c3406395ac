// The annotator: a film, keys that write steps at their moments, and the way back beside them. Stands after film.js.
// The kernel holds the state and the file; this draws what it says and sends what was pressed.

const KEYS = [
  ["← ↑ → ↓", "turn left, go straight, turn right, turn around"], ["l", "a landmark"], ["a", "an action"],
  ["space", "play, pause"], [", .", "one frame back, on"], ["[ ]", "two seconds back, on"], ["- =", "slower, faster"], ["Home End", "start, end"],
  ["j k", "choose the next, previous step"], ["m", "the chosen step happens now"], ["x", "remove the chosen step"], ["e", "edit the chosen step"],
  ["b", "the next step whose way back is open"], ["z", "undo"], ["n p", "next, previous film"], ["?", "these keys"],
];
const MOVES = { ArrowLeft: "turn left", ArrowUp: "go straight", ArrowRight: "turn right", ArrowDown: "turn around" };
const SIGNS = { direction: "→", landmark: "◆", action: "▲" };
const ARROWS = { "turn left": "↰", "go straight": "↑", "turn right": "↱", "turn around": "↶" };
const TEXT_NAMES = { group: "group (videos of one recording share it)", part: "part", source: "source", route: "route, in words", route_reverse: "route back, in words" };
const EMPTY = "No steps yet. Click on the film; space plays it. Press ← ↑ → ↓ at each move, l at a landmark, a at an action. ? lists all keys.";
const UNSHOWN = "Nothing can be written about a film that is not seen. n goes to the next one.";
const WAIT = 4000;  // milliseconds without an answer before the kernel counts as gone

function render({ model, el: host }) {
  const root = h("div", { class: "st-root sf-root sa-root", tabindex: 0, role: "region", "aria-label": "annotator", "data-lm-suppress-shortcuts": "true" });
  const heading = h("header", { class: "st-head" });
  const told = h("p", { class: "sa-told", role: "status" });
  const gone = h("p", { class: "sa-told sa-trouble", role: "alert", hidden: true });
  const table = h("div", { class: "sa-table" });
  const field = h("div", { class: "sa-field", hidden: true });
  const texts = h("details", { class: "sa-texts" });
  const keys = helpPanel(KEYS);
  keys.hidden = true;
  const toRoot = () => root.focus({ preventScroll: true });
  const film = createFilm(model, { onTime: highlight, focus: toRoot });
  let state = {}, number = 0, pending = [], resume = false;

  function send(message) {
    number += 1;
    pending.push([number, performance.now(), message]);
    model.send({ ...message, number });
  }

  const watch = setInterval(() => {
    const late = pending.filter(([, since]) => performance.now() - since > WAIT);
    gone.hidden = !late.length;
    if (late.length) gone.textContent = `The kernel does not answer: ${late.length === 1 ? "the last key is" : `the last ${late.length} keys are`} not saved. Restart it, run the cell again, and go on from here.`;
  }, 1000);

  // ---- steps, and the way back beside them ----

  function input(row, name, value, more) {
    const node = h("input", { type: "text", value, "data-key": `${row.task}/${row.index}/${name}`, spellcheck: "false", ...more,
      onchange: (e) => send({ do: "edit", task: row.task, index: row.index, field: name, value: e.target.value }),
      onkeydown: (e) => leave(e, value) });
    return node;
  }

  function leave(e, value) {
    if (e.key === "Escape") e.target.value = value;
    if (e.key === "Escape" || e.key === "Enter") { e.preventDefault(); e.stopPropagation(); e.target.blur(); toRoot(); }
  }

  function stepRow(row) {
    const when = typeof row.second === "number" ? clock(row.second) : "no moment";
    const label = `${row.task} ${row.index + 1}`;
    const back = input(row, "back", row.back, { class: `sa-back ${row.unsure ? "sa-unsure" : row.by_rule ? "" : "sa-own"}`,
      "aria-label": row.unsure ? `way back of ${label}: no rule is sure, please write it` : `way back of ${label}`,
      "aria-invalid": row.unsure ? "true" : undefined, placeholder: row.unsure ? "? write the way back" : "" });
    return h("li", { class: `sa-row sf-${row.task}`, "aria-current": row.chosen ? "true" : undefined, "data-second": row.second },
      button(`${label}, ${when}: go there`, when, () => choose(row, true), { class: "sa-when", "data-key": `${row.task}/${row.index}/when` }),
      h("span", { class: "sa-sign", title: row.task, "aria-hidden": "true" }, ARROWS[row.text] || SIGNS[row.task]),
      input(row, "text", row.text, { class: "sa-text", "aria-label": label }),
      h("span", { class: "sa-turn", "aria-hidden": "true" }, "⇠"), back,
      button(`remove ${label}`, "×", () => send({ do: "remove", task: row.task, index: row.index }), { class: "sa-remove", tabindex: -1 }));
  }

  function backInput(task, index, value, label) {
    return h("input", { type: "text", value, class: "sa-back", "aria-label": label, "data-key": `back/${task}/${index}`, spellcheck: "false",
      onchange: (e) => send({ do: "back", task, index, text: e.target.value }), onkeydown: (e) => leave(e, value) });
  }

  function tableOf() {
    const rows = state.rows || [];
    const start = state.head !== null && state.head !== undefined && !(state.loose || {}).direction && h("li", { class: "sa-row" },
      h("span", { class: "sa-when" }, "at the end"), h("span", { class: "sa-sign", "aria-hidden": "true" }, ARROWS[state.head] || SIGNS.direction),
      h("span", { class: "sa-text" }, "the way back begins"), h("span", { class: "sa-turn", "aria-hidden": "true" }, "⇠"),
      backInput("head", 0, state.head, "first step of the way back"), h("span", { class: "sa-remove" }));
    const loose = Object.entries(state.loose || {}).map(([task, backs]) => h("div", { class: "sa-loose" },
      h("p", {}, `The ${task} way back of this row has its own ${backs.length} steps:`),
      h("div", {}, backs.map((text, i) => backInput(task, i, text, `${task} way back, step ${i + 1}`)),
        button(`derive the ${task} way back by rule`, "derive it by rule", () => send({ do: "derive", task })))));
    return [h("div", { class: "sa-row sa-top", "aria-hidden": "true" }, ["when", "", "the way there", "", "the way back (read upwards)", ""].map((t) => h("span", {}, t))),
      rows.length || start ? h("ol", { class: "sa-list", "aria-label": "steps" }, rows.map(stepRow), start)
        : h("p", { class: "sf-said" }, (model.get("film") || {}).error ? UNSHOWN : EMPTY), loose,
      (state.doubts || []).length > 0 && h("div", { class: "sa-loose" }, h("p", {}, "Saved, but no samples can be made of this yet:"),
        h("ul", {}, state.doubts.map((text) => h("li", {}, text))))];
  }

  function draw() {
    const held = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    state = model.get("state");
    pending = pending.filter(([n]) => n > state.done);
    gone.hidden = true;
    heading.replaceChildren(...[
      button("previous film (p)", "p ‹", () => send({ do: "film", by: -1 }), { "data-key": "previous" }), button("next film (n)", "n ›", () => send({ do: "film", by: 1 }), { "data-key": "next" }),
      h("b", { class: "sa-name" }, state.video || ""), h("span", { class: "sa-count" }, `film ${state.at} of ${state.of}, ${state.annotated} annotated`),
      state.unsure > 0 && button("go to the next open way back (b)", `b ${state.unsure} way back open`, nextOpen, { class: "sa-open", "data-key": "open" }),
      button("undo (z)", "z undo", () => send({ do: "undo" }), { "data-key": "undo" }), button("keys (?)", "? keys", explain, { "data-key": "keys" })].filter(Boolean));
    told.textContent = visible(state.told.text);
    told.classList.toggle("sa-trouble", state.told.trouble);
    told.setAttribute("role", state.told.trouble ? "alert" : "status");
    table.replaceChildren(...tableOf().flat(Infinity).filter(Boolean));
    drawTexts();
    film.mark((state.rows || []).map((r) => ({ ...r, text: `${r.task}: ${r.text}` })), (r) => choose(r, true));
    if (held !== undefined) ([...root.querySelectorAll("[data-key]")].find((n) => n.dataset.key === held) || root).focus({ preventScroll: true });
    root.querySelector(".sa-list [aria-current]")?.scrollIntoView({ block: "nearest" });
    if (state.told.refused?.do === "add" && state.told.refused.task !== "direction" && field.hidden) openField(state.told.refused.task, state.told.refused);
    highlight(film.position());
    root.dataset.done = state.done;
  }

  function drawTexts() {
    if (!state.texts) return;
    const nodes = Object.entries(TEXT_NAMES).map(([name, label]) => h("label", {}, h("span", {}, label),
      h("input", { type: "text", value: state.texts[name], "data-key": `text/${name}`, onchange: (e) => send({ do: "describe", name, text: e.target.value }),
        onkeydown: (e) => leave(e, state.texts[name]) })));
    texts.replaceChildren(h("summary", { "data-key": "more" }, "more about this film"), ...nodes);
  }

  function highlight(second) {
    root.querySelectorAll(".sa-list > li").forEach((n) => {
      const at = Number(n.dataset.second);
      n.classList.toggle("sa-past", n.dataset.second !== undefined && at <= second + 0.01);
    });
  }

  // ---- choosing a step ----

  const chosen = () => (state.rows || []).findIndex((r) => r.chosen);

  function choose(row, go) {
    (state.rows || []).forEach((r) => { r.chosen = r === row; });
    root.querySelectorAll(".sa-list > li").forEach((n, i) => ((state.rows[i] || {}).chosen ? n.setAttribute("aria-current", "true") : n.removeAttribute("aria-current")));
    if (go && typeof row.second === "number") film.seek(row.second);
    root.querySelector(".sa-list [aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  function move(by) {
    const rows = state.rows || [], i = chosen();
    const next = rows[i < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, i + by))];
    if (next) choose(next, true);
  }

  function withChosen(act) {
    const row = (state.rows || [])[chosen()];
    if (row) act(row); else told.textContent = "Choose a step first: j, k or a click on its time.";
  }

  function nextOpen() {
    const nodes = [...root.querySelectorAll(".sa-unsure")], i = nodes.indexOf(document.activeElement);
    if (nodes.length) nodes[(i + 1) % nodes.length].focus(); else told.textContent = "Every way back is known.";
  }

  // ---- the field of a landmark or an action ----

  function openField(task, refused) {
    const second = refused ? refused.second : film.now();
    if (!refused) resume = !film.paused();
    film.pause();
    const list = h("ul", { class: "sa-words", role: "listbox", id: `sa-words-${number}`, "aria-label": `${task}s typed before` });
    const text = h("input", { type: "text", class: "sa-typed", role: "combobox", "aria-label": `${task} at ${clock(second)}`, "aria-expanded": "true", "aria-autocomplete": "both",
      "aria-controls": list.id, placeholder: `${task} …`, autocomplete: "off", spellcheck: "false", value: refused ? refused.text : "" });
    const here = new Set((state.rows || []).filter((r) => r.task === task).map((r) => r.text)), all = (state.words || {})[task] || [];
    const words = [...all.filter((w) => !here.has(w)), ...all.filter((w) => here.has(w))];  // what this film has is seldom written again
    let shown = [], at = -1, typed = "";

    function offer() {
      const start = typed.toLowerCase();
      shown = words.filter((w) => w.toLowerCase().startsWith(start)).concat(words.filter((w) => start && !w.toLowerCase().startsWith(start) && w.toLowerCase().includes(start))).slice(0, 8);
      list.replaceChildren(...shown.map((w, i) => h("li", { role: "option", id: `${list.id}-${i}`, "aria-selected": String(i === at), onpointerdown: (e) => { e.preventDefault(); finish(w); } }, w)));
      if (at >= 0) text.setAttribute("aria-activedescendant", `${list.id}-${at}`); else text.removeAttribute("aria-activedescendant");
    }

    function complete(e) {
      typed = text.value;
      at = -1;
      offer();
      const best = shown.find((w) => w.toLowerCase().startsWith(typed.toLowerCase()));
      if (typed && best && best.length > typed.length && e.inputType && e.inputType.startsWith("insert") && !e.isComposing) {
        text.value = typed + best.slice(typed.length);
        text.setSelectionRange(typed.length, best.length);
        at = shown.indexOf(best);
        offer();
      }
    }

    function finish(value) {
      field.hidden = true;
      field.replaceChildren();
      toRoot();
      if (value !== undefined && value.trim()) send({ do: "add", task, text: at >= 0 && value === text.value ? shown[at] : value, second });
      if (resume) film.play(true);
    }

    function keydown(e) {
      e.stopPropagation();
      if (e.isComposing) return;
      if (e.key === "Escape") { e.preventDefault(); finish(); }
      else if (e.key === "Enter") { e.preventDefault(); finish(text.value); }
      else if (e.key === "ArrowDown" || e.key === "ArrowUp") {
        e.preventDefault();
        if (!shown.length) return;
        at = (at + (e.key === "ArrowDown" ? 1 : -1) + shown.length) % shown.length;
        text.value = shown[at];
        offer();
      }
    }

    text.addEventListener("input", complete);
    text.addEventListener("keydown", keydown);
    field.replaceChildren(h("label", { class: `sf-${task}` }, `${SIGNS[task]} ${task} at ${clock(second)}`), text, list);
    field.hidden = false;
    offer();
    text.focus();
  }

  // ---- keys ----

  function explain() { keys.hidden = !keys.hidden; }
  const write = (text) => () => send({ do: "add", task: "direction", text, second: film.now() });
  const once = (act) => (event) => { if (!event.repeat) act(); };  // a key held too long writes one step, and takes one out
  const undo = () => send({ do: "undo" });
  const remove = () => withChosen((r) => send({ do: "remove", task: r.task, index: r.index }));
  const acts = {
    ...Object.fromEntries(Object.entries(MOVES).map(([key, text]) => [key, once(write(text))])),
    l: () => openField("landmark"), a: () => openField("action"), " ": once(() => film.play()), ",": () => film.step(-1), ".": () => film.step(1),
    "[": () => film.seek(film.now() - 2), "]": () => film.seek(film.now() + 2), "-": () => film.faster(-1), "=": () => film.faster(1), "+": () => film.faster(1),
    Home: film.home, End: film.end, j: () => move(1), k: () => move(-1), b: nextOpen, z: once(undo),
    m: () => withChosen((r) => send({ do: "edit", task: r.task, index: r.index, field: "second", value: film.now() })),
    x: once(remove), Delete: once(remove), Backspace: once(remove),
    e: () => withChosen((r) => { const n = root.querySelector(`[data-key="${r.task}/${r.index}/text"]`); n.focus(); n.select(); }),
    n: once(() => send({ do: "film", by: 1 })), p: once(() => send({ do: "film", by: -1 })), "?": explain, Escape: () => { keys.hidden = true; },
  };
  listen(root, () => acts);
  keepKeys(root);
  root.addEventListener("keydown", (e) => {
    if (!(e.ctrlKey || e.metaKey) || e.key !== "z") return;
    e.stopPropagation();  // not the notebook's own undo
    if (e.target.matches("input[type=text]")) return;
    e.preventDefault();
    undo();
  });

  function openFilm() {
    const facts = model.get("film"), from = /#t=([\d.]+)/.exec(facts.name || "");
    film.open({ ...facts, from: from ? Number(from[1]) : 0 });
    film.mark(state.rows || [], (r) => choose(r, true));
  }

  root.append(heading, keys, h("div", { class: "sf-main" }, h("div", {}, film.box, field, told, gone), h("div", {}, table, texts)));
  openFilm();
  draw();
  model.on("change:state", draw);
  model.on("change:film", openFilm);
  host.append(root);
  return () => { film.destroy(); clearInterval(watch); model.off("change:state", draw); model.off("change:film", openFilm); };
}

export default { render };
