// Points and cells of plots say which row they are, and open it: by pointer, or by arrows and Enter.

const NEAR = 12; // px
const STEP = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

class Marked {
  constructor(card, rows) {
    Object.assign(this, { card, rows, now: null });
    this.marks = JSON.parse(card.dataset.marks).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    this.side = Number(card.dataset.side ?? 0); // of a cell
    this.ring = make("div", { class: "ring", hidden: true });
    this.tip = make("output", { class: "tip", hidden: true });
    card.append(this.ring, this.tip);
    card.tabIndex = 0;
    card.setAttribute("role", "group");
    card.setAttribute("aria-label", "Plot: arrows go from point to point, Enter opens its row");
    card.addEventListener("pointermove", (event) => this.show(this.nearest(event)));
    card.addEventListener("pointerleave", () => this.show(null));
    card.addEventListener("blur", () => this.show(null));
    card.addEventListener("click", (event) => this.open(this.nearest(event)));
    card.addEventListener("keydown", (event) => this.key(event));
  }

  // Where the drawing is in the card, and by how much it is larger, in px.
  frame() {
    const svg = this.card.querySelector(":scope > svg");
    const [drawn, box] = [svg.getBoundingClientRect(), this.card.getBoundingClientRect()];
    const scale = drawn.width / svg.viewBox.baseVal.width;
    const [border, scroll] = [this.card.clientLeft, this.card.scrollLeft];
    return [drawn.left - box.left - border + scroll, drawn.top - box.top - border, scale];
  }

  // Where a place of the drawing is in the card, in px.
  px([x, y]) {
    const [left, top, scale] = this.frame();
    return [left + x * scale, top + y * scale];
  }

  nearest(event) {
    const box = this.card.getBoundingClientRect();
    const [left, top, scale] = this.frame();
    const x = (event.clientX - box.left - this.card.clientLeft + this.card.scrollLeft - left) / scale;
    const y = (event.clientY - box.top - this.card.clientTop - top) / scale;
    let [best, least] = [null, this.side / 2 || NEAR / scale];
    this.marks.forEach((mark, i) => {
      const [right, down] = [Math.abs(mark[0] - x), Math.abs(mark[1] - y)];
      const away = this.side ? Math.max(right, down) : Math.hypot(right, down);
      if (away < least) [best, least] = [i, away];
    });
    return best;
  }

  show(place) {
    if (place === this.now) return;
    this.now = place;
    this.ring.hidden = this.tip.hidden = place === null;
    if (place === null) return;
    const [left, top] = this.px(this.marks[place]);
    Object.assign(this.ring.style, { left: `${left}px`, top: `${top}px` });
    this.tip.textContent = this.rows.title(this.marks[place][2]);
    this.tip.style.left = 0; // as wide as it can be
    const right = this.card.scrollLeft + this.card.clientWidth - this.tip.offsetWidth;
    const room = this.card.clientHeight - top - 10 >= this.tip.offsetHeight; // below, else above
    const at = room ? top + 10 : Math.max(0, top - 10 - this.tip.offsetHeight);
    Object.assign(this.tip.style, { left: `${Math.max(0, Math.min(left, right))}px`, top: `${at}px` });
  }

  open(place) {
    if (place !== null) this.rows.openAt(this.marks[place][2], this.card);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") this.open(this.now);
    else if (event.key === "Escape") this.show(null);
    else if (event.key in STEP) {
      const next = this.now === null ? 0 : this.now + STEP[event.key];
      this.show(Math.min(Math.max(next, 0), this.marks.length - 1));
    } else return;
    event.preventDefault();
  }
}

for (const card of document.querySelectorAll(".card[data-marks]")) {
  const rows = ROWS[card.dataset.rowsOf];
  if (rows) new Marked(card, rows);
}
