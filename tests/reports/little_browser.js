// The little of a browser that explore.js needs: elements, selects, style, a Plotly that keeps what it was given.
// Chooses every option of every selector of a page, then two numbers, and prints what the page said.
const fs = require("fs"), vm = require("vm");
const page = fs.readFileSync(process.argv[2], "utf8");
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.listeners = {}; this.dataset = {}; this.hidden = false; this.textContent = ""; }
  append(...items) { for (const item of items) { if (item instanceof Element) item.parentElement = this; this.children.push(item); } }
  replaceChildren(...items) { this.children = []; this.append(...items); }
  addEventListener(name, listener) { (this.listeners[name] ||= []).push(listener); }
  dispatchEvent(event) { for (const listener of this.listeners[event.type] || []) listener(event); }
  querySelector(selector) { return this.parts[selector]; }
  get options() { return this.children.flatMap((child) => (child.tag === "optgroup" ? child.children : [child])); }
  get value() { return this.chosen ?? this.options[0]?.value; }
  set value(value) { const found = this.options.find((option) => option.given === String(value)); this.chosen = found ? found.given : ""; }
}
class Option extends Element {
  constructor(text, value) { super("option"); this.text = String(text); this.given = String(value); }
  get value() { return this.given; }
}
const figures = [...page.matchAll(/<figure class="chart" data-chart="(\w+)"/g)].map((match) => {
  const figure = new Element("figure");
  figure.dataset.chart = match[1];
  figure.parts = { ".controls": new Element("div"), ".plot": new Element("div"), ".note": new Element("p") };
  return figure;
});
const data = page.match(/id="report-data">(.*?)<\/script>/s)[1];
const script = page.match(/<script src="plotly.min.js"><\/script>\s*<script>\n(.*?)<\/script>/s)[1];
const drawn = [];
const context = {
  document: { addEventListener() {}, getElementById: () => ({ textContent: data }), createElement: (tag) => new Element(tag), querySelectorAll: () => figures, documentElement: {} },
  matchMedia: () => ({ matches: false, addEventListener() {} }), getComputedStyle: () => ({ getPropertyValue: () => "#123456" }),
  innerWidth: 1400, addEventListener() {}, Option, console,
  Plotly: { react: (plot, traces, layout) => drawn.push({ plot, traces, layout }) },
};
vm.runInNewContext(script, context);
const selects = (figure) => figure.parts[".controls"].children.map((label) => label.children[1]);
const told = { charts: figures.map((figure) => figure.dataset.chart), drawnAtOnce: drawn.length, choices: 0, notes: {} };
for (const figure of figures) {
  for (const box of selects(figure)) {
    for (const option of box.options) { box.value = option.value; box.dispatchEvent({ type: "change" }); told.choices++; }
  }
}
const [explorer] = figures.filter((figure) => figure.dataset.chart === "explorer");
const [source, metric, layer, step] = selects(explorer);
const pick = (box, text) => { box.value = box.options.find((option) => option.text === text).value; box.dispatchEvent({ type: "change" }); };
pick(source, "SFT v base, seed 0 (embedders)"); pick(metric, "Linear CKA"); pick(layer, "norm");
told.notes.pair = explorer.parts[".note"].textContent;
pick(source, "rlvr"); pick(metric, "Linear CKA"); pick(layer, "2"); pick(step, "32");
told.notes.track = explorer.parts[".note"].textContent;
told.drawn = drawn.length;
told.titles = drawn.at(-1).traces.map((trace) => trace.name);
told.everyPointHasBothPlaces = drawn.every(({ traces }) => traces.every((trace) => trace.type === "heatmap" || trace.x.length === trace.y.length));
console.log(JSON.stringify(told, null, 1));
