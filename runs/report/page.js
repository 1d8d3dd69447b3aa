"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const COLOURS = 6;
  const PRINTED = 660; // pixels that fit on a sheet of A4 or US Letter
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);
  const hidden = new Set(); // labels that are switched off
  const plots = new Map(); // element: function that draws it anew
  let setting = 0;

  // ---- words: other people's text is never markup

  const short = (text, longest) => {
    const letters = [...text];
    const tail = Math.floor(longest / 3);
    return letters.length <= longest ? text : `${letters.slice(0, longest - tail - 1).join("")}…${letters.slice(-tail).join("")}`;
  };
  // Plotly reads a subset of HTML in its texts.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const word = (text, longest = 34) => escaped(short(text, longest));
  const figure = (value, digits = 2) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  // ---- looks

  const look = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const place = (label) => data.labels.indexOf(label);
  const colour = (label) => look(`c${place(label) % COLOURS}`);
  const dash = (label) => DASHES[Math.floor(place(label) / COLOURS) % DASHES.length];
  const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");
  const width = (element) => (root.classList.contains("printing") ? PRINTED : Math.floor(element.getBoundingClientRect().width));
  const font = () => ({ family: getComputedStyle(document.body).fontFamily, size: 13, color: look("ink") });
  const axis = (title) => ({
    title: { text: title, font: { size: 13, color: look("muted") }, standoff: 8 }, fixedrange: true, zeroline: false,
    gridcolor: look("grid"), linecolor: look("rule"), tickfont: { color: look("muted"), size: 12 }, automargin: true,
  });
  const page = () => ({
    font: font(), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    margin: { l: 50, r: 14, t: 12, b: 44 }, hoverlabel: { align: "left", font: { size: 13 }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: look("muted"), activecolor: look("ink") },
  });
  const CONFIG = {
    displaylogo: false, modeBarButtons: [["toImage"]], toImageButtonOptions: { format: "svg", filename: "figure" },
  };
  const draw = (element, what) => {
    const again = () => {
      const [traces, layout] = what();
      Plotly.react(element, traces, { ...page(), ...layout }, CONFIG);
    };
    plots.set(element, again);
    again();
  };

  // ---- lines by round

  const bands = (curve) => {
    const xs = curve.rounds.concat([...curve.rounds].reverse());
    return {
      x: xs, y: curve.high.concat([...curve.low].reverse()), fill: "toself", fillcolor: faded(colour(curve.label), 0.16),
      line: { width: 0 }, mode: "lines", hoverinfo: "skip", type: "scatter",
    };
  };
  const spread = (curve, at, unit) =>
    curve.of === "clients" ? `clients, 10th to 90th percentile: ${figure(curve.low[at])} to ${figure(curve.high[at])} ${unit}` :
    curve.seeds[at] < 2 ? "1 seed" : `${curve.seeds[at]} seeds: ${figure(curve.low[at])} to ${figure(curve.high[at])} ${unit}`;
  const line = (curve, unit) => ({
    x: curve.rounds, y: curve.mean, name: word(curve.label), type: "scatter",
    mode: curve.rounds.length > 30 ? "lines" : "lines+markers",
    line: { color: colour(curve.label), dash: dash(curve.label), width: 2.25 }, marker: { size: 5.5 },
    customdata: curve.rounds.map((_, at) => [word(curve.label, 60), figure(curve.mean[at]), spread(curve, at, unit)]),
    hovertemplate: `<b>%{customdata[0]}</b><br>round %{x}: %{customdata[1]} ${unit}<br>%{customdata[2]}<extra></extra>`,
  });
  const drawCurves = (element, chart) =>
    draw(element, () => {
      const shown = chart.curves.filter((curve) => !hidden.has(curve.label));
      const banded = shown.filter((curve) => curve.of === "clients" || curve.seeds.some((count) => count > 1));
      const rounds = Math.max(1, ...chart.curves.map((curve) => curve.rounds.at(-1)));
      const first = Math.min(...chart.curves.map((curve) => curve.rounds[0]));
      const layout = {
        width: width(element), height: 330, hovermode: "closest",
        xaxis: { ...axis("round"), range: [first - (rounds - first) * 0.02 - 0.05, rounds + (rounds - first) * 0.02 + 0.05], tickformat: ",d", ...(rounds <= 12 && { dtick: 1 }) },
        yaxis: axis(""), // its title and unit are above the picture
      };
      return [[...banded.map(bands), ...shown.map((curve) => line(curve, chart.unit))], layout];
    });
  const drawCharts = (section, charts) => {
    const box = section.querySelector(".charts");
    box.querySelectorAll(".plot").forEach(forget);
    box.replaceChildren();
    section.hidden = !charts.length;
    const made = charts.map((chart) => {
      const [holder, title, element] = ["div", "h3", "div"].map((tag) => document.createElement(tag));
      holder.className = "chart";
      element.className = "plot";
      element.setAttribute("role", "img");
      element.setAttribute("aria-label", `${chart.title} by round, in ${chart.unit}`);
      title.textContent = `${chart.title}, ${chart.unit}`;
      holder.append(title, element);
      box.append(holder);
      return [element, chart];
    });
    made.forEach(([element, chart]) => drawCurves(element, chart));
  };

  // ---- heat maps

  const scale = () => [[0, look("low")], [0.5, look("mid")], [1, look("high")]];
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const light = (colours) => colours.reduce((sum, one, at) => sum + [0.2126, 0.7152, 0.0722][at] * one ** 2.2, 0);
  /* The colour of a number in a cell that is so far, from 0 to 1, between the ends of the scale. */
  const readable = (share) => {
    const [from, to] = (share < 0.5 ? ["low", "mid"] : ["mid", "high"]).map((name) => channels(look(name)));
    const part = share < 0.5 ? 2 * share : 2 * share - 1;
    return light(from.map((one, at) => one + part * (to[at] - one))) > 0.19 ? "#10151b" : "#ffffff";
  };
  const paper = document.createElement("canvas").getContext("2d");
  const pixels = (text) => {
    paper.font = `12px ${font().family}`;
    return paper.measureText(text).width;
  };
  const longest = (names) => Math.max(...names.map(pixels));
  const fitting = (name) => {
    let letters = 27;
    while (letters > 6 && pixels(short(name, letters)) > 170) letters -= 3;
    return short(name, letters);
  };
  const ticks = (names, step = 1) => {
    const at = names.map((_, index) => index).filter((index) => index % step === 0);
    return { tickmode: "array", tickvals: at, ticktext: at.map((index) => escaped(names[index])), showgrid: false, showline: false, ticks: "outside", ticklen: 4, tickcolor: "rgba(0,0,0,0)", automargin: false };
  };
  /* Rows by columns. `hover` gives the text of a cell, `inside` what stands in it. */
  const heat = (element, { values, down, across, rows, columns, top, unit, hover, inside, square }) =>
    draw(element, () => {
      const [left, above] = [down, across].map((names) => names.map(fitting));
      const margin = Math.ceil(14 + longest(left)) + (rows ? 26 : 0);
      const room = width(element.parentElement) - margin - 78;
      const least = root.classList.contains("printing") ? 3 : inside && above.length <= 40 ? 26 : 13;
      const cell = Math.max(least, Math.min(square ? 44 : 64, Math.floor(room / above.length)));
      const tall = square ? Math.min(cell, 30) : 30;
      const trace = {
        type: "heatmap", z: values, zmin: 0, zmax: top, colorscale: scale(), xgap: 1, ygap: 1, hoverongaps: false,
        customdata: values.map((row, r) => row.map((_, c) => hover(r, c))),
        hovertemplate: "%{customdata}<extra></extra>", showscale: left.length > 6,
        colorbar: { thickness: 10, outlinewidth: 0, tickfont: { color: look("muted"), size: 11 }, ticksuffix: unit, len: 1, nticks: 5 },
      };
      const cells = values.flatMap((row, r) => row.map((value, c) => ({ value, r, c, text: value === null ? "" : inside(value) })));
      const written = cell < 24 ? [] : cells.filter((one) => one.text);
      const numbers = {
        type: "scatter", mode: "text", hoverinfo: "skip", x: written.map((one) => one.c), y: written.map((one) => one.r),
        text: written.map((one) => one.text),
        textfont: { size: 11.5, color: written.map((one) => readable(Math.min(1, one.value / top))) },
      };
      const turned = longest(above) > cell - 4;
      const under = (turned ? Math.ceil(16 + longest(above)) : 30) + (columns ? 26 : 0);
      const step = Math.ceil(12 / cell);
      const layout = {
        width: margin + cell * above.length + 78, height: 14 + tall * left.length + under,
        margin: { l: margin, r: 78, t: 14, b: under },
        xaxis: { ...axis(columns), ...ticks(above, step), tickangle: turned ? -90 : 0, range: [-0.5, above.length - 0.5] },
        yaxis: { ...axis(rows), ...ticks(left), range: [left.length - 0.5, -0.5] },
      };
      return [[trace, numbers], layout];
    });
  const forget = (element) => {
    plots.delete(element);
    Plotly.purge(element);
  };
  const fill = (id, found, show) => {
    const section = by(id);
    section.hidden = !found;
    const element = section.querySelector(".plot");
    forget(element);
    if (found) show(found, element, section);
  };
  const worst = (found, what) => (found.of > found.classes.length ? ` The ${found.classes.length} of ${found.of} classes with ${what}.` : "");
  const drawRecall = (found, element, section) => {
    section.querySelector(".about").textContent =
      `Share of each class's clean test images that are classified correctly after the last evaluated round, in percent; mean over seeds.${worst(found, "the lowest recall")}`;
    heat(element, {
      values: found.percent, down: found.labels, across: found.classes, top: 100, unit: " %", inside: (value) => figure(value, 0),
      hover: (r, c) => {
        const value = found.percent[r][c];
        return `<b>${word(found.labels[r], 60)}</b><br>${word(found.classes[c])}: ${value === null ? "no test images" : `${figure(value, 1)} %`}`;
      },
    });
  };
  const drawMatrix = (found, label, element) => {
    const counts = found.counts[label];
    const totals = counts.map((row) => row.reduce((sum, one) => sum + one, 0));
    const percent = counts.map((row, r) => row.map((one) => (totals[r] ? (100 * one) / totals[r] : null)));
    heat(element, {
      values: percent, down: found.classes, across: found.classes, rows: "true class", columns: "predicted class", top: 100, unit: " %",
      square: true, inside: (value) => (value >= 0.5 ? figure(value, 0) : ""),
      hover: (r, c) =>
        `${word(label, 60)}<br>true: <b>${word(found.classes[r])}</b><br>predicted: <b>${word(found.classes[c])}</b><br>` +
        (totals[r] ? `${figure(percent[r][c], 1)} %: ${figure(counts[r][c], 1)} of ${figure(totals[r], 0)} images` : "no test images"),
    });
  };
  const drawConfusion = (found, element, section) => {
    const choice = by("confusion-label");
    const labels = Object.keys(found.counts).sort((one, other) => place(one) - place(other));
    const before = labels.includes(choice.value) ? choice.value : labels[0];
    choice.replaceChildren(...labels.map((label) => new Option(short(label, 60), label, false, label === before)));
    choice.onchange = () => drawMatrix(found, choice.value, element);
    section.querySelector(".choice").hidden = labels.length < 2;
    drawMatrix(found, before, element);
  };
  const drawClients = (found, element, section) => {
    const clients = found.images.length;
    const cut = found.clients > clients ? ` The first ${clients} of ${found.clients.toLocaleString("en")} clients.` : "";
    section.querySelector(".about").textContent =
      `How many images with each label a client trains on, wrong labels included; dealt with seed ${found.seed}.${cut}${worst(found, "the most images")}`;
    heat(element, {
      values: found.counts, down: found.classes, across: found.images.map((_, client) => String(client)), columns: "client",
      top: Math.max(1, ...found.counts.flat()), unit: "", inside: (value) => (value && value < 1e4 ? String(value) : ""),
      hover: (r, c) =>
        `client ${c}: <b>${found.counts[r][c].toLocaleString("en")}</b> images labelled <b>${word(found.classes[r])}</b><br>of ${found.images[c].toLocaleString("en")} that it holds`,
    });
  };

  // ---- the page

  const show = () => {
    const chosen = data.settings[setting];
    drawCharts(by("curves"), chosen.curves);
    fill("recall", chosen.recall, drawRecall);
    fill("confusion", chosen.confusion, drawConfusion);
    drawCharts(by("visits"), chosen.visits);
    fill("clients", chosen.clients, drawClients);
    drawCharts(by("detection"), chosen.detection);
    by("controls").hidden = !["curves", "recall", "confusion", "visits", "clients", "detection"].some((id) => !by(id).hidden);
    legend.forEach((button) => { button.disabled = !chosen.labels.includes(button.dataset.label); });
  };
  const redraw = () => plots.forEach((again) => again());
  const legend = [...by("legend").querySelectorAll("button")];
  const hide = (labels) => {
    hidden.clear();
    labels.forEach((label) => hidden.add(label));
    legend.forEach((button) => button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.label))));
    redraw();
  };
  legend.forEach((button) => {
    const label = button.dataset.label;
    const others = data.labels.filter((one) => one !== label);
    button.addEventListener("click", () => hide(hidden.has(label) ? [...hidden].filter((one) => one !== label) : [...hidden, label]));
    button.addEventListener("dblclick", () => hide(others.every((one) => hidden.has(one)) ? [] : others));
  });
  by("setting")?.addEventListener("change", (event) => {
    setting = Number(event.target.value);
    show();
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 120);
  });
  const closed = new Set();
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    document.querySelectorAll("details.shared:not([open])").forEach((one) => { one.open = true; closed.add(one); });
    redraw();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    closed.forEach((one) => { one.open = false; });
    closed.clear();
    redraw();
  });
  show();
})();
