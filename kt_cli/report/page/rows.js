// All rows of a table; only those in view are in the document.

const OVERSCAN = 8;
const NARROW = matchMedia("(max-width: 700px)");
const BOLD = { transfer: " Bold: significant by McNemar’s test, p < 0.05." };
const HINT = "Filters: text contains, =equals, !not, this|that; numbers > 0, <= 5, 0..5; ? missing.";

class Rows {
  constructor(mount, about) {
    this.noun = mount.closest("section").querySelector("h2").textContent;
    this.about = about;
    this.count = about.count;
    this.columns = about.columns.map((column) => new RowColumn(column));
    this.shown = this.columns.filter((column) => column.first);
    this.filters = new Map();
    this.mask = new Uint8Array(this.count).fill(1);
    this.sorted = null;
    this.active = 0;
    this.build(mount);
    NARROW.addEventListener("change", () => this.rowHeight && this.header());
  }

  column(key) {
    return this.columns.find((column) => column.key === key);
  }

  // The value of a column in a row, null where there is none.
  value(key, at) {
    const column = this.column(key);
    return column?.ready ? column.get(at) : null;
  }

  build(mount) {
    this.status = make("output", {}, "Reading …");
    this.clear = make("button", { type: "button", disabled: true }, "Clear filters");
    this.clear.addEventListener("click", () => this.clearFilters());
    this.head = make("thead");
    this.body = make("tbody");
    this.pads = [make("tbody", { "aria-hidden": "true" }), make("tbody", { "aria-hidden": "true" })];
    this.sizes = make("colgroup");
    this.table = make("table", { role: "grid", "aria-readonly": "true", "aria-label": this.noun },
      this.sizes, this.head, this.pads[0], this.body, this.pads[1]);
    this.box = make("div", { class: "box", tabindex: "-1" }, this.table);
    mount.append(make("div", { class: "tools" }, this.status, this.clear, csvButton(() => this.csv()), this.chooser()),
      make("p", { class: "caption" }, HINT + (BOLD[this.about.table] ?? "")), this.box);
    this.box.addEventListener("scroll", () => {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.render());
    });
    new ResizeObserver(() => this.rowHeight && this.render()).observe(this.box);
    walkable(this.body, {
      count: () => this.rows.length,
      placeOf: (row) => Number(row.dataset.place),
      at: (place) => this.bringIntoView(place),
      open: (row) => this.open(row),
    });
  }

  chooser() {
    const boxes = this.columns.map((column) => {
      const input = make("input", { type: "checkbox", checked: column.first, "data-key": column.key });
      input.addEventListener("change", () => {
        if (!input.checked && this.shown.length === 1) input.checked = true;
        else this.choose(column, input.checked);
      });
      return make("label", { title: column.meaning }, input, ` ${column.label}`);
    });
    return make("details", { class: "columns" }, make("summary", {}, "Columns"), make("div", {}, ...boxes));
  }

  async choose(column, wanted) {
    await column.load();
    if (!wanted) this.filters.delete(column);
    const chosen = new Set(wanted ? [...this.shown, column] : this.shown.filter((c) => c !== column));
    this.shown = this.columns.filter((c) => chosen.has(c));
    if (!chosen.has(this.sorted?.column)) this.sorted = null;
    this.header();
    this.filter();
  }

  async start() {
    const sorted = this.column(this.about.sorted);
    const named = ["method", "transfer_p"].map((key) => this.column(key)); // whether shown or not
    await Promise.all([...this.shown, ...named].filter(Boolean).map((column) => column.load()));
    if (this.shown.includes(sorted)) {
      this.sorted = { column: sorted, direction: "descending", rows: sorted.order("descending", this.count) };
    }
    this.header();
    belowHeader(this.box);
    this.update();
  }

  csv() {
    const lines = [this.shown.map((column) => column.key)];
    for (const row of this.rows) lines.push(this.shown.map((column) => column.get(row)));
    return [this.noun.toLowerCase(), lines];
  }

  header() {
    const headers = this.shown.map((column) => make("th",
      { scope: "col", class: column.right && "n", title: column.meaning, "data-key": column.key }, column.label));
    sortable(headers, (i, direction) => this.sort(this.shown[i], direction));
    headers.forEach((header, i) => {
      header.append(this.filterInput(this.shown[i]));
      if (this.sorted?.column === this.shown[i]) header.setAttribute("aria-sort", this.sorted.direction);
    });
    const widths = this.shown.map((column) => column.room);
    this.sizes.replaceChildren(...widths.map((width) => {
      const size = make("col");
      size.style.width = `calc(${width}ch + var(--gap))`;
      return size;
    }));
    this.table.style.minWidth = `calc(${widths.reduce((a, b) => a + b)}ch + ${widths.length} * var(--gap))`;
    this.head.replaceChildren(make("tr", { "aria-rowindex": "1" }, ...headers));
    this.table.setAttribute("aria-colcount", this.shown.length);
  }

  filterInput(column) {
    const placeholder = column.kind === "text" ? "contains" : "> 0";
    const input = make("input", { type: "search", placeholder, "aria-label": `Filter ${column.label}`,
      value: this.filters.get(column)?.text ?? "" });
    input.addEventListener("input", () => {
      const passes = column.test(input.value);
      input.setAttribute("aria-invalid", passes === undefined);
      if (passes) this.filters.set(column, { passes, text: input.value });
      else this.filters.delete(column);
      this.filter();
      if (passes === undefined) this.clear.disabled = false;
    });
    return input;
  }

  clearFilters() {
    this.filters.clear();
    for (const input of this.head.querySelectorAll("input")) {
      input.value = "";
      input.removeAttribute("aria-invalid");
    }
    this.filter();
    this.head.querySelector("input").focus();
  }

  filter() {
    this.mask.fill(1);
    for (const [column, { passes }] of this.filters) column.restrict(this.mask, passes);
    this.clear.disabled = !this.filters.size;
    this.update();
  }

  sort(column, direction) {
    this.sorted = direction === "none" ? null
      : { column, direction, rows: column.order(direction, this.count) };
    this.update();
  }

  update() {
    const all = this.sorted?.rows ?? Uint32Array.from({ length: this.count }, (_, i) => i);
    this.rows = all.filter((row) => this.mask[row]);
    const [some, every] = [this.rows.length, this.count].map((n) => n.toLocaleString("en"));
    const noun = this.noun.toLowerCase();
    this.status.textContent = this.rows.length < this.count ? `${some} of ${every} ${noun}` : `${every} ${noun}`;
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.active = 0;
    this.box.scrollTop = 0;
    this.drawn = new Map();
    this.body.replaceChildren(...(this.rows.length ? [] : [this.nothing()]));
    this.render();
  }

  // Brings the rows in view into the document. Rows that stay are not touched: one may have the
  // focus, or be under a finger.
  render() {
    const focused = this.body.contains(document.activeElement);
    this.rowHeight ??= this.measureRow();
    const seen = Math.ceil(this.box.clientHeight / this.rowHeight) + 2 * OVERSCAN;
    const most = Math.max(0, this.rows.length - seen);
    const from = Math.min(Math.max(0, Math.floor(this.box.scrollTop / this.rowHeight) - OVERSCAN), most);
    const to = Math.min(this.rows.length, from + seen);
    for (const [place, row] of this.drawn) {
      if (place >= from && place < to) continue;
      row.remove();
      this.drawn.delete(place);
    }
    let next = null;
    for (let place = to - 1; place >= from; place--) {
      let row = this.drawn.get(place);
      if (!row) {
        this.drawn.set(place, (row = this.row(place)));
        this.body.insertBefore(row, next);
      }
      next = row;
    }
    this.pad(0, from);
    this.pad(1, this.rows.length - to);
    this.keepStop(from, to);
    if (focused && !this.body.contains(document.activeElement)) this.box.focus({ preventScroll: true });
  }

  // One row in the document is always a tab stop: the active one, or the nearest to it.
  keepStop(from, to) {
    for (const row of this.body.querySelectorAll('tr[tabindex="0"]')) row.tabIndex = -1;
    const stop = this.drawn.get(Math.min(Math.max(this.active, from), to - 1));
    if (stop) stop.tabIndex = 0;
  }

  measureRow() {
    const row = this.rows.length ? this.row(0) : this.nothing();
    this.body.append(row);
    const { height } = row.getBoundingClientRect();
    row.remove();
    return height;
  }

  pad(which, rows) {
    const cell = make("td", { colspan: this.shown.length });
    cell.style.height = `${rows * this.rowHeight}px`;
    this.pads[which].replaceChildren(...(rows ? [make("tr", { class: "pad" }, cell)] : []));
  }

  nothing() {
    return make("tr", {}, make("td", { colspan: this.shown.length }, "No row passes the filters."));
  }

  row(place) {
    const cells = this.shown.map((column) => {
      const value = column.get(this.rows[place]);
      const sure = column.key === "delta" && (this.value("transfer_p", this.rows[place]) ?? 1) < SIGNIFICANT;
      const classes = [column.right && "n", value === null && "none", sure && "best"].filter(Boolean).join(" ");
      const [whole, text] = [column.show(value), column.fit(value)];
      return make("td", { class: classes || null, title: text === whole ? null : whole }, text);
    });
    return make("tr", { tabindex: "-1", "data-place": place, "aria-rowindex": place + 2 }, ...cells);
  }

  bringIntoView(place) {
    this.active = place;
    const header = this.head.offsetHeight;
    const top = place * this.rowHeight;
    const bottom = top + this.rowHeight - (this.box.clientHeight - header);
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop) this.box.scrollTop = bottom;
    this.render();
    return this.body.querySelector(`[data-place="${place}"]`);
  }

  open(row) {
    this.active = Number(row.dataset.place);
    return this.openAt(this.rows[this.active], row);
  }

  // What a row is about: its models and method, and what came of it.
  title(at) {
    const main = this.column(this.about.sorted);
    const said = main?.ready ? `: ${main.label} ${main.show(main.get(at))}` : "";
    const seed = this.column("seed");
    const which = seed?.first && seed.ready ? `, seed ${seed.get(at)}` : ""; // a cell of a matrix has several
    return titleOf((key) => this.value(key, at)) + which + said;
  }

  async openAt(at, from) {
    const facts = () => this.columns.filter((column) => column.ready)
      .map((column) => [column.label, this.exact(column, at), factNote(column)]);
    const lead = () => outcome(this.about, (key) => this.value(key, at));
    details.open(titleOf((key) => this.value(key, at)), facts(), from, lead());
    await Promise.all(this.columns.map((column) => column.load()));
    details.fill(facts(), from, lead());
  }

  exact(column, row) {
    const value = column.get(row);
    return column.kind === "text" || value === null ? column.show(value) : minus(String(value));
  }
}

function titleOf(value) {
  const [teacher, student, method] = ["teacher", "student", "method"].map(value);
  return `${teacher} → ${student}${method ? `, ${method}` : ""}`;
}

function factNote(column) {
  return column.label === column.key ? column.meaning : `${column.key}: ${column.meaning}`;
}

const ROWS = {};
const DATA = JSON.parse(document.getElementById("data").textContent);
for (const mount of document.querySelectorAll(".rows[data-rows]")) {
  const about = DATA.find((part) => part.table === mount.dataset.rows);
  if (window.DecompressionStream) (ROWS[about.table] = new Rows(mount, about)).start();
  else mount.append(TOO_OLD);
}
