// The frames of a view: one of them large; go from one to the next, play them, walk along a chain.

function framePlayer(root, say) {
  let view = null, urls = [], frame = 0, timer = null;
  const find = (selector) => root.querySelector(selector);

  function stop() {
    clearTimeout(timer);
    timer = null;
  }

  // Take the frames of a view that was just drawn, none of them or many.
  function look(next, addresses, start) {
    stop();
    view = next;
    urls = addresses;
    frame = 0;
    jump(start);
  }

  function jump(to) {
    if (!urls.length) return;
    frame = clamp(to, 0, urls.length - 1);
    const time = `${two(view.seconds[frame])} s of ${two(view.duration)} s`;
    const text = `frame ${frame + 1} of ${urls.length} · #${view.indices[frame]} · ${time}`;
    find(".st-big").src = urls[frame];
    find(".st-big").alt = text;
    find(".st-range").value = frame;
    find(".st-range").setAttribute("aria-valuetext", text);
    find(".st-caption").textContent = text;
    showThumb(find(".st-scroller"), frame);
  }

  function play() {
    if (timer) return stop();
    const last = urls.length - 1;
    if (frame === last) jump(0);
    const tick = () => {
      if (frame >= last) return stop();
      const gap = (view.seconds[frame + 1] - view.seconds[frame]) * 1000;
      // as fast as it was filmed, within reason
      timer = setTimeout(() => { jump(frame + 1); tick(); }, clamp(gap, 60, 1000));
    };
    tick();
  }

  function walk() {
    stop();
    const track = find(".st-thought") || find(".st-track");
    const steps = track ? [...track.querySelectorAll(".st-chip")] : [];
    if (!steps.length) return say("There is no chain to walk along.");
    const tick = (i) => {
      steps.forEach((step, n) => step.classList.toggle("st-here", n === i));
      if (i >= steps.length) return stop();
      reveal(find(".st-scroller"), steps[i]);
      steps[i].click();
      timer = setTimeout(() => tick(i + 1), 700);
    };
    tick(0);
  }

  return { look, jump, play, walk, stop, at: () => frame, count: () => urls.length };
}
