// Rows asked of the server that this page came from: found and sorted there, shown page by page.

const AT_ONCE = 50;

class Asked {
  constructor(mount) {
    this.about = mount.dataset.ask;
    this.noun = mount.closest("section").querySelector("h2").textContent.toLowerCase();
    this.input = make("input", { type: "search", maxlength: "4000", spellcheck: "false",
      placeholder: "delta > 0 and method == 'kl-dp'", "aria-label": `Condition on all ${this.noun}` });
    this.status = make("output");
    this.find = make("button", { type: "submit" }, "Find");
    this.back = make("button", { type: "button", disabled: true }, "Previous");
    this.next = make("button", { type: "button", disabled: true }, "Next");
    this.csv = make("a", { hidden: true, download: true }, "CSV");
    this.head = make("thead");
    this.body = make("tbody");
    this.table = make("table", { "aria-label": `Found ${this.noun}` }, this.head, this.body);
    this.box = make("div", { class: "box", hidden: true }, this.table);
    const form = make("form", { class: "tools", role: "search" },
      this.input, this.find, this.back, this.next, this.csv, this.status);
    mount.append(form, this.box);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.sort = "";
      this.ask(this.input.value, 0);
    });
    this.back.addEventListener("click", () => this.ask(this.where, this.offset - AT_ONCE));
    this.next.addEventListener("click", () => this.ask(this.where, this.offset + AT_ONCE));
    walkable(this.body, {
      count: () => this.body.rows.length,
      placeOf: (row) => row.sectionRowIndex,
      at: (place) => {
        this.body.rows[place].scrollIntoView({ block: "nearest" });
        return this.body.rows[place];
      },
      open: (row) => this.open(row),
    });
  }

  query(more) {
    return new URLSearchParams({ table: this.about, where: this.where, sort: this.sort, ...more });
  }

  async ask(where, offset) {
    Object.assign(this, { where, offset });
    this.status.textContent = "Asking …";
    const mine = (this.latest = {});
    let answer;
    try {
      answer = await (await fetch(`rows?${this.query({ offset, limit: AT_ONCE })}`)).json();
    } catch {
      answer = { error: "The server does not answer.", tip: "Is kt report --serve still running?" };
    }
    if (mine !== this.latest) return;
    this.input.setAttribute("aria-invalid", Boolean(answer.error));
    if (answer.error) this.status.textContent = `${answer.error} ${answer.tip}`;
    else this.show(answer);
  }

  show({ count, csv, columns, rows }) {
    const focused = this.head.contains(document.activeElement) && this.sort;
    this.columns = columns.map((column) => new RowColumn(column));
    this.rows = rows;
    const to = Math.min(this.offset + AT_ONCE, count);
    const [from, until, all] = [this.offset + 1, to, count].map((n) => n.toLocaleString("en"));
    this.status.textContent = count ? `${from} to ${until} of ${all}` : `No ${this.noun}`;
    this.back.disabled = !this.offset;
    this.next.disabled = to >= count;
    this.csv.hidden = !csv || !count;
    this.csv.href = `rows.csv?${this.query({})}`;
    const shown = this.columns.filter((column) => column.first);
    this.header(shown);
    this.body.replaceChildren(...rows.map((row, i) => make("tr", { tabindex: i ? "-1" : "0" },
      ...shown.map((column) => {
        const value = row[this.columns.indexOf(column)];
        return make("td", { class: column.right ? "n" : null }, column.show(value));
      }))));
    this.box.hidden = !count;
    if (focused) this.head.querySelector(`[data-key="${focused.replace("-", "")}"] button`)?.focus();
  }

  header(shown) {
    const headers = shown.map((column) => make("th",
      { scope: "col", class: column.right && "n", title: column.meaning, "data-key": column.key }, column.label));
    sortable(headers, (i, direction) => {
      this.sort = { none: "", ascending: "", descending: "-" }[direction];
      if (direction !== "none") this.sort += shown[i].key;
      this.ask(this.where, 0);
    });
    const sorted = headers.find((header) => header.dataset.key === this.sort.replace("-", ""));
    sorted?.setAttribute("aria-sort", this.sort.startsWith("-") ? "descending" : "ascending");
    this.head.replaceChildren(make("tr", {}, ...headers));
  }

  open(row) {
    const values = this.rows[row.sectionRowIndex];
    const exact = (column, value) =>
      column.kind === "text" || value === null ? column.show(value) : minus(String(value));
    const facts = this.columns.map((column, i) => [column.label, exact(column, values[i]), factNote(column)]);
    const value = (key) => values[this.columns.findIndex((column) => column.key === key)] ?? null;
    const about = DATA.find((part) => part.table === this.about);
    details.open(titleOf(value), facts, row, outcome(about, value));
  }
}

for (const mount of document.querySelectorAll("[data-ask]")) new Asked(mount);
