// Whether the reader's system is set to light or dark, told to the page as it opens and whenever it changes.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.board = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const name = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => window.dash_clientside.set_props("theme", { data: name() }));
  return { theme: name };
})();
