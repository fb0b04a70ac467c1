// Draws the charts that a reader explores from the data embedded in the page. Needs Plotly, whose file lies beside the
// page (the page says so where it does not); asks nothing of the network.
(() => {
  "use strict";
  if (typeof Plotly === "undefined") return;
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const redraws = [];

  // Plotly reads a little HTML in its texts, so names from files are escaped before they reach it.
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => (dark.matches ? data.dark : data.colours);
  const colour = (index) => palette()[index % palette().length];
  const narrow = () => innerWidth < 600;

  function layout(extra) {
    const axis = { gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--line"), automargin: true };
    return {
      paper_bgcolor: css("--page"), plot_bgcolor: css("--page"),
      font: { color: css("--text"), size: narrow() ? 11 : 13, family: "system-ui, sans-serif" },
      margin: { l: 12, r: 12, t: narrow() ? 12 : 40, b: 12 },
      legend: narrow() ? { orientation: "h", y: -0.28, yanchor: "top", x: 0 }
                       : { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { namelength: -1 },
      height: narrow() ? 400 : 430,
      ...extra,
      xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
    };
  }

  const config = () => ({ responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover",
                          modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"] });

  // A labelled <select>; `options` are {value, text, group}. Names go in as text, never as HTML.
  function select(controls, name, options, onChange) {
    const label = document.createElement("label");
    const box = document.createElement("select");
    const groups = new Map();
    for (const option of options) {
      let parent = box;
      if (option.group) {
        if (!groups.has(option.group)) {
          const group = document.createElement("optgroup");
          group.label = option.group;
          groups.set(option.group, group);
          box.append(group);
        }
        parent = groups.get(option.group);
      }
      parent.append(new Option(option.text, option.value));
    }
    label.append(name, box);
    box.addEventListener("change", onChange);
    controls.append(label);
    if (options.length < 2) label.hidden = true;
    return box;
  }

  function heatMaps(figure, maps) {
    const controls = figure.querySelector(".controls");
    const plot = figure.querySelector(".plot");
    const note = figure.querySelector(".note");
    const unique = (key, text) => [...new Map(maps.map((map) => [map[key], { value: map[key], text: map[text] }])).values()];
    const draw = () => {
      const ofPair = maps.filter((map) => map.pair === pair.value);
      const map = ofPair.find((candidate) => candidate.metric === metric.value) || ofPair[0];
      metric.value = map.metric;
      const small = map.z.length * map.z[0].length <= 100 && !narrow();
      note.textContent = map.label + ". " + map.about + " " + map.note + " Rows: " + map.row_title + "; columns: " + map.column_title + ".";
      const ticks = (labels) => {
        const stride = Math.ceil(labels.length / (narrow() ? 8 : 20));
        const kept = labels.map((_, index) => index).filter((index) => index % stride === 0 || index === labels.length - 1);
        return { tickvals: kept, ticktext: kept.map((index) => escape(labels[index])) };
      };
      Plotly.react(plot, [{
        type: "heatmap", z: map.z, zmin: map.limits[0], zmax: map.limits[1],
        colorscale: map.limits[0] < 0 ? "RdBu" : "Cividis",
        texttemplate: small ? "%{z:.2f}" : "",
        customdata: map.rows.map((row) => map.columns.map((column) => [escape(row), escape(column)])),
        hovertemplate: "%{customdata[0]} v %{customdata[1]}: %{z:.4f}<extra></extra>",
        colorbar: { thickness: 14, outlinewidth: 0, title: { text: "" } }, xgap: 1, ygap: 1,
      }], layout({
        height: narrow() ? 360 : 470,
        xaxis: { title: { text: escape(map.column_title) }, showgrid: false, zeroline: false, ...ticks(map.columns) },
        yaxis: { title: { text: escape(map.row_title) }, showgrid: false, zeroline: false, ...ticks(map.rows) },
      }), config());
    };
    const pair = select(controls, "Pair", unique("pair", "title"), draw);
    const metric = select(controls, "Metric", unique("metric", "label"), draw);
    metric.value = ["cka_unit", "cka"].find((name) => maps.some((map) => map.metric === name)) || maps[0].metric;
    return draw;
  }

  // One number at a time, chosen by pair or track, metric, layer and step.
  function explorer(figure, data) {
    const controls = figure.querySelector(".controls");
    const plot = figure.querySelector(".plot");
    const note = figure.querySelector(".note");
    const show = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(4));
    const ends = (pair) => (pair ? " [" + show(pair[0]) + ", " + show(pair[1]) + "]" : "");
    const last = (list) => list.length - 1;
    const words = { inside: "inside it", closer: "more alike than the seeds", farther: "less alike than the seeds",
                    across: "across one of its ends" };
    // The definition breaks into lines that fit a hover box.
    const wrapped = (text) => escape(text).replace(/(.{1,60})(\s|$)/g, "$1<br>").replace(/<br>$/, "");

    const fill = (box, options, kept) => {
      box.replaceChildren(...options.map((option) => new Option(option.text, option.value)));
      box.value = options.some((option) => option.value === kept) ? kept : options[last(options)].value;
      box.parentElement.hidden = options.length < 2;
    };

    // The chosen source and metric; a source that lacks the metric shows its first.
    const chosen = () => {
      const from = data.sources[Number(source.value)];
      const name = from.metrics[metric.value] ? metric.value : Object.keys(from.metrics)[0];
      return { from, name, found: from.metrics[name], about: data.metrics[name] };
    };

    const refill = () => {
      const { from, name } = chosen();
      fill(metric, Object.keys(from.metrics).map((key) => ({ value: key, text: data.metrics[key].title })), name);
      fill(layer, from.layers.map((text, index) => ({ value: String(index), text })), layer.value);
      fill(step, (from.steps || [""]).map((text, index) => ({ value: String(index), text: String(text) })), step.value);
      draw();
    };

    const draw = () => {
      const { from, found, about } = chosen();
      const at = Number(step.value), depth = Number(layer.value), top = last(from.layers);
      const interval = (s, l) => (l === top ? found.ends[s] : null);
      const chance = found.chance === null ? "" : "<br>row shuffle " + show(found.chance);
      const hover = (s, l) => (from.steps ? "step " + from.steps[s] + ", " : "") + escape(from.layers[l]) + "<br><b>" +
        show(found.values[s][l]) + "</b>" + ends(interval(s, l)) + chance + (about.definition ? "<br>" + wrapped(about.definition) : "");
      const points = (pairs, x, axes, ink, name) => ({
        type: "scatter", mode: "lines+markers", name, ...axes, x, y: pairs.map(([s, l]) => found.values[s][l]),
        text: pairs.map(([s, l]) => hover(s, l)), hovertemplate: "%{text}<extra></extra>",
        line: { color: colour(ink), width: 2 }, marker: { size: 7 },
        error_y: { type: "data", symmetric: false, color: colour(ink), thickness: 1.5, width: 4,
                   array: pairs.map(([s, l]) => (interval(s, l) ? interval(s, l)[1] - found.values[s][l] : 0)),
                   arrayminus: pairs.map(([s, l]) => (interval(s, l) ? found.values[s][l] - interval(s, l)[0] : 0)) },
      });
      const picked = (x, axes) => ({
        type: "scatter", mode: "markers", showlegend: false, ...axes, x: [x], y: [found.values[at][depth]], hoverinfo: "skip",
        marker: { symbol: "circle-open", size: 16, color: css("--text"), line: { width: 2 } },
      });
      const both = from.steps !== null;
      const side = both && !narrow();
      const layers = from.layers.map((_, l) => [at, l]);
      const traces = [
        points(layers, layers.map(([, l]) => l), {}, 0, both ? "layers at step " + from.steps[at] : "layers"),
        picked(depth, {}),
      ];
      if (both) {
        const axes = { xaxis: "x2", yaxis: "y2" };
        const steps = from.steps.map((_, s) => [s, depth]);
        traces.push(points(steps, from.steps.map(Math.log1p), axes, 1, "steps at layer " + escape(from.layers[depth])));
        traces.push(picked(Math.log1p(from.steps[at]), axes));
      }
      const shapes = [];
      for (const [xref, yref, here] of [["x domain", "y", true], ["x2 domain", "y2", both]]) {
        if (here && found.chance !== null) shapes.push({ type: "line", xref, yref, x0: 0, x1: 1, y0: found.chance, y1: found.chance,
          line: { color: css("--soft"), width: 1.5, dash: "dot" } });
        // The band is of the last layer: it stands where the last layer is shown.
        if (here && found.band && (yref === "y" || depth === top)) shapes.push({ type: "rect", layer: "below", xref: yref === "y" ? "x" : xref, yref,
          x0: yref === "y" ? top - 0.35 : 0, x1: yref === "y" ? top + 0.35 : 1, y0: found.band[0], y1: found.band[1],
          fillcolor: "rgba(128,128,128,0.35)", line: { width: 0 } });
      }
      const legend = (name, line) => traces.push({ type: "scatter", mode: line ? "lines" : "markers", name, x: [null], y: [null],
        line: { color: css("--soft"), width: 1.5, dash: "dot" }, marker: { symbol: "square", size: 12, color: "rgba(128,128,128,0.5)" } });
      if (found.chance !== null) legend("row shuffle", true);
      if (found.band) legend("seed band, last layer", false);
      const stride = Math.ceil(from.layers.length / 12);
      const kept = from.layers.map((_, l) => l).filter((l) => l % stride === 0 || l === top);
      const extra = {
        shapes, showlegend: true, hovermode: "closest", height: both && narrow() ? 640 : 430,
        xaxis: { title: { text: "layer" }, tickvals: kept, ticktext: kept.map((l) => escape(from.layers[l])),
                 domain: side ? [0, 0.46] : [0, 1], anchor: "y" },
        yaxis: { title: { text: escape(about.title) }, domain: both && !side ? [0.58, 1] : [0, 1] },
      };
      if (both) {
        const shown = [...new Set([0, ...from.steps.filter((s) => Math.log2(s) % 2 === 0), from.steps[last(from.steps)]])];
        const grid = { gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--line"), automargin: true };
        extra.xaxis2 = { ...grid, title: { text: "training step" }, tickvals: shown.map(Math.log1p), ticktext: shown.map(String),
                         domain: side ? [0.56, 1] : [0, 1], anchor: "y2" };
        extra.yaxis2 = { ...grid, domain: side ? [0, 1] : [0, 0.42], anchor: "x2" };
      }
      Plotly.react(plot, traces, layout(extra), config());
      const place = found.place && depth === top
        ? " Against the seed band" + ends(found.band) + ": " + words[found.place] + "." : "";
      note.textContent = about.title + (both ? ", step " + from.steps[at] : "") + ", layer " + from.layers[depth] + ": " +
        show(found.values[at][depth]) + ends(interval(at, depth)) + (found.chance === null ? "" : ", row shuffle " + show(found.chance)) + "." +
        place + " " + (about.definition ? "Definition: " + about.definition.replace(/\.$/, "") + ". " : "") + from.about;
    };

    const source = select(controls, "Pair or track", data.sources.map((from, index) => ({ value: index, text: from.name, group: from.group })), refill);
    const first = ["cka_unit", "cka_debiased", "cka"].find((name) => data.metrics[name]);
    const metric = select(controls, "Metric", [{ value: first, text: "" }], refill);
    const layer = select(controls, "Layer", [], draw);
    const step = select(controls, "Step", [], draw);
    refill();
    return draw;
  }

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const key = figure.dataset.chart;
    const draw = key === "explorer" ? explorer(figure, data.explorer) : heatMaps(figure, data.heatmaps);
    draw();
    redraws.push(draw);
  }

  const redraw = () => redraws.forEach((draw) => draw());
  dark.addEventListener("change", redraw);
  // What was drawn while folded had no width: Plotly fits its charts to their boxes when the window is resized.
  document.addEventListener("toggle", () => dispatchEvent(new Event("resize")), true);
  let wasNarrow = narrow();
  addEventListener("resize", () => {
    if (wasNarrow !== narrow()) redraw();
    wasNarrow = narrow();
  });
})();
