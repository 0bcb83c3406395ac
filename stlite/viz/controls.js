// What a reader may press: the line above a sample, the marks below it, and the keys of each view.

function header(view, state, ui) {
  const tags = [view.task, view.way, view.part].filter(Boolean).map((text) => h("span", { class: "st-tag" }, text));
  const many = state.many && [
    button("previous sample", "k previous", () => ui.move(-1)), button("next sample", "j next", () => ui.move(1)),
    button("next wrong reply", "n next wrong", ui.nextWrong),
    h("input", {
      type: "text", class: "st-goto", placeholder: "go to (g)", "aria-label": "go to a number or an id",
      "data-key": "goto", title: "a number, an id or a link",
      onchange: (event) => ui.goTo(event.target.value), onkeydown: leave,
    }),
    h("b", { class: "st-count", "aria-live": "polite" }, state.counter),
  ];
  const note = state.fixed && state.note.note;
  return h("header", { class: "st-head" }, many, button("keys", "? keys", ui.help), view.kind === "sample" && [
    h("span", { class: "st-id", dir: "auto" }, view.id),
    state.many && button("copy link", ui.linkName, ui.copyLink), tags,
    view.findings.map((finding) => h("span", { class: "st-tag st-finding" }, "⚑ ", finding)),
    state.note.mark && h("span", { class: "st-tag st-marked" }, "✎ ", state.note.mark),
    note && h("span", { class: "st-quiet st-noted", dir: "auto" }, "note: ", note),
    h("span", { class: "st-quiet", dir: "auto" }, view.video)]);
}

function markBar(state, ui) {
  const markButton = (name, i) => button(`mark ${name}`, i < 9 ? `${i + 1} ${name}` : name,
    () => ui.markThis(name), { "aria-pressed": String(state.note.mark === name) });
  return h("div", { class: "st-marks", role: "group", "aria-label": "mark this sample" },
    ui.markNames().map(markButton),
    button("clear the mark", "0 clear", () => ui.markThis(""), { disabled: !state.note.mark }),
    h("input", {
      type: "text", class: "st-own", placeholder: "own mark (m)", "aria-label": "own mark", "data-key": "own",
      onchange: (event) => event.target.value.trim() && ui.markThis(event.target.value.trim()), onkeydown: leave,
    }),
    h("input", {
      type: "text", class: "st-note", placeholder: "note (e)", "aria-label": "note", "data-key": "note", dir: "auto",
      value: state.note.note, onchange: (event) => ui.note(event.target.value), onkeydown: leave,
    }),
    button("undo the last mark or note", "u undo", ui.undo));
}

// Enter has made the change; with Escape the field is left too.
function leave(event) {
  if (event.key === "Enter" || event.key === "Escape") event.target.closest(".st-root").focus();
}

// The keys of the view on screen: [key, what it does, {key: act}]. Each of them answers.
function keysOf(view, state, ui) {
  const { frames } = ui;
  const many = state.many, sample = view.kind === "sample";
  const grouped = view.kind === "group" || view.kind === "training";
  const numbers = Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [n, () => ui.markNumber(n)]));
  return [
    frames.count() > 0 && [
      ["← →", "previous, next frame", {
        ArrowLeft: () => frames.jump(frames.at() - 1), ArrowRight: () => frames.jump(frames.at() + 1),
      }],
      ["Home End", "first, last frame", { Home: () => frames.jump(0), End: () => frames.jump(Infinity) }],
      ["space", "play, pause", { " ": frames.play }],
    ],
    frames.count() > 0 && sample && [["c", "walk along the first chain", { c: frames.walk }]],
    grouped && [
      ["j k", "next, previous rollout", { j: () => ui.moveRow(1), k: () => ui.moveRow(-1) }],
      ["Enter", "show a long reply whole", { Enter: ui.expandRow }],
    ],
    many && sample && [
      ["j k", "next, previous sample", { j: () => ui.move(1), k: () => ui.move(-1) }],
      ["n", "next wrong reply", { n: ui.nextWrong }],
      ["g", "go to a number, an id or a link", { g: () => ui.focus("[data-key=goto]") }],
    ],
    sample && (many || view.runs.length > 1) && [["d", "two replies side by side", { d: ui.toggleCompare }]],
    sample && !state.fixed && [
      ["1 to 9", "set a mark", numbers],
      ["0", "clear the mark", { 0: () => ui.markThis("") }],
      ["m", "write a mark of your own", { m: () => ui.focus(".st-own") }],
      ["e", "edit the note", { e: () => ui.focus(".st-note") }],
      ["u", "undo the last mark or note", { u: ui.undo }],
    ],
    many && [
      ["f", "find a text", { f: () => ui.focus("[data-key=text]") }],
      ["x", "clear the filters", { x: ui.clear }],
      ["t", "table of samples", { t: ui.toggleTable }],
    ],
    [["?", "these keys", { "?": ui.help }]],
    state.help && [["Esc", "close this list", { Escape: ui.help }]],
  ].filter(Boolean).flat();
}
