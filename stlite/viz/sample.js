// One sample: the frame looked at, the question, the replies, two of them side by side; and one group of rollouts.

const HUES = { right: "right", wrong: "wrong" };
const VERDICTS = { right: "✓ ", wrong: "✗ " };
const hue = (reason) => HUES[reason] || "other";
const badge = (reason) => h("span", { class: `st-badge st-${hue(reason)}` }, VERDICTS[reason] || "! ", reason);

function question(view) {
  return h("p", { class: "st-question", dir: "auto" }, view.question);
}

function options(view) {
  if (!view.options.length) {
    return h("p", { class: "st-gold", dir: "auto" }, h("b", {}, "gold route: "), view.answer);
  }
  const chosen = (letter, gold) => view.runs.filter((run) => run.answer === letter).map((run) =>
    h("span", { class: `st-badge st-${gold ? "right" : "wrong"}` }, gold ? "✓ " : "✗ ", run.name));
  return h("ol", { class: "st-options", "aria-label": "options" }, view.options.map(([letter, text, gold]) =>
    h("li", { class: gold ? "st-is-gold" : "", dir: "auto" }, h("b", {}, letter, ". "), text,
      gold && h("span", { class: "st-badge st-right" }, "gold"), chosen(letter, gold))));
}

function eye(view, urls, frames) {
  if (!urls.length) return h("p", { class: "st-error", role: "alert" }, "✗ ", view.error || "no frame");
  return [h("img", { class: "st-big", alt: "", src: urls[0] }), h("p", { class: "st-caption" }),
    h("div", { class: "st-transport" },
      button("first frame", "|◀", () => frames.jump(0)),
      button("previous frame", "◀", () => frames.jump(frames.at() - 1)),
      button("play or pause", "▶ play", frames.play),
      button("next frame", "▶", () => frames.jump(frames.at() + 1)),
      button("last frame", "▶|", () => frames.jump(Infinity)),
      h("input", {
        type: "range", class: "st-range", min: 0, max: urls.length - 1, value: 0, "data-key": "range",
        "aria-label": "jump to frame", oninput: (event) => frames.jump(+event.target.value),
      })),
    view.notice && h("p", { class: "st-quiet" }, view.notice)];
}

function reply(run) {
  const rewards = Object.entries(run.rewards || {});
  return h("article", { class: `st-run st-edge-${hue(run.reason)}` },
    h("h4", {}, run.name, " ", badge(run.reason),
      h("span", { class: "st-quiet" }, ` answer read: ${run.answer || "none"} · value ${two(run.value)}`)),
    (run.error || run.explanation) && h("p", { dir: "auto" }, run.error || run.explanation),
    rewards.length > 0 && h("ul", { class: "st-rewards", "aria-label": "rewards" },
      rewards.map(([name, value]) => h("li", {}, `${name} `, h("b", {}, two(value))))),
    h("pre", { tabindex: 0, dir: "auto", "aria-label": `raw reply of ${run.name}` }, run.reply || "(no reply)"));
}

// Two replies side by side; a word that only one of them has is marked.
function sideBySide(view, pair, choose) {
  const runs = pair.map((name, i) => view.runs.find((run) => run.name === name) || view.runs[i]);
  const pieces = compareWords(runs[0].reply || "", runs[1].reply || "");
  const names = ["left reply", "right reply"];
  return h("div", { class: "st-pair" }, runs.map((run, i) => h("article", { class: `st-run st-edge-${hue(run.reason)}` },
    h("p", {}, h("select", {
      "aria-label": names[i], "data-key": names[i], onchange: (event) => choose(i, view.runs[event.target.value].name),
    }, view.runs.map((other, n) => h("option", { value: n, selected: other === run }, other.name))), badge(run.reason)),
    h("pre", { tabindex: 0, dir: "auto", "aria-label": `${names[i]}, ${run.name}` }, marked(pieces[i])))));
}

const marked = (pieces) => pieces.map(([text, changed]) => (changed ? h("mark", {}, text) : h("span", {}, text)));

const COMPARED = 1200; // words of a reply that are compared one by one

// Cut two texts into pieces [text, whether the other lacks it], by a longest common subsequence of words.
function compareWords(left, right) {
  const a = left.match(/\s*\S+|\s+$/g) || [], b = right.match(/\s*\S+|\s+$/g) || [];
  const common = commonWords(a.slice(0, COMPARED), b.slice(0, COMPARED));
  return [piecesOf(a, common.map(([i]) => i)), piecesOf(b, common.map(([, j]) => j))];
}

function commonWords(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width); // of what follows word i of a and word j of b
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return pairs;
}

function piecesOf(words, common) {
  const same = new Set(common);
  const pieces = [];
  words.forEach((word, i) => {
    const last = pieces[pieces.length - 1];
    if (last && last[1] === !same.has(i)) last[0] += word;
    else pieces.push([word, !same.has(i)]);
  });
  return pieces;
}

// ---- one group of rollouts

const SHOWN = 450; // characters at each end of a long reply

// Show a long reply's beginning and end; a button stands for its middle.
function cutMiddle(pieces) {
  const length = pieces.reduce((sum, [text]) => sum + text.length, 0);
  if (length <= 2 * SHOWN + 100) return marked(pieces);
  const cut = slicePieces(pieces, SHOWN, length - SHOWN);
  const middle = h("button", { type: "button", class: "st-more", onclick: () => middle.replaceWith(...marked(cut)) },
    `… show ${(length - 2 * SHOWN).toLocaleString("en")} more characters …`);
  return [marked(slicePieces(pieces, 0, SHOWN)), middle, marked(slicePieces(pieces, length - SHOWN, length))];
}

function slicePieces(pieces, from, to) {
  const slices = [];
  let start = 0;
  for (const [text, changed] of pieces) {
    const part = text.slice(Math.max(0, from - start), Math.max(0, to - start));
    if (part) slices.push([part, changed]);
    start += text.length;
  }
  return slices;
}

function group(view) {
  const totals = view.rows.map((row) => row.total);
  const best = view.rows[totals.indexOf(Math.max(...totals))];
  const columns = ["rollout", ...view.names, "total", "advantage"];
  const row = (r) => h("tr", { "data-row": r.name }, h("th", { scope: "row" }, r.name),
    view.names.map((name) => h("td", {}, two(r.rewards[name]))), h("td", {}, two(r.total)),
    h("td", { class: r.advantage > 0 ? "st-up" : "" }, r.advantage > 0 ? "▲ " : r.advantage < 0 ? "▼ " : "", two(r.advantage)),
    h("td", { class: "st-diff", dir: "auto" }, cutMiddle(compareWords(best.text, r.text)[1])));
  return h("div", { class: "st-scroll", tabindex: 0, role: "group", "aria-label": "rollouts" },
    h("table", {}, h("caption", {}, view.caption),
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)),
        h("th", { scope: "col", class: "st-diff" }, "reply; marked where it differs from the best"))),
      h("tbody", {}, view.rows.map(row))));
}
