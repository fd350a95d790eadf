// Columns of rows: unpacked into typed arrays, sorted and tested by what a filter's text asks for.

const NUMBER = "[-−+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-−+]?\\d+)?";
const RANGE = new RegExp(`^(${NUMBER})?\\s*\\.\\.\\s*(${NUMBER})?$`, "i");
const CONDITION = new RegExp(`(>=|<=|≥|≤|>|<|=)?\\s*(${NUMBER})`, "gi");

const NAMES = ["teacher", "student"];
const SHORT = 11; // letters of a name on a narrow screen

const toNumber = (text) => Number(text.replaceAll("−", "-"));

class RowColumn {
  constructor(about) {
    Object.assign(this, about);
    this.right = this.kind !== "text";
    const digits = { minimumFractionDigits: this.digits, maximumFractionDigits: this.digits };
    const sign = this.signed ? { signDisplay: "exceptZero" } : { signDisplay: "negative" };
    this.format = new Intl.NumberFormat("en", { ...digits, ...sign });
  }

  load() {
    this.loading ??= this.read();
    return this.loading;
  }

  // Bytes lie lowest first, each for all rows; 0 is missing.
  async read() {
    const bytes = new Uint8Array(await (await unpack(this.numbers)).arrayBuffer());
    const count = bytes.length / this.width;
    const whole = new Int32Array(count);
    for (let byte = 0; byte < this.width; byte++) {
      for (let row = 0; row < count; row++) whole[row] |= bytes[byte * count + row] << (8 * byte);
    }
    if (this.values) {
      this.values = await (await unpack(this.values)).json();
      this.codes = whole.map((number) => number - 1);
    } else this.floats = Float64Array.from(whole, (n) => (n ? (this.low + n - 1) / this.scale : NaN));
    this.ready = true;
  }

  get(row) {
    if (this.codes) return this.codes[row] < 0 ? null : this.values[this.codes[row]];
    return Number.isNaN(this.floats[row]) ? null : this.floats[row];
  }

  show(value) {
    if (value === null) return "–";
    if (this.kind === "text") return value;
    if (this.kind === "free") return minus(String(value));
    if (this.kind === "p") return minus(0 < value && value < 0.0005 ? value.toExponential(0) : value.toFixed(3));
    return minus(this.format.format(value));
  }

  // All rows in ascending or descending order; equal ones keep their order, missing are last.
  order(direction, count) {
    const sign = direction === "ascending" ? 1 : -1;
    const rows = Uint32Array.from({ length: count }, (_, i) => i);
    if (this.codes) return this.byCode(rows, sign);
    const keys = this.floats.map((v) => (Number.isNaN(v) ? Infinity : sign * v));
    return rows.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
  }

  byCode(rows, sign) {
    const last = this.values.length;
    const place = (row) => {
      const code = this.codes[row];
      return code < 0 ? last : sign > 0 ? code : last - 1 - code;
    };
    const starts = new Uint32Array(last + 2);
    for (const row of rows) starts[place(row) + 1]++;
    for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
    const sorted = new Uint32Array(rows.length);
    for (const row of rows) sorted[starts[place(row)]++] = row;
    return sorted;
  }

  // Takes from `mask` the rows whose value does not pass.
  restrict(mask, passes) {
    if (this.codes) {
      const known = this.values.map(passes);
      const none = passes(null);
      for (let i = 0; i < mask.length; i++) if (!(this.codes[i] < 0 ? none : known[this.codes[i]])) mask[i] = 0;
    } else {
      for (let i = 0; i < mask.length; i++) if (mask[i] && !passes(this.get(i))) mask[i] = 0;
    }
  }

  // What a filter's text asks for: a test of values, null for nothing, undefined if not understood.
  test(text) {
    const query = text.trim();
    if (!query) return null;
    if (query === "?") return (value) => value === null;
    if (query === "!?") return (value) => value !== null;
    return this.kind === "text" ? textTest(query) : this.numberTest(query);
  }

  numberTest(text) {
    const query = text.replace(/(?<=\d),(?=\d{3}(?!\d))/g, "");
    const range = RANGE.exec(query);
    if (range) {
      const low = range[1] === undefined ? -Infinity : toNumber(range[1]);
      const high = range[2] === undefined ? Infinity : toNumber(range[2]);
      return (value) => value !== null && low <= value && value <= high;
    }
    const found = [...query.matchAll(CONDITION)];
    // Two values at once fit nothing: 1-2 was to be a range.
    if (found.length > 1 && found.some(([, sign]) => !sign || sign === "=")) return undefined;
    const tests = found.map(([, sign, number]) => this.condition(sign, toNumber(number)));
    if (!tests.length || query.replace(CONDITION, "").replace(/and|,|\s/gi, "")) return undefined;
    return (value) => value !== null && tests.every((test) => test(value));
  }

  condition(sign, number) {
    const tests = {
      ">": (v) => v > number, "<": (v) => v < number,
      ">=": (v) => v >= number, "<=": (v) => v <= number,
      "≥": (v) => v >= number, "≤": (v) => v <= number,
    };
    const wanted = this.show(number);
    return tests[sign] ?? ((v) => this.show(v) === wanted); // equal is what looks equal
  }

  // Letters that it has room for: names of models give way on a narrow screen.
  get room() {
    if (!NARROW.matches) return this.chars;
    return NAMES.includes(this.key) ? SHORT : this.chars;
  }

  // As `show`, names of models shortened in the middle, since both ends tell them apart.
  fit(value) {
    const [text, most] = [this.show(value), this.room];
    if (!NAMES.includes(this.key) || text.length <= most) return text;
    const tail = Math.floor((most - 1) / 2);
    return `${text.slice(0, most - 1 - tail)}…${text.slice(-tail)}`;
  }

  get chars() {
    const sample = this.codes ? this.values : [Math.max(...this.extremes()), Math.min(...this.extremes())];
    let longest = this.label.length + 2;
    for (const value of sample) longest = Math.max(longest, this.show(value).length);
    return Math.min(Math.max(longest, this.right ? 8 : 10), 34);
  }

  extremes() {
    let [low, high] = [Infinity, -Infinity];
    for (const v of this.floats) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    return low <= high ? [low, high] : [0];
  }
}

function textTest(query) {
  const negated = query.startsWith("!");
  const terms = query.slice(negated ? 1 : 0).toLowerCase().split("|").map((t) => t.trim()).filter(Boolean);
  if (!terms.length) return null;
  const has = (value, term) => (term.startsWith("=") ? value === term.slice(1).trim() : value.includes(term));
  return (value) => value !== null && terms.some((term) => has(value.toLowerCase(), term)) !== negated;
}
