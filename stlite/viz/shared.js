// Shared by every widget: frontend.py puts this file before the widget's own, as one script.
// A page is built of elements and text nodes. No string is ever parsed as markup,
// so nothing that a model or a data file wrote can run.

// Characters that hide or turn round what is written become visible: "\u202e" is shown as \u202e.
// The joiners \u200c and \u200d stay: emoji and many scripts are written with them.
const HIDDEN =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu;
const escaped = (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0");
const visible = (text) => String(text).replace(HIDDEN, escaped);

const missing = (value) => value === undefined || value === null || value === false;

// Build an element: h("button", { class: "st-tag", onclick: act }, "text", child, [more children]).
// Properties and children that are undefined, null or false are left out.
function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (!missing(value)) node.setAttribute(name, value === true ? "" : visible(value));
  }
  const shown = children.flat(Infinity).filter((child) => !missing(child) && child !== "");
  node.append(...shown.map((child) => (child instanceof Node ? child : visible(child))));
  return node;
}

// Build an SVG element out of numbers and class names.
function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A button with a name for a screen reader; `key` finds it again after the view was drawn anew.
const button = (label, text, act, props) =>
  h("button", { type: "button", "data-key": label, title: label, "aria-label": label, onclick: act, ...props }, text);

const two = (x) => (typeof x === "number" ? x.toFixed(2) : "–");
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

// Listen to single keys: `keys()` is {key: act} at the moment. Keys that are typed into a field, that press
// or scroll what has the focus, or that come with Ctrl, Alt or Cmd, are left alone.
const FIELDS = "input[type=text], input[type=search], input[type=number], textarea, select";
function listen(root, keys) {
  root.addEventListener("keydown", (event) => {
    const node = event.target, { key } = event;
    if (node.matches(FIELDS) || event.ctrlKey || event.metaKey || event.altKey) return;
    if ((key === " " || key === "Enter") && node.matches("button, a, summary, input")) return;
    if (/^(Arrow|Home|End|Page)/.test(key) && node.matches("input[type=range], pre, .st-scroll")) return;
    const acts = keys();
    if (!Object.hasOwn(acts, key)) return;
    event.preventDefault();
    event.stopPropagation();
    acts[key](event);
  });
}

// The list of keys: rows are [[keys, what they do], …].
const helpPanel = (rows) =>
  h("div", { class: "st-help", role: "note", "aria-label": "keys" },
    rows.map(([key, does]) => [h("b", {}, key), h("span", {}, does)]));

// Frames come as bytes from a kernel, and as base64 text in an exported page.
const frameURL = (frame) =>
  typeof frame === "string"
    ? `data:image/jpeg;base64,${frame}`
    : URL.createObjectURL(new Blob([frame], { type: "image/jpeg" }));
function release(urls) {
  for (const url of urls) if (url.startsWith("blob:")) URL.revokeObjectURL(url);
}

// The index of the number in `seconds` that lies nearest to `second`.
function nearest(seconds, second) {
  let best = 0;
  seconds.forEach((t, i) => {
    if (Math.abs(t - second) < Math.abs(seconds[best] - second)) best = i;
  });
  return best;
}
