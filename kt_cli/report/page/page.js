"use strict";
// Tables: sorting, a filter, rows by keyboard, details. rows.js builds on it.

const DIRECTIONS = ["none", "ascending", "descending"];
const MANY = 200;
const TOO_OLD = "This browser is too old to show this: it has no DecompressionStream.";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

const minus = (text) => text.replaceAll("-", "−");

async function unpack(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// Makes headers buttons that go from ascending over descending back to the order as it was.
function sortable(headers, sort) {
  for (const header of headers) {
    const button = make("button", { type: "button" }, ...header.childNodes);
    header.prepend(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const now = DIRECTIONS.indexOf(header.getAttribute("aria-sort"));
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", DIRECTIONS[(now + 1) % 3]);
      sort(headers.indexOf(header), DIRECTIONS[(now + 1) % 3]);
    });
  }
}

// One row is a tab stop; arrows move it, Enter or a click opens it. `rows` knows them by place:
// count(), at(place) brings a row into view, placeOf(row), open(row).
function walkable(body, rows) {
  const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== row) return;
    if (event.key === "Enter" || event.key === " ") rows.open(row);
    else if (event.key in STEPS) {
      const place = rows.placeOf(row) + STEPS[event.key];
      stop(rows.at(Math.min(Math.max(place, 0), rows.count() - 1))).focus({ preventScroll: true });
    } else return;
    event.preventDefault();
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    // Who drags over text wants to copy it.
    if (row?.hasAttribute("tabindex") && !String(getSelection()).trim()) rows.open(stop(row));
  });
  function stop(row) {
    for (const other of body.querySelectorAll('tr[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
    return row;
  }
}

// The dialog with all that is known of a row: facts are [term, value, meaning].
const details = (() => {
  const title = make("h2", { id: "details-title" });
  const close = make("button", { type: "button" }, "Close");
  const list = make("dl");
  const first = make("div");
  const head = make("div", { class: "head" }, title, close);
  const dialog = make("dialog", { "aria-labelledby": "details-title" }, head, first, list);
  let opener = null;
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ clientX: x, clientY: y, detail }) => {
    const box = dialog.getBoundingClientRect();
    const inside = box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
    // A key that presses a button is a click as well, at no place.
    if (detail && !inside) dialog.close();
  });
  dialog.addEventListener("close", () => { // told later: the focus may have moved on by then
    const at = document.activeElement;
    if (at === document.body || dialog.contains(at)) opener?.focus({ preventScroll: true });
  });
  function fill(facts, from, lead = []) {
    if (from !== opener) return;
    first.replaceChildren(...lead);
    list.replaceChildren(
      ...facts.map(([term, value, meaning]) =>
        make("div", {}, make("dt", {}, term), make("dd", {}, value,
          ...(meaning ? [make("small", {}, meaning)] : []))),
      ),
    );
  }
  function open(name, facts, from, lead) {
    opener = from;
    title.textContent = name;
    fill(facts, from, lead);
    dialog.showModal();
    dialog.scrollTop = 0;
  }
  return { open, fill };
})();

// A button that saves what `what` gives: a name, and lines of values, null for none.
function csvButton(what) {
  const button = make("button", { type: "button" }, "CSV");
  button.addEventListener("click", () => {
    const [name, lines] = what();
    const cell = (value) => {
      const text = value === null ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const text = lines.map((line) => `${line.map(cell).join(",")}\n`).join("");
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    make("a", { href: url, download: `${name}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  });
  return button;
}

// Keeps the header's height for rows that are brought into view below it.
function belowHeader(box) {
  const header = box.querySelector("thead");
  const keep = () => { box.style.scrollPaddingTop = `${header.offsetHeight}px`; };
  new ResizeObserver(keep).observe(header);
  keep();
}

function tableKeys(rows, column) {
  const cells = rows.map((row) => row.cells[column]);
  const numeric = cells.some((cell) => cell.dataset.v !== undefined);
  return cells.map((cell) => {
    if (cell.classList.contains("none")) return null;
    if (!numeric) return cell.textContent;
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  });
}

// Places of `keys` in order; equal ones keep theirs, null is last whichever way.
function ordered(keys, direction) {
  const places = keys.map((_, i) => i);
  if (direction === "none") return places;
  const sign = direction === "ascending" ? 1 : -1;
  return places.sort((a, b) => {
    const [x, y] = [keys[a], keys[b]];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return (x < y ? -sign : x > y ? sign : 0) || a - b;
  });
}

function tableFacts(table, row) {
  return [...row.cells].map((cell, i) => {
    const term = table.tHead.rows[0].cells[i].textContent.replaceAll("\n", " ");
    const exact = cell.dataset.v === undefined ? "" : minus(cell.dataset.v);
    const said = exact && exact !== cell.textContent ? `exactly ${exact}` : "";
    const count = cell.dataset.n === undefined ? "" : `n = ${cell.dataset.n}`;
    return [term, cell.textContent, [said, count].filter(Boolean).join(", ")];
  });
}

// A table in the document: it is sorted and filtered by moving and hiding its rows. Of a long one
// the next rows come as it is scrolled, since laying out thousands takes a while.
class ReportTable {
  constructor(article) {
    this.name = article.querySelector("h3").textContent;
    this.box = article.querySelector(".box");
    this.table = article.querySelector("table");
    this.body = this.table.tBodies[0];
    this.rows = [...this.body.rows];
    this.order = this.rows.map((_, i) => i);
    this.passing = this.rows.map(() => true);
    this.build();
    this.update();
  }

  build() {
    const headers = [...this.table.tHead.rows[0].cells];
    sortable(headers, (column, direction) => {
      this.order = ordered(tableKeys(this.rows, column), direction);
      this.body.append(...this.order.map((i) => this.rows[i]));
      this.update();
    });
    if (this.rows.length > MANY) {
      const widths = headers.map((header) => header.offsetWidth);
      headers.forEach((header, i) => { header.style.minWidth = `${widths[i]}px`; });
    }
    for (const row of this.rows) row.tabIndex = -1;
    walkable(this.body, this);
    this.box.removeAttribute("tabindex");
    belowHeader(this.box);
    this.box.addEventListener("scroll", () => {
      const below = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
      if (below < 600 && this.shown < this.visible.length) this.show(this.shown + MANY);
    });
    const more = headers.filter((header) => header.classList.contains("more"));
    if (this.rows.length) this.box.before(this.tools(headers.filter((h) => !h.hidden).length, more.length));
    addEventListener("beforeprint", () => this.show(this.rows.length));
  }

  tools(columns, more) {
    const tools = make("div", { class: "tools" }, ...(this.rows.length > 1 ? this.filter() : []));
    if (more) {
      const button = make("button", { type: "button", "aria-pressed": "false" }, `All ${columns} columns`);
      this.table.classList.add("few");
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", !this.table.classList.toggle("few"));
      });
      tools.append(button);
    }
    tools.append(csvButton(() => this.csv()));
    return tools;
  }

  // A mean or an interval takes a column more for each of its parts.
  csv() {
    const exact = (cell) => cell.dataset.v ?? (cell.classList.contains("none") ? null : cell.textContent);
    const seen = (row) => [...row.cells].filter((cell) => cell.offsetParent);
    const names = seen(this.table.tHead.rows[0]).map((cell) => cell.textContent.replaceAll("\n", " "));
    const places = seen(this.table.tHead.rows[0]).map((cell) => cell.cellIndex);
    const parts = places.map((i) => ["std", "n", "low", "high"].filter((key) => this.rows.some((row) => key in row.cells[i].dataset)));
    const line = (of) => places.flatMap((i, j) => [of(i, j), ...parts[j].map((key) => of(i, j, key))]);
    const values = (row) => line((i, j, key) => (key ? row.cells[i].dataset[key] ?? null : exact(row.cells[i])));
    return [this.name, [line((i, j, key) => (key ? `${names[j]} ${key}` : names[j])), ...this.visible.map(values)]];
  }

  filter() {
    const input = make("input",
      { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows of ${this.name}` });
    const count = make("output");
    const texts = this.rows.map((row) => [...row.cells].filter((cell) => !cell.hidden)
      .map((cell) => minus(cell.textContent.toLowerCase())).join("\n"));
    input.addEventListener("input", () => {
      const words = minus(input.value.toLowerCase()).split(/\s+/).filter(Boolean);
      this.passing = texts.map((text) => words.every((word) => text.includes(word)));
      this.update();
      const [some, every] = [this.visible, this.rows].map((rows) => rows.length.toLocaleString("en"));
      count.textContent = words.length ? `${some} of ${every} rows` : "";
    });
    return [input, count];
  }

  update() {
    this.visible = this.order.filter((i) => this.passing[i]).map((i) => this.rows[i]);
    for (const row of this.body.querySelectorAll('tr[tabindex="0"]')) row.tabIndex = -1;
    if (this.visible.length) this.visible[0].tabIndex = 0;
    this.show(MANY);
    this.box.scrollTop = 0;
  }

  show(count) {
    this.shown = count;
    const shown = new Set(this.visible.slice(0, count));
    for (const row of this.rows) row.hidden = !shown.has(row);
  }

  count() {
    return this.visible.length;
  }

  placeOf(row) {
    return this.visible.indexOf(row);
  }

  at(place) {
    if (place >= this.shown) this.show(place + MANY);
    this.visible[place].scrollIntoView({ block: "nearest", inline: "nearest" });
    return this.visible[place];
  }

  open(row) {
    details.open(row.cells[0].textContent, tableFacts(this.table, row), row);
  }
}

for (const article of document.querySelectorAll("article.table")) {
  if (article.querySelector("table")) new ReportTable(article);
}

// Plots beyond those that the page carries as they are.
async function drawPlots() {
  for (const card of document.querySelectorAll(".card[data-svg]")) {
    const text = await (await unpack(card.dataset.svg)).text();
    card.append(new DOMParser().parseFromString(text, "image/svg+xml").documentElement);
    card.removeAttribute("data-svg");
  }
}

if (window.DecompressionStream) drawPlots();
else for (const card of document.querySelectorAll(".card[data-svg]")) card.append(TOO_OLD);
