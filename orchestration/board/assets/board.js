// What only the browser knows.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.board = (() => {
  // Whether the reader's system is set to light or dark, told to the page as it opens and whenever it changes.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const name = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => window.dash_clientside.set_props("theme", { data: name() }));

  // The stretch of time that was drawn out in one chart, in milliseconds, holds for all of them, until a double click or
  // another choice of symbol or stretch.
  const milliseconds = (time) => (typeof time === "number" ? Math.round(time) : Date.parse(`${time.replace(" ", "T")}Z`));
  const zoom = () => {
    const [told] = window.dash_clientside.callback_context.triggered;
    if (!told || told.prop_id.endsWith(".value")) return null;
    const event = told.value || {};
    if ("xaxis.range[0]" in event) return [milliseconds(event["xaxis.range[0]"]), milliseconds(event["xaxis.range[1]"])];
    return event["xaxis.autorange"] ? null : window.dash_clientside.no_update;
  };
  return { theme: name, zoom };
})();
