// What a row says first: its result in words, its course, and the command that repeats it.

const SIGNIFICANT = 0.05;
const TWO_SIDED = 1.96;

const inWords = {
  transfer(value) {
    const [delta, gain, loss, n, p] = ["delta", "gain", "loss", "n", "transfer_p"].map(value);
    if (delta === null) return value("error") ?? "";
    const share = delta / 100;
    const whole = gain !== null && loss !== null;
    const spread = !whole || !n ? null
      : 100 * TWO_SIDED * Math.sqrt(((gain + loss) / 100 - share * share) / n);
    const about = spread === null ? "" : ` ± ${spread.toFixed(2)} (95%, over images)`;
    const sure = p === null ? "" : p < SIGNIFICANT ? ` A significant ${delta > 0 ? "gain" : "loss"}` : " No significant change";
    const parts = !whole ? "" : `: gain ${gain.toFixed(2)} − loss ${loss.toFixed(2)}`;
    const said = `Δ ${signed(delta)} points${about}${parts}.${sure && `${sure} (McNemar p = ${p.toPrecision(2)}).`}`;
    return said + learned(value) + (value("guard_alpha") === 0 ? " The guard left the student as it was." : "");
  },
  complementarity(value) {
    const [positive, negative] = ["pos_flips", "neg_flips"].map(value);
    if (positive === null) return "";
    const back = negative === null ? "" : `, and the other way round on ${negative.toFixed(2)}%`;
    return `The teacher is right where the student is wrong on ${positive.toFixed(2)}% of the images (ρ⁺)${back}.`;
  },
};

// Of what the teacher knows beyond the student, how much came over.
function learned(value) {
  const [known, rate] = ["pos_flips", "transfer_rate"].map(value);
  if (known === null) return "";
  const share = rate === null ? "" : `, of which ${rate.toFixed(1)}% was learned`;
  return ` The teacher knew ρ⁺ ${known.toFixed(2)}% that the student did not${share}.`;
}

const signed = (number) => {
  const near = Number(number.toFixed(2)) || 0; // zero has no minus
  return minus(`${near > 0 ? "+" : ""}${near.toFixed(2)}`);
};

// A word as a shell takes it.
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// Nothing where a model is one's own and nobody says where it is: its name alone would not do.
function command({ options, references, images }, value) {
  const own = references[value("sweep")] ?? {};
  const known = (role) => {
    const [name, key] = [value(role), value(`${role}_key`)];
    return name in own || key === null || key === name;
  };
  if (!known("student") || !(value("teacher_names") || known("teacher"))) return "";
  const words = options.flatMap(([column, option, usual]) => {
    const said = value(column);
    if (said === null || String(said) === String(usual)) return [];
    if (typeof usual === "boolean") return [String(said) === "true" ? option : option.replace("--", "--no-")];
    return [option, quoted(String(said))];
  });
  words.push(...(images[value("sweep")] ?? []).map(quoted));
  if (value("amp")) words.push("--amp", "--amp-dtype", value("amp"));
  const every = value("mcl_every");
  if (every !== null && /-mcl/.test(value("method")) && every !== Math.max(1, Math.round(512 / value("batch_size")))) {
    words.push("--mcl-every", String(every));
  }
  const names = (value("teacher_names") ?? value("teacher")).split(value("teacher_names") ? ", " : "\n");
  return ["kt transfer", ...[...names, value("student")].map((name) => quoted(own[name] ?? name)), ...words].join(" ");
}

// A curve by epoch, drawn from "–, 61.2, 61.9".
function course(text) {
  const points = text.split(", ").map(Number).map((y, x) => [x, y]).filter(([, y]) => !Number.isNaN(y));
  if (points.length < 2) return [];
  const [ys, last] = [points.map(([, y]) => y), points.at(-1)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const at = ([x, y]) => `${(4 + (292 * x) / last[0]).toFixed(1)},${(56 - (52 * (y - low)) / (high - low || 1)).toFixed(1)}`;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS(svg.namespaceURI, "polyline");
  svg.setAttribute("viewBox", "0 0 300 60");
  line.setAttribute("points", points.map(at).join(" "));
  svg.append(line);
  const said = `accuracy on the training views by epoch: ${ys[0].toFixed(1)} to ${last[1].toFixed(1)}%, between ${low.toFixed(1)} and ${high.toFixed(1)}%`;
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", said);
  return [make("figure", { class: "course" }, svg, make("figcaption", {}, said))];
}

// Elements for the head of a row's details; `value` gives a column's value, null for none.
function outcome(about, value) {
  const said = inWords[about.table](value);
  const again = about.table === "transfer" && value("student") ? command(about, value) : "";
  const repeat = again ? [make("pre", {}, again)] : [];
  const classes = value("moved") ? [make("p", {}, `Classes that changed most, by label (images gained, lost): ${value("moved")}`)] : [];
  return [...(said ? [make("p", { class: "said" }, said)] : []), ...course(value("curve_acc") ?? ""), ...classes, ...repeat];
}
