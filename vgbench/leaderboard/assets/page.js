"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a500", "#8c8c8c", "#8250c4", "#8a5a3b"];
  const SHAPES = ["M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z", "M-5-5H5V5H-5Z", "M0-6L6 5H-6Z", "M0-6L6 0L0 6L-6 0Z", "M0 6L6-5H-6Z"];
  const byId = (id) => document.getElementById(id);

  // Elements. Text only ever enters the page as text nodes and attributes, never as markup.
  function make(namespace, tag, attributes, children) {
    const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }
  const el = (tag, attributes, ...children) => make(null, tag, attributes, children);
  const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);

  // One colour per method, so that it is the same on every data set; its runs differ by shape and dashes.
  const labels = data.rows.map((row) => row.label.replace(` (${row.run})`, ""));
  const methods = [...new Set(labels)];
  const method = (row) => methods.indexOf(labels[row]);
  const colour = (row) => COLOURS[method(row) % COLOURS.length];
  const dashes = (row) => ["", "7 4", "2 4"][data.rows.slice(0, row).filter((_, other) => method(other) === method(row)).length % 3];
  const shape = (row) => SHAPES[row % SHAPES.length];
  const fixed = (value) => (value === null || value === undefined ? "" : value.toFixed(2));
  const half = (low, high) => (low === null || high === null ? "" : " ±" + ((high - low) / 2).toFixed(2));
  const rate = (value) => String(Number(value.toPrecision(3)));  // never 1.01e+3
  const kind = (column) => (column.embedded ? "embedded" : "real");
  const name = (column) => `${column.where}${versions(column)} ${column.title}`;

  // Splits that were scored on several versions of the data: each version is named, none shares a column.
  const versionSets = new Map();
  for (const column of data.columns) {
    const key = [column.embedded, column.task, column.where].join("|");
    if (!versionSets.has(key)) versionSets.set(key, new Set());
    versionSets.get(key).add(column.data_hash);
  }
  function versions(column) {
    const key = [column.embedded, column.task, column.where].join("|");
    return versionSets.get(key).size > 1 ? ` [data ${column.data_hash.slice(0, 6)}]` : "";
  }

  const cells = data.columns.map(() => new Map());
  for (const [row, column, value, low, high, n, part, leads] of data.cells) cells[column].set(row, { value, low, high, n, part, leads });

  function options(select, pairs, chosen) {
    select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  }
  function groupBy(items, key) {
    const groups = new Map();
    for (const item of items) {
      const at = key(item);
      if (!groups.has(at)) groups.set(at, []);
      groups.get(at).push(item);
    }
    return groups;
  }

  // Tables ------------------------------------------------------------------------------------------------------
  const sorting = new Map();  // table -> [column key, descending]
  const whole = new Set();  // tables whose rows are all shown
  const ROWS = 50;  // of a table until the reader asks for all
  const CHOICES = [
    ["params", "parameters"], ["train", "training speed"], ["infer", "inference speed"], ["latency", "latency"],
    ["flops", "FLOPs"], ["memory", "memory"], ["hours", "hours"], ["tokens", "tokens"], ["answer", "time per answer"], ["price", "price"],
    ["device", "device"], ["provenance", "provenance"], ["run", "run"],
  ];
  const FIELDS = { params: "parameters", train: "train_rate", infer: "infer_rate", answer: "answer_s" };  // key -> of a row
  const hidden = new Set(["latency", "flops", "memory", "hours", "device", "run"]);

  function visibleColumns() {
    const chosen = { kind: byId("kind").value, task: byId("task").value, dataset: byId("dataset").value };
    const all = byId("all-metrics").checked, controls = byId("controls").checked;
    const hasHeadline = new Set(data.columns.filter((c) => c.headline).map((c) => c.task + c.embedded));
    return data.order.filter((number) => {
      const column = data.columns[number];
      return (!chosen.kind || kind(column) === chosen.kind) && (!chosen.task || column.task === chosen.task) &&
        (!chosen.dataset || column.dataset === chosen.dataset) && (controls || !column.control) &&
        (all || column.headline || !hasHeadline.has(column.task + column.embedded));
    });
  }

  function renderTables() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = data.rows.map((row) => {
      const text = [row.label, row.run, row.device, row.provenance, row.training, row.commit].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const groups = groupBy(visibleColumns(), (number) => {
      const column = data.columns[number];
      return `${column.task_title}: ${column.where.slice(0, -column.split.length).trim()}`;
    });
    let shown = 0;
    const blocks = [];
    for (const [title, columns] of groups) {
      const rows = data.rows.map((_, number) => number)
        .filter((row) => matches[row] && columns.some((column) => cells[column].has(row)));
      if (!rows.length) continue;
      shown += rows.length;
      const table = el("div", { class: "scroll" }, tableOf(title, columns, rows));
      const rest = rows.length > ROWS && !whole.has(title) ? el("button", {
        type: "button", class: "rest", onclick: () => { whole.add(title); renderTables(); },
      }, `Show all ${rows.length} rows`) : null;
      blocks.push(el("section", { class: "table" }, el("h3", {}, title), table, rest ? [rest] : []));
    }
    byId("table-list").replaceChildren(...blocks);
    byId("count").textContent = `${shown} rows in ${blocks.length} tables. ±x is half of the 95 % interval (bootstrap clustered by image). ${data.bold}`;
  }

  const runName = (row) => `${row.run}${row.seed === null ? "" : `, seed ${row.seed}`}`;
  const about = (row) => [runName(row), row.config && `config ${row.config}`, row.commit && `commit ${row.commit}`,
    row.training, row.created, ...row.notes].filter(Boolean).join("\n");

  function tableOf(title, columns, rows) {
    const fields = [
      ...columns.map((number) => ({
        key: String(number), text: data.columns[number].split + versions(data.columns[number]) + " " + data.columns[number].title,
        value: (row) => ranked(number, row) ?? null, filled: (row) => (cells[number].get(row)?.value ?? null) !== null, cell: (row) => numberCell(number, row),
      })),
      cost("params", "Params (M)", (row) => row.parameters, (value) => (value / 1e6).toFixed(value >= 1e5 ? 1 : 3)),
      cost("train", "Train/s", (row) => row.train_rate, rate),
      cost("infer", "Infer/s", (row) => row.infer_rate, rate),
      cost("latency", "Latency (ms)", (row) => row.latency, (value) => short(value * 1e3)),
      cost("flops", "GFLOPs", (row) => row.flops, (value) => short(value / 1e9)),
      cost("memory", "Memory (GiB)", (row) => row.memory, (value) => (value / 2 ** 30).toFixed(1)),
      cost("hours", "Hours", (row) => row.hours, (value) => short(value)),
      cost("tokens", "Tokens/answer", (row) => row.tokens, (value) => short(value)),
      cost("answer", "s/answer", (row) => row.answer_s, (value) => short(value)),
      cost("price", "$/1000", (row) => row.price, (value) => rate(value)),
      words("device", "Device", (row) => row.device),
      words("provenance", "Provenance", (row) => row.provenance),
      words("run", "Run", runName, about),
    ].filter((field) => !hidden.has(field.key) && rows.some((row) => field.filled ? field.filled(row) : field.value(row) !== null && field.value(row) !== ""));
    const [by, descending] = sorting.get(title) || [String(columns[0]), !data.columns[columns[0]].lower];
    const method = words("method", "Method", (row) => row.label);
    const order = [method, ...fields].find((field) => field.key === by) || fields[0];
    const sorted = [...rows].sort((a, b) => {
      const [left, right] = [order.value(a), order.value(b)];
      if (left === null || right === null) return (left === null) - (right === null);  // gaps last, either way
      const sign = typeof left === "string" ? left.localeCompare(right) : left - right;
      return descending ? -sign : sign;
    });
    const drawn = whole.has(title) ? sorted : sorted.slice(0, ROWS);
    const heads = [method, ...fields].map((field) => el("th", {
      scope: "col", class: field.text_cell ? "text" : null,
      "aria-sort": field.key === order.key ? (descending ? "descending" : "ascending") : null,
    }, el("button", {
      type: "button", "data-key": field.key,
      onclick: () => {
        sorting.set(title, [field.key, field.key === order.key ? !descending : !field.text_cell]);
        renderTables();
        [...document.querySelectorAll("#table-list table")].find((t) => t.getAttribute("aria-label") === title)
          ?.querySelector(`button[data-key="${field.key}"]`)?.focus();
      },
    }, field.text)));
    return el("table", { "aria-label": title }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, drawn.map((row) =>
      el("tr", {}, el("th", { scope: "row", title: about(data.rows[row]) }, data.rows[row].label), fields.map((field) => field.cell(row))))));
  }
  function cost(key, text, get, format) {
    const value = (row) => get(data.rows[row]) ?? null;
    return { key, text, value, cell: (row) => el("td", {}, value(row) === null ? "" : format(value(row))) };
  }
  function words(key, text, get, hint) {
    const value = (row) => get(data.rows[row]) || "";
    return { key, text, value, text_cell: true, cell: (row) => el("td", { class: "text", title: hint?.(data.rows[row]) }, value(row)) };
  }
  function ranked(number, row) {  // what was scored on part of a split has no place among whole ones
    const cell = cells[number].get(row);
    return cell?.part ? null : cell?.value;
  }
  function numberCell(number, row, bold = true) {
    const cell = cells[number].get(row);
    if (!cell) return el("td", {});
    if (cell.value === null) return el("td", { title: "not defined on this split" }, "n/d");
    const text = fixed(cell.value);
    if (cell.part) return el("td", { title: `part of the split: ${cell.part} expressions` }, `${text} [part]`, el("small", {}, half(cell.low, cell.high)));
    return el("td", { title: cell.n ? `${cell.n} expressions` : "published" }, bold && cell.leads ? el("strong", {}, text) : text, el("small", {}, half(cell.low, cell.high)));
  }

  function initTables() {
    const values = (key) => [...new Set(data.order.map((number) => key(data.columns[number])))];
    options(byId("kind"), [["", "real and embedded"], ...values(kind).map((v) => [v, v])], "");
    options(byId("task"), [["", "all"], ...values((c) => c.task).map((v) => [v, v.toUpperCase()])], "");
    options(byId("dataset"), [["", "all"], ...values((c) => c.dataset).map((v) => [v, v])], "");
    byId("controls").closest("label").hidden = !data.columns.some((column) => column.control);
    const used = CHOICES.filter(([key]) => data.rows.some((row) => row[FIELDS[key] ?? key] !== null && row[FIELDS[key] ?? key] !== ""));
    byId("columns").replaceChildren(...used.map(([key, text]) => el("label", { class: "check" }, el("input", {
      type: "checkbox", id: `column-${key}`, checked: !hidden.has(key), onchange: (event) => {
        hidden[event.target.checked ? "delete" : "add"](key);
        renderTables();
      },
    }), " " + text)));
    byId("filters").addEventListener("input", renderTables);
    renderTables();
  }

  // Charts ------------------------------------------------------------------------------------------------------
  function ticks(low, high, log) {
    if (log) {
      const all = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const digit of [1, 2, 5]) all.push(digit * 10 ** power);
      const inside = all.filter((tick) => tick >= low && tick <= high);
      const tens = inside.filter((tick) => /^1(e|0*$)|^0\.0*1$/.test(String(tick)));
      if (inside.length > 1) return inside.length > 7 && tens.length > 1 ? tens : inside;
    }
    const rough = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(Number(tick.toPrecision(10)));
    return found;
  }
  function range(values, log) {
    let low = Math.min(...values), high = Math.max(...values);
    if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.08, high * (high / low) ** 0.08];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    return [low - room, high + room];
  }
  function short(value) {
    const [size, unit] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(value) >= size) || [1, ""];
    return Number((value / size).toPrecision(4)) + unit;
  }

  /** Axes with a plot inside. Series: {row, label, points: [[x, y, low, high]]}, drawn as marks or as lines. */
  function chart(title, xLabel, yLabel, series, { log = false, lines = false, diagonal = false } = {}) {
    const width = innerWidth < 600 ? 400 : 640, height = innerWidth < 600 ? 320 : 400, left = 62, right = 16, top = 14, bottom = 48;
    const points = series.flatMap((one) => one.points);
    const xs = points.map((point) => point[0]);
    const ys = points.flatMap((point) => [point[1], point[2] ?? point[1], point[3] ?? point[1]]);
    let [x0, x1] = range(diagonal ? [...xs, ...ys] : xs, log), [y0, y1] = range(diagonal ? [...xs, ...ys] : ys, false);
    const scale = (value, low, high) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const x = (value) => left + (width - left - right) * scale(value, x0, x1);
    const y = (value) => top + (height - top - bottom) * (1 - (value - y0) / (y1 - y0));
    const parts = [];
    for (const tick of ticks(x0, x1, log)) parts.push(
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }),
      svg("text", { class: "tick", x: x(tick), y: height - bottom + 17, "text-anchor": "middle" }, short(tick)));
    for (const tick of ticks(y0, y1, false)) parts.push(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: left - 7, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
    if (diagonal) parts.push(svg("line", { class: "axis", "stroke-dasharray": "6 5", x1: x(x0), y1: y(x0), x2: x(x1), y2: y(x1) }));
    parts.push(
      svg("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
      svg("text", { transform: `translate(15 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel));
    for (const one of series) {
      if (lines) {
        const path = one.points.map((point) => `${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("L");
        parts.push(svg("path", { d: "M" + path, fill: "none", stroke: colour(one.row), "stroke-width": 2.2, "stroke-dasharray": dashes(one.row) },
          svg("title", {}, one.label)));
        if (one.points.length > 30) continue;
      }
      for (const [px, py, low, high, hint] of one.points) {
        const text = `${hint || one.label}: ${xLabel} ${short(px)}, ${yLabel} ${fixed(py)}`;
        if (low !== null && low !== undefined) parts.push(svg("line", { stroke: colour(one.row), "stroke-width": 1.5, x1: x(px), x2: x(px), y1: y(low), y2: y(high) }));
        parts.push(svg("path", {
          d: shape(one.row), transform: `translate(${x(px).toFixed(1)} ${y(py).toFixed(1)})${lines ? " scale(.6)" : ""}`,
          fill: one.hollow?.has(px + "|" + py) ? "none" : colour(one.row), stroke: colour(one.row), "stroke-width": 2,
          tabindex: lines ? null : 0, role: lines ? null : "img", "aria-label": lines ? null : text,
        }, svg("title", {}, text)));
      }
    }
    return [
      svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title }, parts),
      el("ul", { class: "legend-list" }, series.map((one) => el("li", {},
        svg("svg", { width: 16, height: 14, viewBox: "-8 -7 16 14", style: "display:inline;width:1rem;vertical-align:middle", "aria-hidden": "true" },
          svg("path", { d: shape(one.row), fill: colour(one.row) })), " " + one.label))),
    ];
  }

  function initPublished() {
    if (!data.published.length) return;
    byId("published").hidden = false;
    const drawn = data.published.filter((pair) => pair.measured !== null);
    const series = [...groupBy(drawn, (pair) => pair.row)].map(([row, pairs]) => ({
      row, label: data.rows[row].label,
      hollow: new Set(pairs.filter((pair) => !pair.comparable).map((pair) => pair.value + "|" + pair.measured)),
      points: pairs.map((pair) => {
        const cell = cells[pair.column].get(pair.row);
        return [pair.value, pair.measured, cell.low, cell.high, `${data.rows[row].label}, ${name(data.columns[pair.column])}`];
      }),
    }));
    if (series.length) byId("published-chart").replaceChildren(
      ...chart("Published against measured", "published", "measured", series, { diagonal: true }),
      el("p", { class: "note" }, "Hollow marks: not comparable, for the reason given in the table. On the dashed line both agree."));
    const table = el("table", { "aria-label": "Published and measured" },
      el("thead", {}, el("tr", {}, ["Method", "Where", "Measured", "Published", "Difference", "Published as", "Remarks", "Source"].map((text, place) =>
        el("th", { scope: "col", class: place > 1 && place < 5 ? null : "text" }, text)))),
      el("tbody", {}, data.published.map((pair) => el("tr", {},
        el("th", { scope: "row" }, data.rows[pair.row].label),
        el("td", { class: "text" }, name(data.columns[pair.column])),
        numberCell(pair.column, pair.row, false),
        el("td", {}, fixed(pair.value)),
        el("td", {}, pair.difference === null ? "" : (pair.comparable ? "" : "(") + (pair.difference > 0 ? "+" : "") + fixed(pair.difference) + (pair.comparable ? "" : ")")),
        el("td", { class: "text" }, pair.as), el("td", { class: "text" }, pair.notes.join("; ")), el("td", { class: "text" }, pair.source)))));
    // no button inside takes the keyboard's focus, so the box itself does: it scrolls with the arrow keys
    byId("published-table").replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Published and measured" }, table));
  }

  const COSTS = [
    ["cost-speed", "infer_rate", "inference, samples/s"], ["cost-size", "parameters", "parameters"],
    ["cost-latency", "latency", "seconds at batch 1"], ["cost-flops", "flops", "FLOPs"],
    ["cost-memory", "memory", "bytes of memory"], ["cost-tokens", "tokens", "tokens per answer"],
    ["cost-answer", "answer_s", "seconds per answer"], ["cost-price", "price", "US dollars per 1,000 expressions"],
  ];

  function initCost() {
    const usable = data.order.filter((number) => !data.columns[number].control && [...cells[number]].some(([row, cell]) =>
      cell.value !== null && COSTS.some(([, key]) => data.rows[row][key])));
    if (!usable.length) return;
    byId("cost").hidden = false;
    const first = usable.find((number) => data.columns[number].headline) ?? usable[0];
    options(byId("cost-column"), usable.map((number) => [String(number), name(data.columns[number])]), String(first));
    const draw = () => {
      const number = Number(byId("cost-column").value);
      for (const [id, key, text] of COSTS) {
        const series = [...cells[number]].filter(([row, cell]) => cell.value !== null && data.rows[row][key])
          .map(([row, cell]) => ({ row, label: data.rows[row].label, points: [[data.rows[row][key], cell.value, cell.low, cell.high, `${data.rows[row].label} on ${data.rows[row].device}`]] }));
        byId(id).replaceChildren(...(series.length ? chart(`${name(data.columns[number])} against ${text}`, text, data.columns[number].title, series, { log: true }) : []));
      }
    };
    byId("cost-column").addEventListener("input", draw);
    draw();
  }

  /** Exponential mean of a curve, without the pull of its start; weight 0: the curve itself. */
  function smooth(points, weight) {
    let sum = 0, total = 0;
    return points.map(([x, y]) => {
      sum = weight * sum + (1 - weight) * y;
      total = weight * total + (1 - weight);
      return [x, sum / total];
    });
  }

  function initCurves() {
    if (!data.curves.length) return;
    byId("curves").hidden = false;
    const names = [...new Set(data.curves.flatMap((curve) => Object.keys(curve.series)))].sort((a, b) =>
      (b.startsWith("val/") - a.startsWith("val/")) || a.localeCompare(b));
    const headline = new Set(data.columns.filter((column) => column.headline).map((column) => `val/${column.task}/${column.metric}`));
    const long = new Set(data.curves.flatMap((curve) => Object.keys(curve.series).filter((one) => curve.series[one].length > 1)));
    const first = [...names.filter((one) => headline.has(one)), "train/total", ...names].find((one) => long.has(one)) ?? names[0];
    options(byId("curve-name"), names.map((one) => [one, one]), first);
    const draw = () => {
      const chosen = byId("curve-name").value;
      const series = data.curves.filter((curve) => curve.series[chosen]).map((curve) => {
        const row = data.rows.findIndex((one) => one.run_id === curve.run_id);
        const label = `${data.rows[row].method} ${data.rows[row].variant} (${data.rows[row].run})`;
        return { row, label, points: smooth(curve.series[chosen], Number(byId("smoothing").value) / 100) };
      });
      byId("curve-chart").replaceChildren(...chart(`${chosen} over training`, "step", chosen, series, { lines: true }));
    };
    byId("curve-name").addEventListener("input", draw);
    byId("smoothing").addEventListener("input", draw);
    draw();
  }

  // Slices ------------------------------------------------------------------------------------------------------
  function initSlices() {
    if (!data.slices.length) return;
    byId("slices").hidden = false;
    const used = new Set(data.slices.map((slice) => slice[1]));
    const usable = data.order.filter((number) => used.has(number));
    options(byId("slice-column"), usable.map((number) => [String(number), name(data.columns[number])]), String(usable[0]));
    const choose = () => {
      const rules = [...new Set(data.slices.filter((slice) => String(slice[1]) === byId("slice-column").value).map((slice) => slice[2]))];
      const kept = byId("slice-rule").value;
      options(byId("slice-rule"), rules.map((rule) => [rule, rule]), rules.includes(kept) ? kept : rules[0]);
      draw();
    };
    const draw = () => {
      const chosen = data.slices.filter((slice) => String(slice[1]) === byId("slice-column").value && slice[2] === byId("slice-rule").value);
      const parts = [];
      for (const [bucket, slices] of groupBy(chosen, (slice) => slice[3])) {
        parts.push(el("h4", {}, `${bucket} (${slices[0][7]} expressions)`));
        for (const [row, , , , value, low, high] of slices) parts.push(el("span", {}, data.rows[row].label),
          el("div", { class: "bar" }, el("i", { style: `width:${value ?? 0}%;background:${colour(row)}` }),
            low === null ? null : el("b", { style: `left:${low}%;width:${Math.max(high - low, 0.3)}%` })),
          el("span", {}, value === null ? "n/d" : fixed(value) + half(low, high)));
      }
      byId("slice-bars").replaceChildren(el("div", { class: "bars" }, parts));
    };
    byId("slice-column").addEventListener("input", choose);
    byId("slice-rule").addEventListener("input", draw);
    choose();
  }

  // Stress tests ------------------------------------------------------------------------------------------------
  function initStress() {
    if (!data.stress.length) return;
    byId("stress").hidden = false;
    options(byId("stress-group"), data.stress.map((group, number) => [String(number), group.where + (group.embedded ? " (embedded)" : "")]), "0");
    const group = () => data.stress[Number(byId("stress-group").value)];
    const drawCurve = () => {
      const curve = group().curves[Number(byId("stress-curve").value)];
      byId("stress-chart").replaceChildren(...(curve ? chart(curve.title, curve.x, curve.y, curve.series, { lines: true, diagonal: curve.title === "reliability" }) : []));
    };
    const draw = () => {
      const parts = [];
      for (const probe of group().probes) {
        parts.push(el("h4", {}, `${probe.spec}${probe.judged ? ": " + probe.judged : ""} (${Math.max(...probe.bars.map((bar) => bar.n))} expressions)`));
        for (const bar of probe.bars) {
          const [value, low, high] = bar.right;
          const more = Object.entries(bar.more).map(([key, number]) => `${key} ${number === null ? "n/d" : fixed(number)}`).join("\n");
          parts.push(el("span", { title: more }, data.rows[bar.row].label + (bar.same ? "" : " (other questions)")),
            el("div", { class: "bar", title: more }, el("i", { style: `width:${value ?? 0}%;background:${colour(bar.row)}` }),
              low === null ? null : el("b", { style: `left:${low}%;width:${Math.max(high - low, 0.3)}%` }),
              bar.plain === null ? null : el("u", { style: `left:${bar.plain}%` })),
            el("span", {}, value === null ? "n/d" : fixed(value) + half(low, high)));
        }
      }
      byId("stress-bars").replaceChildren(el("div", { class: "bars" }, parts));
      options(byId("stress-curve"), group().curves.map((curve, number) => [String(number), curve.title]), "0");
      byId("stress-curve").closest("label").hidden = !group().curves.length;
      drawCurve();
      byId("stress-tests").replaceChildren(...group().tests.flatMap((test) => [el("h3", {}, test.title),
        el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": test.title },
          el("table", { "aria-label": test.title },
            el("thead", {}, el("tr", {}, test.heads.map((head, place) => el("th", { scope: "col", class: place ? null : "text" }, head)))),
            el("tbody", {}, test.rows.map((row) => el("tr", {}, row.map((cell, place) =>
              place ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))))]));
    };
    byId("stress-group").addEventListener("input", draw);
    byId("stress-curve").addEventListener("input", drawCurve);
    draw();
  }

  // Examples ----------------------------------------------------------------------------------------------------
  function picture(item, prediction, heat) {
    const line = Math.max(item.width, item.height) / 130;
    const parts = [];
    const box = ([x1, y1, x2, y2], attributes) => [
      svg("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), fill: "none", stroke: "#fff", "stroke-width": line * 1.9 }),
      svg("rect", { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), fill: "none", "stroke-width": line, ...attributes })];
    const outline = (points, attributes) => svg("polygon", { points: points.join(" "), "stroke-width": line * 0.8, ...attributes });
    if (prediction) {
      // one path for all outlines of a mask: holes stay open
      const path = prediction.outlines.map((points) => "M" + points.join(" ") + "Z").join("");
      if (path) parts.push(svg("path", { d: path, fill: "#e69f00", "fill-opacity": .45, "fill-rule": "evenodd", stroke: "#e69f00", "stroke-width": line * .6 }));
    }
    parts.push(item.truth.outlines.map((points) => outline(points, { fill: "none", stroke: "#0072b2" })));
    parts.push(item.truth.boxes.map((one) => box(one, { stroke: "#0072b2" })));
    if (prediction) {
      parts.push(prediction.boxes.map((one) => box(one, { stroke: "#e69f00", "stroke-dasharray": `${line * 4} ${line * 2}` })));
      if (prediction.point) {
        const [px, py] = [prediction.point[0] + .5, prediction.point[1] + .5], reach = line * 3;
        for (const [ink, size] of [["#fff", 2.2], ["#d55e00", 1.1]]) parts.push(svg("path", {
          d: `M${px - reach} ${py - reach}l${2 * reach} ${2 * reach}M${px - reach} ${py + reach}l${2 * reach} ${-2 * reach}`,
          stroke: ink, "stroke-width": line * size }));
      }
    }
    return el("span", { class: "picture" },
      el("img", { src: data.images[item.image], alt: "", width: item.width, height: item.height, decoding: "async" }),
      heat ? el("img", { class: "heat", src: heat, alt: "" }) : null,
      svg("svg", { viewBox: `0 0 ${item.width} ${item.height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, parts.flat(3)));
  }

  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  /** Colours a grey heat map; resolves to the address of a picture. */
  async function heatPicture(base64) {
    const image = new Image();
    image.src = "data:image/png;base64," + base64;
    await image.decode();
    const canvas = el("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = pixels.data[at] / 255 * (VIRIDIS.length - 1), low = Math.min(Math.floor(value), VIRIDIS.length - 2);
      for (let channel = 0; channel < 3; channel++)
        pixels.data[at + channel] = VIRIDIS[low][channel] + (value - low) * (VIRIDIS[low + 1][channel] - VIRIDIS[low][channel]);
    }
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  let listed = [], open = 0;
  const verdicts = (item) => Object.values(item.predictions).map((prediction) => prediction.right);
  function verdict(prediction, item) {
    const parts = [];
    if (prediction.no_target) parts.push("says: no target");
    else if (prediction.scores.length) parts.push("score " + prediction.scores.slice(0, 4).map(fixed).join(", "));
    if (prediction.iou !== null && item.truth.boxes.length === 1) parts.push("IoU " + fixed(prediction.iou));
    return [el("span", { class: prediction.right ? "right" : "wrong" }, prediction.right ? "✓ right" : "✗ wrong"), parts.length ? " · " + parts.join(" · ") : ""];
  }

  function renderExamples() {
    const group = data.examples[Number(byId("example-group").value)];
    const filter = byId("example-filter").value, words = byId("example-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    listed = group.items.filter((item) => {
      const right = verdicts(item), yes = right.filter(Boolean).length;
      const fits = { all: true, wrong: yes < right.length, disagree: yes > 0 && yes < right.length, "all-wrong": yes === 0 }[filter];
      return fits && words.every((word) => item.expression.toLowerCase().includes(word));
    });
    byId("example-count").textContent = `${listed.length} of ${group.items.length} examples` + (group.embedded ? " (embedded, rendered data)" : "");
    byId("example-list").replaceChildren(...listed.map((item, number) => {
      const right = verdicts(item), yes = right.filter(Boolean).length;
      const first = Object.values(item.predictions)[0];
      return el("button", { type: "button", class: "card", onclick: () => show(number) }, picture(item, first),
        el("span", {}, item.expression, el("br"), el("span", { class: "verdict" },
          el("span", { class: yes === right.length ? "right" : "wrong" }, `${yes} of ${right.length} right`))));
    }));
  }

  async function show(number) {
    open = (number + listed.length) % listed.length;
    const item = listed[open];
    byId("viewer-title").textContent = `${item.expression} (${open + 1} of ${listed.length})`;
    const figures = [el("figure", {}, picture(item, null), el("figcaption", {}, "truth" + (item.truth.boxes.length ? "" : ": no target")))];
    for (const [row, prediction] of Object.entries(item.predictions)) {
      figures.push(el("figure", {}, picture(item, prediction), el("figcaption", {}, data.rows[row].label, el("br"), verdict(prediction, item)),
        prediction.answer === null || prediction.answer === undefined ? null : el("blockquote", { class: "answer" }, prediction.answer || "(no words)")));
      if (prediction.heatmap) {
        const heat = await heatPicture(prediction.heatmap);
        figures.push(el("figure", {}, picture({ ...item, truth: { boxes: [], outlines: [] } }, { boxes: [], outlines: [], point: prediction.point }, heat),
          el("figcaption", {}, `${data.rows[row].label}: heat map`)));
      }
    }
    if (item !== listed[open]) return;  // somebody went on while a heat map was being coloured
    byId("viewer-body").replaceChildren(el("div", { class: "side" }, figures), el("p", { class: "note" }, `key ${item.key}`));
    if (!byId("viewer").open) byId("viewer").showModal();
  }

  function initExamples() {
    if (!data.examples.length) return;
    byId("examples").hidden = false;
    options(byId("example-group"), data.examples.map((group, number) => [String(number), group.where + (group.embedded ? " (embedded)" : "")]), "0");
    for (const id of ["example-group", "example-filter", "example-search"]) byId(id).addEventListener("input", renderExamples);
    byId("previous").addEventListener("click", () => show(open - 1));
    byId("next").addEventListener("click", () => show(open + 1));
    byId("close").addEventListener("click", () => byId("viewer").close());
    byId("viewer").addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") show(open - 1);
      else if (event.key === "ArrowRight") show(open + 1);
    });
    byId("viewer").addEventListener("close", () => byId("example-list").children[open]?.focus());
    renderExamples();
  }

  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  byId("about").textContent = `${data.rows.length} rows of ${new Set(data.rows.map((row) => row.run_id).filter((run) => run >= 0)).size} runs. Made by vgbench ${data.version}, ${data.created}.`;
  for (const start of [initTables, initPublished, initCost, initCurves, initSlices, initStress, initExamples]) start();
  byId("sections").replaceChildren(...[...document.querySelectorAll("main > section:not([hidden])")].map((section) =>
    el("li", {}, el("a", { href: "#" + section.id }, section.querySelector("h2").textContent))));

  // Links to what the reader chose: #SECTION?control=value, one for every control that is not as it was at first.
  const controls = [...document.querySelectorAll("main input[id], main select[id]")];
  const state = (control) => (control.type === "checkbox" ? String(control.checked) : control.value);
  const first = new Map(controls.map((control) => [control, state(control)]));
  const apply = () => {
    const [section, query] = decodeURIComponent(location.hash.slice(1)).split("?");
    const wishes = new URLSearchParams(query || "");
    for (const control of controls) {
      const wish = wishes.get(control.id) ?? (query === undefined ? null : first.get(control));
      if (wish === null || wish === state(control)) continue;
      if (control.type === "checkbox") control.checked = wish === "true";
      else control.value = wish;
      control.dispatchEvent(new Event("input", { bubbles: true }));
      control.dispatchEvent(new Event("change", { bubbles: true }));
    }
    if (query !== undefined) byId(section)?.scrollIntoView();
  };
  byId("main").addEventListener("input", (event) => {
    const changed = controls.filter((control) => state(control) !== first.get(control));
    const query = new URLSearchParams(changed.map((control) => [control.id, state(control)]));
    const section = event.target.closest("main > section")?.id || "tables";
    history.replaceState(null, "", changed.length ? `#${section}?${query}` : location.pathname + location.search);
    byId("link").textContent = changed.length ? "The address of this page now holds what you chose; it can be sent." : "";
  });
  addEventListener("hashchange", apply);
  apply();
})();
