// The inspector: one sample, chain, group or training, drawn from plain objects that Python makes.
// With a table there are many samples, sent one by one as they are opened; without one, `view` is all there is.

const KEPT = 12; // samples whose frames stay in the browser
const MOST_MARKS = 12; // marks that have a button; others are still found by the filter

function header(view, state, ui) {
  const tags = [view.task, view.way, view.part].filter(Boolean).map((text) => h("span", { class: "st-tag" }, text));
  const many = state.many && [
    button("previous sample", "k previous", () => ui.move(-1)), button("next sample", "j next", () => ui.move(1)),
    button("next wrong reply", "n next wrong", ui.nextWrong),
    h("input", {
      type: "text", class: "st-goto", placeholder: "go to (g)", "aria-label": "go to a number or an id", "data-key": "goto",
      title: "a number, an id or a link", onchange: (event) => ui.goTo(event.target.value), onkeydown: leave,
    }),
    h("b", { class: "st-count", "aria-live": "polite" }, state.counter),
  ];
  return h("header", { class: "st-head" }, many, button("keys", "? keys", ui.help),
    view.kind === "sample" && [
      h("span", { class: "st-id", dir: "auto" }, view.id), state.many && button("copy link", "link", ui.copyLink), tags,
      view.findings.map((finding) => h("span", { class: "st-tag st-finding" }, "⚑ ", finding)),
      state.note.mark && h("span", { class: "st-tag st-marked" }, "✎ ", state.note.mark),
      state.fixed && state.note.note && h("span", { class: "st-quiet st-noted", dir: "auto" }, "note: ", state.note.note),
      h("span", { class: "st-quiet", dir: "auto" }, view.video)]);
}

function markBar(view, state, ui) {
  const names = ui.markNames();
  const pressed = (name) => ({ "aria-pressed": String(state.note.mark === name) });
  return h("div", { class: "st-marks", role: "group", "aria-label": "mark this sample" },
    names.map((name, i) => button(`mark ${name}`, i < 9 ? `${i + 1} ${name}` : name, () => ui.markThis(name), pressed(name))),
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

function words(view, state, ui) {
  const two = view.runs.length > 1;
  return h("div", { class: "st-words" }, question(view), options(view),
    two && button("compare two replies", "d side by side", ui.toggleCompare, { "aria-pressed": String(state.compare) }),
    two && state.compare ? sideBySide(view, state.pair, ui.choosePair) : view.runs.map(reply),
    !view.runs.length && h("p", { class: "st-quiet" }, "no reply to this sample"));
}

function render({ model, el }) {
  const table = model.get("table");
  const data = { table, get marks() { return model.get("marks") || {}; } };
  const find = { chosen: {}, text: "", among: null, sort: "", down: false };
  const state = {
    many: Boolean(table?.ids), fixed: model.get("fixed"), place: 0, page: 0, frame: 0, row: -1, counter: "",
    help: false, table: false, compare: false, pair: [], selected: new Set(), own: [], note: { mark: "", note: "" },
  };
  const cache = new Map(); // number of a sample -> its view and the addresses of its frames
  let order = state.many ? choose(data, find) : [];
  let view = { kind: "empty" }, urls = [], index = -1, timer = null, waiting = null;

  // The parts of the page, each drawn anew when what it shows has changed.
  const part = (name) => h("div", { class: `st-part-${name}` });
  const parts = Object.fromEntries(["finder", "table", "head", "body", "marks"].map((name) => [name, part(name)]));
  const status = h("p", { class: "st-status", role: "status" });
  const help = h("div", { class: "st-part-help" });
  const root = h("div", {
    class: "st-root", tabindex: 0, role: "region", "aria-label": "inspector", "data-lm-suppress-shortcuts": "true",
  }, parts.finder, parts.table, parts.head, status, parts.body, parts.marks, help);

  function fill(name, ...content) {
    const box = parts[name];
    const held = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    box.replaceChildren(...content.flat(Infinity).filter((node) => !missing(node)));
    if (held === null) return;
    const again = [...box.querySelectorAll("[data-key]")].find((node) => node.dataset.key === held);
    (again && !again.disabled ? again : root).focus({ preventScroll: true });
  }

  const say = (text) => { status.textContent = visible(text); };

  // ---- drawing

  function drawFinder() {
    if (!state.many) return;
    fill("finder", finderBar(data, find, order, ui));
    drawTable();
  }
  const drawTable = () => fill("table", state.table && tableOf(data, find, order, state, ui));

  function drawHead() {
    const noted = Object.hasOwn(data.marks, view.id) ? data.marks[view.id] : {};
    state.note = { mark: noted.mark || "", note: noted.note || "" };
    const all = order.length === table?.ids?.length ? "" : ` (${table?.ids?.length} in all)`;
    state.counter = order.length ? `${state.place + 1} of ${order.length}${all}` : `0 of 0${all}`;
    fill("head", header(view, state, ui));
    fill("marks", view.kind === "sample" && !state.fixed && markBar(view, state, ui));
  }

  function drawBody() {
    stop();
    const drawing = {
      empty: () => h("p", { class: "st-empty" }, view.text),
      sample: () => [timeline(view, urls, jump), h("div", { class: "st-main" },
        h("div", { class: "st-eye" }, eye(view, urls, ui)), words(view, state, ui))],
      group: () => drawGroup(view),
      training: () => [
        urls.length ? h("img", { class: "st-curves", src: urls[0], alt: view.caption }) : h("p", { class: "st-empty" }, "no steps logged yet"),
        view.group && drawGroup(view.group)],
    }[view.kind];
    fill("body", drawing());
    if (frames().length) jump(state.frame);
  }

  function drawGroup(of) {
    if (!of.sample) return [h("p", { class: "st-question", dir: "auto" }, of.prompt), group(of)];
    return [timeline({ seconds: [], ...of.sample }, groupURLs, jump), h("div", { class: "st-main" },
      h("div", { class: "st-eye" }, eye(of.sample, groupURLs, ui)),
      h("div", { class: "st-words" }, question(of.sample), options(of.sample))), group(of)];
  }

  // Show a view; `number` is that of the sample in the table.
  function show(next, addresses, number) {
    const same = number === index && state.many;
    view = { text: "", findings: [], runs: [], seconds: [], indices: [], tracks: [], options: [], ...next };
    urls = addresses;
    index = number;
    if (!same) state.frame = 0;
    state.row = -1;
    if (!state.pair.length && view.runs.length > 1) {
      state.pair = [view.runs[0].name, view.runs[view.runs.length - 1].name];
    }
    busy(false);
    drawHead();
    drawBody();
    if (state.table) drawTable();
  }

  // ---- the kernel

  function busy(on) {
    root.setAttribute("aria-busy", String(on));
    clearTimeout(waiting);
    if (on) waiting = setTimeout(() => say("Still waiting for the kernel. If it was restarted, run the cell again."), 8000);
  }
  function send(message, wait = true) {
    if (wait) busy(true);
    model.send(message);
  }

  function take(message, buffers) {
    if (message.view) {
      const entry = [message.view, (buffers?.length ? buffers : message.view.frames || []).map(frameURL)];
      cache.set(message.index, entry);
      if (order[state.place] === message.index) show(...entry, message.index);
      forget();
    } else if (message.found && message.text === find.text) {
      find.among = new Set(message.found);
      refilter();
    }
  }

  function forget() {
    for (const [number, [, addresses]] of cache) {
      if (cache.size <= KEPT) return;
      if (number === index) continue;
      release(addresses);
      cache.delete(number);
    }
  }

  // ---- going from sample to sample

  function open(place) {
    if (!order.length) {
      const text = table.ids.length ? "No sample passes these filters." : "There is no sample.";
      return show({ kind: "empty", text }, [], -1);
    }
    state.place = clamp(place, 0, order.length - 1);
    const number = order[state.place];
    model.moved?.(table.ids[number]);
    if (state.table && Math.floor(state.place / PAGE) !== state.page) state.page = Math.floor(state.place / PAGE);
    if (cache.has(number)) show(...cache.get(number), number);
    else send({ do: "open", index: number });
    const next = order[state.place + 1];
    if (next !== undefined && !cache.has(next)) send({ do: "open", index: next }, false);
  }

  function move(by) {
    const to = state.place + by;
    if (to < 0 || to >= order.length) return say(by > 0 ? "This is the last sample." : "This is the first sample.");
    say("");
    open(to);
  }

  function nextWrong() {
    const wrong = (i) => !["right", "no reply"].includes(String(table.facets.outcome[i]));
    for (let step = 1; step <= order.length; step++) {
      const place = (state.place + step) % order.length;
      if (wrong(order[place])) {
        say(place === state.place ? "This is the only wrong reply here." : "");
        return open(place);
      }
    }
    say("No wrong reply here.");
  }

  function goTo(text) {
    const wanted = text.trim();
    if (!wanted) return;
    const id = wanted.includes("#") ? decodeLink(wanted) : wanted;
    const byId = order.findIndex((i) => table.ids[i] === id || table.ids[i] === wanted);
    const number = /^\d+$/.test(wanted) ? Number(wanted) : null;
    const place = byId >= 0 ? byId : (number ?? 0) - 1;
    if (place >= 0 && place < order.length) { say(""); return open(place); }
    if (table.ids.includes(id)) return say(`${id} is hidden by the filters: clear them (x).`);
    say(number !== null ? `There is no number ${wanted}: expected 1 to ${order.length}.` : `There is no sample with the id ${wanted}.`);
  }

  function copyLink() {
    const link = model.address ? model.address(view.id) : view.id;
    const done = model.address ? "Link copied." : "Id copied: paste it into “go to”.";
    const copied = navigator.clipboard?.writeText(link) || Promise.reject(new Error("no clipboard"));
    copied.then(() => say(done), () => say(link));
  }

  // The filters have changed: keep the sample looked at if it still passes.
  function refilter() {
    const held = order[state.place];
    order = choose(data, find);
    state.page = 0;
    say("");
    busy(false);
    drawFinder();
    if (order.length && order.includes(held)) {
      state.place = order.indexOf(held);
      if (held === index) return drawHead();
    } else state.place = 0;
    open(state.place);
  }

  // ---- frames

  const groupURLs = [];
  const shownSample = () => (view.kind === "group" ? view.sample : view.kind === "training" ? view.group?.sample : view);
  const frames = () => (view.kind === "sample" ? urls : groupURLs);

  function jump(to) {
    const addresses = frames(), of = shownSample();
    if (!addresses.length) return;
    const i = state.frame = clamp(to, 0, addresses.length - 1);
    const at = `frame ${i + 1} of ${addresses.length} · #${of.indices[i]} · ${two(of.seconds[i])} s of ${two(of.duration)} s`;
    const big = root.querySelector(".st-big"), range = root.querySelector(".st-range");
    big.src = addresses[i];
    big.alt = at;
    range.value = i;
    range.setAttribute("aria-valuetext", at);
    root.querySelector(".st-caption").textContent = at;
    showThumb(root.querySelector(".st-scroller"), i);
  }

  const stop = () => { clearTimeout(timer); timer = null; };

  function play() {
    if (timer) return stop();
    const last = frames().length - 1;
    if (state.frame === last) jump(0);
    const tick = () => {
      if (state.frame >= last) return stop();
      const { seconds } = shownSample();
      const gap = (seconds[state.frame + 1] - seconds[state.frame]) * 1000; // as fast as it was filmed, within reason
      timer = setTimeout(() => { jump(state.frame + 1); tick(); }, clamp(gap, 60, 1000));
    };
    tick();
  }

  function walk() {
    stop();
    const track = root.querySelector(".st-thought") || root.querySelector(".st-track");
    const steps = track ? [...track.querySelectorAll(".st-chip")] : [];
    if (!steps.length) return say("There is no chain to walk along.");
    const tick = (i) => {
      steps.forEach((step, n) => step.classList.toggle("st-here", n === i));
      if (i >= steps.length) return stop();
      reveal(root.querySelector(".st-scroller"), steps[i]);
      steps[i].click();
      timer = setTimeout(() => tick(i + 1), 700);
    };
    tick(0);
  }

  function moveRow(by) {
    const rows = [...root.querySelectorAll(".st-part-body tbody tr")];
    if (!rows.length) return say("There is no rollout.");
    state.row = clamp(state.row + by, 0, rows.length - 1);
    rows.forEach((row, n) => row.toggleAttribute("aria-current", n === state.row));
    rows[state.row].scrollIntoView({ block: "nearest" });
    say(`rollout ${state.row + 1} of ${rows.length}`);
  }

  function expandRow() {
    const row = root.querySelector(".st-part-body tr[aria-current]") || root.querySelector(".st-part-body tbody tr");
    const more = row?.querySelector(".st-more");
    if (more) more.click();
    else say("This reply is shown whole.");
  }

  // ---- what the reader may do

  const ui = {
    jump, play, move, nextWrong, goTo, copyLink, open,
    frame: () => state.frame,
    help: () => { state.help = !state.help; drawHelp(); },
    filter(name, value) {
      if (value) find.chosen[name] = value;
      else delete find.chosen[name];
      refilter();
    },
    search(text) {
      find.text = text;
      find.among = null;
      if (text.trim()) send({ do: "search", text });
      else refilter();
    },
    clear() {
      if (!Object.keys(find.chosen).length && !find.text) return say("There is no filter to clear.");
      find.chosen = {};
      find.text = "";
      find.among = null;
      refilter();
    },
    sort(name) {
      if (find.sort === name && find.down) { find.sort = ""; find.down = false; }
      else if (find.sort === name) find.down = true;
      else find.sort = name;
      refilter();
    },
    tableOpen: () => state.table,
    toggleTable() {
      state.table = !state.table;
      state.page = Math.floor(state.place / PAGE);
      drawFinder();
    },
    turn(by) { state.page += by; drawTable(); },
    select(numbers, on) {
      for (const i of numbers) {
        if (on) state.selected.add(i);
        else state.selected.delete(i);
      }
      drawTable();
    },
    toggleCompare() {
      if (view.runs.length < 2) return say("There are no two replies to compare.");
      state.compare = !state.compare;
      drawBody();
    },
    choosePair(side, name) { state.pair[side] = name; drawBody(); },
    markNames() {
      const used = Object.values(data.marks).map((row) => row.mark).filter(Boolean);
      return [...new Set([...(model.get("mark_names") || []), ...used])].slice(0, MOST_MARKS);
    },
    mark: state.fixed ? null : (numbers, text) => send({ do: "mark", indices: numbers, mark: text }),
    markThis: (text) => send({ do: "mark", indices: [index], mark: text }),
    note: (text) => send({ do: "mark", indices: [index], note: text }),
    undo: () => send({ do: "undo" }),
    exportAs: state.fixed ? null : (ending) => { say(`Writing ${order.length} samples …`); send({ do: "export", indices: order, ending }); },
  };

  const focus = (selector) => () => {
    root.querySelector(selector)?.focus();
    root.querySelector(selector)?.select();
  };
  const markNumber = (n) => () => {
    const name = ui.markNames()[n - 1];
    if (name) ui.markThis(name);
    else say(`There is no mark number ${n}.`);
  };
  const frameKeys = [
    ["← →", "previous, next frame", { ArrowLeft: () => jump(state.frame - 1), ArrowRight: () => jump(state.frame + 1) }],
    ["Home End", "first, last frame", { Home: () => jump(0), End: () => jump(Infinity) }],
    ["space", "play, pause", { " ": play }],
    ["c", "walk along the first chain", { c: walk }],
  ];
  const findKeys = [
    ["f", "find a text", { f: focus("[data-key=text]") }], ["x", "clear the filters", { x: ui.clear }],
    ["t", "table of samples", { t: ui.toggleTable }],
  ];
  const moveKeys = [
    ["j k", "next, previous sample", { j: () => move(1), k: () => move(-1) }], ["n", "next wrong reply", { n: nextWrong }],
    ["g", "go to a number, an id or a link", { g: focus("[data-key=goto]") }],
  ];
  const markKeys = [
    ["1 to 9", "set a mark", Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [n, markNumber(n)]))],
    ["0", "clear the mark", { 0: () => ui.markThis("") }], ["m", "write a mark of your own", { m: focus(".st-own") }],
    ["e", "edit the note", { e: focus(".st-note") }], ["u", "undo the last mark or note", { u: ui.undo }],
  ];
  const rowKeys = [
    ["j k", "next, previous rollout", { j: () => moveRow(1), k: () => moveRow(-1) }],
    ["Enter", "show a long reply whole", { Enter: expandRow }],
  ];

  // The keys of the view on screen, [key, what it does, {key: act}]: each of them answers.
  function keys() {
    const rows = [["?", "these keys", { "?": ui.help }]];
    if (state.help) rows.push(["Esc", "close this list", { Escape: ui.help }]);
    if (state.many) rows.unshift(...findKeys);
    if (view.kind === "group" || view.kind === "training") rows.unshift(...rowKeys);
    if (view.kind !== "sample") return frames().length ? [...frameKeys.slice(0, 3), ...rows] : rows;
    if (!state.fixed) rows.unshift(...markKeys);
    if (state.many || view.runs.length > 1) rows.unshift(["d", "two replies side by side", { d: ui.toggleCompare }]);
    if (state.many) rows.unshift(...moveKeys);
    return urls.length ? [...frameKeys, ...rows] : rows;
  }
  const drawHelp = () => help.replaceChildren(...(state.help ? [helpPanel(keys())] : []));
  listen(root, () => Object.assign({}, ...keys().map(([, , acts]) => acts)));

  // ---- changes from Python

  function viewChanged() {
    release([...urls, ...groupURLs]);
    const next = model.get("view");
    const shared = next.kind === "group" ? next.sample : next.group?.sample;
    groupURLs.splice(0, Infinity, ...(shared?.frames || []).map(frameURL));
    show(next, (next.frames || []).map(frameURL), -1);
  }
  function marksChanged() {
    busy(false);
    const held = order[state.place];
    if (find.chosen.mark) { // the sample just marked stays in view until the next filter
      drawFinder();
    } else {
      order = choose(data, find);
      if (held !== undefined) state.place = Math.max(0, order.indexOf(held));
      drawFinder();
    }
    drawHead();
  }
  function statusChanged() {
    busy(false);
    say(model.get("status").text || "");
  }
  const listeners = { "change:marks": marksChanged, "change:status": statusChanged, "change:view": viewChanged, "msg:custom": take };
  for (const [name, act] of Object.entries(listeners)) model.on(name, act);

  if (state.many) {
    drawFinder();
    const start = table.ids.indexOf(model.start?.() || model.get("start"));
    open(Math.max(0, start));
    model.onaddress?.((id) => table.ids[index] !== id && goTo(id));
  } else viewChanged();
  el.append(root);
  return () => {
    stop();
    clearTimeout(waiting);
    for (const [name, act] of Object.entries(listeners)) model.off(name, act);
    release([...urls, ...groupURLs, ...[...cache.values()].flatMap(([, addresses]) => addresses)]);
  };
}

const decodeLink = (link) => {
  const end = link.slice(link.indexOf("#") + 1);
  try { return decodeURIComponent(end); } catch { return end; } // a lone % is no code
};

// An exported page: the same views, filters and table without a kernel. Its address names the sample shown.
function openPage() {
  const page = JSON.parse(document.getElementById("views").textContent);
  const texts = page.table ? page.views.map((view) => searched(view, page.marks)) : [];
  const listeners = {};
  const tell = (name, ...values) => listeners[name]?.(...values);
  const answers = {
    open: ({ index }) => tell("msg:custom", { view: page.views[index], index }),
    search: ({ text }) => {
      const found = [...texts.keys()].filter((i) => texts[i].includes(text.toLowerCase()));
      tell("msg:custom", { found, text });
    },
  };
  const values = { table: page.table, marks: page.marks, view: page.views[0], fixed: true };
  render({
    el: document.querySelector("main"),
    model: {
      get: (name) => values[name],
      on: (name, act) => { listeners[name] = act; },
      off() {},
      send: (message) => answers[message.do](message),
      start: () => decodeLink(location.hash),
      address: (id) => `${location.href.split("#")[0]}#${encodeURIComponent(id)}`,
      moved: (id) => history.replaceState(null, "", `#${encodeURIComponent(id)}`),
      onaddress: (act) => window.addEventListener("hashchange", () => act(decodeLink(location.hash))),
    },
  });
}

const searched = (view, marks) =>
  [view.id, view.video, view.question, view.answer, ...view.options.map(([, text]) => text), ...view.findings,
    ...view.runs.map((run) => run.reply), marks[view.id]?.mark, marks[view.id]?.note].join("\n").toLowerCase();

export default { render };
