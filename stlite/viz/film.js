// A film on the page, in pieces that the kernel makes. Stands between shared.js and player.js or annotator.js.

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}

const MIME = { mp4: 'video/mp4; codecs="avc1.42C01F"', webm: 'video/webm; codecs="vp8"' };
const AHEAD = { playing: 8, paused: 1 };  // seconds fetched before they are needed; a seek waits for the one on its way
const PATIENCE = 5000;  // milliseconds before a piece is asked for again
const SPEEDS = [0.5, 1, 1.5, 2, 3];
const INSIDE = 0.002;  // seconds past a frame's time, so that rounding shows this frame and not the one before

// A click on a button leaves the keys with the widget, so that space plays the film and does not press the button again.
function keepKeys(root) {
  root.addEventListener("mousedown", (e) => {
    if (!e.target.closest("button")) return;
    e.preventDefault();
    root.focus({ preventScroll: true });
  });
}

function createFilm(model, { onTime = () => {}, focus = () => {} } = {}) {
  const video = h("video", { class: "sf-screen", playsinline: true, "aria-label": "film", tabindex: -1 });
  video.muted = true;
  const still = h("img", { class: "sf-screen", alt: "the film's frame", hidden: true });
  const said = h("p", { class: "sf-said", role: "status" });
  const time = h("span", { class: "sf-clock" });
  const range = h("input", { type: "range", class: "sf-range", min: 0, max: 0, step: "any", value: 0, "aria-label": "time in the film" });
  const ticks = h("div", { class: "sf-ticks" });
  const playing = button("play or pause (space)", "▶", () => play());
  const speed = h("select", { "aria-label": "speed", title: "speed (- and =)" },
    SPEEDS.map((s) => h("option", { value: s, selected: s === 1 }, `${s} ×`)));
  const bar = h("div", { class: "sf-bar" }, playing,
    button("one frame back (,)", "◀", () => step(-1)), button("one frame on (.)", "▶|", () => step(1)), speed, time);
  const box = h("div", { class: "sf-film" }, h("div", { class: "sf-stage" }, video, still), h("div", { class: "sf-line" }, range, ticks), bar, said);

  let facts = null, source = null, buffer = null, kind = "", frames = [], queue = [], failed = new Set();
  let asked = null, askedAt = 0, at = 0, early = false, timer = null, dead = false;

  const duration = () => (facts ? facts.duration : 0);
  const last = () => Math.max(0, duration() - 0.02);
  const say = (text) => { said.textContent = visible(text || ""); };
  const still_ = () => kind === "frames";

  // ---- the buffer ----

  function held(number) {
    const middle = Math.min((number + 0.5) * facts.piece, (number * facts.piece + duration()) / 2);
    const ranges = buffer ? buffer.buffered : { length: 0 };
    for (let i = 0; i < ranges.length; i++) if (ranges.start(i) <= middle && middle < ranges.end(i)) return true;
    return failed.has(number);
  }

  function firstMissing() {
    const first = Math.floor(Math.min(at, last()) / facts.piece), end = Math.ceil(duration() / facts.piece);
    const ahead = video.paused ? AHEAD.paused : AHEAD.playing;
    for (let n = first; n < Math.min(end, first + Math.ceil(ahead / facts.piece)); n++) if (!held(n)) return n;
    return null;
  }

  function fetchNext() {
    if (!facts || facts.error || dead || still_() || !buffer || queue.length || buffer.updating) return;
    if (asked !== null && performance.now() - askedAt < PATIENCE) return;
    asked = firstMissing();
    askedAt = performance.now();
    if (asked !== null) model.send({ do: "piece", film: facts.key, number: asked, kind });
  }

  function append() {
    if (!buffer || buffer.updating || !queue.length) return;
    const [number, data] = queue.shift();
    try {
      buffer.timestampOffset = number * facts.piece;
      buffer.appendBuffer(data);
    } catch (error) {
      if (error.name === "QuotaExceededError" && at > 30) {
        queue.unshift([number, data]);
        buffer.remove(0, at - 20);
      } else asFrames(`The browser could not play this film (${error.name}).`);
    }
  }

  function onUpdated() {
    if (!source || source.readyState === "closed") return;
    append();
    if (early && held(pieceAt())) seek(at);
    const end = Math.ceil(duration() / facts.piece) - 1;
    if (!buffer.updating && source.readyState === "open" && held(end)) source.endOfStream();
    fetchNext();
  }

  function note(times) {
    const whole = new Set(frames);
    times.forEach((t) => whole.add(t));
    frames = [...whole].sort((a, b) => a - b);
  }

  // ---- single frames, where the browser plays nothing ----

  function asFrames(why) {
    kind = "frames";
    video.pause();
    video.hidden = true;
    still.hidden = false;
    say(`${why} It is shown as single frames.`);
    askStill();
  }

  function askStill() {
    if (asked !== null && performance.now() - askedAt < PATIENCE) return;
    asked = at;
    askedAt = performance.now();
    model.send({ do: "still", film: facts.key, second: at });
  }

  function showStill(second, data) {
    if (still.src) URL.revokeObjectURL(still.src);
    still.src = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
    note([second]);
    if (asked !== at) { asked = null; askStill(); } else asked = null;
    moved();
  }

  function tick() {
    if (!timer) return;
    if (at >= last()) return pause();
    if (asked === null) { at = Math.min(last(), at + 0.25 * Number(speed.value)); askStill(); }
    moved();
  }

  // ---- what others call ----

  function open(next) {
    close();
    facts = { duration: 0, ...next };
    frames = []; queue = []; failed = new Set(); asked = null; early = false; at = facts.from || 0; dead = false;
    range.max = last();
    const usable = !facts.error && facts.duration;
    range.disabled = !usable;
    box.classList.toggle("sf-broken", !usable);
    video.hidden = !usable; still.hidden = true;
    say(facts.error ? `✗ ${facts.error}` : facts.note);
    kind = (facts.kinds || []).find((k) => window.MediaSource && MediaSource.isTypeSupported(MIME[k])) || "frames";
    video.style.aspectRatio = still.style.aspectRatio = usable ? `${facts.width} / ${facts.height}` : "";
    if (!usable) return moved();
    if (still_()) return asFrames((facts.kinds || []).length ? "This browser cannot play the film." : "No video encoder is installed beside the kernel.");
    const mine = source = new MediaSource();
    video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      if (mine !== source || buffer) return;
      source.duration = duration();
      buffer = source.addSourceBuffer(MIME[kind]);
      buffer.addEventListener("updateend", onUpdated);
      video.currentTime = at + INSIDE;
      fetchNext();
    });
    moved();
  }

  function close() {
    pause();
    if (video.src) URL.revokeObjectURL(video.src);
    if (still.src) URL.revokeObjectURL(still.src);
    video.removeAttribute("src"); still.removeAttribute("src");
    source = buffer = facts = null;
  }

  const pieceAt = () => Math.floor(at / facts.piece);
  const place = () => frames.findLastIndex((t) => t <= at + INSIDE * 1.5);
  const now = () => { const i = place(); return i >= 0 && at - frames[i] < 1 ? frames[i] : at; };

  function seek(second) {
    if (!facts || facts.error) return;
    at = Math.max(0, Math.min(last(), second));
    if (still_()) askStill();
    else {
      early = !held(pieceAt());  // Chrome shows the next piece's first frame until this one is there: then seek again
      video.currentTime = at + INSIDE;
      if (asked !== null && Math.abs(asked * facts.piece - at) > AHEAD.playing) asked = null;
      fetchNext();
    }
    moved();
  }

  function step(by) {
    pause();
    const i = place(), near = i >= 0 && at - frames[i] < 2 / facts.fps;
    const next = near ? frames[i + by] : undefined;
    const close = next !== undefined && Math.abs(next - frames[i]) < 20 / facts.fps;
    seek(close ? next : now() + by / facts.fps);
  }

  const paused = () => (still_() ? !timer : video.paused);

  function pause() {
    clearInterval(timer);
    timer = null;
    if (!video.paused) video.pause();
    playing.textContent = "▶";
  }

  function play(on = paused()) {
    if (!facts || facts.error) return;
    if (!on) return pause();
    if (at >= last() - 0.05) seek(0);
    if (still_()) timer = setInterval(tick, 250);
    else {
      video.play().catch(() => {});
      fetchNext();
    }
    playing.textContent = "❚❚";
  }

  function faster(by) {
    const i = SPEEDS.indexOf(Number(speed.value)) + by;
    speed.value = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, i))];
    video.playbackRate = Number(speed.value);
  }

  function mark(steps, choose) {
    ticks.replaceChildren(...steps.filter((s) => typeof s.second === "number").map((s) => {
      const node = button(`${s.text}, ${clock(s.second)}`, "", () => choose(s), { class: `sf-tick sf-${s.task || "frame"}`, tabindex: -1 });
      node.style.left = `${duration() ? (100 * s.second) / duration() : 0}%`;
      return node;
    }));
  }

  function moved() {
    range.value = at;
    range.setAttribute("aria-valuetext", `${at.toFixed(2)} of ${duration().toFixed(2)} seconds`);
    time.textContent = `${clock(now())} of ${clock(duration())}`;
    box.dataset.at = now().toFixed(3);
    onTime(at);
  }

  function watch() {
    if (dead) return;
    if (facts && !still_() && !facts.error && !video.paused) {
      at = Math.max(0, Math.min(last(), video.currentTime));
      if (at >= last() - 0.01) pause();
      moved();
      fetchNext();
    }
    requestAnimationFrame(watch);
  }

  function onMessage(message, buffers) {
    if (!facts || message.film !== facts.key) return;
    if (message.do === "piece") {
      note(message.times);
      if (asked === message.number) asked = null;
      queue.push([message.number, buffers[0]]);
      append();
      moved();
    } else if (message.do === "still") showStill(message.second, buffers[0]);
    else if (message.do === "fault") {
      failed.add(message.number);
      asked = null;
      say(`✗ ${message.text}`);
      fetchNext();
    }
  }

  const arrived = () => { box.dataset.shown = video.currentTime.toFixed(3); box.dataset.arrived = String(Number(box.dataset.arrived || 0) + 1); };
  video.addEventListener("seeked", arrived);
  video.addEventListener("error", () => { if (facts && source && video.src && video.error) asFrames(`The browser could not play this film (${video.error.message || "error " + video.error.code}).`); });
  range.addEventListener("input", () => seek(Number(range.value)));
  range.addEventListener("pointerup", () => focus());
  speed.addEventListener("change", () => { video.playbackRate = Number(speed.value); focus(); });
  model.on("msg:custom", onMessage);
  const poll = setInterval(fetchNext, 1000);
  watch();
  const destroy = () => { close(); dead = true; clearInterval(poll); model.off("msg:custom", onMessage); };
  return { box, open, seek, step, play, pause, paused, faster, mark, now, position: () => at, duration, destroy, home: () => seek(0), end: () => seek(last()) };
}
