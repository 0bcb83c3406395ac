// An exported page: the inspector without a kernel, and the addresses of its samples.

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
      moved,
      followed: (act) => window.addEventListener("hashchange", () => act(decodeLink(location.hash))),
    },
  });
}

function moved(id) {
  try {
    history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  } catch { /* some browsers refuse a hundred changes in half a minute: the link waits for the next */ }
}

const searched = (view, marks) =>
  [view.id, view.video, view.question, view.answer, ...view.options.map(([, text]) => text), ...view.findings,
    ...view.runs.map((run) => run.reply), marks[view.id]?.mark, marks[view.id]?.note].join("\n").toLowerCase();

export default { render };
