// Draws the parallel coordinates of a sweep as SVG lines: Plotly's own parcoords compiles code at run time, which the
// page's content security policy forbids.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const plot = document.querySelector("#coordinates .plot");
  if (!plot) return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly reads a little HTML in its texts, so names from files are escaped before they reach it.
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const labels = data.axes.map((axis) => escape(axis.label));
  const places = data.axes.map((_, index) => index);

  function draw() {
    const colour = (dark.matches ? data.dark : data.colours)[0];
    const count = data.lines.length;
    const lines = data.lines.map((line, index) => ({
      type: "scatter", mode: "lines+markers", x: places, y: line.y, name: escape(line.name), showlegend: false,
      opacity: count > 1 ? 0.12 + 0.88 * Math.pow(index / (count - 1), 3) : 1,
      line: { color: colour, width: index === count - 1 ? 3.5 : 1.5 },
      hovertemplate: line.texts.map((text, axis) => labels[axis] + ": " + escape(text)).join("<br>") +
        "<extra>" + escape(line.name) + "</extra>",
    }));
    const ticks = data.axes.flatMap((axis, index) => axis.ticks.map(([place, text]) => ({
      x: index, y: place, text: escape(text), showarrow: false, xanchor: "left", xshift: 6,
      bgcolor: css("--page"), opacity: 0.85, font: { size: 11 },
    })));
    const axes = places.map((index) => ({
      type: "line", x0: index, x1: index, y0: -0.02, y1: 1.02, layer: "below", line: { color: css("--line"), width: 1 },
    }));
    Plotly.react(plot, lines, {
      paper_bgcolor: css("--page"), plot_bgcolor: css("--page"), hovermode: "closest",
      font: { color: css("--text"), size: 13, family: "system-ui, sans-serif" },
      margin: { l: 20, r: 90, t: 20, b: 20 }, height: 430, shapes: axes, annotations: ticks,
      xaxis: { tickvals: places, ticktext: labels, showgrid: false, zeroline: false, automargin: true,
               range: [-0.45, places.length - 0.6] },
      yaxis: { visible: false, range: [-0.06, 1.06] },
    }, { responsive: true, displaylogo: false });
  }
  draw();
  dark.addEventListener("change", draw);
})();
