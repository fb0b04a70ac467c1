// Draws the charts of the report from the data embedded in the page. Needs Plotly; asks nothing of the network.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const symbols = ["circle", "square", "diamond", "triangle-up", "x", "cross"];
  const greys = ["#7a7a7a", "#a8a8a8", "#c4c4c4"];
  const redraws = [];

  // Plotly reads a little HTML in its texts, so names from files are escaped before they reach it.
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => (dark.matches ? data.dark : data.colours);
  const colour = (index) =>
    index >= 0 ? palette()[index % palette().length] : greys[(-1 - index) % greys.length];
  const narrow = () => innerWidth < 600;

  // A long title would be cut on a low chart: it goes on in a second line.
  const axisTitle = (label) => (narrow() ? escape(label).replace(", ", ",<br>") : escape(label));

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

  // Steps 0, 1, 2, 4, ... 800 on an axis of log(1 + step), which keeps step 0.
  function logTicks(lines) {
    const last = Math.max(1, ...lines.flatMap((line) => line.x));
    const steps = [0];
    for (let step = 1; step <= last; step *= narrow() ? 4 : 2) steps.push(step);
    return { tickvals: steps.map((step) => Math.log1p(step)), ticktext: steps.map(String) };
  }

  function lineChart(figure, chart) {
    const controls = figure.querySelector(".controls");
    const plot = figure.querySelector(".plot");
    const draw = () => {
      const panel = chart.panels[Number(quantity.value)];
      const log = scale.value === "log";
      const place = (x) => (log ? x.map(Math.log1p) : x);
      const where = chart.ticks ? "%{text}" : chart.x_label + " %{text}";
      const traces = panel.lines.map((line) => {
        const many = line.x.length > 60;
        return {
          type: "scatter", mode: many ? "lines" : "lines+markers", name: escape(line.name),
          x: place(line.x), y: line.y,
          text: line.x.map((x) => escape(chart.ticks ? chart.ticks[x] : Math.round(x))),
          hovertemplate: where + ": %{y:.4~g}",
          line: { color: colour(line.colour), width: many ? 1.5 : 2,
                  dash: data.dashes[line.style % data.dashes.length] },
          marker: { symbol: symbols[(line.colour + line.style) % symbols.length], size: 7 },
        };
      });
      const shapes = [];
      if (panel.band) {
        shapes.push({ type: "rect", layer: "below", xref: "paper", x0: 0, x1: 1, y0: panel.band[0], y1: panel.band[1],
                      fillcolor: "rgba(128,128,128,0.28)", line: { width: 0 } });
        // A trace without points gives the shading its place in the legend.
        traces.push({ type: "scatter", mode: "markers", name: escape(panel.band_label), x: [null], y: [null],
                      marker: { symbol: "square", size: 12, color: "rgba(128,128,128,0.45)" } });
      }
      if (panel.chance !== null) {
        shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.chance, y1: panel.chance,
                      line: { color: css("--soft"), width: 1.5, dash: "dot" } });
        traces.push({ type: "scatter", mode: "lines", name: "chance", x: [null], y: [null],
                      line: { color: css("--soft"), width: 1.5, dash: "dot" } });
      }
      let xaxis = { title: { text: escape(chart.x_label) } };
      if (log) Object.assign(xaxis, logTicks(panel.lines));
      if (chart.ticks) Object.assign(xaxis, { tickvals: chart.ticks.map((_, i) => i), ticktext: chart.ticks.map(escape) });
      if (chart.ticks && chart.ticks.length > 16) Object.assign(xaxis, { tickvals: undefined, nticks: 12 });
      Plotly.react(plot, traces, layout({
        shapes, xaxis, showlegend: true, hovermode: "x unified",
        yaxis: { title: { text: axisTitle(panel.label) }, hoverformat: ".4~g" },
      }), config());
    };
    const options = chart.panels.map((panel, index) => ({ value: index, text: panel.label, group: panel.group }));
    const quantity = select(controls, "Show", options, draw);
    const scales = [{ value: "linear", text: "linear" }, { value: "log", text: "logarithmic" }];
    const scale = select(controls, "Steps", chart.ticks ? scales.slice(0, 1) : scales, draw);
    // What the text above speaks of is what shows first.
    quantity.value = Math.max(0, chart.panels.findIndex((panel) => /(^|\/)cka$/.test(panel.key)));
    scale.value = chart.log ? "log" : "linear";
    return draw;
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
    const pair = select(controls, "Pair", unique("pair", "pair"), draw);
    const metric = select(controls, "Metric", unique("metric", "label"), draw);
    metric.value = maps.some((map) => map.metric === "cka") ? "cka" : maps[0].metric;
    return draw;
  }

  function barChart(figure, bars) {
    const plot = figure.querySelector(".plot");
    return () => {
      const width = 0.8 / bars.models.length;
      const places = (index) => bars.tasks.map((_, task) => task + (index - (bars.models.length - 1) / 2) * width);
      const traces = bars.models.map((model, index) => ({
        type: "bar", name: escape(model), x: places(index), y: bars.last[index], width: width * 0.92,
        marker: { color: colour(bars.looks[index][0]),
                  pattern: { shape: data.hatches[bars.looks[index][1] % data.hatches.length] } }, customdata: bars.tasks.map(escape),
        hovertemplate: "%{customdata}: %{y:.3f}",
      }));
      const x = [], y = [];
      const half = width * 0.46;
      bars.models.forEach((_, index) => places(index).forEach((place, task) => {
        const start = bars.first[index][task];
        if (start === null) return;
        x.push(place - half, place + half, null);
        y.push(start, start, null);
      }));
      if (x.length) traces.push({ type: "scatter", mode: "lines", name: "step 0", x, y, hovertemplate: "%{y:.3f}",
                                  line: { color: css("--text"), width: 3 } });
      Plotly.react(plot, traces, layout({
        showlegend: true,
        xaxis: { range: [-0.5, bars.tasks.length - 0.5], tickvals: bars.tasks.map((_, task) => task), ticktext: bars.tasks.map(escape), showgrid: false, zeroline: false },
        yaxis: { title: { text: escape(bars.label) + " (fraction)" }, rangemode: "tozero" },
      }), config());
    };
  }

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const key = figure.dataset.chart;
    let draw;
    if (key === "bars") draw = barChart(figure, data.bars);
    else if (key === "explorer") draw = drawExplorer(figure, data.explorer, { escape, css, colour, select, layout, config, narrow });
    else if (key === "heatmaps") draw = heatMaps(figure, data.heatmaps);
    else draw = lineChart(figure, data.charts[key]);
    draw();
    redraws.push(draw);
  }

  const redraw = () => redraws.forEach((draw) => draw());
  dark.addEventListener("change", redraw);
  let wasNarrow = narrow();
  addEventListener("resize", () => {
    if (wasNarrow !== narrow()) redraw();
    wasNarrow = narrow();
  });
})();
