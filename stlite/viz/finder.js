// Which samples are shown, in which order: filters with counts, a sortable table, marks for many at once.

const UNMARKED = "no mark";
const ENDINGS = ["csv", "jsonl", "html"];
const PAGE = 50; // rows of the table that are drawn at once
const collator = new Intl.Collator("en", { numeric: true });

const markOf = (marks, id) => (Object.hasOwn(marks, id) && marks[id].mark) || UNMARKED;

// The values of a facet for one sample: most have one, an outcome or a finding may have several.
function facetValues(data, name, i) {
  const values = name === "mark" ? markOf(data.marks, data.table.ids[i]) : data.table.facets[name][i];
  return Array.isArray(values) ? values : [values];
}

const facetNames = (data) => [...Object.keys(data.table.facets), "mark"];

// Whether sample i passes every filter, or every filter but one.
function passes(data, find, i, but) {
  if (find.among && !find.among.has(i)) return false;
  return Object.entries(find.chosen).every(
    ([name, value]) => name === but || facetValues(data, name, i).includes(value));
}

// The numbers of the samples that pass, in the order asked for.
function choose(data, find) {
  const numbers = data.table.ids.map((_, i) => i).filter((i) => passes(data, find, i));
  if (!find.sort) return numbers;
  const value = columns(data).find(([name]) => name === find.sort)[1];
  return numbers.sort((i, j) => compare(value(i), value(j), find.down));
}

function compare(a, b, down) {
  if (a === b) return 0;
  if (missing(a) || a === "") return 1; // what is not known comes last, both ways
  if (missing(b) || b === "") return -1;
  const order = typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
  return down ? -order : order;
}

// The columns of the table: [name, what sample i has there].
function columns(data) {
  const { table, marks } = data;
  const facets = ["task", "way", "part"].map((name) => [name, (i) => table.facets[name][i]]);
  const numbers = Object.entries(table.columns).map(([name, values]) => [name, (i) => values[i]]);
  const mark = (i) => (Object.hasOwn(marks, table.ids[i]) ? marks[table.ids[i]].mark : "");
  return [["id", (i) => table.ids[i]], ...facets, ...numbers, ["mark", mark]];
}

// How many samples each value of a facet would leave, with the other filters as they are.
function counts(data, find, name) {
  const found = new Map();
  let all = 0;
  data.table.ids.forEach((_, i) => {
    const passed = passes(data, find, i, name);
    all += passed;
    for (const value of facetValues(data, name, i)) {
      if (value) found.set(value, (found.get(value) || 0) + passed);
    }
  });
  return [all, [...found].sort(([a], [b]) => collator.compare(a, b))];
}

function facetSelect(data, find, name, ui) {
  const [all, values] = counts(data, find, name);
  if (!values.length) return null;
  const option = ([value, count], i) =>
    h("option", { value: i, selected: find.chosen[name] === value }, `${value} (${count})`);
  return h("select", {
    title: name, "aria-label": name, "data-key": `facet ${name}`, class: find.chosen[name] ? "st-on" : "",
    onchange: (event) => ui.filter(name, values[event.target.value]?.[0]),
  }, h("option", { value: "" }, `any ${name} (${all})`), values.map(option));
}

function finderBar(data, find, order, state, ui) {
  const filtered = Object.keys(find.chosen).length > 0 || find.text !== "";
  return h("div", { class: "st-finder", role: "search", "aria-label": "find samples" },
    h("input", {
      type: "search", placeholder: "text (f)", "aria-label": "text", "data-key": "text", value: find.text,
      onchange: (event) => ui.search(event.target.value), onkeydown: leave,
    }),
    facetNames(data).map((name) => facetSelect(data, find, name, ui)),
    button("clear filters", "x clear filters", ui.clear, { disabled: !filtered }),
    button("table", "t table", ui.toggleTable, { "aria-pressed": String(state.table) }),
    !state.fixed && h("span", { class: "st-export" },
      h("select", {
        "aria-label": "file format", title: "file format", "data-key": "file format",
        onchange: (event) => { state.ending = event.target.value; },
      }, ENDINGS.map((ending) => h("option", { value: ending, selected: ending === state.ending }, ending))),
      button("Export", `export ${order.length}`, () => ui.exportAs(state.ending), { disabled: !order.length })));
}

function tableOf(data, find, order, state, ui) {
  const shown = columns(data);
  const from = state.page * PAGE;
  const head = ([name]) => h("th", {
    scope: "col", "aria-sort": find.sort === name ? (find.down ? "descending" : "ascending") : "none",
  }, button(`sort by ${name}`, [name, find.sort === name ? (find.down ? " ▼" : " ▲") : ""], () => ui.sort(name)));
  const cell = (value) => h("td", { class: typeof value === "number" ? "st-number" : "" }, tidy(value));
  const row = (i, place) => h("tr", { "aria-current": place === state.place ? "true" : null },
    !state.fixed && h("td", {}, h("input", {
      type: "checkbox", "aria-label": `select ${data.table.ids[i]}`, "data-key": `select ${i}`,
      checked: state.selected.has(i), onchange: (event) => ui.select([i], event.target.checked),
    })),
    h("td", { class: "st-number" }, String(place + 1)),
    shown.map(([name, value]) => name === "id"
      ? h("th", { scope: "row" }, button(`open ${data.table.ids[i]}`, data.table.ids[i], () => ui.open(place), { class: "st-open" }))
      : cell(value(i))));
  const rows = order.slice(from, from + PAGE).map((i, k) => row(i, from + k));
  return h("section", { class: "st-table", "aria-label": "table of samples" },
    !state.fixed && bulk(data, order, state, ui),
    h("div", { class: "st-scroll", tabindex: 0, role: "group", "aria-label": "samples" }, h("table", {},
      h("thead", {}, h("tr", {}, !state.fixed && h("td", {}), h("th", { scope: "col" }, "#"), shown.map(head))),
      h("tbody", {}, rows))),
    order.length > PAGE && h("p", { class: "st-pages" },
      button("previous page", "◀", () => ui.turn(-1), { disabled: from === 0 }),
      `rows ${from + 1} to ${Math.min(order.length, from + PAGE)} of ${order.length}`,
      button("next page", "▶", () => ui.turn(1), { disabled: from + PAGE >= order.length })));
}

function tidy(value) {
  if (typeof value !== "number") return missing(value) ? "" : value;
  return Number.isInteger(value) ? String(value) : two(value);
}

// Marks for many samples at once: those with a tick.
function bulk(data, order, state, ui) {
  const count = state.selected.size;
  return h("div", { class: "st-bulk", role: "group", "aria-label": "mark the selected samples" },
    button("select all shown", `select all ${order.length}`, () => ui.select(order, true), { disabled: !order.length }),
    button("select none", "select none", () => ui.select(order, false), { disabled: !count }),
    h("span", {}, `${count} selected:`),
    ui.markNames().map((name) => button(`mark selected ${name}`, name, () => ui.mark([...state.selected], name), { disabled: !count })),
    button("clear the marks of the selected", "clear", () => ui.mark([...state.selected], ""), { disabled: !count }));
}
