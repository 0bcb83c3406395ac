// The inspector: one sample, chain, group or training, drawn from plain objects that Python makes.
// With a table there are many samples, sent one by one as they are opened; without one, `view` is all there is.

const KEPT = 12; // samples whose frames stay in the browser
const MOST_MARKS = 12; // marks that have a button; others are still found by the filter
const PATIENCE = 8000; // milliseconds before a silent kernel is spoken of

function words(view, state, ui) {
  const several = view.runs.length > 1;
  return h("div", { class: "st-words" }, question(view), options(view),
    several && button("compare two replies", "d side by side", ui.toggleCompare, { "aria-pressed": String(state.compare) }),
    several && state.compare ? sideBySide(view, state.pair, ui.choosePair) : view.runs.map(reply),
    !view.runs.length && h("p", { class: "st-quiet" }, "no reply to this sample"));
}

function sampleBody(view, urls, state, ui) {
  return [timeline(view, urls, ui.frames.jump),
    h("div", { class: "st-main" }, h("div", { class: "st-eye" }, eye(view, urls, ui.frames)), words(view, state, ui))];
}

function groupBody(view, urls, ui) {
  const { sample } = view;
  if (!sample) return [h("p", { class: "st-question", dir: "auto" }, view.prompt), group(view)];
  return [timeline(sample, urls, ui.frames.jump),
    h("div", { class: "st-main" }, h("div", { class: "st-eye" }, eye(sample, urls, ui.frames)),
      h("div", { class: "st-words" }, question(sample), options(sample))), group(view)];
}

function trainingBody(view, urls, sampleURLs, ui) {
  const curves = urls.length ? h("img", { class: "st-curves", src: urls[0], alt: view.caption })
    : h("p", { class: "st-empty" }, "no steps logged yet");
  return [curves, view.group && groupBody(view.group, sampleURLs, ui)];
}

// The sample whose frames a view shows, if any.
const sampleOf = (view) => (view.kind === "sample" ? view : view.sample || view.group?.sample || null);

function render({ model, el }) {
  const table = model.get("table");
  const data = { table, get marks() { return model.get("marks") || {}; } };
  const find = { chosen: {}, text: "", among: null, sort: "", down: false };
  const state = {
    many: Boolean(table?.ids), fixed: model.get("fixed"), place: 0, page: 0, row: -1, counter: "", ending: ENDINGS[0],
    help: false, table: false, compare: false, pair: [], selected: new Set(), note: { mark: "", note: "" },
  };
  const cache = new Map(); // number of a sample -> its view and the addresses of its frames
  let order = state.many ? choose(data, find) : [];
  let view = { kind: "empty" }, urls = [], sampleURLs = [], index = -1, waiting = null;

  // ---- drawing: each part of the page anew when what it shows has changed

  const names = ["finder", "table", "head", "body", "marks"];
  const parts = Object.fromEntries(names.map((name) => [name, h("div", { class: `st-part-${name}` })]));
  const status = h("p", { class: "st-status", role: "status" });
  const help = h("div", { class: "st-part-help" });
  const root = h("div", {
    class: "st-root", tabindex: 0, role: "region", "aria-label": "inspector", "data-lm-suppress-shortcuts": "true",
  }, parts.finder, parts.table, parts.head, status, parts.body, parts.marks, help);
  const say = (text) => { status.textContent = visible(text); };
  const frames = framePlayer(root, say);

  function fill(name, ...content) {
    const box = parts[name];
    const held = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    box.replaceChildren(...content.flat(Infinity).filter((node) => !missing(node)));
    if (held === null) return;
    const again = [...box.querySelectorAll("[data-key]")].find((node) => node.dataset.key === held);
    (again && !again.disabled ? again : root).focus({ preventScroll: true });
  }

  function drawFinder() {
    fill("finder", finderBar(data, find, order, state, ui));
    drawTable();
  }
  const drawTable = () => fill("table", state.table && tableOf(data, find, order, state, ui));

  function drawHead() {
    const noted = Object.hasOwn(data.marks, view.id) ? data.marks[view.id] : {};
    state.note = { mark: noted.mark || "", note: noted.note || "" };
    const all = order.length === table?.ids?.length ? "" : ` (${table?.ids?.length} in all)`;
    state.counter = order.length ? `${state.place + 1} of ${order.length}${all}` : `0 of 0${all}`;
    fill("head", header(view, state, ui));
    fill("marks", view.kind === "sample" && !state.fixed && markBar(state, ui));
  }

  function drawBody(start = frames.at()) {
    const bodies = {
      empty: () => h("p", { class: "st-empty" }, view.text),
      sample: () => sampleBody(view, urls, state, ui),
      group: () => groupBody(view, sampleURLs, ui),
      training: () => trainingBody(view, urls, sampleURLs, ui),
    };
    fill("body", bodies[view.kind]());
    frames.look(sampleOf(view), view.kind === "sample" ? urls : sampleURLs, start);
  }

  const drawHelp = () => help.replaceChildren(...(state.help ? [helpPanel(keysOf(view, state, ui))] : []));

  // Show a view; `number` is that of the sample in the table.
  function show(next, addresses, number) {
    const start = number === index && state.many ? frames.at() : 0;
    view = { text: "", findings: [], runs: [], seconds: [], indices: [], tracks: [], options: [], ...next };
    urls = addresses;
    index = number;
    state.row = -1;
    if (!state.pair.length && view.runs.length > 1) {
      state.pair = [view.runs[0].name, view.runs[view.runs.length - 1].name];
    }
    busy(false);
    drawHead();
    drawBody(start);
    drawTable();
    drawHelp();
  }

  // ---- the kernel

  function busy(on) {
    root.setAttribute("aria-busy", String(on));
    clearTimeout(waiting);
    if (!on) return;
    waiting = setTimeout(() => say("Still waiting for the kernel. If it was restarted, run the cell again."), PATIENCE);
  }
  function send(message, wait = true) {
    if (wait) busy(true);
    model.send(message);
  }

  function take(message, buffers) {
    if (message.view) {
      const entry = [message.view, (buffers?.length ? buffers : message.view.frames || []).map(frameURL)];
      if (cache.has(message.index)) release(cache.get(message.index)[1]);
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
    state.page = Math.floor(state.place / PAGE);
    if (cache.has(number)) show(...cache.get(number), number);
    else send({ do: "open", index: number });
    const next = order[state.place + 1];
    if (next !== undefined && !cache.has(next)) send({ do: "open", index: next }, false);
  }

  function goTo(text) {
    const wanted = text.trim();
    if (!wanted) return;
    const id = wanted.includes("#") ? decodeLink(wanted) : wanted;
    const byId = order.findIndex((i) => table.ids[i] === id || table.ids[i] === wanted);
    const number = /^\d+$/.test(wanted) ? Number(wanted) : null;
    const place = byId >= 0 ? byId : (number ?? 0) - 1;
    if (place >= 0 && place < order.length) {
      say("");
      open(place);
    } else if (table.ids.includes(id)) say(`${id} is hidden by the filters: clear them (x).`);
    else if (number !== null) say(`There is no number ${wanted}: expected 1 to ${order.length}.`);
    else say(`There is no sample with the id ${wanted}.`);
  }

  // The filters have changed: keep the sample looked at if it still passes.
  function refilter() {
    const held = order[state.place];
    order = choose(data, find);
    state.selected = new Set(order.filter((i) => state.selected.has(i))); // nothing unseen is marked
    state.place = Math.max(0, order.indexOf(held));
    state.page = Math.floor(state.place / PAGE);
    say("");
    busy(false);
    drawFinder();
    if (order.length && order[state.place] === index) drawHead();
    else open(state.place);
  }

  // ---- what a reader may do

  const ui = {
    frames, open, goTo, say,
    linkName: model.address ? "copy link" : "copy id",
    focus(selector) {
      root.querySelector(selector)?.focus();
      root.querySelector(selector)?.select();
    },
    help: () => { state.help = !state.help; drawHelp(); },
    move(by) {
      const to = state.place + by;
      if (to < 0 || to >= order.length) return say(by > 0 ? "This is the last sample." : "This is the first sample.");
      say("");
      open(to);
    },
    nextWrong() {
      const wrong = (i) => table.facets.outcome[i].some((name) => name !== "right" && name !== "no reply");
      for (let step = 1; step <= order.length; step++) {
        const place = (state.place + step) % order.length;
        if (!wrong(order[place])) continue;
        say(place === state.place ? "This is the only wrong reply here." : "");
        return open(place);
      }
      say("No wrong reply here.");
    },
    copyLink() {
      const link = model.address ? model.address(view.id) : view.id;
      const done = model.address ? "Link copied." : "Id copied: “go to” takes it.";
      const copied = navigator.clipboard?.writeText(link) || Promise.reject(new Error("no clipboard"));
      copied.then(() => say(done), () => say(link));
    },
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
      Object.assign(find, { chosen: {}, text: "", among: null });
      refilter();
    },
    sort(name) {
      // first upward, then downward, then as they came
      if (find.sort !== name) Object.assign(find, { sort: name, down: false });
      else if (!find.down) find.down = true;
      else Object.assign(find, { sort: "", down: false });
      refilter();
    },
    toggleTable() {
      state.table = !state.table;
      state.page = Math.floor(state.place / PAGE);
      drawFinder();
    },
    turn(by) { state.page += by; drawTable(); },
    select(numbers, on) {
      for (const i of numbers) state.selected[on ? "add" : "delete"](i);
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
    mark: (numbers, text) => send({ do: "mark", indices: numbers, mark: text }),
    markThis: (text) => ui.mark([index], text),
    markNumber(n) {
      const name = ui.markNames()[n - 1];
      if (name) ui.markThis(name);
      else say(`There is no mark number ${n}.`);
    },
    note: (text) => send({ do: "mark", indices: [index], note: text }),
    undo: () => send({ do: "undo" }),
    exportAs(ending) {
      send({ do: "export", indices: order, ending });
      say(`Writing ${order.length} samples …`);
    },
    moveRow(by) {
      const rows = [...parts.body.querySelectorAll("tbody tr")];
      if (!rows.length) return say("There is no rollout.");
      state.row = clamp(state.row + by, 0, rows.length - 1);
      rows.forEach((row, n) => row.toggleAttribute("aria-current", n === state.row));
      rows[state.row].scrollIntoView({ block: "nearest" });
      say(`rollout ${state.row + 1} of ${rows.length}`);
    },
    expandRow() {
      const row = parts.body.querySelector("tr[aria-current]") || parts.body.querySelector("tbody tr");
      const more = row?.querySelector(".st-more");
      if (more) more.click();
      else say("This reply is shown whole.");
    },
  };
  listen(root, () => Object.assign({}, ...keysOf(view, state, ui).map(([, , acts]) => acts)));

  // ---- changes from Python

  const listeners = {
    "change:view"() {
      release([...urls, ...sampleURLs]);
      const next = model.get("view");
      sampleURLs = next.kind === "sample" ? [] : (sampleOf(next)?.frames || []).map(frameURL);
      show(next, (next.frames || []).map(frameURL), -1);
    },
    "change:marks"() {
      // a sample just marked stays where it is, even if it passes the filter by mark no longer
      busy(false);
      drawFinder();
      drawHead();
    },
    "change:status"() {
      busy(false);
      say(model.get("status").text || "");
    },
    "msg:custom": take,
  };
  for (const [name, act] of Object.entries(listeners)) model.on(name, act);

  if (state.many) {
    say(model.get("status")?.text || "");
    drawFinder();
    open(Math.max(0, table.ids.indexOf(model.start?.() || model.get("start"))));
    model.followed?.((id) => table.ids[index] !== id && goTo(id));
  } else listeners["change:view"]();
  el.append(root);
  return () => {
    frames.stop();
    clearTimeout(waiting);
    for (const [name, act] of Object.entries(listeners)) model.off(name, act);
    release([...urls, ...sampleURLs, ...[...cache.values()].flatMap(([, addresses]) => addresses)]);
  };
}
