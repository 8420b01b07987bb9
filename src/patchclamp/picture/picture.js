// Brings drawn pictures to life: a tooltip for whatever is under the pointer or the keyboard, attention patterns that
// change places, values in images and plots. Without it everything is still there to read. Each piece is inside a
// <patchclamp-picture>; defining that element once makes every present and later piece of the document alive.
(() => {
  "use strict";
  if (customElements.get("patchclamp-picture")) return;

  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  // As words.number writes it: no 1e-7, a true minus sign.
  const number = (value, digits = 4) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "string") return value;
    const size = Math.abs(value);
    if (size === 0 || (size >= 1e-6 && size < 1e7)) {
      const text = String(size >= 10 ** (digits - 1) ? Math.round(value) : Number(value.toPrecision(digits)));
      return text.replace("-", "−");
    }
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    const raised = String(Number(exponent)).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
    return `${Number(mantissa)}×10${raised}`.replace("-", "−");
  };
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  // ---- the tooltip -------------------------------------------------------------------------------------------------

  class Tip {
    constructor(root) {
      this.box = root.appendChild(make("div", undefined, "tip"));
      this.box.popover = "manual";
      this.box.setAttribute("role", "tooltip");
      this.box.id = `patchclamp-tip-${Math.random().toString(36).slice(2)}`;
    }
    // Lines as in a cell's title: the place, what is there, then details with a tab between name and value.
    show(lines, anchor) {
      const plain = lines.filter((line) => !line.includes("\t"));
      const details = lines.filter((line) => line.includes("\t")).map((line) => line.split("\t"));
      const list = make("dl");
      for (const [name, value] of details) list.append(make("dt", name), make("dd", value));
      this.box.replaceChildren(
        ...plain.map((line, at) => (at ? make("b", line) : make("div", line, "place"))),
        ...(details.length ? [list] : []),
      );
      if (!this.box.matches(":popover-open")) this.box.showPopover();
      this.anchor = anchor;
      this.place();
    }
    place() {
      if (!this.box.matches(":popover-open")) return;
      const rect = this.anchor.getBoundingClientRect();
      const { offsetWidth: width, offsetHeight: height } = this.box;
      const above = rect.top - height - 8;
      const top = above >= 8 ? above : Math.min(rect.bottom + 8, innerHeight - height - 8);
      this.box.style.top = `${Math.max(8, top)}px`;
      this.box.style.left = `${clamp(rect.left + rect.width / 2 - width / 2, 8, Math.max(8, document.documentElement.clientWidth - width - 8))}px`;
    }
    hide() {
      if (this.box.matches(":popover-open")) this.box.hidePopover();
    }
  }

  // ---- cells that are elements: tables, tokens, nodes --------------------------------------------------------------

  const described = (cell) => {
    // Taken over from `title`, or the browser would show its own tooltip as well.
    if (cell.title) { cell.dataset.about = cell.title; cell.removeAttribute("title"); }
    return cell.dataset.about ? cell.dataset.about.split("\n") : [cell.textContent];
  };

  function cells(box, all, columns, tip, seen = () => {}) {
    if (!all.length) return;
    let current;
    const enter = (cell) => {
      leave();
      current = cell;
      cell.classList.add("at");
      tip.show(described(cell), cell);
      seen(cell, true);
    };
    const leave = () => {
      if (!current) return;
      current.classList.remove("at");
      seen(current, false);
      current = undefined;
      tip.hide();
    };
    const index = (target) => all.indexOf(target.closest?.("td, span"));
    all.forEach((cell, at) => { cell.tabIndex = at ? -1 : 0; cell.setAttribute("aria-describedby", tip.box.id); });
    box.addEventListener("pointerover", (event) => { const at = index(event.target); at < 0 ? leave() : enter(all[at]); });
    box.addEventListener("pointerleave", leave);
    box.addEventListener("focusin", (event) => { const at = index(event.target); if (at >= 0) enter(all[at]); });
    box.addEventListener("focusout", leave);
    box.addEventListener("keydown", (event) => {
      const at = index(event.target);
      if (event.key === "Escape") leave();
      if (at < 0) return;
      const first = at - (at % columns);
      const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: first, End: first + columns - 1 };
      const next = all[steps[event.key]];
      if (!next) return;
      event.preventDefault();
      all[at].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }

  function table(grid, tip) {
    const columns = [...grid.querySelectorAll("thead th")];
    const all = [...grid.querySelectorAll("tbody td")];
    cells(grid, all, columns.length, tip, (cell, on) => {
      cell.parentElement.firstElementChild.classList.toggle("at", on);
      columns[cell.cellIndex - 1]?.classList.toggle("at", on);
    });
    grid.closest(".scroll")?.removeAttribute("tabindex"); // its cells take the keyboard now
  }

  function web(box, tip) {
    const nodes = [...box.querySelectorAll(".node")];
    const edges = [...box.querySelectorAll("path")].reverse(); // drawn weakest first
    const of = (edge) => edge.dataset.ends.split(" ");
    for (const node of nodes) {
      const own = edges.filter((edge) => of(edge).includes(node.dataset.at)).slice(0, 8);
      const said = own.map((edge) => {
        const [start, end] = of(edge);
        const other = end === node.dataset.at ? `from ${nodes[start].textContent}` : `to ${nodes[end].textContent}`;
        return `\n${other}${edge.dataset.into ? ` (${edge.dataset.into})` : ""}\t${edge.dataset.weight}`;
      });
      node.title += said.join("");
    }
    cells(box, nodes, 1, tip, (node, on) => {
      for (const edge of edges) edge.classList.toggle("off", on && !of(edge).includes(node.dataset.at));
    });
  }

  // ---- cells of an image -------------------------------------------------------------------------------------------

  const numbers = (box) => JSON.parse(box.querySelector('script[type="application/json"]').textContent);

  // `field()` gives the numbers now shown; `seen(row)` hears which row is under the pointer.
  function raster(box, field, tip, seen = () => {}) {
    const area = box.querySelector(".raster");
    const cursor = make("i", undefined, "cursor");
    const marked = [];
    const chosen = { row: 0, column: 0 };
    const mark = (labels, at) => {
      const spans = [...labels].map((label) => Number(label.style.getPropertyValue("--span")) || 1);
      let start = 0;
      spans.forEach((span, index) => { if (at >= start && at < start + span) { labels[index].classList.add("at"); marked.push(labels[index]); } start += span; });
    };
    const leave = () => { cursor.remove(); marked.splice(0).forEach((label) => label.classList.remove("at")); tip.hide(); seen(-1); };
    const enter = (row, column) => {
      const { rows, columns, axes, values, unit, details = {} } = field();
      leave();
      Object.assign(chosen, { row, column });
      const [height, width] = [100 / values.length, 100 / values[0].length];
      cursor.style.cssText = `left:${column * width}%;top:${row * height}%;width:${width}%;height:${height}%`;
      area.append(cursor);
      mark(box.querySelectorAll(".side > bdi"), row);
      mark(box.querySelectorAll(".top > bdi"), column);
      const place = [`${axes[0]} ${rows[row] ?? row}`.trim(), `${axes[1]} ${columns[column] ?? column}`.trim()].join(" · ");
      const more = Object.entries(details).map(([name, detail]) => `${name}\t${number(detail[row][column])}`);
      tip.show([place, `${number(values[row][column])} ${unit}`.trim(), ...more], cursor);
      seen(row);
    };
    area.setAttribute("aria-describedby", tip.box.id);
    area.addEventListener("pointermove", (event) => {
      const rect = area.getBoundingClientRect();
      const { values } = field();
      enter(
        clamp(Math.floor(((event.clientY - rect.top) / rect.height) * values.length), 0, values.length - 1),
        clamp(Math.floor(((event.clientX - rect.left) / rect.width) * values[0].length), 0, values[0].length - 1),
      );
    });
    area.addEventListener("pointerleave", leave);
    area.addEventListener("focus", () => { if (area.matches(":focus-visible")) enter(chosen.row, chosen.column); });
    area.addEventListener("blur", leave);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return leave();
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const { values } = field();
      enter(clamp(chosen.row + step[0], 0, values.length - 1), clamp(chosen.column + step[1], 0, values[0].length - 1));
      cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  // ---- attention ---------------------------------------------------------------------------------------------------

  function attention(figure, tip) {
    const all = numbers(figure);
    const large = figure.querySelector(".large");
    const buttons = [...figure.querySelectorAll(".heads > button")];
    let shown = all.patterns[0];
    const lines = tokenLines(large);
    const choose = (at) => {
      shown = all.patterns[at];
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === at)));
      large.querySelector(".head b").textContent = shown.name;
      large.querySelector(".head span").textContent = shown.note;
      const small = buttons[at].querySelectorAll("img");
      large.querySelectorAll(".shaded img").forEach((image, index) => { image.src = small[index].src; });
      large.querySelector(".raster").setAttribute("aria-label", `attention of ${shown.name}, queries down, keys across`);
      lines.draw(shown.values);
    };
    buttons.forEach((button, at) => button.addEventListener("click", () => {
      choose(at);
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      large.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
    }));
    raster(large, () => ({ ...all, values: shown.values }), tip, lines.only);
    lines.draw(shown.values);
  }

  // Queries on the left, keys on the right, a line for each weight worth seeing. Only where every token has a label.
  function tokenLines(large) {
    const box = large.querySelector(".lines");
    const clones = (kind) => [...large.querySelectorAll(`.${kind} > bdi`)].map((label) => label.cloneNode(true));
    const [from, to] = [clones("side"), clones("top")];
    const chart = large.querySelector(".chart");
    if ([...from, ...to].some((label) => label.style.getPropertyValue("--span") !== "1")) return { draw() {}, only() {} };
    box.style.cssText = chart.style.cssText; // its cells' size
    const columns = [make("div", undefined, "from"), make("div", undefined, "to")];
    columns[0].append(...from);
    columns[1].append(...to);
    const middle = make("div");
    box.append(make("p", "query"), make("p", "key"), columns[0], middle, columns[1]);
    const tall = Math.max(from.length, to.length);
    const only = (row) => {
      for (const path of middle.querySelectorAll("path")) path.classList.toggle("off", row >= 0 && path.dataset.from !== String(row));
      from.forEach((label, at) => label.classList.toggle("at", at === row));
    };
    const draw = (values) => {
      const paths = values.flatMap((row, query) => row.map((weight, key) => [query, key, weight])).filter(([, , weight]) => weight >= 0.02);
      // Only numbers go into this markup.
      middle.innerHTML = `<svg viewBox="0 0 100 ${tall}" preserveAspectRatio="none" aria-hidden="true" style="height:calc(var(--cell) * ${tall})">${paths
        .map(([query, key, weight]) => `<path d="M0 ${query + 0.5}C50 ${query + 0.5} 50 ${key + 0.5} 100 ${key + 0.5}" style="--weight:${Number(weight)}" data-from="${query}"/>`)
        .join("")}</svg>`;
    };
    from.forEach((label, at) => {
      label.tabIndex = at ? -1 : 0;
      for (const name of ["pointerenter", "focus"]) label.addEventListener(name, () => only(at));
      for (const name of ["pointerleave", "blur"]) label.addEventListener(name, () => only(-1));
      label.addEventListener("keydown", (event) => {
        const next = from[at + ({ ArrowDown: 1, ArrowUp: -1 }[event.key] ?? NaN)];
        if (next) { event.preventDefault(); label.tabIndex = -1; next.tabIndex = 0; next.focus(); }
      });
    });
    return { draw, only };
  }

  // ---- lines and points --------------------------------------------------------------------------------------------

  function plot(figure, tip) {
    const all = numbers(figure);
    const area = figure.querySelector(".area");
    const mark = make("i", undefined, all.points ? "ring" : "hair");
    const [left, right, low, high] = all.domain;
    const across = (x) => (100 * (x - left)) / (right - left);
    const down = (y) => 100 - (100 * (y - low)) / (high - low);
    const count = (all.points ?? all.x).length;
    let chosen = 0;
    const leave = () => { mark.remove(); tip.hide(); };
    const enter = (at) => {
      chosen = at;
      area.append(mark);
      if (all.points) {
        const { x, y, label, group } = all.points[at];
        mark.style.cssText = `left:${across(x)}%;top:${down(y)}%`;
        const named = [label || group || `point ${at}`];
        tip.show([...named, `${all.axes[0] || "x"}\t${number(x)}`, `${all.axes[1] || "y"}\t${number(y)}`, ...(label && group ? [`group\t${group}`] : [])], mark);
      } else {
        mark.style.cssText = `left:${across(all.x[at])}%`;
        const each = all.series.map(({ name, y }) => `${name}\t${number(y[at])}${y[at] === null ? "" : ` ${all.unit}`}`);
        tip.show([`${all.axes[0] || "x"} ${number(all.x[at], 6)}`, ...each], mark);
      }
    };
    const nearest = (event) => {
      const rect = area.getBoundingClientRect();
      const far = (at) => {
        const [x, y] = all.points ? [all.points[at].x, all.points[at].y] : [all.x[at], null];
        const dx = (across(x) / 100) * rect.width + rect.left - event.clientX;
        const dy = y === null ? 0 : (down(y) / 100) * rect.height + rect.top - event.clientY;
        return dx * dx + dy * dy;
      };
      let best = 0;
      for (let at = 1; at < count; at++) if (far(at) < far(best)) best = at;
      return best;
    };
    area.setAttribute("aria-describedby", tip.box.id);
    area.addEventListener("pointermove", (event) => enter(nearest(event)));
    area.addEventListener("pointerleave", leave);
    area.addEventListener("focus", () => { if (area.matches(":focus-visible")) enter(chosen); });
    area.addEventListener("blur", leave);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return leave();
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); enter(clamp(chosen + step, 0, count - 1)); }
    });
  }

  // ---- the element -------------------------------------------------------------------------------------------------

  // A box that has more on its right fades out there.
  function hint(box) {
    const update = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    box.addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(box);
  }

  class Picture extends HTMLElement {
    connectedCallback() {
      // The parser calls this before it has read the children.
      if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => this.enliven(), { once: true });
      else queueMicrotask(() => this.enliven());
    }
    enliven() {
      if (this.alive) return;
      this.alive = true;
      const tip = new Tip(this);
      const each = (selector, act) => this.querySelectorAll(selector).forEach((element) => act(element, tip));
      each(".scroll", hint);
      each("table.cells", table);
      each(".tokens > .text", (text) => cells(text, [...text.querySelectorAll(":scope > span[title]")], 1, tip));
      each(".web", web);
      each(".field", (box) => { const field = numbers(box); raster(box, () => field, tip); });
      each(".figure.attention:has(.raster)", attention);
      each(".figure.plot:has(.area)", plot);
      addEventListener("scroll", () => tip.place(), { passive: true, capture: true });
    }
  }
  customElements.define("patchclamp-picture", Picture);

  // Paper has nothing to unfold.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll(".patchclamp .section:not([open])")];
    closed.forEach((section) => { section.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((section) => { section.open = false; }));
})();
