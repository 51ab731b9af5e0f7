// The table of neurons: sorted, filtered, drawn only where it is seen; and the chosen neuron beside it.
// Texts reach the page as text nodes alone; what is markup was made before and lies in templates.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ROW = 30, BEYOND = 12, CELL = 200; // pixels, rows drawn beyond what is seen, characters
  const state = { order: [], sort: null, down: data.up, active: 0, chosen: -1, first: -1, last: -1 };

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }
  const KINDS = { f4: Float32Array, f8: Float64Array, i4: Int32Array, text: Int32Array };
  const columns = data.columns.map((c) => ({ ...c, data: new KINDS[c.kind](bytes(c.data)) }));
  const column = (name) => columns.find((c) => c.name === name);
  const keys = columns.filter((c) => c.role === "key");
  const scores = columns.filter((c) => c.role === "score");
  const drawn = new Map(data.drawn.map((row, i) => [row, data.why[i]]));

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    for (const child of children) if (child !== null) made.append(child); // texts become text nodes
    return made;
  }
  function number(value, digits = 3) {
    if (Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    let said;
    if (size === Infinity) said = "inf";
    else if (size >= 1e7 || (size > 0 && size < 0.5 * 10 ** -digits)) said = size.toPrecision(2);
    else if (size >= 1000) said = Math.round(size).toLocaleString("en");
    else said = size.toFixed(digits);
    return value < 0 && Number(said) !== 0 ? `-${said}` : said;
  }
  function said(c, row) {
    const value = c.data[row];
    if (c.kind === "text") return value < 0 ? "–" : c.values[value];
    if (c.role === "key") return String(value);
    if (c.name === "coverage") return Number.isNaN(value) ? "–" : `${(100 * value).toFixed(1)}%`;
    return c.kind === "i4" || c.role === "count" ? value.toLocaleString("en") : number(value);
  }
  function interval(c, row) {
    if (!c.ends) return null;
    const at = columns.indexOf(c);
    return `[${number(columns[at + 1].data[row])}, ${number(columns[at + 2].data[row])}]`;
  }
  const name = (row) => keys.map((c) => said(c, row)).join("/");

  // What is wanted ----------------------------------------------------------------------------------------------
  const wanted = { text: "", of: new Map(), score: data.metric, low: NaN, high: NaN, drawn: false };

  function label(text, control) {
    return element("label", {}, element("span", {}, text), control);
  }
  function filters() {
    const form = document.getElementById("filters");
    const search = element("input", { type: "search", id: "search", placeholder: "words of explanations, or 0/134" });
    search.addEventListener("input", () => { wanted.text = search.value.toLowerCase().trim(); update(); });
    form.append(label("Search", search));
    for (const c of keys) {
      if (c === keys[data.neuron - 1] && data.neuron > 1) continue; // a neuron is searched for
      if (c.kind !== "text" || c.values.length < 2 || c.values.length > 500) continue;
      const choice = element("select", { "data-key": c.name }, element("option", { value: "" }, "all"));
      c.values.forEach((value, i) => choice.append(element("option", { value: i }, value)));
      choice.addEventListener("change", () => {
        if (choice.value === "") wanted.of.delete(c); else wanted.of.set(c, Number(choice.value));
        update();
      });
      form.append(label(c.name, choice));
    }
    const ranged = columns.filter((c) => c.kind !== "text" && c.role !== "end" && c.role !== "key");
    const which = element("select", { id: "ranged" });
    for (const c of ranged) which.append(element("option", { selected: c.name === data.metric }, c.name));
    const ends = ["low", "high"].map((end) => {
      const input = element("input", { type: "number", step: "any", id: end });
      input.addEventListener("input", () => { wanted[end] = input.value === "" ? NaN : Number(input.value); update(); });
      return input;
    });
    which.addEventListener("change", () => { wanted.score = which.value; update(); });
    form.append(label("Range of", which), label("from", ends[0]), label("to", ends[1]));
    const only = element("input", { type: "checkbox", id: "drawn" });
    only.addEventListener("change", () => { wanted.drawn = only.checked; update(); });
    if (drawn.size) form.append(label("with heat maps", only));
    const more = element("details", { class: "columns" }, element("summary", {}, "Columns"));
    for (const c of columns) {
      if (c.role === "end") continue;
      const box = element("input", { type: "checkbox" });
      box.checked = Boolean(c.shown);
      box.addEventListener("change", () => { c.shown = box.checked; build(); update(); });
      more.append(label(c.name, box));
    }
    form.append(more);
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  function matching() {
    const rows = [], text = wanted.text, range = column(wanted.score);
    const hits = text === "" ? [] : columns.filter((c) => c.kind === "text" && (c.role === "text" || c.role === "key"))
      .map((c) => [c, c.values.map((value) => value.toLowerCase().includes(text))]);
    for (let row = 0; row < data.n; row++) {
      if (wanted.drawn && !drawn.has(row)) continue;
      if ([...wanted.of].some(([c, value]) => c.data[row] !== value)) continue;
      const value = range.data[row];
      if (!(Number.isNaN(wanted.low) || value >= wanted.low)) continue;
      if (!(Number.isNaN(wanted.high) || value <= wanted.high)) continue;
      if (text !== "" && !hits.some(([c, hit]) => hit[c.data[row]]) && !name(row).toLowerCase().includes(text)) continue;
      rows.push(row);
    }
    return rows;
  }
  function sorted(rows) {
    const values = state.sort.data, sign = state.down ? -1 : 1, missing = state.sort.kind === "text" ? -1 : NaN;
    const gone = (v) => Object.is(v, missing);
    return rows.sort((a, b) => {
      const x = values[a], y = values[b];
      if (gone(x) || gone(y)) return gone(x) - gone(y) || a - b; // what is not known comes last, either way
      return sign * ((x > y) - (x < y)) || a - b;
    });
  }

  // The table ---------------------------------------------------------------------------------------------------
  const view = {};
  function build() {
    const shown = columns.filter((c) => c.shown);
    const heads = shown.map((c) => {
      const button = element("button", { type: "button" }, c.name);
      button.addEventListener("click", () => {
        state.down = state.sort === c ? !state.down : c.role === "score" ? c.best === "high" : false;
        state.sort = c;
        update();
      });
      return element("th", { scope: "col", role: "columnheader", "data-name": c.name, class: c.role }, button);
    });
    const body = element("tbody");
    const table = element("table", { role: "grid", "aria-label": "Neurons", "aria-colcount": shown.length,
      "aria-readonly": "true" }, element("colgroup", {}, ...shown.map((c) => element("col", { class: width(c) }))),
      element("thead", {}, element("tr", { role: "row", "aria-rowindex": 1 }, ...heads)), body);
    const window_ = element("div", { class: "rows", tabindex: 0, role: "group",
      "aria-label": "Table of neurons: arrow keys move, Home and End go to the ends" }, table);
    window_.addEventListener("scroll", () => requestAnimationFrame(() => draw()));
    window_.addEventListener("keydown", pressed);
    body.addEventListener("click", (event) => {
      const at = event.target.closest("tr[data-at]");
      if (at) go(Number(at.dataset.at));
    });
    document.getElementById("table").replaceChildren(window_);
    Object.assign(view, { shown, heads, body, table, window: window_ });
    state.first = -1;
  }
  const width = (c) => (c.role === "text" ? "wide" : c.role === "key" ? (c.kind === "text" && c.values.some((v) => v.length > 6) ? "key" : "short") : c.ends ? "both" : "number");

  function cell(c, row) {
    const made = element("td", { role: "gridcell", class: c.role }, said(c, row).slice(0, CELL));
    if (c.role === "score") {
      const value = c.data[row];
      if (c.best === "high" && value > 0) made.style.setProperty("--share", `${Math.min(value, 1) * 100}%`);
      const ends = interval(c, row);
      if (ends) made.append(element("small", {}, ` ${ends}`));
    }
    if (c.role === "text") made.title = said(c, row).slice(0, 4 * CELL);
    return made;
  }
  function spacer(rows) {
    const made = element("tr", { "aria-hidden": "true", class: "spacer" }, element("td", { colspan: view.shown.length }));
    made.firstChild.style.height = `${rows * ROW}px`;
    return made;
  }
  function draw(anew = false) {
    const n = state.order.length, top = Math.floor(view.window.scrollTop / ROW);
    const first = Math.max(0, top - BEYOND);
    const last = Math.min(n, top + Math.ceil(view.window.clientHeight / ROW) + BEYOND);
    if (!anew && first === state.first && last === state.last) return;
    Object.assign(state, { first, last });
    const rows = [spacer(first)];
    for (let at = first; at < last; at++) {
      const row = state.order[at], active = at === state.active;
      rows.push(element("tr", { role: "row", id: `at${at}`, "data-at": at, "data-row": row, "aria-rowindex": at + 2,
        "aria-selected": row === state.chosen ? "true" : "false",
        class: `${active ? "active " : ""}${drawn.has(row) ? "drawn" : ""}` }, ...view.shown.map((c) => cell(c, row))));
    }
    rows.push(spacer(n - last));
    view.body.replaceChildren(...rows);
    const here = state.active >= first && state.active < last;
    if (here) view.window.setAttribute("aria-activedescendant", `at${state.active}`);
    else view.window.removeAttribute("aria-activedescendant");
  }
  function update() {
    state.order = sorted(matching());
    state.active = Math.max(0, state.order.indexOf(state.chosen));
    view.table.setAttribute("aria-rowcount", state.order.length + 1);
    view.shown.forEach((c, i) => {
      const way = c !== state.sort ? "none" : state.down ? "descending" : "ascending";
      view.heads[i].setAttribute("aria-sort", way);
    });
    const of = state.order.length === data.n ? "" : ` of ${data.n.toLocaleString("en")}`;
    document.getElementById("found").textContent = `${state.order.length.toLocaleString("en")}${of} rows, by ` +
      `${state.sort.name}, ${state.down ? "highest" : "lowest"} first`;
    view.window.scrollTop = 0;
    draw(true);
  }
  function pressed(event) {
    if (event.target !== view.window || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(view.window.clientHeight / ROW) - 2), n = state.order.length;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -n, End: n };
    if (event.key === "Enter" || event.key === " ") document.getElementById("detail").focus();
    else if (event.key in moves) go(state.active + moves[event.key]);
    else return;
    event.preventDefault();
  }
  function go(at) {
    if (!state.order.length) return;
    state.active = Math.min(Math.max(at, 0), state.order.length - 1);
    const head = view.table.tHead.offsetHeight, top = state.active * ROW;
    const seen = view.window.clientHeight - head - ROW;
    if (top < view.window.scrollTop) view.window.scrollTop = top;
    else if (top > view.window.scrollTop + seen) view.window.scrollTop = top - seen;
    choose(state.order[state.active]);
    draw(true);
  }

  // The chosen neuron -------------------------------------------------------------------------------------------
  function choose(row) {
    state.chosen = row;
    const detail = document.getElementById("detail"), text = columns.find((c) => c.role === "text");
    const why = drawn.get(row), facts = columns.filter((c) => c.role === "score" || c.role === "count");
    const list = element("dl", { class: "facts" }, ...facts.map((c) =>
      element("div", {}, element("dt", {}, c.name), element("dd", {}, said(c, row),
        c.ends ? element("small", {}, ` ${interval(c, row)}`) : null))));
    const parts = [element("h3", {}, name(row), why ? element("small", {}, ` ${why}`) : null),
      element("blockquote", {}, text && text.data[row] >= 0 ? said(text, row) : data.untold), others(row), list];
    const template = document.getElementById(`row${row}`);
    if (template) parts.push(document.importNode(template.content, true));
    else parts.push(element("p", { class: "told" }, "No heat maps of this row are in the page. " +
      `To see them: nscore show DIR "${keys.slice(0, data.neuron).map((c) => said(c, row)).join("/")}"`));
    detail.replaceChildren(...parts.filter((part) => part !== null));
    detail.tabIndex = -1;
    detail.querySelectorAll("[data-heat]").forEach(walk);
    history.replaceState(null, "", `#row=${row}`);
  }
  function others(row) {
    // the same neuron with other simulators and explanations
    const own = keys.slice(0, data.neuron), found = [];
    for (let other = 0; other < data.n && found.length < 12; other++) {
      if (other !== row && own.every((c) => c.data[other] === c.data[row])) found.push(other);
    }
    if (!found.length) return null;
    const rest = keys.slice(data.neuron), metric = column(data.metric);
    return element("p", { class: "others" }, "Also: ", ...found.map((other) => {
      const button = element("button", { type: "button" },
        `${rest.map((c) => said(c, other)).join("/")} ${number(metric.data[other])}`);
      button.addEventListener("click", () => { choose(other); state.active = Math.max(0, state.order.indexOf(other)); draw(true); });
      return button;
    }));
  }
  // Along the tokens of a record by arrow keys, each with its numbers in words.
  function walk(tokens) {
    const told = element("output", { class: "told" });
    let at = -1;
    tokens.tabIndex = 0;
    tokens.setAttribute("role", "application");
    tokens.setAttribute("aria-label", "Tokens: arrow keys tell each token's numbers");
    tokens.after(told);
    tokens.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1, Home: -tokens.children.length, End: tokens.children.length }[event.key];
      if (move === undefined) return;
      if (at >= 0) tokens.children[at].classList.remove("here");
      at = Math.min(Math.max(at + move, 0), tokens.children.length - 1);
      const token = tokens.children[at];
      token.classList.add("here");
      told.textContent = `“${token.textContent}”: ${token.title}`;
      event.preventDefault();
    });
  }

  state.sort = column(data.metric);
  filters();
  build();
  update();
  const asked = /^#row=(\d+)$/.exec(location.hash), row = asked ? Number(asked[1]) : -1;
  const first = state.order.findIndex((r) => drawn.has(r));
  const at = row >= 0 && row < data.n ? state.order.indexOf(row) : first < 0 ? 0 : first;
  if (state.order.length) go(at);
  addEventListener("resize", () => draw());
})();
